//! One step of the machine: a command in, events to the journal, effects out.

use alloc::vec::Vec;

use crate::event::{Answered, Event};
use crate::evolve::{Guarded, Stamp};
use crate::outcome::{Effect, EffectKind, Outcome, Refusal};
use crate::volatile::{Timer, Volatile};
use crate::{
    ClaimCounts, Command, ConsumerId, Durable, Limits, LockWaits, Receipt, Shape, Ticket, Time,
};

/// Takes events down. The journal behind it gives each its place.
pub trait Log {
    /// Says that the events until the next call belong together, all or none, and need at most so
    /// many bytes. Makes room for them; if it cannot, it remembers that and the node stops.
    fn group(&mut self, bytes_max: usize);

    /// Records an event and says where. Cannot fail: there is room.
    fn append(&mut self, event: &Event<'_>) -> Stamp;
}

/// Tokens that one journal record reserves.
const TOKEN_BLOCK: u64 = 1 << 20;

/// A shard's state and rules.
#[derive(Debug, Clone)]
pub struct Core {
    durable: Durable,
    volatile: Volatile,
}

/// What the rules of one step work with.
pub(crate) struct Step<'a> {
    /// The durable half, to read.
    pub d: Guarded<'a>,
    /// The volatile half.
    pub v: &'a mut Volatile,
    /// The shard's time.
    pub now: Time,
    /// Wall-clock time.
    pub wall: Time,
    log: &'a mut dyn Log,
    out: &'a mut Vec<Effect>,
    /// The events of a command belong together; those of its consequences stand alone.
    together: bool,
    /// A command waits for pages: none leaves memory before it has seen them all, or it would ask
    /// for ever.
    pub keeps_pages: bool,
}

/// More than any event needs that does not say how much it needs; the largest of those is a grant
/// of as many locks as one step may take, with names of full length.
pub(crate) const EVENT_BYTES: usize = 24 << 10;

impl Core {
    /// A shard that has never run. `seed` protects its indexes from chosen collisions.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let durable = Durable::new(Shape::of(&limits), seed);
        Self::from_durable(durable, limits, seed)
    }

    /// A shard with the state that a journal left; call [`Core::boot`] before anything else.
    pub fn from_durable(durable: Durable, limits: Limits, seed: u64) -> Self {
        Self { durable, volatile: Volatile::new(limits, seed) }
    }

    /// The durable half.
    pub fn state(&self) -> &Durable {
        &self.durable
    }

    /// How long those who waited for locks have waited.
    pub fn lock_waits(&self) -> LockWaits {
        self.volatile.lock_waits
    }

    /// Keys taken and given back as locks.
    pub fn claim_counts(&self) -> ClaimCounts {
        self.volatile.claim_counts
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.volatile.sessions.len()
    }

    /// The bounds it runs with.
    pub fn limits(&self) -> &Limits {
        &self.volatile.limits
    }

    /// Starts the shard: tells the journal, and rebuilds the volatile half. `now` must not be
    /// earlier than the last event; `wall` is wall-clock microseconds since 1970.
    pub fn boot(&mut self, now: Time, wall: Time, log: &mut dyn Log, out: &mut Vec<Effect>) {
        assert!(now >= self.durable.at(), "the shard's time does not go back");
        // A wall clock that was set back must not delay what is due: go on from the last known.
        let known = now + self.durable.wall_offset();
        let wall_offset = wall.max(known) - now;
        self.stepped(now, log, out, |step| step.boot(wall_offset));
    }

    /// Carries out one command.
    pub fn step(&mut self, now: Time, command: Command, log: &mut dyn Log, out: &mut Vec<Effect>) {
        self.stepped(now, log, out, |step| step.carry_out(command));
    }

    /// Ends what has run out and promotes what is due; false if more is left for the next call.
    pub fn tick(&mut self, now: Time, log: &mut dyn Log, out: &mut Vec<Effect>) -> bool {
        let mut done = true;
        self.stepped(now, log, out, |step| done = step.tick());
        done
    }

    /// Brings in a page that an effect asked for. `record` is the `PageStored` record.
    ///
    /// # Errors
    /// When the record is not that page; the caller should treat the journal as damaged.
    pub fn page_loaded(
        &mut self,
        now: Time,
        record: &[u8],
        log: &mut dyn Log,
        out: &mut Vec<Effect>,
    ) -> Result<(), crate::wire::DecodeError> {
        let Event::PageStored { list, base, items } = Event::decode(record)? else {
            return Err(crate::wire::DecodeError { what: "index page", offset: 0 });
        };
        self.stepped(now, log, out, |step| step.page_loaded(list, base, items));
        Ok(())
    }

    /// Tells of deliveries whose records cannot be read, so that nobody got them: the messages stay
    /// in flight until their lease or session ends, and the consumers have their credit back.
    pub fn unreadable(
        &mut self,
        now: Time,
        deliveries: &[(ConsumerId, Receipt)],
        log: &mut dyn Log,
        out: &mut Vec<Effect>,
    ) {
        self.stepped(now, log, out, |step| {
            deliveries.iter().for_each(|(id, receipt)| step.unreadable(*id, *receipt));
        });
    }

    /// Puts what a checkpoint would otherwise have to carry into the journal.
    pub fn before_checkpoint(&mut self, now: Time, log: &mut dyn Log, out: &mut Vec<Effect>) {
        self.stepped(now, log, out, |step| step.store_large_pages());
    }

    /// Writes a checkpoint; see [`Durable::checkpoint`].
    pub fn checkpoint(
        &mut self,
        sink: &mut dyn crate::CellSink,
        begin: bool,
        sweep_max: usize,
    ) -> crate::SweepState {
        self.durable.checkpoint(sink, begin, sweep_max)
    }

    /// When [`Core::tick`] has something to do, at the latest.
    pub fn next_due(&self) -> Option<Time> {
        if !self.volatile.busy.is_empty() || self.durable.spaces.has_doomed() {
            return Some(0);
        }
        self.volatile.wheel.next_due()
    }

    /// Checks the invariants of both halves.
    ///
    /// # Panics
    /// When one is broken; the message names it.
    pub fn check(&self) {
        crate::check::check(&self.durable, &self.volatile);
    }

    pub(crate) fn stepped(
        &mut self,
        now: Time,
        log: &mut dyn Log,
        out: &mut Vec<Effect>,
        rules: impl FnOnce(&mut Step<'_>),
    ) {
        let wall = now + self.durable.wall_offset();
        let mut step = Step {
            d: Guarded::new(&mut self.durable),
            v: &mut self.volatile,
            now,
            wall,
            log,
            out,
            together: false,
            keeps_pages: false,
        };
        rules(&mut step);
        step.together = false;
        step.settle();
        crate::check::check_small(&self.durable, &self.volatile);
    }
}

