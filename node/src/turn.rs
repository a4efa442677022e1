//! The loop: drain the inbox, take a turn, hand out the notices.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::Command;
use leasehold_env::{Clock, Disk};
use leasehold_journal::JournalError;

use crate::client::{Mailbox, Notice};
use crate::inbox::Inbox;
use crate::resident::{RESIDENT, Resident};
use crate::shard::Shard;

/// Turns the shard until the inbox closes, then closes the shard.
pub(crate) fn run<D: Disk>(
    mut shard: Shard<D>,
    clock: &impl Clock,
    inbox: &Inbox,
) -> Result<(), JournalError> {
    let mut commands: Vec<Command> = Vec::new();
    let mut post = Post::default();
    let mut resident: Option<Box<dyn Resident>> = None;
    loop {
        let idle = shard.idle_us().map(Duration::from_micros);
        let open = match &mut resident {
            None => inbox.drain(&mut commands, idle),
            Some(resident) => {
                let taken = inbox.take(&mut commands, idle != Some(Duration::ZERO));
                // It looks at its sockets in any case.
                resident.wait(if taken.sleeps { idle } else { Some(Duration::ZERO) });
                taken.open
            }
        };
        if let Some(new) = inbox.welcome() {
            resident = Some(new);
        }
        let turn_max = shard.options.turn_commands.max(1);
        // Without commands it was a timer, a sync or a chore that woke it: one turn for those.
        let mut due = true;
        while due || !commands.is_empty() {
            shard.begin(clock);
            let take = commands.len().min(turn_max);
            for command in commands.drain(..take) {
                shard.submit(command);
            }
            if let Some(resident) = resident.as_mut().filter(|_| due) {
                resident.turn(&mut shard);
            }
            shard.finish(clock);
            post.hand_out(&mut shard, inbox, resident.as_deref_mut());
            if let Some(resident) = &mut resident
                && shard.stopped().is_none()
            {
                resident.leave(shard.released());
            }
            due = false;
        }
        if let Some(why) = shard.stopped() {
            inbox.stop(why);
            if let Some(resident) = &mut resident {
                resident.end(Some(why));
            }
            return shard.close(clock);
        }
        if !open {
            if let Some(resident) = &mut resident {
                resident.end(None);
            }
            let result = shard.close(clock);
            inbox.stop("it was closed");
            return result;
        }
    }
}

/// Notices on their way to one mailbox after the other.
#[derive(Default)]
struct Post {
    batch: Vec<(u32, Notice)>,
    client: u32,
    mailbox: Option<Arc<Mailbox>>,
}

impl Post {
    fn hand_out<D: Disk>(
        &mut self,
        shard: &mut Shard<D>,
        inbox: &Inbox,
        mut resident: Option<&mut (dyn Resident + 'static)>,
    ) {
        let max = shard.options.mailbox_notices;
        let mut dropped = 0;
        for held in shard.take_ready_held() {
            let client = (held.ticket.0 >> 32) as u32;
            if client == RESIDENT {
                if let Some(resident) = &mut resident {
                    resident.notice(held.ticket.0 as u32, held.notice);
                }
                continue;
            }
            if client != self.client || self.mailbox.is_none() {
                dropped += self.flush(max);
                self.client = client;
                self.mailbox = inbox.mailbox(client);
            }
            self.batch.push((held.ticket.0 as u32, held.notice));
        }
        dropped += self.flush(max);
        self.mailbox = None;
        shard.counters.notices_dropped += dropped;
    }

    fn flush(&mut self, max: usize) -> u64 {
        let count = self.batch.len() as u64;
        if count == 0 {
            return 0;
        }
        let delivered = self.mailbox.as_ref().is_some_and(|m| m.put(&mut self.batch, max));
        self.batch.clear();
        if delivered { 0 } else { count }
    }
}
