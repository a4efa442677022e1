//! `leasehold queue work`: a command for every message.
//!
//! The command's exit code is the verdict. Its lease is extended while it runs; when that fails
//! for good the command is killed, as the message is somebody else's by then. A first signal lets
//! the running commands finish, a second one ends them and gives their messages back. When this
//! process is killed or stands still a helper ends them; see [`watch`](crate::watch).

mod command;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use leasehold::engine::QueueEngine;
use leasehold::{
    Consumer, Delays, Delivery, ErrorKind, Guarantees, Leasehold, Queues, Retry, Verdict,
};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cli::Global;
use crate::failure::{BAD_MESSAGE, Failure, NOT_HAD};
use crate::group::Group;
use crate::signals::Signals;
use crate::watch::{Moment, Watcher};
use crate::{connect, print, span};
use command::{End, Running};

/// The longest pause before a message is tried again.
const BACK_OFF_MAX: Duration = Duration::from_secs(3600);
/// How long after an engine went away it is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Arguments of `queue work`.
#[derive(Debug, Args)]
#[command(after_help = "\
The command gets the message on stdin, and in its environment LEASEHOLD_QUEUE, \
LEASEHOLD_MESSAGE_ID (if it has one), LEASEHOLD_MESSAGE_KEY (if it has one), LEASEHOLD_ATTEMPT (1 \
for the first), LEASEHOLD_TOKEN (the fencing token), LEASEHOLD_URL and every header NAME as \
LEASEHOLD_HEADER_NAME.

Its exit code is the verdict: 0 done; 65 never again, to the dead letters; 75 or anything else: \
again later, after --retry-delay, twice as long after each further attempt. TERM or INT lets \
running commands finish, a second one ends them and gives their messages back.

Where an engine's deliveries have no deadline (`leasehold doctor` says so) a message may come \
again while its command runs, if the connection is lost. Where messages cannot be delayed one goes \
back at once, and the command that failed is followed by a pause of --retry-delay instead.")]
pub struct WorkArgs {
    /// The queue
    name: String,
    /// How many commands run at once
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: u32,
    /// How many messages may be here at once, those that are worked on included [default: as
    /// many as commands]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    prefetch: Option<u32>,
    /// How long a message stays ours without a sign of life; extended while its command runs
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span::parse)]
    lease: Duration,
    /// How long a message waits before it is tried again
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = span::parse)]
    retry_delay: Duration,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How many messages got which verdict.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    again: u64,
    dead: u64,
    lost: u64,
}

/// Does it.
pub async fn run(arguments: WorkArgs, global: &Global) -> Result<ExitCode> {
    let name = arguments.name.clone();
    let asked = || format!("work on queue {name}");
    if arguments.lease < LEASE_MIN {
        let wrong = format!("--lease has to be at least {}", span::show(LEASE_MIN));
        return Err(Failure::usage(wrong)).with_context(asked);
    }
    let mut signals = Signals::listen()?;
    let label = connect::label(&arguments.command.join(" "));
    let handle = connect::open(global, Some(label)).await.with_context(asked)?;
    let queues = handle.engine().queues.clone().context("the engine has no queues");
    let queues = queues.with_context(asked)?;
    let (end, ending) = watch::channel(false);
    let watcher = Watcher::start("queue work", &format!("queue {name}"), GRACE)?;
    let watcher = Mutex::new(watcher);
    let promised = queues.guarantees();
    let worker = Worker { arguments, global: global.clone(), queues, promised, watcher, ending };
    let worker = Arc::new(worker);
    let mut tally = Tally::default();
    let worked = work(&worker, &handle, &mut signals, end, &mut tally).await;
    handle.close().await.ok();
    // No command runs any more, so nobody else holds on to it.
    if let Some(worker) = Arc::into_inner(worker) {
        worker.watcher.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    }
    let Tally { done, again, dead, lost } = tally;
    if global.json {
        let value = json!({ "done": done, "again": again, "dead": dead, "lost": lost });
        print::line(&value.to_string())?;
    }
    worked.with_context(asked)?;
    Ok(ExitCode::SUCCESS)
}

/// Time for commands between TERM and KILL when this process died.
const GRACE: Duration = Duration::from_secs(5);
/// A lease this short would be spent on extending it.
const LEASE_MIN: Duration = Duration::from_millis(300);

