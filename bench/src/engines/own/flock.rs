//! flock: tried at once, and in a thread that may stand still when somebody has it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};

use crate::engines::ways::{Client, Process};

struct Directory(PathBuf);

struct Task {
    directory: PathBuf,
    held: Option<File>,
}

/// A process over a directory, which is given as the engine gets it.
pub fn process(url: &str) -> Arc<dyn Process> {
    let directory = url.strip_prefix("file://").expect("a directory").into();
    Arc::new(Directory(directory))
}

#[async_trait]
impl Process for Directory {
    async fn client(&self) -> Box<dyn Client> {
        Box::new(Task { directory: self.0.clone(), held: None })
    }
}

#[async_trait]
impl Client for Task {
    async fn acquire(&mut self, lock: &str, _ttl: Duration) {
        let path = self.directory.join(format!("flock-{lock}"));
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.expect("the directory is ours");
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            self.held = Some(file);
            return;
        }
        let waiting = tokio::task::spawn_blocking(move || {
            flock(&file, FlockOperation::LockExclusive).expect("nothing interrupts it");
            file
        });
        self.held = Some(waiting.await.expect("it does not panic"));
    }

    async fn release(&mut self) {
        // It ends with the file.
        self.held = None;
        // Nothing here waits, so others would not get a turn.
        tokio::task::yield_now().await;
    }
}
