//! What the clients talk to, and what can be done to it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use leasehold_testbed::{Server, free_port, servers};
use rustix::process::Signal;

use super::Owned;

/// What the clients talk to.
#[derive(Debug, Clone)]
pub enum Over {
    /// Leasehold's own server, by its binary.
    Leasehold(PathBuf),
    /// The system that an engine is over, by the engine's name, started for this.
    Engine(String),
    /// Whatever is at a URL. It is not ours, so nothing is done to it.
    Url(String),
}

/// What was started.
pub(super) enum Behind {
    Leasehold { program: PathBuf, data: PathBuf, port: u16, server: Owned },
    Engine { server: Box<Server>, url: String },
    Url(String),
}

impl Behind {
    pub(super) fn start(over: &Over, directory: &Path) -> Result<Self, String> {
        Ok(match over {
            Over::Leasehold(program) => {
                let (data, port) = (directory.join("data"), free_port());
                let (server, _) = start_server(program, &data, port)?;
                Self::Leasehold { program: program.clone(), data, port, server }
            }
            Over::Engine(name) => {
                let server = servers::of_engine(name);
                let server = server.ok_or_else(|| format!("no system is known for {name}"))?;
                let short = match name.as_str() {
                    // The dead are missed for as long.
                    "zookeeper" => "?session=2",
                    _ => "",
                };
                let url = format!("{}{short}", server.url());
                Self::Engine { server: Box::new(server), url }
            }
            Over::Url(url) => Self::Url(url.clone()),
        })
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Leasehold { port, .. } => format!("http://127.0.0.1:{port}"),
            Self::Engine { url, .. } | Self::Url(url) => url.clone(),
        }
    }

    /// Kills it and starts it again; how long that took, if it is ours.
    pub(super) fn restart(&mut self) -> Result<Option<Duration>, String> {
        match self {
            Self::Leasehold { program, data, port, server } => {
                server.kill();
                let (again, took) = start_server(program, data, *port)?;
                *server = again;
                Ok(Some(took))
            }
            Self::Engine { server, .. } => {
                server.kill();
                let began = Instant::now();
                server.restart();
                Ok(Some(began.elapsed()))
            }
            Self::Url(_) => Ok(None),
        }
    }

    /// Stops it for a time without a word; whether it is ours.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let (stop, go): (&dyn Fn(), &dyn Fn()) = match self {
            Self::Leasehold { server, .. } => {
                (&|| server.signal(Signal::STOP), &|| server.signal(Signal::CONT))
            }
            Self::Engine { server, .. } => (&|| server.pause(), &|| server.resume()),
            Self::Url(_) => return false,
        };
        stop();
        std::thread::sleep(time);
        go();
        true
    }
}

/// Starts a server and waits until it answers; says how long that took.
fn start_server(program: &Path, data: &Path, port: u16) -> Result<(Owned, Duration), String> {
    let began = Instant::now();
    let mut call = Command::new(program);
    call.args(["serve", "--http-listen", &format!("127.0.0.1:{port}"), "--data-dir"]);
    call.arg(data).args(["--resp-listen", "off"]).stdout(Stdio::null());
    let mut server = Owned(call.spawn().map_err(|e| format!("{}: {e}", program.display()))?);
    while !answers(port) {
        if let Ok(Some(status)) = server.0.try_wait() {
            return Err(format!("the server ended at once: {status}"));
        }
        if began.elapsed() > crate::PATIENCE {
            return Err("the server does not answer".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((server, began.elapsed()))
}

/// Whether the server says that it is ready.
fn answers(port: u16) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(crate::PATIENCE))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.lines().next().is_some_and(|line| line.contains(" 200")))
    };
    ask().unwrap_or(false)
}
