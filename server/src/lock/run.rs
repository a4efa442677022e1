//! `leasehold lock run`: a command that runs only while its lock is held.
//!
//! The command and all it starts form a process group. While the guard's own deadline moves ahead,
//! renewal by renewal, the group lives. When the deadline comes near without a renewal the group
//! gets TERM, a grace before the deadline, and KILL before it: so nobody of this group runs when
//! the engine may grant the lock to another. When the engine says that the lock was taken away the
//! group gets KILL at once, as another may hold it already. For the cases in which this process
//! cannot act, see [`watch`](crate::watch).

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use leasehold::engine::Ending;
use leasehold::{Error, ErrorKind, Leasehold, Lock, LockGuard, Retry};
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::show::held_by;
use crate::cli::Global;
use crate::failure::{Failure, LOST, NOT_FOUND, NOT_HAD, NOT_STARTED, REFUSED};
use crate::group::{Group, LOOK};
use crate::signals::Signals;
use crate::watch::{Moment, Place, Watcher};
use crate::{connect, span};

/// How long before the guard's deadline the group is killed, beyond the guard's own margin.
const AHEAD: Duration = Duration::from_millis(50);
/// How long a farewell to the engine may take; it ends the lock by itself in any case.
const FAREWELL: Duration = Duration::from_secs(2);
/// After so long a wait a person at a terminal is told for whom.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one look at the lock lasts; nothing is missed between two.
const WATCH: Duration = Duration::from_secs(60);
/// How long after an engine went away while we waited it is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Arguments of `lock run`.
#[derive(Debug, Args)]
#[command(after_help = "\
The command finds LEASEHOLD_LOCK, LEASEHOLD_TOKEN (the fencing token) and LEASEHOLD_URL in its \
environment. It does not read from the terminal. TERM, INT, HUP and QUIT are passed on to it and \
to everything it started; what is left of it when it ends is stopped, too.

Exit codes: the command's own, or 128 + n if signal n ended it; 70 if the lock was lost and the \
command stopped; 75 if the lock was not to be had in time; 126 or 127 if the command could not be \
started; 1 if the engine refused.")]
pub struct RunArgs {
    /// The lock
    name: String,
    /// How long to wait for it: a time, 0 to try once, or forever
    #[arg(long, value_name = "TIME", default_value = "forever", value_parser = parse_wait)]
    wait: WaitFor,
    /// How long the lock outlives this process; it is renewed three times within that
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = span::parse)]
    ttl: Duration,
    /// Share the lock with others who share it
    #[arg(long, conflicts_with_all = ["permits", "of"])]
    shared: bool,
    /// Take so many permits of a semaphore
    #[arg(long, value_name = "N", requires = "of")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    permits: Option<u32>,
    /// How many permits the semaphore has
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..))]
    of: Option<u32>,
    /// Keep the lock taken at least so long, even if the command is done sooner
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = span::parse)]
    at_least: Duration,
    /// Time for the command between TERM and KILL; at most half of --ttl
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = span::parse)]
    grace: Duration,
    /// What others see of the holder [default: user, machine, process and command]
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitFor {
    Forever,
    AtMost(Duration),
}

fn parse_wait(text: &str) -> Result<WaitFor, String> {
    match text {
        "forever" => Ok(WaitFor::Forever),
        time => span::parse(time).map(WaitFor::AtMost),
    }
}

/// Runs it.
pub async fn run(arguments: RunArgs, global: &Global) -> Result<ExitCode> {
    let asked = || format!("run under lock {}", arguments.name);
    arguments.check().with_context(asked)?;
    let mut signals = Signals::listen()?;
    let label = arguments.label.clone();
    let label = label.unwrap_or_else(|| connect::label(&arguments.command.join(" ")));
    let handle = connect::open(global, Some(label)).await.with_context(asked)?;
    let guard = tokio::select! {
        guard = acquire(&arguments, &handle) => guard.with_context(asked)?,
        signal = signals.next() => {
            // The session takes the waiter with it.
            timeout(FAREWELL, handle.close()).await.ok();
            return Ok(killed_by(signal.as_raw()));
        }
    };
    let since = Instant::now();
    let code = supervise(&arguments, &guard, signals, &handle, global).await;
    let stays = arguments.at_least.saturating_sub(since.elapsed());
    let farewell = async {
        match stays {
            Duration::ZERO => guard.release().await,
            stays => guard.leave(stays).await,
        }
    };
    match timeout(FAREWELL, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind == ErrorKind::Stale => {}
        Ok(Err(error)) => warn(&arguments.name, &format!("not released ({error})")),
        Err(_) => warn(&arguments.name, "not released in time; it ends by its TTL"),
    }
    timeout(FAREWELL, handle.close()).await.ok();
    code.with_context(asked)
}

