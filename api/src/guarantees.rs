//! What an engine promises, as a few ordered enums: more is greater, so a user can demand a floor.
//!
//! The list of promises exists once, in [`every_guarantee`](crate::every_guarantee): the enums, the
//! floors, the tables and the JSON of the HTTP door are made from it.

use crate::{Error, ErrorKind, Result};

/// Hands the list of all guarantees to a macro: of each its field, its enum and the levels, the
/// weakest first, with what they mean.
#[doc(hidden)]
#[macro_export]
macro_rules! every_guarantee {
    ($then:ident) => {
        $then! {
            /// Whether a late hand is refused.
            fencing: Fencing {
                /// There are no tokens.
                None,
                /// Tokens rise, except after a failover or a lost store.
                Advisory,
                /// Tokens rise strictly, over restarts too, and the engine's own writes check them.
                Strict,
            }
            /// What ends the leases of a holder that died.
            ends: Ends {
                /// Its session or its TTL, one of the two.
                One,
                /// Either, as the user chooses.
                Both,
            }
            /// How waiters get their turn.
            waiting: Waiting {
                /// They cannot wait.
                None,
                /// In any order.
                Unordered,
                /// First come, first served.
                Fair,
            }
            /// What a confirmed change survives.
            survives: Survives {
                /// Nothing.
                Nothing,
                /// The death of a process.
                Process,
                /// Power loss.
                Power,
            }
            /// How much happens at once or not at all.
            atomicity: Atomicity {
                /// One request.
                Single,
                /// Acks, publishes, releases, register writes and token checks together.
                Commit,
            }
            /// Who decides who holds a lock.
            agreement: Agreement {
                /// One node: what it forgets, or a replica of it has not heard of, is lost.
                One,
                /// A majority of nodes agrees first.
                Majority,
            }
            /// In which ways a lock can be held.
            modes: Modes {
                /// In none: there are no locks.
                No,
                /// By one at a time.
                Exclusive,
                /// Shared, and by permits of a semaphore, too.
                All,
            }
            /// Whether several locks can be taken at once.
            multi_lock: MultiLock {
                /// One at a time.
                No,
                /// All or none, under one token.
                Atomic,
            }
            /// Whether a lock that was lost stays out of reach for a time.
            lock_delay: LockDelay {
                /// It can be taken at once.
                No,
                /// Nobody gets it within the time that its holder asked for.
                Kept,
            }
            /// Whether those who wait for each other are told.
            deadlocks: Deadlocks {
                /// They wait until their time is over.
                Unseen,
                /// Who closes the circle is refused, and told who is in it.
                Named,
            }
            /// Whether an operator can end a hold.
            revocation: Revocation {
                /// Only its holder, its session or its time can.
                No,
                /// A lock can be freed whoever has it.
                Forced,
            }
            /// Whether there are versioned registers.
            registers: Registers {
                /// There are none.
                No,
                /// With compare-and-set, and a time after which a value vanishes.
                Versioned,
            }
            /// Whether a change of a lock or a register wakes those who watch it.
            watching: Watching {
                /// Nothing can be watched.
                No,
                /// Who watches is woken.
                Woken,
            }
            /// What is shown of locks.
            inspection: Inspection {
                /// Nothing.
                No,
                /// Their holders: of one lock, and of all whose names begin alike.
                Holders,
                /// Those who wait, too.
                Line,
            }
            /// Whether there are queues, and how deliveries are kept.
            queues: Queues {
                /// There are none.
                No,
                /// What is not acknowledged comes again when its consumer has gone.
                Acked,
                /// Deliveries have deadlines that can be extended, and a late ack is refused.
                Leased,
            }
            /// Whether exchanges and topics spread messages over queues.
            routing: Routing {
                /// A message goes to one queue.
                No,
                /// Through exchanges and bindings.
                Exchanges,
            }
            /// Whether urgent messages go first.
            priorities: Priorities {
                /// All are alike.
                No,
                /// By priority.
                Levels,
            }
            /// Whether a message can be held back.
            delays: Delays {
                /// It is delivered as soon as it can be.
                No,
                /// For a time, or until one; a returned one, too.
                Timed,
            }
            /// Whether a message that nobody takes dies.
            expiry: Expiry {
                /// It stays.
                No,
                /// After a time of its own or the queue's.
                Timed,
            }
            /// Whether the dead are kept, and deliveries counted.
            dead_letters: DeadLetters {
                /// What is rejected is gone.
                No,
                /// They go to a queue of their own, with how they died.
                Kept,
            }
            /// Whether a message that is published twice is taken once.
            deduplication: Deduplication {
                /// It is taken twice.
                No,
                /// Once within the queue's window, by its id.
                Window,
            }
            /// Whether messages of one key keep their order among several consumers.
            key_order: KeyOrder {
                /// They may overtake each other.
                No,
                /// They are delivered one at a time, in order.
                Keys,
            }
            /// Whether a queue can be bounded.
            bounds: Bounds {
                /// It grows.
                No,
                /// Beyond a number of messages or bytes the oldest go, or new ones are refused.
                Kept,
            }
            /// Whether a consumer can have a queue to itself.
            consumers: Consumers {
                /// Others may consume beside it.
                Any,
                /// Others are refused while it consumes.
                Alone,
            }
            /// How several consumers share what is in a queue.
            sharing: Sharing {
                /// There is nothing to share.
                No,
                /// By partitions: what is in one goes to whoever has it, and the others stand by.
                Partitions,
                /// By messages: each goes to whoever is free.
                Messages,
            }
            /// What can be seen of queues, and done to them.
            management: Management {
                /// Nothing.
                No,
                /// How many messages wait and are in flight.
                Counts,
                /// They can be listed, peeked into, paused and redriven, and their sums are kept.
                Full,
            }
        }
    };
}

