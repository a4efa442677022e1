//! Waking who waits: notifications of the server, handed to those who wait for them here.
//!
//! One connection per engine listens. Who waits hangs up a bell first and looks then, so a change
//! after the look rings it. While nobody listens, because the connection broke, changes go by; so
//! all bells ring when it is lost and again when it is back, and everybody looks.
//!
//! PostgreSQL lets transactions that notify commit one after the other, each with its wait for the
//! disk (`PreCommit_Notify` in its async.c). So the frequent ones do not notify: the notification
//! is a statement of its own that is sent together with them and runs right behind them on the same
//! connection, and does not wait for the disk.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_api::Result;
use leasehold_contenders::{Key, Space, bell};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Failed, driver};
use crate::schema::fnv;

/// How often the listening connection shows that it lives, and how long it may take for that.
const SIGN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// The first pause before listening again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What somebody may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bell {
    /// A change of an entry, by the hash of its key.
    Entry(u64),
    /// A contender in a line, by the hash of its bell's name.
    Line(u64),
    /// A change of a queue, by its number.
    Queue(i64),
    /// A message for a queue, by the hash of its name.
    Name(u64),
    /// Room of a consumer, by its handle: a delivery of it was settled elsewhere.
    Consumer(i64),
    /// A sign that listening works.
    Hello(u64),
}

impl Bell {
    /// The bell of an entry.
    pub fn of(key: &Key) -> Self {
        let space: u8 = match key.space {
            Space::Lock => 0,
            Space::Register => 1,
        };
        Self::Entry(fnv(&[&[space], &key.name[..]].concat()))
    }

    /// The bell of a contender.
    pub fn in_line(bell: &bell::Bell) -> Self {
        Self::Line(fnv(bell.name().as_bytes()))
    }

    /// The bell of a queue that is published to by name.
    pub fn named(queue: &str) -> Self {
        Self::Name(fnv(queue.as_bytes()))
    }

    /// What is notified.
    pub fn payload(self) -> String {
        match self {
            Self::Entry(hash) => format!("e{hash}"),
            Self::Line(hash) => format!("l{hash}"),
            Self::Queue(queue) => format!("q{queue}"),
            Self::Name(hash) => format!("n{hash}"),
            Self::Consumer(handle) => format!("c{handle}"),
            Self::Hello(number) => format!("h{number}"),
        }
    }
}

/// What a notification says.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Ring(Bell),
    Due(Duration),
}

fn news(payload: &str) -> Option<News> {
    let (kind, rest) = payload.split_at_checked(1)?;
    Some(match kind {
        "e" => News::Ring(Bell::Entry(rest.parse().ok()?)),
        "l" => News::Ring(Bell::Line(rest.parse().ok()?)),
        "q" => News::Ring(Bell::Queue(rest.parse().ok()?)),
        "n" => News::Ring(Bell::Name(rest.parse().ok()?)),
        "c" => News::Ring(Bell::Consumer(rest.parse().ok()?)),
        "h" => News::Ring(Bell::Hello(rest.parse().ok()?)),
        "t" => News::Due(Duration::from_micros(rest.parse().ok()?)),
        _ => return None,
    })
}

/// All bells that hang here.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    hanging: Mutex<HashMap<Bell, Vec<Arc<Notify>>>>,
}

/// One who waits. A ring between two waits is not lost.
#[derive(Debug)]
pub(crate) struct Hearing {
    bells: Arc<Bells>,
    of: Vec<Bell>,
    rung: Arc<Notify>,
}

impl Hearing {
    /// Waits for a ring.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let mut hanging = self.bells.lock();
        for bell in &self.of {
            if let Some(all) = hanging.get_mut(bell) {
                all.retain(|one| !Arc::ptr_eq(one, &self.rung));
                if all.is_empty() {
                    hanging.remove(bell);
                }
            }
        }
    }
}

impl Bells {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Bell, Vec<Arc<Notify>>>> {
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hangs up a bell; look after that, not before.
    pub fn hear(self: &Arc<Self>, of: Vec<Bell>) -> Hearing {
        let rung = Arc::new(Notify::new());
        let mut hanging = self.lock();
        for bell in &of {
            hanging.entry(*bell).or_default().push(rung.clone());
        }
        drop(hanging);
        Hearing { bells: self.clone(), of, rung }
    }

