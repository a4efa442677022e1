//! `decide`: all rules. A command is checked whole before its first event, so a refusal leaves no
//! trace; after it, whoever waited for what it freed is served in the same step.

mod commit;
mod consume;
mod deadlock;
mod delays;
mod flight;
mod list;
mod lock;
mod pages;
mod publish;
mod queue;
mod register;
mod route;
mod serve;
mod session;
mod space;
mod topology;
mod wait;
mod watch;

use alloc::vec::Vec;

pub use pages::SegmentUse;

use crate::event::Answered;
use crate::outcome::{Outcome, Refusal};
use crate::step::Step;
use crate::volatile::{Timer, Watched};
use crate::{Command, Op, RequestId, Ticket, Time, Token, Verdict};

/// Kinds of remembered answers; numbers are part of the file format.
pub(crate) mod answer {
    pub const DONE: u8 = 0;
    /// a: token.
    pub const GRANTED: u8 = 1;
    /// a: entries left.
    pub const RELEASED: u8 = 2;
    /// a: queues, b: duplicates.
    pub const PUBLISHED: u8 = 3;
    /// a: deliveries settled.
    pub const SETTLED: u8 = 4;
    /// a: version.
    pub const WRITTEN: u8 = 5;
    /// a: first version, b: how many registers were written, with consecutive versions.
    pub const COMMITTED: u8 = 6;
    /// a: token.
    pub const RENEWED: u8 = 7;
}

