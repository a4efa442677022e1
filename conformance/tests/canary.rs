//! The suite can fail: an engine with one planted flaw is found out, each flaw by a case that is
//! about it. And an engine that declares something absent must refuse it.

mod modest;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::engine::{
    Acquire, Engine, Grant, HoldRef, List, Listed, LockEngine, LockView, OpenSession, Register,
    RegisterView, Session, SessionRef, Write,
};
use leasehold_api::{
    Atomicity, Deadlocks, Error, ErrorKind, Expect, Fencing, Guarantees, Inspection, Modes, Result,
    Wait, Waiting,
};
use leasehold_conformance::{Target, Verdict, run};

use modest::Modest;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    /// Whoever asks gets the lock.
    NoExclusion,
    /// Every grant has the same token.
    TokensRepeat,
    /// A release does nothing.
    ReleaseForgotten,
    /// A renewal says yes and does nothing.
    RenewalForgotten,
    /// A renewal says yes when the hold is over.
    RenewalTooLate,
    /// Whoever waits is told at once that its time is over.
    NoWaiting,
    /// A write does not look at the version.
    NoCompare,
    /// A watch sleeps until its time is over.
    WatchSleeps,
}

struct Flawed {
    inner: Arc<dyn LockEngine>,
    flaw: Flaw,
    serial: AtomicU64,
}

#[async_trait]
impl LockEngine for Flawed {
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    async fn open_session(&self, ask: &OpenSession) -> Result<Session> {
        self.inner.open_session(ask).await
    }

    async fn keep_alive(&self, session: &SessionRef) -> Result<()> {
        self.inner.keep_alive(session).await
    }

    async fn close_session(&self, session: &SessionRef) -> Result<()> {
        self.inner.close_session(session).await
    }

    async fn acquire(&self, ask: &Acquire) -> Result<Grant> {
        let grant = |token| Grant { token, left: ask.ttl, entries: 1, ended: None };
        match self.flaw {
            Flaw::NoExclusion => Ok(grant(1 + self.serial.fetch_add(1, Ordering::Relaxed))),
            Flaw::TokensRepeat => Ok(Grant { token: 7, ..self.inner.acquire(ask).await? }),
            Flaw::NoWaiting if ask.wait != Wait::No => {
                let ask = Acquire { wait: Wait::No, ..ask.clone() };
                let late = |_| Error::new(ErrorKind::TimedOut, "planted");
                self.inner.acquire(&ask).await.map_err(late)
            }
            _ => self.inner.acquire(ask).await,
        }
    }

    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Option<Duration>> {
        match self.flaw {
            Flaw::RenewalForgotten => Ok(Some(ttl)),
            Flaw::RenewalTooLate => Ok(self.inner.renew(hold, ttl).await.unwrap_or(Some(ttl))),
            _ => self.inner.renew(hold, ttl).await,
        }
    }

    async fn release(&self, hold: &HoldRef) -> Result<u32> {
        match self.flaw {
            Flaw::ReleaseForgotten => Ok(0),
            _ => self.inner.release(hold).await,
        }
    }

    async fn force_release(&self, name: &str) -> Result<u32> {
        self.inner.force_release(name).await
    }

    async fn check(&self, name: &str, token: u64) -> Result<bool> {
        self.inner.check(name, token).await
    }

    async fn inspect(&self, name: &str) -> Result<LockView> {
        self.inner.inspect(name).await
    }

    async fn watch(&self, name: &str, known: Option<u64>, wait: Duration) -> Result<LockView> {
        self.inner.watch(name, known, wait).await
    }

