//! Who wants to know when a hold ends.
//!
//! A hold is remembered from its grant until it is released, until it ends, or until nobody
//! listens any more. The last is not told to anyone, so what nobody listens to is swept out when
//! the table has doubled since the last sweep: at most twice as much is kept as is listened to, and
//! a grant still costs a constant. A task per hold that waits for its listener was rejected, it
//! costs more than the hold.

use std::collections::BTreeMap;

use leasehold_api::Ending;
use leasehold_core::{SessionId, Token};
use tokio::sync::oneshot::{Receiver, Sender, channel};

/// Below so many entries a sweep is not worth it.
const SWEEP_MIN: usize = 1024;

#[derive(Debug)]
struct Hold {
    /// Whether it ends with its session.
    bound: bool,
    listeners: Vec<Sender<Ending>>,
}

impl Hold {
    fn tell(self, ending: Ending) {
        // Whoever stopped listening does not want to know.
        self.listeners.into_iter().for_each(|listener| {
            listener.send(ending).ok();
        });
    }
}

/// Holds by session and token, so that all of a session are neighbours.
#[derive(Debug)]
pub(crate) struct Holds {
    by_session: BTreeMap<(SessionId, Token), Hold>,
    /// At this size it is swept.
    sweep_at: usize,
}

impl Default for Holds {
    fn default() -> Self {
        Self { by_session: BTreeMap::new(), sweep_at: SWEEP_MIN }
    }
}

impl Holds {
    /// Listens to one entry of a hold.
    pub fn listen(&mut self, session: SessionId, token: Token, bound: bool) -> Receiver<Ending> {
        if self.by_session.len() >= self.sweep_at {
            self.sweep();
        }
        let (listener, ended) = channel();
        let new = || Hold { bound, listeners: Vec::with_capacity(1) };
        let hold = self.by_session.entry((session, token)).or_insert_with(new);
        // Entering again and again must not gather listeners either.
        hold.listeners.retain(|listener| !listener.is_closed());
        hold.listeners.push(listener);
        ended
    }

    fn sweep(&mut self) {
        self.by_session.retain(|_, hold| hold.listeners.iter().any(|one| !one.is_closed()));
        self.sweep_at = (self.by_session.len() * 2).max(SWEEP_MIN);
    }

    /// A hold was released by its owner.
    pub fn forget(&mut self, session: SessionId, token: Token) {
        self.by_session.remove(&(session, token));
    }

    /// A hold ended otherwise.
    pub fn ended(&mut self, session: SessionId, token: Token, ending: Ending) {
        if let Some(hold) = self.by_session.remove(&(session, token)) {
            hold.tell(ending);
        }
    }

    /// A session ended. What is bound to it ended with it; the rest lives on by its TTL, and the
    /// node tells nobody of its end: its listeners learn it from their renewals.
    pub fn session_ended(&mut self, session: SessionId) {
        let all = (session, Token(0))..=(session, Token(u64::MAX));
        let bound = |(key, hold): (&(SessionId, Token), &Hold)| hold.bound.then_some(*key);
        let bound: Vec<_> = self.by_session.range(all).filter_map(bound).collect();
        for key in bound {
            if let Some(hold) = self.by_session.remove(&key) {
                hold.tell(Ending::SessionLost);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.by_session.len()
    }

    pub fn clear(&mut self) {
        self.by_session.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(7);

    #[test]
    fn a_million_forgotten_holds_leave_nothing() {
        let mut holds = Holds::default();
        for token in 1..=1_000_000 {
            drop(holds.listen(SESSION, Token(token), true));
            assert!(holds.len() <= SWEEP_MIN + 1);
        }
    }

    #[test]
    fn what_is_listened_to_survives_the_sweeps() {
        let mut holds = Holds::default();
        let mut kept = Vec::new();
        for token in 1..=100_000 {
            let ended = holds.listen(SESSION, Token(token), true);
            if token % 10 == 0 {
                kept.push(ended);
            }
        }
        assert!(holds.len() <= 2 * kept.len() + SWEEP_MIN);
        holds.session_ended(SESSION);
        assert_eq!(holds.len(), 0);
        for mut ended in kept {
            assert_eq!(ended.try_recv(), Ok(Ending::SessionLost));
        }
    }

    #[test]
    fn entering_again_gathers_no_listeners() {
        let mut holds = Holds::default();
        for _ in 0..10_000 {
            drop(holds.listen(SESSION, Token(1), false));
        }
        let hold = &holds.by_session[&(SESSION, Token(1))];
        assert_eq!(hold.listeners.len(), 1);
    }

    #[test]
    fn a_session_takes_its_bound_holds_only() {
        let mut holds = Holds::default();
        let mut bound = holds.listen(SESSION, Token(1), true);
        let mut by_ttl = holds.listen(SESSION, Token(2), false);
        let mut other = holds.listen(SessionId(8), Token(3), true);
        holds.session_ended(SESSION);
        assert_eq!(bound.try_recv(), Ok(Ending::SessionLost));
        assert!(by_ttl.try_recv().is_err() && other.try_recv().is_err());
        assert_eq!(holds.len(), 2);
    }
}