macro_rules! declare {
    ($(
        $(#[doc = $about:literal])+
        $field:ident: $name:ident {
            $(#[doc = $least_about:literal])+ $least:ident,
            $($(#[doc = $step_about:literal])+ $step:ident,)+
        }
    )*) => {
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum $name {
                $(#[doc = $least_about])+
                $least,
                $($(#[doc = $step_about])+ $step,)+
            }

            impl $name {
                const STRONGEST: Self = {
                    let steps = [$(Self::$step),+];
                    steps[steps.len() - 1]
                };

                const fn told(self) -> Told {
                    let (level, means) = match self {
                        Self::$least => (stringify!($least), concat!($($least_about),+)),
                        $(Self::$step => (stringify!($step), concat!($($step_about),+)),)+
                    };
                    let is_weakest = matches!(self, Self::$least);
                    let about = concat!($($about),+);
                    let (about, means) = (about.trim_ascii_start(), means.trim_ascii_start());
                    Told { name: stringify!($field), about, level, means, is_weakest }
                }
            }

            impl From<$name> for Floor {
                fn from(floor: $name) -> Self {
                    Self::$name(floor)
                }
            }
        )*

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
            $($(#[doc = $about])+ pub $field: $name,)*
        }

        /// A floor for one of the guarantees.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Floor {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
        }

        impl Guarantees {
            /// The weakest of everything, for engines to say how they differ from it.
            ///
            /// ```
            /// use leasehold_api::{Fencing, Guarantees, Modes};
            /// const MINE: Guarantees = Guarantees {
            ///     fencing: Fencing::Advisory,
            ///     modes: Modes::Exclusive,
            ///     ..Guarantees::NOTHING
            /// };
            /// assert!(MINE.require(Fencing::Strict.into()).is_err());
            /// ```
            pub const NOTHING: Self = Self { $($field: $name::$least,)* };

            /// The strongest of everything: no engine need be it.
            ///
            /// ```
            /// use leasehold_api::{Agreement, Guarantees};
            /// const MINE: Guarantees =
            ///     Guarantees { agreement: Agreement::One, ..Guarantees::EVERYTHING };
            /// assert_eq!(MINE.label(), "fenced");
            /// ```
            pub const EVERYTHING: Self = Self { $($field: $name::STRONGEST,)* };

            /// Each of them in words, in order.
            ///
            /// ```
            /// let told = leasehold_api::Guarantees::NOTHING.all().next().expect("there are some");
            /// assert_eq!((told.name, told.level, told.is_weakest), ("fencing", "None", true));
            /// ```
            pub fn all(&self) -> impl Iterator<Item = Told> + use<> {
                [$(self.$field.told(),)*].into_iter()
            }

            /// Every level of every guarantee in words, those of one together, the weakest first.
            ///
            /// ```
            /// let levels = leasehold_api::Guarantees::levels();
            /// let fencing = levels.filter(|told| told.name == "fencing").map(|told| told.level);
            /// assert_eq!(fencing.collect::<Vec<_>>(), ["None", "Advisory", "Strict"]);
            /// ```
            pub fn levels() -> impl Iterator<Item = Told> {
                [$($name::$least.told(), $($name::$step.told(),)+)*].into_iter()
            }

            /// Whether a floor is kept, and what there is.
            fn kept(&self, floor: Floor) -> (bool, Told) {
                match floor {
                    $(Floor::$name(floor) => (self.$field >= floor, self.$field.told()),)*
                }
            }
        }

        impl Floor {
            /// What is demanded, in words.
            pub fn told(&self) -> Told {
                match self {
                    $(Self::$name(floor) => floor.told(),)*
                }
            }
        }
    };
}
every_guarantee!(declare);

/// One guarantee in words.
///
/// ```
/// use leasehold_api::{Fencing, Guarantees};
/// let mine = Guarantees { fencing: Fencing::Strict, ..Guarantees::NOTHING };
/// let told = mine.all().find(|told| told.name == "fencing").expect("it is one of them");
/// assert_eq!((told.level, told.is_weakest), ("Strict", false));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Told {
    /// Which: the name of its field.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// How much of it there is: the name of the level.
    pub level: &'static str,
    /// What that level means.
    pub means: &'static str,
    /// Whether there is no less.
    pub is_weakest: bool,
}

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
        let (kept, Told { level, .. }) = self.kept(floor);
        if kept {
            return Ok(());
        }
        let wrong =
            format!("{floor:?} is demanded, this engine gives {level}; choose another engine");
        Err(Error::new(ErrorKind::Unsupported, wrong))
    }

    /// What its locks are good for, in a word: `efficiency only` (two may hold one, seldom),
    /// `fenced` (a late hand is refused), `consensus` (and no single node decides).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// assert_eq!(leasehold.guarantees()?.label(), "fenced");
    /// # Ok(()) }
    /// ```
    pub fn label(&self) -> &'static str {
        match (self.fencing, self.agreement) {
            (Fencing::Strict, Agreement::Majority) => "consensus",
            (Fencing::Strict, Agreement::One) => "fenced",
            _ => "efficiency only",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Guarantees =
        Guarantees { queues: Queues::Leased, modes: Modes::All, ..Guarantees::NOTHING };

    #[test]
    fn more_is_greater() {
        MOST.require(Queues::Acked.into()).expect("it gives more");
        MOST.require(Modes::All.into()).expect("it gives as much");
        let error = MOST.require(Routing::Exchanges.into()).expect_err("it gives none");
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.wrong.contains("Routing(Exchanges)"), "{error}");
        assert!(error.wrong.contains("gives No"), "{error}");
    }

    #[test]
    fn nothing_is_the_weakest_of_everything() {
        assert!(Guarantees::NOTHING.all().all(|told| told.is_weakest));
        let strong: Vec<_> = MOST.all().filter(|told| !told.is_weakest).collect();
        let levels: Vec<_> = strong.iter().map(|told| (told.name, told.level)).collect();
        assert_eq!(levels, [("modes", "All"), ("queues", "Leased")]);
        assert_eq!(strong[0].means, "Shared, and by permits of a semaphore, too.");
    }

    #[test]
    fn a_label_is_about_fencing_and_agreement() {
        let with = |fencing, agreement| Guarantees { fencing, agreement, ..Guarantees::NOTHING };
        assert_eq!(with(Fencing::None, Agreement::One).label(), "efficiency only");
        assert_eq!(with(Fencing::Advisory, Agreement::Majority).label(), "efficiency only");
        assert_eq!(with(Fencing::Strict, Agreement::One).label(), "fenced");
        assert_eq!(with(Fencing::Strict, Agreement::Majority).label(), "consensus");
    }
}