    async fn list_locks(&self, ask: &List) -> Result<Listed<LockView>> {
        self.inner.list_locks(ask).await
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Register>> {
        self.inner.read(key).await
    }

    async fn write(&self, ask: &Write) -> Result<u64> {
        match self.flaw {
            Flaw::NoCompare => {
                self.inner.write(&Write { expect: Expect::Anything, ..ask.clone() }).await
            }
            _ => self.inner.write(ask).await,
        }
    }

    async fn watch_register(
        &self,
        key: &[u8],
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Register>> {
        match self.flaw {
            Flaw::WatchSleeps => {
                tokio::time::sleep(wait).await;
                self.inner.read(key).await
            }
            _ => self.inner.watch_register(key, known, wait).await,
        }
    }

    async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>> {
        self.inner.list_registers(ask).await
    }
}

/// Runs one case over an engine with a flaw.
async fn verdict(flaw: Flaw, case: &str) -> Verdict {
    let sound = leasehold::memory().await.expect("it opens").engine().clone();
    let inner = sound.locks.clone().expect("it has locks");
    let locks: Arc<dyn LockEngine> = Arc::new(Flawed { inner, flaw, serial: AtomicU64::new(0) });
    let engine = Engine { locks: Some(locks), ..sound };
    let target = Target::engine(move || std::future::ready(Ok(engine.clone())));
    let report = run(&target, case).await;
    assert_eq!(report.verdicts.len(), 1, "one case is called {case}");
    report.verdicts.into_iter().next().expect("just counted").1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_flaw_is_found() {
    let flaws = [
        (Flaw::NoExclusion, "locks::one_holder_at_a_time"),
        (Flaw::TokensRepeat, "locks::tokens_rise_from_holder_to_holder"),
        (Flaw::ReleaseForgotten, "locks::free_after_release"),
        (Flaw::RenewalForgotten, "losses::a_hold_is_renewed"),
        (Flaw::RenewalTooLate, "losses::what_is_over_is_not_revived"),
        (Flaw::NoWaiting, "locks::waiters_are_served_in_order"),
        (Flaw::NoCompare, "registers::compare_and_set"),
        (Flaw::WatchSleeps, "registers::a_change_wakes_who_watches"),
    ];
    let found = flaws.map(|(flaw, case)| (flaw, case, tokio::spawn(verdict(flaw, case))));
    for (flaw, case, found) in found {
        let found = found.await.expect("it does not panic");
        assert!(matches!(found, Verdict::Failed(_)), "{flaw:?} passes {case}: {found:?}");
    }
}

/// Runs cases over a sound engine that declares less than it does.
async fn declared(guarantees: Guarantees, cases: &str, has_queues: bool) -> Vec<Verdict> {
    let sound = leasehold::memory().await.expect("it opens").engine().clone();
    let locks = sound.locks.clone().expect("it has locks");
    let locks: Arc<dyn LockEngine> = Arc::new(Modest { locks, guarantees });
    let queues = sound.queues.clone().filter(|_| has_queues);
    let engine = Engine { locks: Some(locks), queues, ..sound };
    let target = Target::engine(move || std::future::ready(Ok(engine.clone())));
    let report = run(&target, cases).await;
    assert!(!report.verdicts.is_empty(), "no case is called {cases}");
    report.verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

const ALL: Guarantees = Guarantees::EVERYTHING;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_declared_absent_must_refuse() {
    let single = Guarantees { atomicity: Atomicity::Single, ..ALL };
    assert!(declared(single, "commit::", false).await.iter().all(|v| *v == Verdict::Refused));
    let lies = declared(single, "commit::", true).await;
    assert!(lies.iter().all(|v| matches!(v, Verdict::Failed(_))), "{lies:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_can_be_refused_nothing_is_asked_for() {
    let quiet = [
        ("locks::a_deadlock_is_named", Guarantees { deadlocks: Deadlocks::Unseen, ..ALL }),
        ("locks::waiters_are_served_in_order", Guarantees { waiting: Waiting::Unordered, ..ALL }),
        ("locks::inspect_tells_waiters", Guarantees { inspection: Inspection::Holders, ..ALL }),
        // A store that may forget tokens can still compare those that it has not forgotten.
        (
            "losses::a_stale_token_is_refused_by_registers",
            Guarantees { fencing: Fencing::Advisory, ..ALL },
        ),
    ];
    for (case, guarantees) in quiet {
        assert_eq!(declared(guarantees, case, true).await, [Verdict::Absent], "{case}");
    }
    // What can be refused beside it must be.
    let case = "locks::writers_are_not_starved";
    let shy = Guarantees { modes: Modes::Exclusive, waiting: Waiting::Unordered, ..ALL };
    let lies = declared(shy, case, true).await;
    assert!(matches!(lies[..], [Verdict::Failed(_)]), "{lies:?}");
}
