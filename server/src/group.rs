//! A process group: the command that runs under a lock and everything it started.
//!
//! Signals go to the group, so that a shell's children end with the shell. A process that left the
//! group on purpose (`setsid`) is out of reach; the fencing token is what stops such a hand.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How often a group is asked whether it is gone. Nothing tells that: only a parent hears of its
/// child's end, and the group's members are somebody else's children.
pub const LOOK: Duration = Duration::from_millis(10);

/// A process group, by the number of its first member.
#[derive(Debug, Clone, Copy)]
pub struct Group(Pid);

impl Group {
    /// The group that a process opened.
    pub fn of(process: u32) -> Option<Self> {
        i32::try_from(process).ok().and_then(Pid::from_raw).map(Self)
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0.as_raw_pid()
    }

    /// Sends a signal to all members. A group that is gone needs none.
    pub fn signal(self, signal: Signal) {
        kill_process_group(self.0, signal).ok();
    }

    /// Ends all members, now.
    pub fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Whether nobody is left in it. A dead member that nobody reaped counts as left.
    pub fn is_gone(self) -> bool {
        test_kill_process_group(self.0) == Err(rustix::io::Errno::SRCH)
    }
}
