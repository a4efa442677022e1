//! MySQL and MariaDB, by the driver alone: user locks, and a table whose rows are taken with SKIP
//! LOCKED.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, Row, Statement};
use tokio::time::{Instant, sleep};

use crate::engines::queues::{BODY, DRY};
use crate::engines::ways::{Client, Mail, Process};

async fn connect(url: &str) -> Conn {
    Conn::new(Opts::from_url(url).expect("a URL")).await.expect("it accepts")
}

/// A connection for each task, since it is what holds the lock.
struct UserLocks(String);

struct Task {
    line: Conn,
    lock: Statement,
    unlock: Statement,
    name: String,
}

/// A process that locks.
pub fn user_locks(url: &str) -> Arc<dyn Process> {
    Arc::new(UserLocks(url.to_owned()))
}

#[async_trait]
impl Process for UserLocks {
    async fn client(&self) -> Box<dyn Client> {
        let mut line = connect(&self.0).await;
        let lock = line.prep("SELECT GET_LOCK(SHA1(?), 100)").await.expect("it is known");
        let unlock = line.prep("SELECT RELEASE_LOCK(SHA1(?))").await.expect("it is known");
        Box::new(Task { line, lock, unlock, name: String::new() })
    }
}

#[async_trait]
impl Client for Task {
    async fn acquire(&mut self, lock: &str, _ttl: Duration) {
        self.name = lock.to_owned();
        let got: Option<Option<i64>> =
            self.line.exec_first(&self.lock, (&self.name,)).await.expect("it answers");
        assert_eq!(got, Some(Some(1)));
    }

    async fn release(&mut self) {
        let gone: Option<Option<i64>> =
            self.line.exec_first(&self.unlock, (&self.name,)).await.expect("it answers");
        assert_eq!(gone, Some(Some(1)));
    }
}

/// A user of a table.
struct Table {
    line: Conn,
    name: String,
}

/// Users of a table.
pub async fn tables(url: &str, name: &str, count: usize) -> Vec<Box<dyn Mail>> {
    let mut mails: Vec<Box<dyn Mail>> = Vec::new();
    for _ in 0..count {
        let mut line = connect(url).await;
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS `{name}` \
             (id BIGINT AUTO_INCREMENT PRIMARY KEY, body BLOB NOT NULL)"
        );
        line.query_drop(sql).await.expect("it is made");
        mails.push(Box::new(Table { line, name: name.to_owned() }));
    }
    mails
}

#[async_trait]
impl Mail for Table {
    async fn publish(&mut self, count: usize) {
        let places = vec!["(?)"; count].join(",");
        let sql = format!("INSERT INTO `{}` (body) VALUES {places}", self.name);
        let bodies: Vec<mysql_async::Value> = vec![BODY.to_vec().into(); count];
        self.line.exec_drop(sql, bodies).await.expect("it is taken");
    }

    async fn take(&mut self, until: Instant) -> (u64, Instant) {
        let name = &self.name;
        let pick =
            format!("SELECT id, body FROM `{name}` ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED");
        let gone = format!("DELETE FROM `{name}` WHERE id = ?");
        let (mut count, mut last) = (0, Instant::now());
        while last < until {
            // The row is taken before the work and gone with the commit after it.
            self.line.query_drop("START TRANSACTION").await.expect("it begins");
            let row: Option<Row> = self.line.exec_first(&pick, ()).await.expect("it answers");
            let id = row.and_then(|mut row| row.take::<i64, _>(0));
            if let Some(id) = id {
                self.line.exec_drop(&gone, (id,)).await.expect("it goes");
            }
            self.line.query_drop("COMMIT").await.expect("it is kept");
            if id.is_none() {
                if last.elapsed() > DRY {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
                continue;
            }
            (count, last) = (count + 1, Instant::now());
        }
        (count, last)
    }
}
