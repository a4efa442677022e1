//! One behaviour suite for every engine, through what users hold.
//!
//! A case has one of three results, and all are counted: *passed*; *declared absent and proved to
//! refuse*; *not run*, with the reason. A case that fails says what it expected. Cases do not wait
//! for a fixed time to prove something: they wait for the thing itself, for at most [`PATIENCE`].
//!
//! Each case gets a [`Target`], from which it opens as many handles as it likes: every handle is a
//! session of its own, as another process would have.

pub mod history;
pub mod outage;
mod suite;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use leasehold_api::{Error, ErrorKind, Floor, Leasehold};

/// How long a case waits for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An engine under test.
pub struct Target {
    open: Box<dyn Fn() -> BoxFuture<'static, leasehold_api::Result<Leasehold>> + Send + Sync>,
    serial: AtomicU64,
}

impl Target {
    /// An engine that `open` opens, each time with a session of its own.
    pub fn new<F>(open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = leasehold_api::Result<Leasehold>> + Send + 'static,
    {
        Self { open: Box::new(move || Box::pin(open())), serial: AtomicU64::new(0) }
    }

    /// A new handle.
    async fn handle(&self) -> Result<Leasehold, Failure> {
        Ok((self.open)().await?)
    }

    /// A name that no other case uses.
    fn name(&self, what: &str) -> String {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        format!("conformance/{}/{what}-{serial}", std::process::id())
    }
}

/// Why a case failed.
#[derive(Debug)]
pub enum Failure {
    /// The engine refused something that it must do.
    Engine(Error),
    /// Something was not as expected.
    Expected(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => write!(f, "the engine refused ({:?}): {error}", error.kind),
            Self::Expected(what) => f.write_str(what),
        }
    }
}

/// The result of a case's body.
pub type Outcome = Result<(), Failure>;

/// One behaviour.
pub struct Case {
    /// `module::behaviour`.
    pub name: String,
    /// What an engine must promise for it; an engine that does not must refuse.
    pub needs: Vec<Floor>,
    run: for<'a> fn(&'a Target) -> BoxFuture<'a, Outcome>,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It behaves.
    Passed,
    /// It is declared absent, and was refused.
    Refused,
    /// It was not run: why.
    NotRun(String),
    /// It does not behave: how.
    Failed(String),
}

/// What became of all cases.
#[derive(Debug, Default)]
pub struct Report {
    /// By name.
    pub verdicts: Vec<(String, Verdict)>,
}

impl Report {
    /// How many had a verdict like this one.
    pub fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.verdicts.iter().filter(|(_, verdict)| is(verdict)).count()
    }

    /// The failures, a line each.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.verdicts.iter().filter_map(|(name, verdict)| match verdict {
            Verdict::Failed(why) => Some(format!("{name}: {why}")),
            _ => None,
        });
        failed.collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} declared absent and refused, {} not run, {} failed",
            self.count(|v| *v == Verdict::Passed),
            self.count(|v| *v == Verdict::Refused),
            self.count(|v| matches!(v, Verdict::NotRun(_))),
            self.count(|v| matches!(v, Verdict::Failed(_))),
        )
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    suite::all()
}

/// Runs the cases whose names contain `filter`, one after the other.
pub async fn run(target: &Target, filter: &str) -> Report {
    let mut report = Report::default();
    for case in cases().into_iter().filter(|case| case.name.contains(filter)) {
        let verdict = judge(target, &case).await;
        report.verdicts.push((case.name, verdict));
    }
    report
}

async fn judge(target: &Target, case: &Case) -> Verdict {
    let absent = match (target.open)().await.and_then(|handle| handle.guarantees()) {
        Ok(guarantees) => case.needs.iter().find(|floor| guarantees.require(**floor).is_err()),
        Err(error) => return Verdict::NotRun(error.to_string()),
    };
    // Generous beside PATIENCE: a case that hangs is a finding, not a reason to hang the suite.
    let done = tokio::time::timeout(4 * PATIENCE, (case.run)(target)).await;
    let done = done.unwrap_or_else(|_| Err(Failure::Expected("it did not end".to_owned())));
    match (absent, done) {
        (None, Ok(())) => Verdict::Passed,
        (None, Err(failure)) => Verdict::Failed(failure.to_string()),
        (Some(_), Err(Failure::Engine(error))) if error.kind == ErrorKind::Unsupported => {
            Verdict::Refused
        }
        (Some(floor), Ok(())) => {
            Verdict::Failed(format!("{floor:?} is declared absent, and works"))
        }
        (Some(floor), Err(failure)) => Verdict::Failed(format!(
            "{floor:?} is declared absent; instead of a refusal: {failure}"
        )),
    }
}