impl RunArgs {
    fn check(&self) -> Result<()> {
        if self.ttl >= self.grace * 2 && !self.ttl.is_zero() {
            return Ok(());
        }
        let (ttl, grace) = (span::show(self.ttl), span::show(self.grace));
        Err(Failure::usage(format!(
            "--ttl {ttl} leaves no room for --grace {grace}: the lock has to live at least twice \
             as long as the command may take to end; give a longer --ttl or a shorter --grace"
        ))
        .into())
    }

    fn lock(&self, handle: &Leasehold) -> Lock {
        let lock = match self.of {
            Some(of) => handle.semaphore(self.name.as_str(), of).take(self.permits.unwrap_or(1)),
            None if self.shared => handle.lock(self.name.as_str()).shared(),
            None => handle.lock(self.name.as_str()),
        };
        lock.ttl(self.ttl)
    }
}

async fn acquire(arguments: &RunArgs, handle: &Leasehold) -> Result<LockGuard> {
    let asked = Instant::now();
    let tell = async {
        sleep(PATIENCE).await;
        if std::io::stderr().is_terminal()
            && let Ok(view) = handle.inspect(&arguments.name).await
        {
            eprintln!("leasehold: waiting for lock {}, {}", arguments.name, held_by(&view));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        guard = try_acquire(arguments, handle, asked) => guard,
        () = tell => unreachable!("it never ends"),
    }
}

async fn try_acquire(arguments: &RunArgs, handle: &Leasehold, asked: Instant) -> Result<LockGuard> {
    let lock = arguments.lock(handle);
    loop {
        let result = match arguments.wait {
            WaitFor::Forever => lock.acquire().await.map(Some),
            WaitFor::AtMost(Duration::ZERO) => lock.try_acquire().await,
            WaitFor::AtMost(wait) => {
                lock.acquire_within(wait.saturating_sub(asked.elapsed())).await.map(Some)
            }
        };
        match result {
            Ok(Some(guard)) => return Ok(guard),
            Ok(None) => return Err(not_had(arguments, handle).await),
            Err(Error { kind: ErrorKind::TimedOut | ErrorKind::Busy, .. }) => {
                return Err(not_had(arguments, handle).await);
            }
            // An engine that was never there is a mistake; one that went away while we waited
            // comes back after its restart.
            Err(error) if error.kind == ErrorKind::Unavailable && asked.elapsed() > PATIENCE => {
                if let WaitFor::AtMost(wait) = arguments.wait
                    && asked.elapsed() >= wait
                {
                    return Err(error.into());
                }
                sleep(RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn not_had(arguments: &RunArgs, handle: &Leasehold) -> anyhow::Error {
    let held = match handle.inspect(&arguments.name).await {
        Ok(view) => held_by(&view),
        Err(_) => "held by somebody else".to_owned(),
    };
    let advice = match arguments.wait {
        WaitFor::AtMost(Duration::ZERO) => "try later, or wait for it with --wait",
        _ => "try later, or wait longer with --wait",
    };
    Failure::new(NOT_HAD, format!("{held}; {advice}")).into()
}

/// Why the command is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The lock is lost, or will be.
    Lost,
    /// This process was told to end.
    Told,
}

/// A command under a lock.
struct Running<'a> {
    arguments: &'a RunArgs,
    guard: &'a LockGuard,
    group: Group,
    watcher: Watcher,
    stop: Option<Stop>,
    /// When the group is killed, if it was told to end.
    kill_at: Option<Instant>,
}

/// Runs the command to its end, which comes before the end of the lock.
async fn supervise(
    arguments: &RunArgs,
    guard: &LockGuard,
    mut signals: Signals,
    handle: &Leasehold,
    global: &Global,
) -> Result<ExitCode> {
    let what = format!("lock {}", arguments.name);
    let mut watcher = Watcher::start("lock run", &what, arguments.grace)?;
    let place = Place::open()?;
    let group = place.group();
    tell_deadline(&mut watcher, group, guard);
    let mut child = match start(arguments, guard, global, group) {
        Ok(child) => child,
        Err(error) => {
            watcher.finish();
            return Err(error);
        }
    };
    drop(place);
    let mut running = Running { arguments, guard, group, watcher, stop: None, kill_at: None };
    let mut lost = std::pin::pin!(guard.lost());
    let mut revoked = std::pin::pin!(revoked(handle, &arguments.name, guard.token()));
    let mut ended = false;
    let status = loop {
        let wake = running.look();
        tokio::select! {
            biased;
            ending = &mut lost, if !ended => {
                ended = true;
                running.lose(ending);
            }
            () = &mut revoked, if !ended => {
                ended = true;
                running.lose(Ending::Revoked);
            }
            status = child.wait() => break status.context("wait for the command")?,
            signal = signals.next() => running.pass_on(signal),
            () = sleep_until(wake) => {}
        }
    };
    let stop = running.stop;
    running.clear_up().await;
    Ok(match stop {
        Some(Stop::Lost) => ExitCode::from(LOST),
        _ => code_of(status),
    })
}

/// Resolves when somebody took the lock away. The guard of an engine that does not tell learns it
/// at its next renewal, which is late when another holds the lock already.
async fn revoked(handle: &Leasehold, name: &str, token: u64) {
    let Some(locks) = &handle.engine().locks else { return std::future::pending().await };
    let mut newest = Some(token);
    loop {
        match locks.watch(name, newest, WATCH).await {
            Ok(view) => newest = view.holders.first().map(|holder| holder.token),
            Err(error) if error.retry == Retry::Never => return std::future::pending().await,
            Err(_) => sleep(RETRY).await,
        }
        // The newest token of a lock that is shared may be another sharer's.
        if newest != Some(token) && matches!(locks.check(name, token).await, Ok(false)) {
            return;
        }
    }
}

/// Starts the command in its group.
fn start(arguments: &RunArgs, guard: &LockGuard, global: &Global, group: Group) -> Result<Child> {
    let program = &arguments.command[0];
    let mut command = Command::new(program);
    command.args(&arguments.command[1..]).process_group(group.number());
    command.env("LEASEHOLD_LOCK", &arguments.name);
    command.env("LEASEHOLD_TOKEN", guard.token().to_string());
    connect::pass_on(global, &mut command)?;
    if std::io::stdin().is_terminal() {
        // A background group that reads from the terminal is stopped by the kernel, for good.
        command.stdin(Stdio::null());
    }
    command.spawn().map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_STARTED,
        };
        let wrong = format!("start {program}: {error}; name a program that can be run");
        Failure::new(code, wrong).into()
    })
}

impl Running<'_> {
    /// Does what the time demands, and gives when to look again.
    fn look(&mut self) -> Instant {
        tell_deadline(&mut self.watcher, self.group, self.guard);
        let now = Instant::now();
        let ttl = self.arguments.ttl;
        let left = self.guard.remaining().unwrap_or(ttl).saturating_sub(AHEAD.min(ttl / 20));
        let mut wake = now + (ttl / 4).min(left);
        if left.is_zero() || self.kill_at.is_some_and(|at| now >= at) {
            self.stop.get_or_insert(Stop::Lost);
            self.group.kill();
            // The command cannot refuse; what is left is to wait for its end.
            return now + ttl;
        }
        if left <= self.arguments.grace && self.stop.is_none() {
            warn(&self.arguments.name, "not renewed in time; the command is being stopped");
            self.stop = Some(Stop::Lost);
            self.kill_at = Some(now + self.arguments.grace);
            self.group.signal(Signal::TERM);
        }
        if self.stop.is_none() {
            wake = wake.min(now + left.saturating_sub(self.arguments.grace));
        }
        self.kill_at.map_or(wake, |at| wake.min(at))
    }

    /// The guard says that the lock is gone.
    fn lose(&mut self, ending: Ending) {
        self.group.kill();
        self.stop = Some(Stop::Lost);
        warn(&self.arguments.name, &format!("lost ({ending}); the command was stopped"));
    }

    fn pass_on(&mut self, signal: Signal) {
        self.group.signal(signal);
        // INT is for the command to judge: some use it to interrupt, not to end.
        if signal != Signal::INT && self.stop.is_none() {
            self.stop = Some(Stop::Told);
            self.kill_at = Some(Instant::now() + self.arguments.grace);
        }
    }

    /// Ends what the command left behind: the lock covers it too.
    async fn clear_up(self) {
        if !self.group.is_gone() && self.stop.is_none() {
            warn(&self.arguments.name, "the command left processes behind; they are being stopped");
        }
        let left = self.guard.remaining().unwrap_or(self.arguments.grace).saturating_sub(AHEAD);
        let until = Instant::now() + left.min(self.arguments.grace);
        self.group.signal(Signal::TERM);
        while !self.group.is_gone() && Instant::now() < until {
            sleep(LOOK).await;
        }
        self.group.kill();
        self.watcher.finish();
    }
}

fn tell_deadline(watcher: &mut Watcher, group: Group, guard: &LockGuard) {
    let now = Moment::now();
    watcher.look_after(group, now, guard.remaining().unwrap_or(Duration::MAX));
}

fn code_of(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(REFUSED)),
        (None, signal) => killed_by(signal.unwrap_or(0)),
    }
}

/// What shells give for a process that a signal ended.
fn killed_by(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(REFUSED))
}

fn warn(lock: &str, what: &str) {
    eprintln!("leasehold: lock {lock}: {what}");
}
