//! What the engine behind a door promises.

use leasehold_api as api;
use serde::{Deserialize, Serialize};

/// Writes an ordered promise: its names on the wire, and back.
macro_rules! promise {
    ($(#[$about:meta])* $name:ident { $($(#[$step_about:meta])* $step:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$step_about])* $step,)*
        }

        impl From<api::$name> for $name {
            fn from(promised: api::$name) -> Self {
                match promised {
                    $(api::$name::$step => Self::$step,)*
                }
            }
        }

        impl From<$name> for api::$name {
            fn from(promised: $name) -> Self {
                match promised {
                    $($name::$step => Self::$step,)*
                }
            }
        }
    };
}

promise! {
    /// Whether a late hand is refused.
    Fencing {
        /// There are no tokens.
        None,
        /// Tokens rise, except after a failover or a lost store.
        Advisory,
        /// Tokens rise strictly, over restarts too, and the engine's own writes check them.
        Strict,
    }
}

promise! {
    /// What ends the leases of a holder that died.
    Ends {
        /// Its session or its TTL, one of the two.
        One,
        /// Either, as the user chooses.
        Both,
    }
}

promise! {
    /// How waiters get their turn.
    Waiting {
        /// They cannot wait.
        None,
        /// In any order.
        Unordered,
        /// First come, first served.
        Fair,
    }
}

promise! {
    /// What a confirmed change survives.
    Survives {
        /// Nothing.
        Nothing,
        /// The death of a process.
        Process,
        /// Power loss.
        Power,
    }
}

promise! {
    /// How much happens at once or not at all.
    Atomicity {
        /// One request.
        Single,
        /// Acks, publishes, releases, register writes and token checks together.
        Commit,
    }
}

/// What the engine behind the door promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Guarantees {
    /// Whether a late hand is refused.
    pub fencing: Fencing,
    /// What ends the leases of the dead.
    pub ends: Ends,
    /// How waiters get their turn.
    pub waiting: Waiting,
    /// What a confirmed change survives.
    pub survives: Survives,
    /// How much happens at once.
    pub atomicity: Atomicity,
}

impl From<api::Guarantees> for Guarantees {
    fn from(promised: api::Guarantees) -> Self {
        Self {
            fencing: promised.fencing.into(),
            ends: promised.ends.into(),
            waiting: promised.waiting.into(),
            survives: promised.survives.into(),
            atomicity: promised.atomicity.into(),
        }
    }
}

impl From<Guarantees> for api::Guarantees {
    fn from(promised: Guarantees) -> Self {
        Self {
            fencing: promised.fencing.into(),
            ends: promised.ends.into(),
            waiting: promised.waiting.into(),
            survives: promised.survives.into(),
            atomicity: promised.atomicity.into(),
        }
    }
}
