//! The cases, and the words they are written in.

mod cancels;
mod commit;
mod locks;
mod losses;
mod queues;
mod registers;
mod sessions;
mod settling;
mod together;
mod wakes;

use std::future::Future;
use std::time::Duration;

use leasehold_api::{Error, ErrorKind, Floor, Inspection, Leasehold};

use crate::{Case, Failure, Outcome, PATIENCE};

/// Lists cases of a module, with what all of them need and what each needs besides. An engine that
/// lacks what a case `needs` must refuse; what nobody can refuse is `unrefused`.
macro_rules! cases {
    ($module:literal $(needs $($all:ident::$least:ident),+)?: $(
        $name:ident
        $(needs $($kind:ident::$level:ident),+)?
        $(unrefused $($quiet:ident::$step:ident),+)?;
    )*) => {
        pub(super) fn cases() -> Vec<crate::Case> {
            let all: Vec<leasehold_api::Floor> =
                vec![$($(leasehold_api::$all::$least.into()),+)?];
            let with = |own: Vec<leasehold_api::Floor>| [all.clone(), own].concat();
            vec![$(crate::Case {
                name: concat!($module, "::", stringify!($name)).to_owned(),
                needs: with(vec![$($(leasehold_api::$kind::$level.into()),+)?]),
                unrefused: vec![$($(leasehold_api::$quiet::$step.into()),+)?],
                run: |target| Box::pin($name(target)),
            }),*]
        }
    };
}
use cases;

/// Demands that something is so, or fails with what was expected.
macro_rules! ensure {
    ($is_so:expr, $($what:tt)*) => {
        if !$is_so {
            return Err(crate::Failure::Expected(format!($($what)*)));
        }
    };
}
use ensure;

pub(crate) fn all() -> Vec<Case> {
    let modules = [
        locks::cases(),
        losses::cases(),
        registers::cases(),
        queues::cases(),
        settling::cases(),
        commit::cases(),
        together::cases(),
        sessions::cases(),
        wakes::cases(),
        cancels::all(),
    ];
    modules.into_iter().flatten().collect()
}

/// Waits for something that must come.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
    let late = |_| Failure::Expected(format!("{what} did not come within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, future).await.map_err(late)
}

/// Asks again and again until something is so: for things that no call waits for.
async fn until<F>(what: &str, mut is_so: impl FnMut() -> F) -> Result<(), Failure>
where
    F: Future<Output = leasehold_api::Result<bool>>,
{
    let ask = async {
        while !is_so().await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<(), Error>(())
    };
    soon(what, ask).await?.map_err(Failure::from)
}

/// Whether an engine gives at least so much.
fn gives(handle: &Leasehold, floor: impl Into<Floor>) -> Result<bool, Failure> {
    Ok(handle.guarantees()?.require(floor.into()).is_ok())
}

/// Waits until so many wait for a lock. Where the line is not shown they get a while to come to
/// it, or to leave it.
async fn in_line(handle: &Leasehold, name: &str, waiting: u32) -> Outcome {
    if !gives(handle, Inspection::Line)? {
        tokio::time::sleep(SHORT).await;
        return Ok(());
    }
    let there = async || Ok(handle.inspect(name).await?.waiting == waiting);
    until(&format!("a line of {waiting}"), there).await
}

/// Demands a refusal of a kind. That the engine cannot do it at all is passed on.
fn refused<T>(result: leasehold_api::Result<T>, kind: ErrorKind) -> Result<Error, Failure> {
    match result {
        Err(error) if error.kind == kind => Ok(error),
        Err(error) if error.kind == ErrorKind::Unsupported => Err(Failure::Engine(error)),
        Err(error) => {
            Err(Failure::Expected(format!("{kind:?} was expected, not {:?}: {error}", error.kind)))
        }
        Ok(_) => Err(Failure::Expected(format!("{kind:?} was expected, but it was accepted"))),
    }
}

/// A time short enough to wait for and long enough for a slow machine to act within.
const SHORT: Duration = Duration::from_millis(400);

/// How long a lease lasts within which something must be done or renewed: a machine that is busy
/// with other things may let it stand still for longer than [`SHORT`].
const KEPT: Duration = Duration::from_secs(3);
