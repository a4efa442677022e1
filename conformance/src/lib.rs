//! One behaviour suite for every engine, through what users hold.
//!
//! A case has one of four results, and all are counted: *passed*; *declared absent and proved to
//! refuse*; *declared absent, and nothing that could be refused* (an engine that sees no deadlocks
//! lets those who wait wait on); *not run*, with the reason. A case that fails says what it
//! expected. Cases do not wait for a fixed time to prove something: they wait for the thing itself,
//! for at most [`PATIENCE`].
//!
//! Each case gets a [`Target`], from which it opens as many handles as it likes: every handle is a
//! session of its own, as another process would have. An engine's own tests are
//!
//! ```no_run
//! use leasehold_conformance::{Target, judge_engine};
//! # use leasehold_api::{Engine, Result};
//! # async fn connect(url: &str) -> Result<Engine> {
//! #     Ok(leasehold::connect(url).await?.engine().clone())
//! # }
//! # async fn suite() {
//! judge_engine(Target::engine(|| connect("http://127.0.0.1:7070"))).await;
//! # }
//! ```

pub mod history;
#[cfg(feature = "outage")]
pub mod outage;
mod suite;

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use futures_core::future::BoxFuture;
use leasehold_api::{Engine, Error, ErrorKind, Expect, Floor, Guarantees, Leasehold};

/// How long a case waits for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An engine under test.
pub struct Target {
    open: Box<dyn Fn() -> BoxFuture<'static, leasehold_api::Result<Leasehold>> + Send + Sync>,
    names: Mutex<Vec<String>>,
}

impl Target {
    /// An engine that `open` opens, each time with a session of its own.
    pub fn new<F>(open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = leasehold_api::Result<Leasehold>> + Send + 'static,
    {
        Self { open: Box::new(move || Box::pin(open())), names: Mutex::default() }
    }

    /// An engine that `connect` connects to, each time anew.
    pub fn engine<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = leasehold_api::Result<Engine>> + Send + 'static,
    {
        Self::new(move || {
            let connecting = connect();
            async { Ok(Leasehold::new(connecting.await?)) }
        })
    }

    /// A new handle.
    async fn handle(&self) -> Result<Leasehold, Failure> {
        Ok((self.open)().await?)
    }

    /// A name that no other case uses.
    fn name(&self, what: &str) -> String {
        let mut names = self.names.lock().expect("nobody panics while holding it");
        let name = format!("conformance/{}/{what}-{}", std::process::id(), names.len());
        names.push(name.clone());
        name
    }

    /// Removes the queues, topics and registers that cases left behind, as far as the engine can.
    ///
    /// # Errors
    /// When the engine cannot be opened.
    pub async fn tidy_up(&self) -> leasehold_api::Result<()> {
        let handle = (self.open)().await?;
        let names = std::mem::take(&mut *self.names.lock().expect("nobody panics"));
        let Engine { locks, queues, .. } = handle.engine();
        for name in names {
            // Most names were never those of a queue: what is not there needs no removal.
            if let Some(queues) = queues {
                for suffix in ["", "/all", "/paid", "/0", "/1", "/2"] {
                    queues.delete_queue(&format!("{name}{suffix}"), false, false).await.ok();
                }
                queues.delete_exchange(&name, false).await.ok();
            }
            if locks.is_some() {
                handle.register(&*name).delete_if(Expect::Anything).await.ok();
            }
        }
        Ok(())
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
    /// What an engine must promise for it besides, and what no engine can refuse that does not.
    pub unrefused: Vec<Floor>,
    run: for<'a> fn(&'a Target) -> BoxFuture<'a, Outcome>,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It behaves.
    Passed,
    /// It is declared absent, and was refused.
    Refused,
    /// It is declared absent, and there is nothing to refuse.
    Absent,
    /// It was not run: why.
    NotRun(String),
    /// It does not behave: how.
    Failed(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Refused => f.write_str("declared absent, and refused"),
            Self::Absent => f.write_str("declared absent, nothing to refuse"),
            Self::NotRun(why) => write!(f, "not run: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
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
            "{} passed, {} declared absent and refused, {} declared absent with nothing to \
             refuse, {} not run, {} failed",
            self.count(|v| *v == Verdict::Passed),
            self.count(|v| *v == Verdict::Refused),
            self.count(|v| *v == Verdict::Absent),
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

/// Runs the cases whose names contain what the environment variable `LEASEHOLD_CASE` says (all if
/// it says nothing), prints what did not pass and the sums.
///
/// # Panics
/// When a case failed, was not run, or none is called so.
pub async fn judge_engine(target: Target) {
    let filter = std::env::var("LEASEHOLD_CASE").unwrap_or_default();
    let report = run(&target, &filter).await;
    for (name, verdict) in report.verdicts.iter().filter(|(_, v)| *v != Verdict::Passed) {
        println!("{name}: {verdict}");
    }
    println!("{report}");
    assert!(!report.verdicts.is_empty(), "no case is called {filter}");
    let wrong = |verdict: &Verdict| matches!(verdict, Verdict::Failed(_) | Verdict::NotRun(_));
    let wrong = report.verdicts.iter().filter(|(_, verdict)| wrong(verdict));
    let wrong: Vec<_> = wrong.map(|(name, verdict)| format!("{name}: {verdict}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs one case.
pub async fn judge(target: &Target, case: &Case) -> Verdict {
    let guarantees = match (target.open)().await.and_then(|handle| handle.guarantees()) {
        Ok(guarantees) => guarantees,
        Err(error) => return Verdict::NotRun(error.to_string()),
    };
    let absent = absent(&guarantees, &case.needs);
    if absent.is_none() && self::absent(&guarantees, &case.unrefused).is_some() {
        return Verdict::Absent;
    }
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

/// The first floor that is not kept.
fn absent(guarantees: &Guarantees, floors: &[Floor]) -> Option<Floor> {
    floors.iter().copied().find(|floor| guarantees.require(*floor).is_err())
}
