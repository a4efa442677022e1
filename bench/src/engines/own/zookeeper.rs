//! ZooKeeper, by the driver's recipe: ephemeral sequential nodes, each watching the one before.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use zookeeper_client::{Acls, CreateMode, LockOptions, LockPrefix};

use crate::engines::ways::{Client, Process};

/// How long a session outlives its process.
const SESSION: Duration = Duration::from_secs(2);

/// One session that all tasks share.
struct Session(zookeeper_client::Client);

struct Task {
    session: zookeeper_client::Client,
    path: String,
}

/// A process that locks.
pub async fn process(url: &str) -> Arc<dyn Process> {
    let (_, rest) = url.split_once("://").expect("a URL");
    let host = rest.split('?').next().expect("a host");
    let connector = zookeeper_client::Client::connector().with_session_timeout(SESSION);
    Arc::new(Session(connector.connect(host).await.expect("it accepts")))
}

#[async_trait]
impl Process for Session {
    async fn client(&self) -> Box<dyn Client> {
        Box::new(Task { session: self.0.clone(), path: String::new() })
    }
}

#[async_trait]
impl Client for Task {
    async fn acquire(&mut self, lock: &str, _ttl: Duration) {
        let directory = format!("/own-{lock}");
        let prefix = LockPrefix::new_curator(&directory, "lock").expect("a path");
        let made = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let options = LockOptions::new(Acls::anyone_all()).with_ancestor_options(made);
        let held = self.session.lock(prefix, b"", options.expect("they go together")).await;
        let held = held.expect("it is granted");
        self.path = held.lock_path().to_owned();
        // It would be deleted in the background; the release waits for that.
        std::mem::forget(held);
    }

    async fn release(&mut self) {
        self.session.delete(&self.path, None).await.expect("it is ours");
    }
}
