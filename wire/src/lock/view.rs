//! Locks as inspect, list and watch show them.

use leasehold_api::engine as api;
use serde::{Deserialize, Serialize};

use super::{ModeName, Permits, mode, mode_fields};
use crate::time::{duration, duration_of, ms, ms_of};

/// A hold's deadline was set anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewed {
    /// Time left until the deadline; null: no deadline.
    pub left_ms: Option<u64>,
}

/// A hold was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Released {
    /// How often it is still entered; 0: it has ended.
    pub entries: u32,
}

/// Holds were ended by an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForceReleased {
    /// How many.
    pub holds: u32,
}

/// Whether a lock is held with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checked {
    /// Whether it is.
    pub held: bool,
}

/// Asks whether a lock is held with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The token.
    pub token: u64,
}

/// Waits for a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// The newest token or version that the caller knows of; without it: that there is none.
    pub known: Option<u64>,
    /// How long to wait for another one, 0 to 600000.
    pub wait_ms: u64,
}

/// Asks for things by prefix, some at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct List {
    /// Names begin with this.
    pub prefix: String,
    /// Where to go on: `next` of the answer before.
    pub after: u32,
    /// How many at most, 1 to 1000; 100 when it is not said.
    pub max: Option<u32>,
}

impl List {
    /// What the engine is asked.
    pub fn into_api(self) -> api::List {
        let max = self.max.unwrap_or(100);
        api::List { prefix: self.prefix, after: self.after, max }
    }
}

/// Some locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Locks {
    /// These.
    pub items: Vec<LockView>,
    /// Where to go on; null: that was all.
    pub next: Option<u32>,
}

/// A lock; without holders nobody holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockView {
    /// Its name.
    pub name: String,
    /// Its holders, the newest first.
    pub holders: Vec<HolderView>,
    /// Those who wait, the next first; the first thousand of them.
    pub waiters: Vec<WaiterView>,
    /// How many wait.
    pub waiting: u32,
    /// How long nobody may take it after an unclean loss.
    pub delay_left_ms: u64,
    /// How long it is held on average.
    pub hold_average_ms: Option<u64>,
}

/// A holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HolderView {
    /// Its fencing token.
    pub token: u64,
    /// The number of its session; 0: none.
    pub session: u64,
    /// exclusive or shared; null when it holds permits.
    pub mode: Option<ModeName>,
    /// The permits it holds.
    pub permits: Option<Permits>,
    /// Since how long.
    pub held_ms: u64,
    /// How long it may still hold; null: no deadline.
    pub left_ms: Option<u64>,
    /// How often it entered.
    pub entries: u32,
    /// What it says about itself.
    pub label: Option<String>,
}

/// A waiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaiterView {
    /// The number of its session; 0: none.
    pub session: u64,
    /// exclusive or shared; null when it wants permits.
    pub mode: Option<ModeName>,
    /// The permits it wants.
    pub permits: Option<Permits>,
    /// Since how long it waits.
    pub waited_ms: u64,
    /// How long it will wait, from its position and the average hold.
    pub expected_ms: Option<u64>,
    /// What it says about itself.
    pub label: Option<String>,
}

impl From<api::LockView> for LockView {
    fn from(view: api::LockView) -> Self {
        let holder = |holder: api::HolderView| {
            let (mode, permits) = mode_fields(holder.mode);
            HolderView {
                token: holder.token,
                session: holder.session,
                mode,
                permits,
                held_ms: ms(holder.held),
                left_ms: ms_of(holder.left),
                entries: holder.entries,
                label: holder.label,
            }
        };
        let waiter = |waiter: api::WaiterView| {
            let (mode, permits) = mode_fields(waiter.mode);
            WaiterView {
                session: waiter.session,
                mode,
                permits,
                waited_ms: ms(waiter.waited),
                expected_ms: ms_of(waiter.expected),
                label: waiter.label,
            }
        };
        Self {
            name: view.name,
            holders: view.holders.into_iter().map(holder).collect(),
            waiters: view.waiters.into_iter().map(waiter).collect(),
            waiting: view.waiting,
            delay_left_ms: ms(view.delay_left),
            hold_average_ms: ms_of(view.hold_average),
        }
    }
}

impl From<LockView> for api::LockView {
    fn from(view: LockView) -> Self {
        let held = |name, permits| mode(name, permits).unwrap_or_default();
        let holder = |holder: HolderView| api::HolderView {
            token: holder.token,
            session: holder.session,
            mode: held(holder.mode, holder.permits),
            held: duration(holder.held_ms),
            left: duration_of(holder.left_ms),
            entries: holder.entries,
            label: holder.label,
        };
        let waiter = |waiter: WaiterView| api::WaiterView {
            session: waiter.session,
            mode: held(waiter.mode, waiter.permits),
            waited: duration(waiter.waited_ms),
            expected: duration_of(waiter.expected_ms),
            label: waiter.label,
        };
        Self {
            name: view.name,
            holders: view.holders.into_iter().map(holder).collect(),
            waiters: view.waiters.into_iter().map(waiter).collect(),
            waiting: view.waiting,
            delay_left: duration(view.delay_left_ms),
            hold_average: duration_of(view.hold_average_ms),
        }
    }
}

/// Who leads an election.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Leader {
    /// What the leader said of itself; null: nobody leads.
    pub leader: Option<String>,
    /// Its fencing token, the term; later leaders have higher ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Since how long it leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

impl From<&api::LockView> for Leader {
    /// From the lock behind the election.
    fn from(view: &api::LockView) -> Self {
        let Some(holder) = view.holders.first() else {
            return Self { leader: None, token: None, since_ms: None };
        };
        Self {
            leader: Some(holder.label.clone().unwrap_or_default()),
            token: Some(holder.token),
            since_ms: Some(ms(holder.held)),
        }
    }
}