/// Takes messages and runs commands until it is told to end or has had enough.
async fn work(
    worker: &Arc<Worker>,
    handle: &Leasehold,
    signals: &mut Signals,
    end: watch::Sender<bool>,
    tally: &mut Tally,
) -> Result<()> {
    let mut source = Source { worker, handle, consumer: None, began: false };
    let mut running = JoinSet::new();
    let mut left = worker.arguments.max.unwrap_or(u64::MAX);
    let slots = worker.arguments.concurrency as usize;
    let mut result = Ok(());
    while left > 0 && result.is_ok() {
        tokio::select! {
            biased;
            _ = signals.next() => break,
            Some(ended) = running.join_next() => result = count(ended, tally),
            next = source.next(), if running.len() < slots => match next {
                Ok(Some(delivery)) => {
                    left -= 1;
                    running.spawn(worker.clone().handle(delivery));
                }
                Ok(None) => {
                    result = Err(anyhow::anyhow!("the queue was deleted; declare it again"));
                }
                Err(error) => result = Err(error),
            },
        }
    }
    // What was prefetched and not begun goes back now.
    drop(source);
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(ended) => result = result.and(count(ended, tally)),
                None => return result,
            },
            _ = signals.next() => {
                end.send_replace(true);
            }
        }
    }
}

type Ended = Result<Result<Outcome>, tokio::task::JoinError>;

fn count(ended: Ended, tally: &mut Tally) -> Result<()> {
    match ended.context("a task was lost")?? {
        Outcome::Settled(Verdict::Ack) => tally.done += 1,
        Outcome::Settled(Verdict::Nack(_)) => tally.again += 1,
        Outcome::Settled(Verdict::Reject) => tally.dead += 1,
        Outcome::Lost => tally.lost += 1,
    }
    Ok(())
}

/// Where deliveries come from, over restarts of the engine.
struct Source<'a> {
    worker: &'a Worker,
    handle: &'a Leasehold,
    consumer: Option<Consumer>,
    began: bool,
}

impl Source<'_> {
    async fn next(&mut self) -> Result<Option<Delivery>> {
        loop {
            let error = match &mut self.consumer {
                Some(consumer) => match consumer.next().await {
                    Ok(delivery) => return Ok(delivery),
                    Err(error) => error,
                },
                None => match self.open().await {
                    Ok(consumer) => {
                        self.consumer = Some(consumer);
                        self.began = true;
                        continue;
                    }
                    Err(error) => error,
                },
            };
            self.consumer = None;
            let may_return = matches!(
                error.kind,
                ErrorKind::NoSession | ErrorKind::Unavailable | ErrorKind::Broken
            );
            // An engine that was never there is a mistake of the caller.
            if !self.began || !may_return {
                return Err(error.into());
            }
            say(&self.worker.arguments.name, &format!("{error}; trying again"));
            sleep(RETRY).await;
        }
    }

    async fn open(&self) -> leasehold::Result<Consumer> {
        let arguments = &self.worker.arguments;
        let prefetch = arguments.prefetch.unwrap_or(arguments.concurrency);
        self.handle.queue(arguments.name.as_str()).consume().prefetch(prefetch).open().await
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Settled(Verdict),
    Lost,
}

struct Worker {
    arguments: WorkArgs,
    global: Global,
    queues: Arc<dyn QueueEngine>,
    /// What the engine promises.
    promised: Guarantees,
    /// Ends the commands when this process cannot.
    watcher: Mutex<Watcher>,
    /// True when running commands have to end.
    ending: watch::Receiver<bool>,
}

impl Worker {
    fn watcher(&self) -> MutexGuard<'_, Watcher> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the command for one message and settles it.
    async fn handle(self: Arc<Self>, delivery: Delivery) -> Result<Outcome> {
        let name = &self.arguments.name;
        let mut lease = Lease { worker: &self, delivery: &delivery, until: Instant::now() };
        if !lease.extend_for_good().await {
            return Ok(Outcome::Lost);
        }
        let mut running = match Running::start(&self, &lease) {
            Ok(running) => running,
            Err(error) => {
                // It is not the message's fault.
                delivery.nack().await.ok();
                return Err(error);
            }
        };
        let end = running.watch(&mut lease, self.ending.clone()).await?;
        let until = lease.until;
        let verdict = match end {
            End::Lost => {
                say(name, &format!("{}: the lease was lost, the command killed", title(&delivery)));
                drop(delivery.into_receipt());
                return Ok(Outcome::Lost);
            }
            End::Told => Verdict::Nack(Duration::ZERO),
            End::Code(0) => Verdict::Ack,
            End::Code(code) if code == i32::from(BAD_MESSAGE) => Verdict::Reject,
            End::Code(_) | End::Signal(_) => {
                Verdict::Nack(back_off(self.arguments.retry_delay, delivery.attempt))
            }
        };
        if verdict != Verdict::Ack {
            say(name, &format!("{}: {}", title(&delivery), why(end, verdict)));
        }
        let (verdict, pause) = self.possible(verdict);
        let settled = self.settle(&delivery, verdict, until).await;
        let title = title(&delivery);
        drop(delivery.into_receipt());
        self.rest(pause).await;
        Ok(match settled {
            Ok(()) => Outcome::Settled(verdict),
            Err(error) => {
                say(name, &format!("{title}: not settled ({error}); it may come again"));
                Outcome::Lost
            }
        })
    }

