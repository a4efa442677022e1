//! What an engine promises, as a few ordered enums: more is greater, so a user can demand a floor.

use crate::{Error, ErrorKind, Result};

/// Whether a late hand is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fencing {
    /// There are no tokens.
    None,
    /// Tokens rise, except after a failover or a lost store.
    Advisory,
    /// Tokens rise strictly, over restarts too, and the engine's own writes check them.
    Strict,
}

/// What ends the leases of a holder that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ends {
    /// Its session or its TTL, one of the two.
    One,
    /// Either, as the user chooses.
    Both,
}

/// How waiters get their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiting {
    /// They cannot wait.
    None,
    /// In any order.
    Unordered,
    /// First come, first served.
    Fair,
}

/// What a confirmed change survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Survives {
    /// Nothing.
    Nothing,
    /// The death of a process.
    Process,
    /// Power loss.
    Power,
}

/// How much happens at once or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atomicity {
    /// One request.
    Single,
    /// Acks, publishes, releases, register writes and token checks together.
    Commit,
}

/// What an engine promises.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// println!("{:?}", leasehold.guarantees()?.survives);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// A floor for one of the guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Floor {
    /// See [`Fencing`].
    Fencing(Fencing),
    /// See [`Ends`].
    Ends(Ends),
    /// See [`Waiting`].
    Waiting(Waiting),
    /// See [`Survives`].
    Survives(Survives),
    /// See [`Atomicity`].
    Atomicity(Atomicity),
}

macro_rules! floors {
    ($($name:ident),*) => {
        $(impl From<$name> for Floor {
            fn from(floor: $name) -> Self {
                Self::$name(floor)
            }
        })*
    };
}
floors!(Fencing, Ends, Waiting, Survives, Atomicity);

impl Guarantees {
    /// Whether a floor is kept.
    ///
    /// # Errors
    /// `Unsupported`, with what is demanded and what there is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use leasehold::{Fencing, Survives};
    /// let guarantees = leasehold.guarantees()?;
    /// guarantees.require(Fencing::Strict.into())?;
    /// assert!(guarantees.require(Survives::Power.into()).is_err()); // it is in memory
    /// # Ok(()) }
    /// ```
    pub fn require(&self, floor: Floor) -> Result<()> {
        let (kept, is) = match floor {
            Floor::Fencing(floor) => (self.fencing >= floor, format!("{:?}", self.fencing)),
            Floor::Ends(floor) => (self.ends >= floor, format!("{:?}", self.ends)),
            Floor::Waiting(floor) => (self.waiting >= floor, format!("{:?}", self.waiting)),
            Floor::Survives(floor) => (self.survives >= floor, format!("{:?}", self.survives)),
            Floor::Atomicity(floor) => (self.atomicity >= floor, format!("{:?}", self.atomicity)),
        };
        if kept {
            return Ok(());
        }
        let wrong = format!("{floor:?} is demanded, this engine gives {is}; choose another engine");
        Err(Error::new(ErrorKind::Unsupported, wrong))
    }
}