    fn ring(&self, bell: Bell) {
        if let Some(all) = self.lock().get(&bell) {
            all.iter().for_each(|one| one.notify_one());
        }
    }

    fn ring_all(&self) {
        let hanging = self.lock();
        let all = hanging.iter().filter(|(bell, _)| !matches!(bell, Bell::Hello(_)));
        all.flat_map(|(_, all)| all).for_each(|one| one.notify_one());
    }
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection that listens.
struct Line {
    client: tokio_postgres::Client,
    driving: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// What is needed to listen again and again.
#[derive(Clone)]
struct Ear {
    config: Config,
    tls: MakeRustlsConnect,
    bells: Arc<Bells>,
    clock: Arc<Clock>,
}

/// Shows signs of life until there is no answer.
async fn keep(client: &tokio_postgres::Client) {
    loop {
        sleep(SIGN.0).await;
        let sign = timeout(SIGN.1, client.simple_query("")).await;
        if !matches!(sign, Ok(Ok(_))) {
            return;
        }
    }
}

impl Ear {
    async fn open(&self) -> std::result::Result<Line, Failed> {
        let opened = self.config.driver.connect(self.tls.clone()).await;
        let (client, mut connection) = opened.map_err(|error| driver(&error, false))?;
        let (bells, clock) = (self.bells.clone(), self.clock.clone());
        let driving = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(told) = message {
                    match news(told.payload()) {
                        Some(News::Ring(bell)) => bells.ring(bell),
                        Some(News::Due(within)) => clock.hint(within),
                        None => tracing::debug!(payload = told.payload(), "who says that?"),
                    }
                }
            }
        });
        let line = Line { client, driving };
        let listen = format!("listen \"{}\"", self.config.channel());
        let listening = timeout(self.config.answer, line.client.batch_execute(&listen)).await;
        match listening {
            Ok(done) => done.map_err(|error| driver(&error, true))?,
            Err(_) => return Err(Failed::lost("no answer to LISTEN", false)),
        }
        Ok(line)
    }

    async fn run(self, first: Line) {
        let mut line = Some(first);
        let mut pause = PAUSES.0;
        loop {
            if let Some(mut line) = line.take() {
                pause = PAUSES.0;
                let Line { client, driving } = &mut line;
                tokio::select! {
                    () = keep(client) => {}
                    _ = driving => {}
                }
                tracing::warn!(url = %self.config.shown, "nobody listens any more; again");
                self.bells.ring_all();
            }
            sleep(crate::spread(pause)).await;
            pause = (pause * 2).min(PAUSES.1);
            match self.open().await {
                Ok(opened) => {
                    line = Some(opened);
                    // Whatever happened meanwhile rang for nobody.
                    self.bells.ring_all();
                    self.clock.hint(Duration::ZERO);
                }
                Err(failed) => tracing::debug!(error = %failed.error, "not listening yet"),
            }
        }
    }
}

impl Listener {
    /// Begins to listen; from then on it listens again whenever the connection is lost.
    ///
    /// # Errors
    /// What the server says to the first try.
    pub async fn start(
        config: &Config,
        tls: &MakeRustlsConnect,
        bells: &Arc<Bells>,
        clock: &Arc<Clock>,
    ) -> Result<Self> {
        let (bells, clock) = (bells.clone(), clock.clone());
        let ear = Ear { config: config.clone(), tls: tls.clone(), bells, clock };
        let first = ear.open().await.map_err(|failed| failed.error)?;
        Ok(Self { task: tokio::spawn(ear.run(first)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_before_the_wait_counts_and_nothing_stays_behind() {
        let bells = Arc::new(Bells::default());
        let hearing = bells.hear(vec![Bell::Queue(1), Bell::Entry(2)]);
        bells.ring(Bell::Entry(2));
        hearing.rung().await;
        bells.ring_all();
        hearing.rung().await;
        drop(hearing);
        assert!(bells.lock().is_empty());
    }

    #[test]
    fn what_is_notified_is_understood() {
        let (entry, line) = (Bell::Entry(u64::MAX), Bell::Line(5));
        for bell in [Bell::Queue(7), entry, line, Bell::Name(3), Bell::Hello(1)] {
            assert_eq!(news(&bell.payload()), Some(News::Ring(bell)));
        }
        assert_eq!(news("t20000"), Some(News::Due(Duration::from_millis(20))));
        assert_eq!(news(""), None);
        assert_eq!(news("q"), None);
    }
}
