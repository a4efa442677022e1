//! What users of a member do: they wait for messages, take them, and settle what they have.

use super::*;

impl Member {
    /// Somebody wants messages; not of a member that is leaving.
    pub fn user(self: &Arc<Self>) -> Option<User> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let mut state = self.state();
        if state.closing {
            return None;
        }
        state.users += 1;
        Some(User { member: self.clone(), consumer: LAST.fetch_add(1, Ordering::Relaxed) + 1 })
    }

    /// Waits until the member has left.
    pub async fn left(&self) {
        let mut gone = self.gone.subscribe();
        // Without a sender it has left as well.
        gone.wait_for(|gone| *gone).await.ok();
    }

    /// The queue is gone.
    pub fn delete(&self) {
        self.state().deleted = true;
        self.ring();
        self.changed.notify_waiters();
    }

    /// Whoever opened the engine has gone: what is in hand is nobody's.
    pub fn abandon(&self) {
        self.state().abandoned = true;
        self.ring();
    }

    /// Waits until something is so.
    pub async fn until<T>(&self, mut look: impl FnMut(&mut View<'_>) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(found) = look(&mut View { member: self, state: self.state() }) {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until a change is committed.
    pub async fn is_committed(&self, change: &Change, token: u64) -> Result<()> {
        let done = self.until(|_| change.done());
        match tokio::time::timeout(self.config.timeout, done).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(stale(token).with_retry(Retry::Unknown)),
            Err(_) => {
                let why = format!("it was not committed within {:?}", self.config.timeout);
                Err(crate::error::unavailable(&why).with_retry(Retry::Unknown))
            }
        }
    }

    /// Whether a delivery is open.
    pub fn open(&self, partition: i32, offset: i64, token: u64) -> bool {
        let state = self.state();
        let part = state.parts.get(&partition).filter(|part| !part.leaving);
        part.is_some_and(|part| part.window.open(offset, token).is_some())
    }

    /// Takes an open delivery out of its hand.
    fn settle<T>(
        &self,
        (partition, offset, token): (i32, i64, u64),
        how: impl FnOnce(&mut Part) -> T,
    ) -> Result<T> {
        let mut state = self.state();
        let part = state.parts.get_mut(&partition).filter(|part| !part.leaving);
        let open = part.and_then(|part| Some((part.window.open(offset, token)?, part)));
        let (hand, part) = open.ok_or_else(|| stale(token))?;
        let done = how(part);
        state.lay_down(hand.consumer);
        drop(state);
        self.ring();
        self.changed.notify_waiters();
        Ok(done)
    }

    /// Done.
    pub fn ack(&self, place: (i32, i64, u64)) -> Result<Change> {
        self.settle(place, |part| {
            part.window.end(place.1);
            part.touch()
        })
    }

    /// Again, in its place; or dead, when that was once too often.
    pub fn nack(self: &Arc<Self>, place: (i32, i64, u64)) -> Result<()> {
        self.settle(place, |part| self.take_back(place.0, part, place.1))
    }

    /// Nobody has seen it.
    fn put_back(&self, place: (i32, i64, u64)) -> Result<()> {
        self.settle(place, |part| part.window.give_back(place.1, true))
    }

    /// A delivery came to nothing.
    pub(super) fn take_back(self: &Arc<Self>, partition: i32, part: &mut Part, offset: i64) {
        let attempts = part.window.attempts(offset);
        if self.rules.deliveries_max.is_some_and(|most| attempts >= most.into()) {
            if let Some(record) = part.window.begin_end(offset) {
                self.lay_to_rest(partition, offset, record);
            }
        } else {
            part.window.give_back(offset, false);
            // Before anybody takes it again, who would return it again.
            if part.window.stuck() == Some(offset)
                && let Some(record) = part.window.begin_end(offset)
            {
                self.move_on(partition, offset, record, attempts);
            }
        }
    }

    /// To the dead letters, or gone if there are none.
    pub async fn reject(self: &Arc<Self>, place: (i32, i64, u64)) -> Result<()> {
        let (partition, offset, token) = place;
        let record = self.settle(place, |part| part.window.begin_end(offset))?;
        let record = record.ok_or_else(|| stale(token))?;
        // In a task of its own: dropped halfway it would never end.
        let member = self.clone();
        let buried = async move { member.bury(partition, offset, &record, "rejected").await };
        let gone = |_| Error::new(ErrorKind::Broken, "the runtime is gone");
        let change = self.runtime.spawn(buried).await.map_err(gone)??;
        match change {
            Some(change) => self.is_committed(&change, token).await,
            None => Err(stale(token).with_retry(Retry::Unknown)),
        }
    }

    /// Sends a message to the dead letters and ends it here once it is there. If that fails it
    /// goes back to its place.
    async fn bury(
        self: &Arc<Self>,
        partition: i32,
        offset: i64,
        record: &Record,
        reason: &str,
    ) -> Result<Option<Change>> {
        let sent = match &self.rules.dead_letter {
            None => Ok(()),
            Some(dead) => self.send_to_dead(dead, record, reason).await,
        };
        let Err(error) = sent else { return Ok(self.ended(partition, offset, Ok(()))) };
        tracing::warn!(queue = &*self.queue, %error, "a dead message stays where it is");
        let (member, fault) = (self.clone(), Fault::from(error.clone()));
        self.runtime.spawn(async move {
            // It would be tried again at once.
            tokio::time::sleep(REST).await;
            member.ended(partition, offset, Err(fault));
        });
        Err(error)
    }

    async fn send_to_dead(&self, dead: &str, record: &Record, reason: &str) -> Result<()> {
        let topic = crate::names::topic(dead)?;
        let missing = |error: Error| error.asking(format!("send a message to the dead of {dead}"));
        let there = self.cluster.partitions(&topic).await.map_err(Fault::told)?;
        if there.is_none() {
            return Err(missing(crate::error::not_found(dead)));
        }
        let message = crate::message::dead(&self.queue, reason, &topic, record)?;
        let sent = self.cluster.send(message).await;
        sent.map(drop).map_err(|fault| missing(fault.of_queue(dead)))
    }

    /// Something that was under way elsewhere is there, or did not get there.
    pub(super) fn ended(&self, partition: i32, offset: i64, sent: Answer<()>) -> Option<Change> {
        let mut state = self.state();
        let change = state.parts.get_mut(&partition).and_then(|part| match sent {
            Ok(()) => {
                part.window.end(offset);
                Some(part.touch())
            }
            Err(_) => {
                part.window.give_back(offset, false);
                None
            }
        });
        drop(state);
        self.ring();
        self.changed.notify_waiters();
        change
    }

    /// Sets a delivery's deadline.
    pub fn extend(
        &self,
        (partition, offset, token): (i32, i64, u64),
        lease: Duration,
    ) -> Result<()> {
        let mut state = self.state();
        let part = state.parts.get_mut(&partition).filter(|part| !part.leaving);
        let open = part.filter(|part| part.window.open(offset, token).is_some());
        let part = open.ok_or_else(|| stale(token))?;
        part.window.extend(offset, Instant::now().checked_add(lease));
        drop(state);
        self.ring();
        Ok(())
    }

    /// Ends what waits in this process; the change of each partition.
    pub fn purge(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for part in self.state().parts.values_mut() {
            if part.window.purge() > 0 {
                changes.push(part.touch());
            }
        }
        self.ring();
        changes
    }

    /// How many messages are with users of this process.
    pub fn in_hand(&self) -> u64 {
        self.state().parts.values().map(|part| part.window.in_hand() as u64).sum()
    }

    /// Tries to hand out a message to a consumer that has room for it.
    fn hand_out(self: &Arc<Self>, state: &mut State, want: &Want) -> Option<Taken> {
        if state.in_hand.get(&want.consumer).is_some_and(|held| *held >= want.prefetch) {
            return None;
        }
        let lease = want.lease.or(self.rules.lease());
        let deadline = lease.and_then(|lease| Instant::now().checked_add(lease));
        let (behind, before) = (state.parts.range(state.turn..), state.parts.range(..state.turn));
        let order: Vec<i32> = behind.chain(before).map(|(partition, _)| *partition).collect();
        for partition in order {
            let Some(part) = state.parts.get_mut(&partition) else { continue };
            if part.window.is_worn() && !part.dirty {
                part.touch();
                self.ring();
            }
            if !part.open || part.leaving || part.window.is_worn() {
                continue;
            }
            while let Some(handed) = part.window.hand_out(want.consumer, deadline) {
                if self.rules.deliveries_max.is_some_and(|most| handed.attempt > most.into()) {
                    // Its former owners have not come to that.
                    part.window.begin_end(handed.offset);
                    self.lay_to_rest(partition, handed.offset, handed.record);
                    continue;
                }
                let wait_for = self.counts().then(|| part.touch());
                if wait_for.is_some() {
                    self.ring();
                }
                *state.in_hand.entry(want.consumer).or_default() += 1;
                state.turn = partition + 1;
                let member = self.clone();
                return Some(Taken { member, partition, handed, wait_for, is_given: false });
            }
        }
        None
    }

    /// It was handed out often enough.
    fn lay_to_rest(self: &Arc<Self>, partition: i32, offset: i64, record: Arc<Record>) {
        let member = self.clone();
        self.runtime.spawn(async move {
            // What fails is told in the log, and tried again.
            member.bury(partition, offset, &record, "deliveries").await.ok();
        });
    }
}

