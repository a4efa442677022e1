//! One client process: it does what clients do and writes down what it saw.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use leasehold::{Error, ErrorKind, Expect, Leasehold, LockGuard, QueueConfig, Queues};
use rustix::time::{ClockId, clock_gettime};

use super::Chance;
use crate::history::{Answer, Asked, Line};

/// How long the server may be away, on a machine that is busy.
const AWAY: Duration = Duration::from_secs(60);
const REGISTERS: u64 = 3;
const LOCKS: u64 = 2;
const QUEUE: &str = "outage";

/// What a client does, one operation after the other.
pub struct Client {
    at: Leasehold,
    record: File,
    chance: Chance,
    number: u64,
    serial: u64,
    /// The newest version seen of each register: what compare-and-set expects.
    known: [u64; REGISTERS as usize],
    /// Whether there are queues; some engines have locks alone.
    queues: bool,
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

impl Client {
    /// Connects, and makes the record.
    ///
    /// # Errors
    /// What could not be done, as text.
    pub async fn connect(url: &str, number: u64, record: &Path, seed: u64) -> Result<Self, String> {
        let record = File::create(record).map_err(|e| e.to_string())?;
        let late = Instant::now() + AWAY;
        let (at, queues) = loop {
            match open(url).await {
                Ok((at, queues)) => break (at.with_label(format!("client-{number}")), queues),
                // The server may be between its death and its restart.
                Err(error) if Instant::now() > late => return Err(error.to_string()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let known = [0; REGISTERS as usize];
        Ok(Self { at, record, chance: Chance(seed), number, serial: 0, known, queues })
    }

    fn write(&mut self, line: &Line) {
        let mut text = serde_json::to_string(line).expect("a line is text");
        text.push('\n');
        // One call, so that a kill leaves whole lines and at most one that is cut off.
        self.record.write_all(text.as_bytes()).expect("the record can be written");
    }

    fn began(&mut self, what: Asked) -> u64 {
        self.serial += 1;
        let id = self.number << 32 | self.serial;
        self.write(&Line::Began { id, at: now(), what });
        id
    }

    /// An answer that says what happened is written down; of any other nobody knows.
    fn ended(&mut self, id: u64, answer: Option<Answer>) {
        if let Some(answer) = answer {
            self.write(&Line::Ended { id, at: now(), answer });
        }
    }

    /// Works until `ends` resolves, with locks that last so long without a sign of life.
    ///
    /// # Errors
    /// What must not happen, as text.
    pub async fn work(
        &mut self,
        ttl: Duration,
        ends: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let mut ends = std::pin::pin!(ends);
        loop {
            if futures_util::FutureExt::now_or_never(&mut ends).is_some() {
                return Ok(());
            }
            match self.chance.below(10) {
                0..3 => self.read().await,
                3..5 => self.compare_and_set().await,
                5..8 => self.under_lock(ttl).await,
                8 if self.queues => self.publish().await,
                _ if self.queues => self.consume(Duration::from_millis(50)).await.map(|_| ()),
                _ => self.under_lock(ttl).await,
            }?;
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let key = self.chance.below(REGISTERS) as u32;
        self.read_one(key).await;
        Ok(())
    }

    /// Reads a register; whether there was an answer.
    async fn read_one(&mut self, key: u32) -> bool {
        let id = self.began(Asked::Read { key });
        let found = self.at.register(key.to_le_bytes()).read().await;
        let Ok(found) = found else { return false };
        let found = found.map(|r| (r.version, number_in(&r.value)));
        // Those of locks are written whatever is in them.
        if let Some(known) = self.known.get_mut(key as usize) {
            *known = found.map_or(0, |(version, _)| version);
        }
        self.ended(id, Some(Answer::Value(found)));
        true
    }

    async fn compare_and_set(&mut self) -> Result<(), String> {
        let key = self.chance.below(REGISTERS) as u32;
        let version = self.known[key as usize];
        let expect = if version == 0 { Expect::Absent } else { Expect::Version(version) };
        let value = self.number << 32 | (self.serial + 1);
        let id = self.began(Asked::Write { key, value, expect: Some(version), guard: None });
        let register = self.at.register(key.to_le_bytes());
        let written = register.write_if(expect, value.to_le_bytes()).await;
        let answer = self.judged(key, written);
        self.ended(id, answer);
        Ok(())
    }

    fn judged(&mut self, key: u32, written: leasehold::Result<u64>) -> Option<Answer> {
        match written {
            Ok(version) => {
                self.known[key as usize] = version;
                Some(Answer::Written(version))
            }
            Err(Error { kind: ErrorKind::Conflict, .. }) => Some(Answer::Conflict),
            Err(Error { kind: ErrorKind::Stale, .. }) => Some(Answer::Stale),
            Err(_) => None,
        }
    }

    /// Takes a lock, writes a register under its token, and keeps looking whether it is held.
    async fn under_lock(&mut self, ttl: Duration) -> Result<(), String> {
        let lock = self.chance.below(LOCKS) as u32;
        let id = self.began(Asked::Acquire { lock });
        let taken = self.at.lock(format!("outage/{lock}")).ttl(ttl);
        let guard = match taken.acquire_within(Duration::from_secs(2)).await {
            Ok(guard) => guard,
            Err(Error { kind: ErrorKind::TimedOut, .. }) => {
                self.ended(id, Some(Answer::Refused));
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        self.ended(id, Some(Answer::Granted(guard.token())));
        for _ in 0..1 + self.chance.below(4) {
            self.look(lock, &guard);
            // A key of the lock's own, so that tokens can be compared.
            let key = REGISTERS as u32 + lock;
            let value = self.number << 32 | (self.serial + 1);
            let fence = Some((lock, guard.token()));
            let id = self.began(Asked::Write { key, value, expect: None, guard: fence });
            let register = self.at.register(key.to_le_bytes()).guarded_by(&guard);
            let answer = match register.write(value.to_le_bytes()).await {
                Ok(version) => Some(Answer::Written(version)),
                Err(Error { kind: ErrorKind::Stale, .. }) => Some(Answer::Stale),
                Err(_) => None,
            };
            self.ended(id, answer);
        }
        self.look(lock, &guard);
        guard.release().await.ok();
        Ok(())
    }

    fn look(&mut self, lock: u32, guard: &LockGuard) {
        let at = now();
        if guard.check().is_ok() {
            self.write(&Line::Held { lock, token: guard.token(), at });
        }
    }

    async fn publish(&mut self) -> Result<(), String> {
        let message = self.number << 32 | (self.serial + 1);
        let id = self.began(Asked::Publish { message });
        if self.at.queue(QUEUE).publish(message.to_le_bytes()).await.is_ok() {
            self.ended(id, Some(Answer::Published));
        }
        Ok(())
    }

    /// Takes one message; whether there was one.
    async fn consume(&mut self, wait: Duration) -> Result<bool, String> {
        let id = self.began(Asked::Consume);
        let Ok(came) = self.at.queue(QUEUE).receive(wait).await else { return Ok(true) };
        let Some(delivery) = came else {
            self.ended(id, Some(Answer::Refused));
            return Ok(false);
        };
        let message = number_in(delivery.body());
        self.write(&Line::Came { message });
        let acked = delivery.ack().await.is_ok();
        self.ended(id, Some(Answer::Consumed { message, acked }));
        Ok(true)
    }

    /// Reads all registers, so that the last write of each is known, also one without an answer,
    /// and empties the queue: leases of the dead have to run out first.
    ///
    /// # Errors
    /// When it does not become empty.
    pub async fn drain(&mut self) -> Result<(), String> {
        let late = Instant::now() + AWAY;
        for key in 0..(REGISTERS + LOCKS) as u32 {
            while !self.read_one(key).await {
                if Instant::now() > late {
                    return Err(format!("register {key} cannot be read"));
                }
            }
        }
        while self.queues {
            self.consume(Duration::from_millis(200)).await?;
            let view = self.at.queue(QUEUE).inspect().await.map_err(|e| e.to_string())?;
            if view.ready + view.in_flight + view.delayed == 0 {
                return Ok(());
            }
            if Instant::now() > late {
                return Err(format!("it does not become empty: {view:?}"));
            }
        }
        Ok(())
    }
}

/// Connects and declares the queue, if the engine has queues that the judge knows.
async fn open(url: &str) -> leasehold::Result<(Leasehold, bool)> {
    let at = leasehold::connect(url).await?;
    let queues = at.guarantees()?.require(Queues::Leased.into()).is_ok();
    if queues {
        let lease = Some(Duration::from_secs(2));
        at.queue(QUEUE).declare(&QueueConfig { lease, ..QueueConfig::default() }).await?;
    }
    Ok((at, queues))
}

fn number_in(value: &[u8]) -> u64 {
    value.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