    /// The verdict as the engine can take it, and how long to pause afterwards: where messages
    /// cannot be delayed, one that fails would come at once, again and again.
    fn possible(&self, verdict: Verdict) -> (Verdict, Duration) {
        match verdict {
            Verdict::Nack(delay) if self.promised.delays < Delays::Timed => {
                (Verdict::Nack(Duration::ZERO), delay.min(self.arguments.retry_delay))
            }
            verdict => (verdict, Duration::ZERO),
        }
    }

    /// Pauses, unless commands have to end.
    async fn rest(&self, pause: Duration) {
        let mut ending = self.ending.clone();
        tokio::select! {
            () = sleep(pause) => {}
            _ = ending.wait_for(|end| *end) => {}
        }
    }

    /// Settles a delivery, again and again while its lease lasts and the engine is away.
    async fn settle(
        &self,
        delivery: &Delivery,
        verdict: Verdict,
        until: Instant,
    ) -> leasehold::Result<()> {
        let receipts = [delivery.receipt.clone()];
        loop {
            match self.queues.settle(&receipts, verdict).await {
                Ok(_) => return Ok(()),
                Err(error) if error.retry == Retry::Never => return Err(error),
                Err(error) if Instant::now() + RETRY >= until => return Err(error),
                Err(_) => sleep(RETRY).await,
            }
        }
    }
}

/// The lease of a delivery that is being worked on.
struct Lease<'a> {
    worker: &'a Worker,
    delivery: &'a Delivery,
    /// Until then the message is certainly ours.
    until: Instant,
}

impl Lease<'_> {
    fn time(&self) -> Duration {
        self.worker.arguments.lease
    }

    /// Extends it once.
    async fn extend(&mut self) -> leasehold::Result<()> {
        let asked = Instant::now();
        if self.worker.promised.queues >= Queues::Leased {
            self.delivery.extend(self.time()).await?;
        }
        self.until = asked + self.time();
        Ok(())
    }

    /// Tells the helper until when a command may work on it.
    fn tell(&self, group: Group) {
        let now = Moment::now();
        let left = self.until.saturating_duration_since(Instant::now());
        self.worker.watcher().look_after(group, now, left);
    }

    /// Extends it before the command starts; false when the message is not ours.
    async fn extend_for_good(&mut self) -> bool {
        match self.extend().await {
            Ok(()) => true,
            Err(error) => {
                let what = format!("{}: not begun ({error})", title(self.delivery));
                say(&self.worker.arguments.name, &what);
                false
            }
        }
    }
}

fn back_off(first: Duration, attempt: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1).min(30));
    first.saturating_mul(doubled).min(BACK_OFF_MAX.max(first))
}

fn title(delivery: &Delivery) -> String {
    let attempt = delivery.attempt;
    match &delivery.content.id {
        Some(id) => format!("message {id}, attempt {attempt}"),
        None => format!("message with token {}, attempt {attempt}", delivery.token()),
    }
}

fn why(end: End, verdict: Verdict) -> String {
    let end = match end {
        End::Code(code) if code == i32::from(NOT_HAD) => "not now".to_owned(),
        End::Code(code) => format!("exit code {code}"),
        End::Signal(signal) => format!("ended by signal {signal}"),
        End::Told | End::Lost => "stopped".to_owned(),
    };
    match verdict {
        Verdict::Reject => format!("{end}; never again"),
        Verdict::Nack(Duration::ZERO) => format!("{end}; given back"),
        Verdict::Nack(delay) => format!("{end}; again in {}", span::show(delay)),
        Verdict::Ack => end,
    }
}

fn say(queue: &str, what: &str) {
    eprintln!("leasehold: queue {queue}: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_and_ends_at_an_hour() {
        let first = Duration::from_secs(5);
        assert_eq!(back_off(first, 1), first);
        assert_eq!(back_off(first, 4), Duration::from_secs(40));
        assert_eq!(back_off(first, 500), BACK_OFF_MAX);
        assert_eq!(back_off(Duration::from_secs(7200), 3), Duration::from_secs(7200));
    }
}
