//! PostgreSQL, by the driver alone: advisory locks, and a table whose rows are taken with SKIP
//! LOCKED.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use tokio_postgres::{NoTls, Statement};

use crate::engines::queues::{BODY, DRY};
use crate::engines::ways::{Client, Mail, Process};

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("it accepts");
    tokio::spawn(connection);
    client
}

/// A connection for each task, since it is what holds the lock.
struct Advisory(String);

struct Task {
    line: tokio_postgres::Client,
    lock: Statement,
    unlock: Statement,
    name: String,
}

/// A process that locks.
pub fn advisory(url: &str) -> Arc<dyn Process> {
    Arc::new(Advisory(url.to_owned()))
}

#[async_trait]
impl Process for Advisory {
    async fn client(&self) -> Box<dyn Client> {
        let line = connect(&self.0).await;
        let lock = line.prepare("select pg_advisory_lock(hashtextextended($1, 0))").await;
        let unlock = line.prepare("select pg_advisory_unlock(hashtextextended($1, 0))").await;
        let (lock, unlock) = (lock.expect("it is known"), unlock.expect("it is known"));
        Box::new(Task { line, lock, unlock, name: String::new() })
    }
}

#[async_trait]
impl Client for Task {
    async fn acquire(&mut self, lock: &str, _ttl: Duration) {
        self.name = lock.to_owned();
        self.line.query_one(&self.lock, &[&self.name]).await.expect("it is granted");
    }

    async fn release(&mut self) {
        let row = self.line.query_one(&self.unlock, &[&self.name]).await.expect("it answers");
        assert!(row.get::<_, bool>(0));
    }
}

/// A user of a table.
struct Table {
    line: tokio_postgres::Client,
    put: Statement,
    take: Statement,
}

/// Users of a table.
pub async fn tables(url: &str, name: &str, count: usize) -> Vec<Box<dyn Mail>> {
    let mut mails: Vec<Box<dyn Mail>> = Vec::new();
    for _ in 0..count {
        let line = connect(url).await;
        let sql = format!(
            "create table if not exists \"{name}\" \
             (id bigint generated always as identity primary key, body bytea not null)"
        );
        line.batch_execute(&sql).await.expect("it is made");
        let put = format!("insert into \"{name}\" (body) select unnest($1::bytea[])");
        let put = line.prepare(&put).await.expect("it is known");
        let take = format!(
            "delete from \"{name}\" where id = (select id from \"{name}\" order by id \
             for update skip locked limit 1) returning body"
        );
        let take = line.prepare(&take).await.expect("it is known");
        mails.push(Box::new(Table { line, put, take }));
    }
    mails
}

#[async_trait]
impl Mail for Table {
    async fn publish(&mut self, count: usize) {
        let bodies = vec![&BODY[..]; count];
        let sent = self.line.execute(&self.put, &[&bodies]).await.expect("it is taken");
        assert_eq!(sent, count as u64);
    }

    async fn take(&mut self, until: Instant) -> (u64, Instant) {
        let (mut count, mut last) = (0, Instant::now());
        while last < until {
            // The row is taken before the work and gone with the commit after it.
            let work = self.line.transaction().await.expect("it begins");
            let row = work.query_opt(&self.take, &[]).await.expect("it answers");
            work.commit().await.expect("it is kept");
            if row.is_none() {
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
