//! Servers as processes.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// How long a server may take to be ready, on a machine that is busy.
const READY: Duration = Duration::from_secs(120);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// The file with what a server says.
const LOG: &str = "server.log";

/// Where a program is: on the path, or in one of these directories.
///
/// # Errors
/// Says which package brings it.
pub fn program(name: &str, also_in: &[&str], package: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let places = on_path.into_iter().chain(also_in.iter().map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not installed: install the package {package}"))
}

/// Calls a program as another user, if we are root: some servers refuse to be that. The directory
/// is given to the user.
///
/// # Panics
/// When the directory cannot be given away.
pub fn as_user(user: &str, program: &Path, directory: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let given = Command::new("chown").arg("-R").arg(user).arg(directory).status();
    assert!(given.is_ok_and(|status| status.success()), "{user} gets {}", directory.display());
    let mut call = Command::new("setpriv");
    // The system forgets whom to tell of our death when the user changes, so it is said again.
    call.args(["--reuid", user, "--regid", user, "--clear-groups", "--pdeathsig", "KILL", "--"]);
    call.arg(program);
    call
}

/// Waits until a process stands still that was told to: the signal is sent at once, and its threads
/// stop one after the other, as they come by.
///
/// # Panics
/// When it ends, or goes on.
pub fn wait_until_stopped(id: u32) {
    let began = Instant::now();
    let is_running = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")));
        // The state follows the name, which is in parentheses; a thread may have ended meanwhile.
        let state = stat.ok().and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('T')));
        state == Some(false)
    };
    while std::fs::read_dir(format!("/proc/{id}/task")).expect("it is there").any(is_running) {
        assert!(began.elapsed() < READY, "process {id} does not stand still");
        std::thread::yield_now();
    }
}

/// How one speaks to a kind of server.
#[derive(Debug)]
pub struct Kind {
    /// The URL of an engine over the one at a port of 127.0.0.1.
    pub url: fn(u16) -> String,
    /// Whether the one at this port, which accepts connections, takes requests too.
    pub is_ready: fn(u16) -> bool,
}

/// Of a server about which nothing more is known.
const PLAIN: Kind = Kind { url: |port| format!("127.0.0.1:{port}"), is_ready: |_| true };

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    call: Command,
    kind: &'static Kind,
    /// What it keeps.
    pub directory: TempDir,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl Server {
    /// A directory for a server, with a short path, as sockets need.
    ///
    /// # Panics
    /// When there is no room for one.
    pub fn directory() -> TempDir {
        let directory = tempfile::Builder::new().prefix("lh-").tempdir().expect("a directory");
        // Servers that run as another user must get in.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("it is ours");
        directory
    }

    /// Starts a server and waits until its port answers. What it says goes to `server.log` in its
    /// directory, and to the panic when it does not start.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(directory: TempDir, port: u16, call: Command) -> Self {
        Self::start_kind(&PLAIN, directory, port, call)
    }

    /// Starts a server of a kind and waits until it takes requests.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_kind(kind: &'static Kind, directory: TempDir, port: u16, call: Command) -> Self {
        let mut server = Self { child: None, call, kind, directory, port };
        server.run();
        server
    }

    fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.file(LOG));
        let log = log.expect("its directory is ours");
        let other = log.try_clone().expect("it is open");
        // With its own process group all of it can be ended; with the death signal it does not
        // outlive a test that is killed. The signal comes when the thread that started it ends, so
        // a server belongs to one test.
        let mut call = Command::new("setpriv");
        call.args(["--pdeathsig", "KILL", "--"]).arg(self.call.get_program());
        call.args(self.call.get_args()).process_group(0);
        for (name, value) in self.call.get_envs() {
            match value {
                Some(value) => call.env(name, value),
                None => call.env_remove(name),
            };
        }
        call.current_dir(self.call.get_current_dir().unwrap_or(self.directory.path()));
        call.stdin(Stdio::null()).stdout(log).stderr(other);
        self.child = Some(call.spawn().expect("setpriv is part of util-linux"));
        self.wait_until(|server| {
            TcpStream::connect(("127.0.0.1", server.port)).is_ok()
                && (server.kind.is_ready)(server.port)
        });
    }

    /// Waits until another of its ports answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for(&mut self, port: u16) {
        self.wait_until(|_| TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    fn wait_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let late = began.elapsed() > READY;
            assert!(ended.is_none() && !late, "it does not start: {}", self.said());
            std::thread::sleep(LOOK);
        }
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.file(LOG)).unwrap_or_default()
    }

    /// The URL of an engine over it.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The URL of an engine over it when it is reached through another port, such as a
    /// [`Proxy`](crate::Proxy)'s.
    pub fn url_at(&self, port: u16) -> String {
        (self.kind.url)(port)
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it was killed.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Those of its processes that have left its group, as PostgreSQL's do: known by the directory
    /// that they work in, which nobody else has.
    fn strays(&self) -> Vec<Pid> {
        let of = |entry: std::fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let works_in = std::fs::read_link(entry.path().join("cwd")).ok()?;
            if !works_in.starts_with(self.directory.path()) {
                return None;
            }
            Pid::from_raw(pid)
        };
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child
            && let Some(group) = Pid::from_raw(child.id().cast_signed())
        {
            // It may have ended by itself.
            kill_process_group(group, signal).ok();
        }
        for stray in self.strays() {
            kill_process(stray, signal).ok();
        }
    }

    /// Stops all of it without a word.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        if let Some(child) = &self.child {
            wait_until_stopped(child.id());
        }
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            child.wait().ok();
        }
        while !self.strays().is_empty() {
            self.signal(Signal::KILL);
            std::thread::sleep(LOOK);
        }
    }

    /// Starts it again with what it kept, on the same port, after it was killed if it was not.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