/// Who wants a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub consumer: u64,
    pub prefetch: u32,
    pub lease: Option<Duration>,
}

/// A member as somebody sees it who waits.
pub(crate) struct View<'a> {
    member: &'a Member,
    state: MutexGuard<'a, State>,
}

impl View<'_> {
    /// The end of it, if it has ended: `None` with the queue.
    pub fn end(&self) -> Option<Result<()>> {
        match &self.state.failed {
            Some(error) => Some(Err(error.clone())),
            None if self.state.deleted => Some(Ok(())),
            None if self.state.closing => {
                let why = "this engine is leaving the group";
                Some(Err(crate::error::unavailable(why).with_retry(Retry::Later)))
            }
            None => None,
        }
    }

    /// Whether the group has said what is this member's.
    pub fn has_joined(&self) -> bool {
        self.state.joined
    }

    /// Whether every partition of the queue is this member's, and how long ago that changed.
    pub fn owns_all(&self) -> (bool, Duration) {
        let all = self.state.parts.len() >= self.member.partitions;
        (all, self.state.changed_at.elapsed())
    }

    /// The partitions that messages are handed out of, and how far each was taken; `None` while
    /// one of them is being opened.
    pub fn positions(&self) -> Option<Vec<(i32, i64, bool)>> {
        let parts = self.state.parts.iter();
        let of = |(partition, part): (&i32, &Part)| {
            part.open.then(|| (*partition, part.window.position(), part.window.is_full()))
        };
        parts.map(of).collect()
    }

    /// Hands a message out.
    pub fn take(&mut self, member: &Arc<Member>, want: &Want) -> Option<Taken> {
        member.hand_out(&mut self.state, want)
    }
}

/// Somebody who wants messages; the member stays as long as there is one.
pub(crate) struct User {
    pub member: Arc<Member>,
    pub consumer: u64,
}

impl Drop for User {
    fn drop(&mut self) {
        let mut state = self.member.state();
        state.users -= 1;
        state.idle_since = Instant::now();
    }
}

/// A message that was taken out; it goes back unless it is given to somebody.
pub(crate) struct Taken {
    pub member: Arc<Member>,
    pub partition: i32,
    pub handed: Handed,
    /// To be committed before anybody sees it.
    pub wait_for: Option<Change>,
    is_given: bool,
}

impl Taken {
    /// Waits until it may be seen; whether it may.
    pub async fn may_be_seen(&self) -> bool {
        match &self.wait_for {
            None => true,
            Some(change) => self.member.is_committed(change, self.handed.token).await.is_ok(),
        }
    }

    pub fn place(&self) -> (i32, i64, u64) {
        (self.partition, self.handed.offset, self.handed.token)
    }

    /// It is somebody's now.
    pub fn give(mut self) -> (i32, Handed) {
        self.is_given = true;
        (self.partition, self.handed.clone())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.is_given {
            // If it is not open any more it went back already.
            self.member.put_back(self.place()).ok();
        }
    }
}
