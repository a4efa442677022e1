//! Taking turns, within one process, at writing a line.
//!
//! A swap succeeds only if nobody has written the line since it was read, so of many who write at
//! one moment one succeeds, and n who come need n² swaps. Within a process they go one after the
//! other instead, in the order in which they came, and each begins with the line as the one before
//! it has left it.
//!
//! Nothing depends on that: whoever swaps without a turn is compared like everybody else. So a turn
//! that takes too long costs time and not a lock. Once the store does not answer, all who wait for
//! their turns go without.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_api::engine::{Gone, moment};
use leasehold_api::{Result, Wait};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::lines::Lines;
use crate::too_late;

/// Who wants a turn.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    /// Somebody who is in the lines already: it waits for one of those who come, at most.
    Inside,
    /// Somebody who comes.
    Comer {
        /// Ends when nobody wants the lock any more.
        gone: Gone,
        /// Since when it waits.
        asked: Instant,
        /// How long it waits.
        wait: Wait,
    },
}

/// The turns at the lines that somebody in this process writes now.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    lines: Mutex<HashMap<Arc<str>, Arc<Place>>>,
}

/// The turns at one line.
#[derive(Debug)]
struct Place {
    /// The next one who comes.
    comer: Arc<Semaphore>,
    /// Who writes.
    writer: Arc<Semaphore>,
    /// The line as the last one left it.
    left: Mutex<Option<Lines>>,
}

impl Place {
    fn new() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { comer: one(), writer: one(), left: Mutex::default() }
    }
}

/// A turn at some lines, or a place among those who wait for it.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    places: Vec<(Arc<str>, Arc<Place>)>,
    permits: Vec<OwnedSemaphorePermit>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turns {
    /// Waits for a turn at all these lines.
    ///
    /// # Errors
    /// For who comes: `Cancelled` when it has gone meanwhile, `TimedOut` when its time is over.
    pub async fn take(&self, names: &[Arc<str>], who: &Who) -> Result<Turn<'_>> {
        let mut turn = self.queue(names);
        let Who::Comer { gone, asked, wait } = who else {
            turn.advance(|place| &place.writer).await;
            return Ok(turn);
        };
        let mut gone = gone.clone();
        let late = moment(wait.until(*asked));
        let advance = async {
            turn.advance(|place| &place.comer).await;
            turn.advance(|place| &place.writer).await;
        };
        tokio::select! {
            biased;
            () = advance => Ok(turn),
            () = gone.wait() => Err(Gone::cancelled()),
            () = late => Err(too_late(*wait)),
        }
    }

    fn queue(&self, names: &[Arc<str>]) -> Turn<'_> {
        // All take them in one order, so nobody waits for each other in a circle.
        let mut names = names.to_vec();
        names.sort();
        let mut lines = lock(&self.lines);
        let place = |name: Arc<str>| {
            let place = lines.entry(name.clone()).or_insert_with(|| Arc::new(Place::new()));
            (name, place.clone())
        };
        let places = names.into_iter().map(place).collect();
        Turn { turns: self, places, permits: Vec::new() }
    }
}

