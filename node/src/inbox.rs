//! The inbox: where commands wait for the shard's next turn, and where clients are known.
//!
//! One mutex around two vectors that change places. The thread takes everything at once, so a
//! command costs a push under an uncontended lock and senders wake the thread only if it sleeps: a
//! wake-up across cores costs more than a hundred commands. Full means that senders wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use leasehold_core::{Command, Op};

use crate::client::Mailbox;
use crate::error::NodeError;
use crate::resident::{Bell, MoveIn, RESIDENT, Resident};

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    bytes: usize,
    sleeping: bool,
    /// Rung instead of waking the thread, once a resident waits in its stead.
    bell: Option<Bell>,
    /// A resident on its way to the thread.
    moving_in: Option<MoveIn>,
    senders_waiting: usize,
    closing: bool,
    stopped: Option<String>,
    clients: BTreeMap<u32, Arc<Mailbox>>,
    /// The number given last. Numbers are not used again soon: notices for a client that is gone
    /// must not reach the next one.
    last_client: u32,
}

/// See the module.
pub(crate) struct Inbox {
    state: Mutex<State>,
    work: Condvar,
    space: Condvar,
    commands_max: usize,
    bytes_max: usize,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

fn weight(command: &Command) -> usize {
    match &command.op {
        Op::Publish(publish) => publish.message.body.len(),
        Op::Commit(commit) => commit.publishes.iter().map(|p| p.message.body.len()).sum(),
        Op::Write(write) => write.value.as_ref().map_or(0, |value| value.len()),
        _ => 0,
    }
}

/// What [`Inbox::take`] found.
pub(crate) struct Taken {
    /// It is not closing, or there are commands to be finished.
    pub open: bool,
    /// Senders will ring.
    pub sleeps: bool,
}

impl Inbox {
    pub fn new(commands_max: usize, bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            space: Condvar::new(),
            commands_max,
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the inbox")
    }

    /// Gives a client its number and mailbox.
    pub fn join(&self) -> (u32, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.lock();
        if let Some(why) = &state.stopped {
            mailbox.close(why);
        }
        let mut id = state.last_client.wrapping_add(1).max(1);
        while state.clients.contains_key(&id) || id == RESIDENT {
            id = id.wrapping_add(1).max(1);
        }
        state.last_client = id;
        state.clients.insert(id, mailbox.clone());
        (id, mailbox)
    }

    pub fn forget(&self, id: u32) {
        self.lock().clients.remove(&id);
    }

    /// A client's mailbox.
    pub fn mailbox(&self, id: u32) -> Option<Arc<Mailbox>> {
        self.lock().clients.get(&id).cloned()
    }

    pub fn send(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), NodeError> {
        let mut state = self.lock();
        for command in commands {
            while state.commands.len() >= self.commands_max || state.bytes >= self.bytes_max {
                if std::mem::take(&mut state.sleeping) {
                    self.ring(state.bell.as_ref());
                }
                state.senders_waiting += 1;
                state = self.space.wait(state).expect("nobody panics while holding the inbox");
                state.senders_waiting -= 1;
                if state.stopped.is_some() {
                    break;
                }
            }
            if let Some(why) = &state.stopped {
                return Err(NodeError::Stopped(why.clone()));
            }
            state.bytes += weight(&command);
            state.commands.push(command);
        }
        self.wake(state);
        Ok(())
    }

    /// Sends one command if there is room, or gives it back. Never waits, so that threads which
    /// must not sleep can send.
    #[allow(clippy::result_large_err, reason = "the command comes back; boxing it would allocate")]
    pub fn try_send(&self, command: Command) -> Result<(), (Command, NodeError)> {
        let mut state = self.lock();
        if let Some(why) = &state.stopped {
            let why = why.clone();
            return Err((command, NodeError::Stopped(why)));
        }
        if state.commands.len() >= self.commands_max || state.bytes >= self.bytes_max {
            return Err((command, NodeError::Overloaded));
        }
        state.bytes += weight(&command);
        state.commands.push(command);
        self.wake(state);
        Ok(())
    }

    /// Takes all commands, sleeping up to `idle` while there are none. False when it is closing
    /// and empty.
    pub fn drain(&self, out: &mut Vec<Command>, idle: Option<Duration>) -> bool {
        let mut state = self.lock();
        let empty = state.commands.is_empty() && state.moving_in.is_none();
        if empty && !state.closing && idle != Some(Duration::ZERO) {
            state.sleeping = true;
            state = match idle {
                Some(idle) => {
                    let waited = self.work.wait_timeout(state, idle);
                    waited.expect("nobody panics while holding the inbox").0
                }
                None => self.work.wait(state).expect("nobody panics while holding the inbox"),
            };
            state.sleeping = false;
        }
        self.empty(state, out)
    }

    /// Lets the thread finish what is there and end.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.sleeping = true;
        self.wake(state);
    }

    /// Gives the thread a resident. It moves in at the next turn.
    pub fn lodge(&self, resident: MoveIn) {
        let mut state = self.lock();
        state.moving_in = Some(resident);
        state.sleeping = true;
        self.wake(state);
    }

    /// The resident that has come, whose bell is rung from now on.
    pub fn welcome(&self) -> Option<Box<dyn Resident>> {
        let move_in = self.lock().moving_in.take()?;
        let resident = move_in();
        self.lock().bell = Some(resident.bell());
        Some(resident)
    }

    /// Takes all commands without waiting. When there are none and the thread is about to wait at
    /// its resident's, says so to those who send.
    pub fn take(&self, out: &mut Vec<Command>, may_sleep: bool) -> Taken {
        let mut state = self.lock();
        state.sleeping = may_sleep && state.commands.is_empty() && !state.closing;
        let sleeps = state.sleeping;
        Taken { open: self.empty(state, out), sleeps }
    }

    /// Hands all commands over and lets senders go on. False when it is closing and was empty.
    fn empty(&self, mut state: MutexGuard<'_, State>, out: &mut Vec<Command>) -> bool {
        std::mem::swap(&mut state.commands, out);
        state.bytes = 0;
        let open = !state.closing || !out.is_empty();
        let wake = state.senders_waiting > 0;
        drop(state);
        if wake {
            self.space.notify_all();
        }
        open
    }

    /// Wakes the thread if it sleeps.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.sleeping) {
            let bell = state.bell.clone();
            drop(state);
            self.ring(bell.as_ref());
        }
    }

    fn ring(&self, bell: Option<&Bell>) {
        match bell {
            None => self.work.notify_one(),
            Some(bell) => bell(),
        }
    }

    /// Nothing is taken any more: tells all clients and waiting senders.
    pub fn stop(&self, why: &str) {
        let mut state = self.lock();
        state.stopped.get_or_insert_with(|| why.to_owned());
        state.commands.clear();
        state.clients.values().for_each(|mailbox| mailbox.close(why));
        drop(state);
        self.space.notify_all();
    }
}
