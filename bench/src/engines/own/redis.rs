//! Redis, by the driver alone: the recipe of its manual, a token in a list, a stream.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Script, Value};
use tokio::time::{Instant, sleep};

use crate::engines::queues::{BODY, DRY, PREFETCH};
use crate::engines::ways::{Client, Mail, Process};

/// Between two tries of somebody who waits.
const POLL: Duration = Duration::from_millis(10);
const UNLOCK: &str = "if redis.call('get',KEYS[1]) == ARGV[1] then \
                      return redis.call('del',KEYS[1]) else return 0 end";

async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    // What blocks waits longer than the driver's own limit.
    let settings = AsyncConnectionConfig::new().set_response_timeout(None);
    let connecting = client.get_multiplexed_async_connection_with_config(&settings);
    connecting.await.expect("it accepts")
}

/// One connection that all tasks share, as the driver is made for.
struct Poller(MultiplexedConnection);

struct Polling {
    line: MultiplexedConnection,
    unlock: Script,
    value: String,
    lock: String,
}

/// A process that asks again and again.
pub async fn poller(url: &str) -> Arc<dyn Process> {
    Arc::new(Poller(connect(url).await))
}

#[async_trait]
impl Process for Poller {
    async fn client(&self) -> Box<dyn Client> {
        let (line, unlock) = (self.0.clone(), Script::new(UNLOCK));
        let value = format!("{:p}-{}", &line, std::process::id());
        Box::new(Polling { line, unlock, value, lock: String::new() })
    }
}

#[async_trait]
impl Client for Polling {
    async fn acquire(&mut self, lock: &str, ttl: Duration) {
        self.lock = format!("polled-{lock}");
        let mut set = redis::cmd("SET");
        set.arg(&self.lock).arg(&self.value).arg("NX").arg("PX").arg(ttl.as_millis() as u64);
        loop {
            let answer: Value = set.query_async(&mut self.line).await.expect("it answers");
            if answer == Value::Okay {
                return;
            }
            sleep(POLL).await;
        }
    }

    async fn release(&mut self) {
        let mut call = self.unlock.key(&self.lock);
        let gone: u64 = call.arg(&self.value).invoke_async(&mut self.line).await.expect("it runs");
        assert_eq!(gone, 1);
    }
}

/// A connection for each task, since BLPOP blocks it.
struct Lister(String);

struct Listing {
    line: MultiplexedConnection,
    known: HashSet<String>,
    lock: String,
}

/// A process that waits for a token.
pub fn lister(url: &str) -> Arc<dyn Process> {
    Arc::new(Lister(url.to_owned()))
}

#[async_trait]
impl Process for Lister {
    async fn client(&self) -> Box<dyn Client> {
        let line = connect(&self.0).await;
        Box::new(Listing { line, known: HashSet::new(), lock: String::new() })
    }
}

#[async_trait]
impl Client for Listing {
    async fn acquire(&mut self, lock: &str, _ttl: Duration) {
        self.lock = format!("list-{lock}");
        if self.known.insert(self.lock.clone()) {
            let mut made = redis::cmd("SETNX");
            made.arg(format!("made-{lock}")).arg(1);
            let is_first: bool = made.query_async(&mut self.line).await.expect("it answers");
            if is_first {
                self.release().await;
            }
        }
        let mut pop = redis::cmd("BLPOP");
        pop.arg(&self.lock).arg(0);
        let _: Value = pop.query_async(&mut self.line).await.expect("it answers");
    }

    async fn release(&mut self) {
        let mut push = redis::cmd("RPUSH");
        push.arg(&self.lock).arg("token");
        let _: Value = push.query_async(&mut self.line).await.expect("it answers");
    }
}

/// A consumer of a stream's group.
struct Stream {
    line: MultiplexedConnection,
    name: String,
    consumer: usize,
}

/// What XREADGROUP gives: streams, their entries, the fields of each.
type Read = Option<Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>>;

/// Users of a stream.
pub async fn streams(url: &str, name: &str, count: usize) -> Vec<Box<dyn Mail>> {
    let mut mails: Vec<Box<dyn Mail>> = Vec::new();
    for consumer in 0..count {
        mails.push(Box::new(Stream { line: connect(url).await, name: name.to_owned(), consumer }));
    }
    let mut make = redis::cmd("XGROUP");
    make.arg("CREATE").arg(name).arg("all").arg("0").arg("MKSTREAM");
    let _: Value = make.query_async(&mut connect(url).await).await.expect("it is made");
    mails
}

#[async_trait]
impl Mail for Stream {
    async fn publish(&mut self, count: usize) {
        let mut pipe = redis::pipe();
        for _ in 0..count {
            pipe.cmd("XADD").arg(&self.name).arg("*").arg("body").arg(&BODY[..]);
        }
        let ids: Vec<String> = pipe.query_async(&mut self.line).await.expect("it answers");
        assert_eq!(ids.len(), count);
    }

    async fn take(&mut self, until: Instant) -> (u64, Instant) {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("all").arg(self.consumer).arg("COUNT").arg(PREFETCH);
        read.arg("BLOCK").arg(DRY.as_millis() as u64).arg("STREAMS").arg(&self.name).arg(">");
        let (mut count, mut last) = (0, Instant::now());
        while last < until {
            let came: Read = read.query_async(&mut self.line).await.expect("it answers");
            let Some(came) = came else { break };
            for (id, _) in came.into_iter().flat_map(|(_, entries)| entries) {
                let mut ack = redis::cmd("XACK");
                ack.arg(&self.name).arg("all").arg(id);
                let done: u64 = ack.query_async(&mut self.line).await.expect("it answers");
                assert_eq!(done, 1);
                (count, last) = (count + 1, Instant::now());
                if last >= until {
                    break;
                }
            }
        }
        (count, last)
    }
}