impl Step<'_> {
    // long: one arm per command, each a single call.
    pub(crate) fn carry_out(&mut self, command: Command) {
        let Command { ticket, session, request, op } = command;
        if let Some(id) = request
            && let Some(answer) = self.remembered(id)
        {
            let result = self.answer_again(answer);
            return self.reply(ticket, result);
        }
        if let Some(bytes) = self.group_bytes(&op) {
            // A group never spans two segments: what fits into none is refused before it begins.
            let frame_bytes = 128;
            let segment_bytes = self.d.shape.segment_bytes as usize;
            let most = segment_bytes.saturating_sub(crate::step::EVENT_BYTES + frame_bytes);
            if let Err(refusal) = Self::check_size("the command's journal room", bytes, most) {
                return self.reply_early(ticket, Err(refusal));
            }
            self.together(bytes);
        }
        match op {
            Op::OpenSession { ttl_us, resume, label } => {
                let result = self.open_session(ticket, ttl_us, resume, label);
                self.reply(ticket, result);
            }
            Op::KeepAlive => {
                let result = self.keep_alive(session);
                self.reply_early(ticket, result);
            }
            Op::CloseSession { lost } => {
                let result = self.close_session(session, lost);
                self.reply_early(ticket, result);
            }
            Op::Acquire(acquire) => self.acquire(ticket, session, request, acquire),
            Op::Cancel(waiting) => {
                let result = self.cancel(session, waiting);
                self.reply_early(ticket, result);
            }
            Op::Renew { hold, ttl_us } => {
                let result = self.renew(session, request, &hold, ttl_us);
                self.reply(ticket, result);
            }
            Op::Release(hold) => {
                let result = self.release(session, request, &hold);
                self.reply_early(ticket, result);
            }
            Op::ForceRelease(name) => {
                let result = self.force_release(&name);
                self.reply_early(ticket, result);
            }
            Op::Check(name, token) => {
                let held = self.check_token(&name, token).is_ok();
                self.reply(ticket, Ok(Outcome::Held(held)));
            }
            Op::InspectLock(name) => {
                let view = self.inspect_lock(&name);
                self.reply_early(ticket, Ok(view));
            }
            Op::WatchLock { name, known, wait } => {
                let known = known.map(|token| token.0);
                self.watch(ticket, session, Watched::Lock(name), known, wait);
            }
            Op::WatchRegister { key, known, wait } => {
                self.watch(ticket, session, Watched::Register(key), known, wait);
            }
            Op::List(list) => {
                let result = self.list(&list);
                self.reply(ticket, result);
            }
            Op::Read(key) => {
                let view = self.read_register(&key);
                self.reply(ticket, Ok(view));
            }
            Op::Write(write) => {
                let result = self.write_register(request, &write);
                self.reply(ticket, result);
            }
            Op::DeclareQueue(name, config) => {
                let result = self.declare_queue(session, name, &config);
                self.reply(ticket, result);
            }
            Op::DeleteQueue { name, if_unused, if_empty } => {
                let result = self.delete_queue_named(session, &name, if_unused, if_empty);
                self.reply(ticket, result);
            }
            Op::Purge(name) => {
                let result = self.purge(session, &name);
                self.reply_early(ticket, result);
            }
            Op::Pause(name, paused) => {
                let result = self.pause(&name, paused);
                self.reply(ticket, result);
            }
            Op::InspectQueue(name) => {
                let result = self.inspect_queue(&name);
                self.reply_early(ticket, result);
            }
            Op::DeclareExchange(name, config) => {
                let result = self.declare_exchange(&name, config);
                self.reply(ticket, result);
            }
            Op::DeleteExchange { name, if_unused } => {
                let result = self.delete_exchange_named(&name, if_unused);
                self.reply(ticket, result);
            }
            Op::Bind(binding) => {
                let result = self.bind(session, &binding);
                self.reply(ticket, result);
            }
            Op::Unbind(binding) => {
                let result = self.unbind(session, &binding);
                self.reply(ticket, result);
            }
            Op::Publish(publish) => {
                let result = self.publish(session, request, &publish);
                if publish.message.transient {
                    self.reply_early(ticket, result);
                } else {
                    self.reply(ticket, result);
                }
            }
            Op::Consume(consume) => self.consume(ticket, session, *consume),
            Op::StopConsumer(id) => {
                let result = self.stop_consumer(session, id);
                self.reply_early(ticket, result);
            }
            Op::Credit(id, credit) => {
                let result = self.set_credit(session, id, credit);
                self.reply_early(ticket, result);
            }
            Op::Settle(receipt, verdict) => {
                let result = self.settle_flight(session, request, receipt, verdict);
                self.reply_early(ticket, result);
            }
            Op::SettleMany(receipts, verdict) => {
                let result = self.settle_many(session, request, &receipts, verdict);
                self.reply_early(ticket, result);
            }
            Op::Extend(receipt, lease_us) => {
                let result = self.extend(session, receipt, lease_us);
                self.reply_early(ticket, result);
            }
            Op::Peek(name, max) => {
                let result = self.peek(session, &name, max);
                self.reply_early(ticket, result);
            }
            Op::Redrive { from, to, max } => {
                let result = self.redrive(session, &from, to.as_ref(), max);
                self.reply_early(ticket, result);
            }
            Op::Commit(commit) => {
                let result = self.commit(request, &commit);
                self.reply(ticket, result);
            }
            Op::Relocate(relocation) => {
                let result = self.relocate(&relocation);
                self.reply_early(ticket, result);
            }
        }
    }

    /// How much journal room a command needs beside the usual, if its events belong together.
    /// Those that end many things do so one by one: each end is complete in itself.
    fn group_bytes(&self, op: &Op) -> Option<usize> {
        // A message may reach so many queues, when it is published and when it dies.
        let arrivals = 16 * self.d.queues.len().min(self.v.limits.fan_out_max);
        let settle = self.v.limits.move_bytes() + arrivals;
        match op {
            Op::Publish(publish) => Some(publish.bytes() + arrivals),
            Op::Bind(_) | Op::Unbind(_) => Some(2 * self.v.limits.headers_bytes),
            Op::Write(write) => Some(write.bytes()),
            Op::Settle(..) => Some(settle),
            Op::SettleMany(receipts, Verdict::Ack) => Some(receipts.len() * 64),
            Op::Commit(commit) => Some(
                commit.settles.len() * settle
                    + commit.publishes.iter().map(|p| p.bytes() + arrivals).sum::<usize>()
                    + commit.writes.iter().map(crate::Write::bytes).sum::<usize>()
                    + commit.releases.len() * 64,
            ),
            Op::Relocate(relocation) => {
                let page = self.d.shape.page_entries as usize * self.v.limits.entry_bytes();
                Some(relocation.records.iter().map(|(_, r)| r.len() + 64).sum::<usize>() + page)
            }
            Op::SettleMany(..)
            | Op::OpenSession { .. }
            | Op::CloseSession { .. }
            | Op::DeleteQueue { .. }
            | Op::Purge(_)
            | Op::Redrive { .. }
            | Op::ForceRelease(_) => None,
            _ => Some(0),
        }
    }

    /// The answer to a request that was carried out before.
    fn remembered(&self, id: RequestId) -> Option<Answered> {
        let oldest = self.now.saturating_sub(self.d.shape.request_window_us);
        self.d.requests.get(id.0, oldest).copied()
    }

    fn answer_again(&mut self, answered: Answered) -> Result<Outcome, Refusal> {
        let Answered { kind, a, b } = answered;
        Ok(match kind {
            answer::DONE => Outcome::Done,
            answer::GRANTED => {
                let slot = self.d.grant_with(a).ok_or(Refusal::RequestSpent)?;
                let grant = &self.d.grants[slot];
                let left_us = self.left(grant.deadline);
                Outcome::Granted { token: Token(a), left_us, entries: grant.entries }
            }
            answer::RENEWED => {
                let slot = self.d.grant_with(a).ok_or(Refusal::RequestSpent)?;
                Outcome::Renewed { left_us: self.left(self.d.grants[slot].deadline) }
            }
            answer::RELEASED => Outcome::Released { entries: a as u32 },
            answer::PUBLISHED => Outcome::Published { queues: a as u32, duplicates: b as u32 },
            answer::SETTLED => Outcome::Settled(a as u32),
            answer::WRITTEN => Outcome::Written { version: a },
            answer::COMMITTED => Outcome::Committed { versions: (a..a + b).collect() },
            _ => return Err(Refusal::RequestSpent),
        })
    }

    /// Time left until a deadline; `None` when there is none.
    pub(crate) fn left(&self, deadline: Time) -> Option<Time> {
        (deadline != 0).then(|| deadline.saturating_sub(self.now))
    }

    /// Checks a duration against the limits.
    pub(crate) fn check_time(&self, what: &'static str, time: Time) -> Result<Time, Refusal> {
        let (min, max) = (self.v.limits.ttl_us_min, self.v.limits.ttl_us_max);
        if (min..=max).contains(&time) {
            Ok(time)
        } else {
            Err(Refusal::Time(what, time, min, max))
        }
    }

    /// Checks a size against a limit.
    pub(crate) fn check_size(what: &'static str, is: usize, max: usize) -> Result<(), Refusal> {
        if is <= max { Ok(()) } else { Err(Refusal::TooLarge(what, is as u64, max as u64)) }
    }

    /// Refuses one more of something that is at its limit.
    pub(crate) fn check_limit(what: &'static str, is: usize, max: usize) -> Result<(), Refusal> {
        if is < max { Ok(()) } else { Err(Refusal::Limit(what, max as u64)) }
    }

    /// Serves whoever waited for what the step freed, up to a bound; the rest is left for a tick.
    pub(crate) fn settle(&mut self) {
        while let Some(name) = self.v.free.pop() {
            self.serve_line(&name);
        }
        self.answer_watchers();
        let mut work = self.v.limits.work_per_step;
        loop {
            while work > 0
                && let Some(slot) = self.v.busy.pop()
            {
                self.v.queue_mut(slot).listed = false;
                self.serve_queue(slot, &mut work);
            }
            let room = self.v.flights.len() < self.v.limits.in_flight_max;
            let Some(slot) = self.v.crowded.pop_front_if(|_| room) else { break };
            self.v.queue_mut(slot).crowded = false;
            self.look_at(slot);
        }
        if self.d.delays.fresh.len() > self.v.limits.delayed_entries {
            self.start_run();
        }
        if self.d.resident > self.v.limits.resident_entries && !self.keeps_pages {
            self.evict();
        }
    }

    /// Notes that a queue has to be looked at before the step ends.
    #[inline]
    pub(crate) fn look_at(&mut self, queue: u32) {
        let side = self.v.queue_mut(queue);
        if !side.listed {
            side.listed = true;
            self.v.busy.push(queue);
        }
    }

    pub(crate) fn boot(&mut self, wall_offset: u64) {
        let shape =
            if self.d.sequence == 0 { crate::Shape::of(&self.v.limits) } else { self.d.shape };
        self.set_wall(wall_offset);
        self.together(0);
        let grace_us = self.v.limits.restart_grace_us;
        let epoch = self.d.epoch + 1;
        self.emit(crate::Event::Booted { epoch, wall_offset, grace_us, shape });
        self.v.token = self.d.token_high;
        self.boot_holds(grace_us);
        self.boot_queues();
    }

    /// Ends what has run out, a bounded number at a time; false if more is due.
    pub(crate) fn tick(&mut self) -> bool {
        // One at a time: what one timer ends may cancel the next.
        let mut due = Vec::with_capacity(1);
        let mut done = false;
        for _ in 0..self.v.limits.work_per_step {
            done = self.v.wheel.expire(self.now, 1, &mut due);
            let Some(timer) = due.pop() else { break };
            match timer {
                Timer::Session(slot) => self.session_due(slot),
                Timer::Grant(slot) => self.grant_due(slot),
                Timer::Waiter(slot) => self.waiter_due(slot),
                Timer::Watcher(slot) => self.watcher_due(slot),
                Timer::LockDelay(slot) => self.lock_delay_due(slot),
                Timer::Register(slot) => self.register_due(slot),
                Timer::Flight(slot) => self.flight_due(slot),
                Timer::Consumer(slot) => self.consumer_due(slot),
                Timer::Queue(slot) => {
                    self.v.queue_mut(slot).timer = crate::slab::NONE;
                    self.look_at(slot);
                }
                Timer::Delays => {
                    self.v.delays_timer = crate::slab::NONE;
                    self.promote();
                }
            }
        }
        let helping = self.v.limits.work_per_step;
        self.clear_gone(helping);
        done && self.v.busy.is_empty() && !self.d.spaces.has_doomed()
    }

    /// Answers a waiting command.
    pub(crate) fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        self.reply(ticket, Err(refusal));
    }
}