impl Turn<'_> {
    async fn advance(&mut self, to: impl Fn(&Place) -> &Arc<Semaphore>) {
        for (_, place) in &self.places {
            // A closed one is nobody's turn any more.
            self.permits.extend(to(place).clone().acquire_owned().await.ok());
        }
    }

    /// Lets others write who are inside, and keeps the place among those who come.
    pub fn step_aside(&mut self) {
        self.permits.truncate(self.places.len());
    }

    /// Waits to write again.
    pub async fn step_back(&mut self) {
        self.advance(|place| &place.writer).await;
    }

    /// The lines as the one before has left them, if they are not older than these.
    pub fn newer(&self, than: &Lines) -> Option<Lines> {
        let [(_, place)] = &self.places[..] else { return None };
        lock(&place.left).take().filter(|left| left.now >= than.now)
    }

    /// Leaves the lines to the next one, as they are now.
    pub fn leave(self, lines: &Lines) {
        if let [(_, place)] = &self.places[..] {
            // This turn has it, and those who write now.
            let is_awaited = Arc::strong_count(place) > 2;
            *lock(&place.left) = is_awaited.then(|| lines.clone());
        }
    }

    /// Sends all who wait for their turns on without.
    pub fn disband(self) {
        let mut lines = lock(&self.turns.lines);
        for (name, place) in &self.places {
            place.comer.close();
            place.writer.close();
            if lines.get(name).is_some_and(|known| Arc::ptr_eq(known, place)) {
                lines.remove(name);
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permits.clear();
        let mut lines = lock(&self.turns.lines);
        for (name, place) in self.places.drain(..) {
            drop(place);
            if lines.get(&name).is_some_and(|place| Arc::strong_count(place) == 1) {
                lines.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use leasehold_api::ErrorKind;

    use super::*;

    fn comer(wait: Wait) -> Who {
        Who::Comer { gone: Gone::never(), asked: Instant::now(), wait }
    }

    /// Polls it once.
    async fn waits<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = async {} => true,
        }
    }

    #[tokio::test]
    async fn comers_keep_their_order_and_one_of_them_goes_before_who_is_inside() {
        let (turns, names, who) = (Turns::default(), ["l".into()], comer(Wait::Forever));
        let first = turns.take(&names, &who).await.expect("it is free");
        let mut second = pin!(turns.take(&names, &who));
        let mut third = pin!(turns.take(&names, &who));
        let mut inside = pin!(turns.take(&names, &Who::Inside));
        assert!(waits(&mut second).await && waits(&mut third).await && waits(&mut inside).await);
        first.leave(&Lines { lines: Vec::new(), now: 7 });
        let turn = inside.await.expect("nothing ends it");
        assert_eq!(turn.newer(&Lines::empty(&names)).map(|lines| lines.now), Some(7));
        assert!(waits(&mut second).await && waits(&mut third).await);
        drop(turn);
        let turn = second.await.expect("nothing ends it");
        let mut inside = pin!(turns.take(&names, &Who::Inside));
        assert!(waits(&mut third).await && waits(&mut inside).await);
        drop(turn);
        let turn = inside.await.expect("nothing ends it");
        assert!(waits(&mut third).await);
        drop(turn);
        drop(third.await.expect("nothing ends it"));
        assert!(lock(&turns.lines).is_empty());
    }

    #[tokio::test]
    async fn who_does_not_wait_any_more_holds_nobody_up() {
        let turns = Turns::default();
        let (l, both) = (["l".into()], ["m".into(), "l".into()]);
        let first = turns.take(&l, &comer(Wait::Forever)).await.expect("it is free");
        let late = turns.take(&both, &comer(Wait::AtMost(Duration::ZERO))).await;
        assert_eq!(late.map(drop).map_err(|error| error.kind), Err(ErrorKind::TimedOut));
        {
            let mut dropped = pin!(turns.take(&both, &Who::Inside));
            assert!(waits(&mut dropped).await);
        }
        drop(first);
        drop(turns.take(&both, &comer(Wait::Forever)).await.expect("it is free"));
        assert!(lock(&turns.lines).is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_behind_a_store_that_does_not_answer() {
        let (turns, names) = (Turns::default(), ["l".into()]);
        let first = turns.take(&names, &Who::Inside).await.expect("it is free");
        let who = comer(Wait::Forever);
        let (mut second, mut third) =
            (pin!(turns.take(&names, &who)), pin!(turns.take(&names, &who)));
        assert!(waits(&mut second).await && waits(&mut third).await);
        first.disband();
        let without = [second.await.expect("it goes on"), third.await.expect("it goes on")];
        let next = turns.take(&names, &Who::Inside).await.expect("it begins anew");
        drop(without);
        assert_eq!(lock(&turns.lines).len(), 1);
        drop(next);
        assert!(lock(&turns.lines).is_empty());
    }
}
