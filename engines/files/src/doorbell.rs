//! The system tells when a file has changed; nobody looks again and again.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use leasehold_api::{Error, ErrorKind, Result};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Bells by the number of a watched directory and the name of a file in it.
type Bells = Arc<Mutex<HashMap<(i32, String), Weak<Notify>>>>;

/// Hears of changed files in directories.
#[derive(Debug)]
pub struct Doorbell {
    bells: Bells,
    directories: Vec<i32>,
    listening: JoinHandle<()>,
}

fn failed(what: &str, errno: Errno) -> Error {
    let wrong = format!("{what}: {errno}; raise fs.inotify.max_user_instances if there are many");
    Error::new(ErrorKind::Unsupported, wrong)
}

impl Doorbell {
    /// Begins to listen.
    ///
    /// # Errors
    /// `Unsupported` when the system tells nothing.
    pub fn listen(directories: &[&Path]) -> Result<Self> {
        let flags = CreateFlags::NONBLOCK | CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags).map_err(|errno| failed("inotify", errno))?;
        let events = WatchFlags::MOVED_TO | WatchFlags::DELETE;
        let watched = directories.iter().map(|directory| {
            inotify::add_watch(&inotify, *directory, events)
                .map_err(|errno| failed(&format!("watch {}", directory.display()), errno))
        });
        let watched = watched.collect::<Result<Vec<i32>>>()?;
        #[expect(
            deprecated,
            reason = "unsound for what closes its descriptor; an OwnedFd does not"
        )]
        let inotify = AsyncFd::with_interest(inotify, Interest::READABLE);
        let no_runtime = |error| Error::new(ErrorKind::Broken, format!("inotify: {error}"));
        let bells = Bells::default();
        let listening = tokio::spawn(listen(inotify.map_err(no_runtime)?, bells.clone()));
        Ok(Self { bells, directories: watched, listening })
    }

    /// The bell of a file in the directory at this place. What changes after this is heard.
    pub fn bell(&self, directory: usize, file: String) -> Arc<Notify> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if bells.len() > 64 && bells.len() == bells.capacity() {
            bells.retain(|_, bell| bell.strong_count() > 0);
        }
        let bell = bells.entry((self.directories[directory], file)).or_default();
        bell.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Notify::new());
            *bell = Arc::downgrade(&new);
            new
        })
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(inotify: AsyncFd<std::os::fd::OwnedFd>, bells: Bells) {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    loop {
        let Ok(mut ready) = inotify.readable().await else { return };
        let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    ring(&bells, |_| true);
                }
                Ok(event) => {
                    let file = event.file_name().and_then(|name| name.to_str().ok());
                    let from = event.wd();
                    ring(&bells, |(wd, name)| *wd == from && Some(name.as_str()) == file);
                }
                Err(Errno::WOULDBLOCK) => break,
                Err(errno) => {
                    tracing::error!(%errno, "changes of files are not heard any more");
                    return ring(&bells, |_| true);
                }
            }
        }
        ready.clear_ready();
    }
}

/// Rings some bells, and takes those down that nobody listens to.
fn ring(bells: &Bells, which: impl Fn(&(i32, String)) -> bool) {
    let mut bells = bells.lock().unwrap_or_else(PoisonError::into_inner);
    bells.retain(|key, bell| {
        let Some(bell) = bell.upgrade() else { return false };
        if which(key) {
            bell.notify_waiters();
        }
        true
    });
}