impl Step<'_> {
    /// Records an event and applies it.
    #[inline]
    pub fn emit(&mut self, event: Event<'_>) {
        if !self.together {
            self.log.group(EVENT_BYTES);
        }
        let stamp = self.log.append(&event);
        self.d.evolve(stamp, &event);
    }

    /// Records an event that may be large.
    pub fn emit_large(&mut self, bytes_max: usize, event: Event<'_>) {
        if !self.together {
            self.log.group(bytes_max + EVENT_BYTES);
        }
        let stamp = self.log.append(&event);
        self.d.evolve(stamp, &event);
    }

    /// The events from here to the end of the rules belong together and need at most so many
    /// bytes besides the usual.
    pub fn together(&mut self, bytes_max: usize) {
        self.log.group(bytes_max + EVENT_BYTES);
        self.together = true;
    }

    /// The group begun by [`Step::together`] is whole.
    pub fn apart(&mut self) {
        self.together = false;
    }

    /// Moves the shard's wall clock; only for booting.
    pub fn set_wall(&mut self, wall_offset: u64) {
        self.wall = self.now + wall_offset;
    }

    /// Whether `tokens` tokens are reserved; reserves a block if not.
    #[inline]
    pub fn next_token(&mut self) -> u64 {
        if self.v.token >= self.d.token_high {
            self.emit(Event::TokensReserved { upto: self.v.token + TOKEN_BLOCK });
        }
        self.v.token += 1;
        self.v.token
    }

    /// Answers. The answer waits for what must not be lost.
    #[inline]
    pub fn reply(&mut self, ticket: Ticket, result: Result<Outcome, Refusal>) {
        self.effect(EffectKind::Reply(ticket, result));
    }

    /// Answers at once: losing what was done would be safe.
    #[inline]
    pub fn reply_early(&mut self, ticket: Ticket, result: Result<Outcome, Refusal>) {
        self.out.push(Effect { after_sync: false, kind: EffectKind::Reply(ticket, result) });
    }

    /// Adds an effect that waits for what must not be lost.
    #[inline]
    pub fn effect(&mut self, kind: EffectKind) {
        self.out.push(Effect { after_sync: true, kind });
    }

    /// Adds an effect for the node itself.
    pub fn effect_now(&mut self, kind: EffectKind) {
        self.out.push(Effect { after_sync: false, kind });
    }

    /// Sets a timer; `NONE` for no deadline.
    #[inline]
    pub fn arm(&mut self, due: Time, what: Timer) -> u32 {
        if due == 0 { crate::slab::NONE } else { self.v.wheel.insert(due, what) }
    }

    /// Remembers what was answered to a request.
    pub fn remember(&mut self, request: Option<crate::RequestId>, kind: u8, a: u64, b: u64) {
        if let Some(id) = request {
            self.emit(Event::Requested { id: id.0, answer: Answered { kind, a, b } });
        }
    }

    /// Mutable access to what is cached; changes nothing that counts.
    pub fn cache(&mut self) -> &mut Durable {
        self.d.cache()
    }
}
