//! The second pair of hands behind `lock run` and `queue work`: a helper process in a session of
//! its own, which ends a command's group when the supervisor cannot.
//!
//! The supervisor tells it, over a pipe, which groups there are and until when each may live, on
//! the clock that all processes share. Two things can happen:
//! * The pipe closes without a farewell: the supervisor is dead (kill -9, out of memory). Nobody
//!   renews locks and leases any more, so the groups get TERM, and KILL after the grace or at
//!   their deadlines.
//! * A deadline passes with the pipe open: the supervisor is stopped (SIGSTOP, Ctrl-Z, a
//!   debugger). The group gets KILL.
//!
//! There is no moment in which a command runs that the helper does not know: a [`Place`] opens the
//! group with a process that does nothing, the group is named to the helper, and only then is the
//! command started, straight into it. What was written into the pipe is read even if the
//! supervisor dies right after.
//!
//! Rejected: `PR_SET_PDEATHSIG`, which reaches the command but not its children, and has to be set
//! between fork and exec, in `unsafe` code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::group::{Group, LOOK};

/// What a process is called with to be the helper.
const HELPER: &str = "group-watch";
/// What a process is called with to hold a place.
const PLACE: &str = "group-place";
/// What the helper says when it is ready.
const READY: &str = "ready\n";

/// What the supervisor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// A group to look after, and until when it may live, nanoseconds of the monotonic clock. Of
    /// a group that is known already: the new deadline.
    Group(i32, u64),
    /// A group that needs nobody any more.
    Gone(i32),
    /// There is nothing left to look after.
    Done,
}

impl Word {
    fn line(self) -> String {
        match self {
            Self::Group(number, until) => format!("group {number} {until}\n"),
            Self::Gone(number) => format!("gone {number}\n"),
            Self::Done => "done\n".to_owned(),
        }
    }

    fn read(line: &str) -> Option<Self> {
        let parts: Vec<&str> = line.split(' ').collect();
        match parts[..] {
            ["group", number, until] => {
                Some(Self::Group(number.parse().ok()?, until.parse().ok()?))
            }
            ["gone", number] => number.parse().ok().map(Self::Gone),
            ["done"] => Some(Self::Done),
            _ => None,
        }
    }
}

