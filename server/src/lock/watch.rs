//! The second pair of hands behind `lock run`: a helper process in a session of its own, which
//! ends the command's group when the supervisor cannot.
//!
//! The supervisor tells it, over a pipe, which group there is and until when the lock is certainly
//! held, on the clock that all processes share. Two things can happen:
//! * The pipe closes without a farewell: the supervisor is dead (kill -9, out of memory). Nobody
//!   renews the lock any more, so the group gets TERM, and KILL after the grace or at the deadline.
//! * The deadline passes with the pipe open: the supervisor is stopped (SIGSTOP, Ctrl-Z, a
//!   debugger). The group gets KILL.
//!
//! Rejected: `PR_SET_PDEATHSIG`, which reaches the command but not its children, and has to be set
//! between fork and exec, in `unsafe` code. What remains is the moment between the start of the
//! command and the line that names its group: a supervisor killed within those microseconds leaves
//! the command running.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::group::{Group, LOOK};

/// What a process is called with to be the helper.
const NAME: &str = "lock-watch";
/// What the helper says when it is ready.
const READY: &str = "ready\n";

/// What the supervisor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The group to look after.
    Group(i32),
    /// Until when, in nanoseconds of the monotonic clock, the group may live.
    Until(u64),
    /// The group is gone; so may the helper.
    Done,
}

impl Word {
    /// As a line.
    pub fn line(self) -> String {
        match self {
            Self::Group(number) => format!("group {number}\n"),
            Self::Until(time) => format!("until {time}\n"),
            Self::Done => "done\n".to_owned(),
        }
    }

    fn read(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            Some(("group", number)) => number.parse().ok().map(Self::Group),
            Some(("until", time)) => time.parse().ok().map(Self::Until),
            None if line == "done" => Some(Self::Done),
            _ => None,
        }
    }
}

/// The clock that all processes of a machine share, nanoseconds.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// What a helper is told when it is started.
pub struct Duty {
    lock: String,
    grace: Duration,
}

/// The duty of this process, if it was started as the helper.
pub fn duty(mut arguments: impl Iterator<Item = OsString>) -> Option<Duty> {
    arguments.nth(1).filter(|name| name == NAME)?;
    let grace = arguments.next()?.to_str()?.parse().ok()?;
    let lock = arguments.next()?.into_string().ok()?;
    Some(Duty { lock, grace: Duration::from_millis(grace) })
}

/// The helper's life.
pub fn watch(duty: &Duty) -> Result<ExitCode> {
    // Out of the terminal's reach: Ctrl-C and Ctrl-Z are for the supervisor and the command.
    rustix::process::setsid().context("leave the session")?;
    let mut out = std::io::stdout();
    out.write_all(READY.as_bytes()).and_then(|()| out.flush()).context("say that it is ready")?;
    let mut watched = Watched { duty, group: None, until: None };
    let mut unread = String::new();
    loop {
        match heard(watched.until, &mut unread)? {
            Heard::Late => {
                watched.kill();
                return Ok(ExitCode::SUCCESS);
            }
            Heard::Silence => {
                watched.stop();
                return Ok(ExitCode::SUCCESS);
            }
            Heard::Text => {}
        }
        while let Some(end) = unread.find('\n') {
            match Word::read(&unread[..end]) {
                Some(Word::Group(number)) => {
                    watched.group = u32::try_from(number).ok().and_then(Group::of);
                }
                Some(Word::Until(time)) => watched.until = Some(time),
                Some(Word::Done) => return Ok(ExitCode::SUCCESS),
                None => {}
            }
            unread.drain(..=end);
        }
    }
}

enum Heard {
    Text,
    Silence,
    Late,
}

/// Waits for more text until the deadline. What is in the pipe already counts, however late it is
/// read: it says until when in absolute time.
fn heard(until: Option<u64>, unread: &mut String) -> Result<Heard> {
    let stdin = std::io::stdin();
    loop {
        let left = until.map(|until| Duration::from_nanos(until.saturating_sub(monotonic())));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(Heard::Late),
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error).context("wait for the supervisor"),
        }
        let mut bytes = [0; 256];
        let count = rustix::io::read(&stdin, &mut bytes).context("hear the supervisor")?;
        if count == 0 {
            return Ok(Heard::Silence);
        }
        unread.push_str(&String::from_utf8_lossy(&bytes[..count]));
        return Ok(Heard::Text);
    }
}

struct Watched<'a> {
    duty: &'a Duty,
    group: Option<Group>,
    until: Option<u64>,
}

impl Watched<'_> {
    fn kill(&self) {
        if let Some(group) = self.group {
            group.kill();
            self.say("not renewed, as `leasehold lock run` stood still");
        }
    }

    fn stop(&self) {
        let Some(group) = self.group else { return };
        group.signal(Signal::TERM);
        let grace = u64::try_from(self.duty.grace.as_nanos()).unwrap_or(u64::MAX);
        let grace = monotonic().saturating_add(grace);
        let until = self.until.map_or(grace, |until| until.min(grace));
        while !group.is_gone() && monotonic() < until {
            std::thread::sleep(LOOK);
        }
        group.kill();
        self.say("`leasehold lock run` died");
    }

    fn say(&self, why: &str) {
        // Whoever read stderr may be gone with the supervisor.
        let lock = &self.duty.lock;
        writeln!(std::io::stderr(), "leasehold: lock {lock}: {why}; the command was stopped").ok();
    }
}

/// A helper as the supervisor holds it. Dropping it without a farewell counts as the
/// supervisor's death.
pub struct Watcher {
    process: std::process::Child,
    told: Option<std::process::ChildStdin>,
}

impl Watcher {
    /// Starts the helper and waits until it is ready.
    pub fn start(lock: &str, grace: Duration) -> Result<Self> {
        let program = std::env::current_exe().context("find the program of this process")?;
        let mut process = std::process::Command::new(program)
            .arg(NAME)
            .arg(grace.as_millis().to_string())
            .arg(lock)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("start the helper that looks after the command")?;
        let mut ready = [0; READY.len()];
        let mut out = process.stdout.take().context("hear the helper")?;
        out.read_exact(&mut ready).context("wait for the helper that looks after the command")?;
        let told = process.stdin.take();
        Ok(Self { process, told })
    }

    /// Tells it something.
    pub fn tell(&mut self, word: Word) -> std::io::Result<()> {
        match &mut self.told {
            Some(told) => told.write_all(word.line().as_bytes()),
            None => Ok(()),
        }
    }

    /// Lets it go; it is gone when this returns.
    pub fn finish(mut self) {
        // A helper that is dead already hears nothing, and needs not.
        self.tell(Word::Done).ok();
        drop(self.told.take());
        self.process.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_as_they_are_written() {
        for word in [Word::Group(7), Word::Until(u64::MAX), Word::Done] {
            assert_eq!(Word::read(word.line().trim_end()), Some(word));
        }
        assert_eq!(Word::read("until soon"), None);
    }
}