/// The clock that all processes of a machine share, nanoseconds.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Now, for a deadline that is told later. It is read before what is left of it: if this process
/// is stopped between the two, the deadline told is too early, not too late.
#[derive(Debug, Clone, Copy)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self(monotonic())
    }

    fn after(self, time: Duration) -> u64 {
        self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The duty of a process that was started by one of ours.
pub enum Duty {
    /// To look after groups.
    Watch {
        /// What the groups work for, such as `lock nightly`.
        what: String,
        /// The command that started them, such as `lock run`.
        by: String,
        /// The time between TERM and KILL.
        grace: Duration,
    },
    /// To hold a place until stdin closes.
    Place,
}

/// The duty of this process, if it has one.
pub fn duty(mut arguments: impl Iterator<Item = OsString>) -> Option<Duty> {
    let name = arguments.nth(1)?;
    if name == PLACE {
        return Some(Duty::Place);
    }
    if name != HELPER {
        return None;
    }
    let grace = arguments.next()?.to_str()?.parse().ok()?;
    let (by, what) = (arguments.next()?.into_string().ok()?, arguments.next()?.into_string().ok()?);
    Some(Duty::Watch { what, by, grace: Duration::from_millis(grace) })
}

/// Does it.
pub fn run(duty: Duty) -> Result<ExitCode> {
    match duty {
        Duty::Watch { what, by, grace } => Watched { what, by, grace, ..Watched::default() }.run(),
        Duty::Place => {
            let mut nothing = [0; 1];
            std::io::stdin().read(&mut nothing).context("wait for the end of stdin")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What the helper looks after.
#[derive(Default)]
struct Watched {
    what: String,
    by: String,
    grace: Duration,
    groups: BTreeMap<i32, (Group, u64)>,
}

impl Watched {
    /// The helper's life.
    fn run(mut self) -> Result<ExitCode> {
        // Out of the terminal's reach: Ctrl-C and Ctrl-Z are for the supervisor and the command.
        rustix::process::setsid().context("leave the session")?;
        let mut out = std::io::stdout();
        out.write_all(READY.as_bytes()).and_then(|()| out.flush()).context("say: ready")?;
        let mut unread = String::new();
        loop {
            let soonest = self.groups.values().map(|(_, until)| *until).min();
            match heard(soonest, &mut unread)? {
                Heard::Late => self.kill_late(),
                Heard::Silence => {
                    self.stop_all();
                    return Ok(ExitCode::SUCCESS);
                }
                Heard::Text => {}
            }
            while let Some(end) = unread.find('\n') {
                match Word::read(&unread[..end]) {
                    Some(Word::Group(number, until)) => {
                        if let Some(group) = u32::try_from(number).ok().and_then(Group::of) {
                            self.groups.insert(number, (group, until));
                        }
                    }
                    Some(Word::Gone(number)) => drop(self.groups.remove(&number)),
                    Some(Word::Done) => return Ok(ExitCode::SUCCESS),
                    None => {}
                }
                unread.drain(..=end);
            }
        }
    }

    fn kill_late(&mut self) {
        let now = monotonic();
        let late = self.groups.extract_if(.., |_, (_, until)| *until <= now);
        let late: Vec<Group> = late.map(|(_, (group, _))| group).collect();
        for group in late {
            group.kill();
            self.say(&format!("not renewed, as `leasehold {}` stood still", self.by));
        }
    }

    fn stop_all(&self) {
        let grace = Moment::now().after(self.grace);
        self.groups.values().for_each(|(group, _)| group.signal(Signal::TERM));
        let mut left: Vec<(Group, u64)> = self.groups.values().copied().collect();
        while !left.is_empty() {
            left.retain(|(group, until)| {
                let late = monotonic() >= grace.min(*until);
                if late {
                    group.kill();
                }
                !late && !group.is_gone()
            });
            std::thread::sleep(LOOK);
        }
        if !self.groups.is_empty() {
            self.say(&format!("`leasehold {}` died", self.by));
        }
    }

    fn say(&self, why: &str) {
        // Whoever read stderr may be gone with the supervisor.
        let what = &self.what;
        writeln!(std::io::stderr(), "leasehold: {what}: {why}; the command was stopped").ok();
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
        let mut bytes = [0; 4096];
        let count = rustix::io::read(&stdin, &mut bytes).context("hear the supervisor")?;
        if count == 0 {
            return Ok(Heard::Silence);
        }
        unread.push_str(&String::from_utf8_lossy(&bytes[..count]));
        return Ok(Heard::Text);
    }
}

fn ourselves() -> Result<Command> {
    std::env::current_exe().map(Command::new).context("find the program of this process")
}

/// A helper as the supervisor holds it. Dropping it without a farewell counts as the
/// supervisor's death.
pub struct Watcher {
    process: Child,
    told: Option<ChildStdin>,
}

impl Watcher {
    /// Starts the helper and waits until it is ready.
    pub fn start(by: &str, what: &str, grace: Duration) -> Result<Self> {
        let mut process = ourselves()?
            .args([HELPER, &grace.as_millis().to_string(), by, what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the helper that looks after the command")?;
        let mut ready = [0; READY.len()];
        let mut out = process.stdout.take().context("hear the helper")?;
        out.read_exact(&mut ready).context("wait for the helper that looks after the command")?;
        let told = process.stdin.take();
        Ok(Self { process, told })
    }

    /// Tells it of a group, or of its new deadline.
    pub fn look_after(&mut self, group: Group, from: Moment, left: Duration) {
        self.tell(Word::Group(group.number(), from.after(left)));
    }

    /// Tells it that a group needs nobody any more.
    pub fn let_go(&mut self, group: Group) {
        self.tell(Word::Gone(group.number()));
    }

    /// Without the helper this process still does its part.
    fn tell(&mut self, word: Word) {
        if let Some(told) = &mut self.told {
            told.write_all(word.line().as_bytes()).ok();
        }
    }

    /// Lets it go; it is gone when this returns.
    pub fn finish(mut self) {
        // A helper that is dead already hears nothing, and needs not.
        self.tell(Word::Done);
        drop(self.told.take());
        self.process.wait().ok();
    }
}

/// A group that is there before its command: a process in it waits for the end of its stdin, which
/// comes with this value's end or the supervisor's.
pub struct Place {
    process: Child,
    group: Group,
}

impl Place {
    /// Opens a group.
    pub fn open() -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = ourselves()?;
        command.arg(PLACE).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.process_group(0).spawn().context("open a group for the command")?;
        let group = Group::of(process.id()).context("the group has no number")?;
        Ok(Self { process, group })
    }

    /// The group.
    pub fn group(&self) -> Group {
        self.group
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // Killed and waited for, so that it does not count as left in the group.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_as_they_are_written() {
        for word in [Word::Group(7, u64::MAX), Word::Gone(7), Word::Done] {
            assert_eq!(Word::read(word.line().trim_end()), Some(word));
        }
        assert_eq!(Word::read("group 7 soon"), None);
    }
}
