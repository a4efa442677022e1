//! What goes wrong below, said in the words of the API.
//!
//! A refusal keeps its own text, which names what is wrong and what to do, and its own word on
//! whether asking again can help; only its kind is translated. The table is total: a new refusal
//! does not compile until somebody has decided what it is.

use std::sync::Arc;

use leasehold_api::{Error, ErrorKind, Retry};
use leasehold_core::wire::DecodeError;
use leasehold_core::{Outcome, Refusal};
use leasehold_node::{NodeError, OpenError};

/// Why there is no answer of the kind that was hoped for.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The node refused.
    Refused(Refusal),
    /// There is nobody to answer.
    Gone(Arc<Error>),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(refusal) => refused(&refusal),
            Fault::Gone(error) => Self::clone(&error),
        }
    }
}

/// A refusal.
pub(crate) fn refused(refusal: &Refusal) -> Error {
    let retry = match refusal.retry() {
        leasehold_core::Retry::Never => Retry::Never,
        leasehold_core::Retry::Later => Retry::Later,
        leasehold_core::Retry::Unknown => Retry::Unknown,
    };
    Error::new(kind(refusal), refusal.to_string()).with_retry(retry)
}

fn kind(refusal: &Refusal) -> ErrorKind {
    match refusal {
        Refusal::Time(..)
        | Refusal::TooLarge(..)
        | Refusal::Zero(_)
        | Refusal::NoTenure
        | Refusal::NamedTwice(_)
        | Refusal::UnknownToken(_)
        | Refusal::NothingToRenew(_)
        | Refusal::BadSettings(_)
        | Refusal::Internal(_)
        | Refusal::UnknownDelivery(_)
        | Refusal::SettledTwice(_) => ErrorKind::Invalid,
        Refusal::Busy { .. } => ErrorKind::Busy,
        Refusal::TimedOut | Refusal::Empty => ErrorKind::TimedOut,
        Refusal::Cancelled => ErrorKind::Cancelled,
        Refusal::Deadlock(_) => ErrorKind::Deadlock,
        Refusal::StaleToken { .. } | Refusal::StaleDelivery(_) => ErrorKind::Stale,
        Refusal::ForeignToken(..) | Refusal::ForeignDelivery(_) => ErrorKind::Foreign,
        Refusal::NoSession(_) | Refusal::SessionNeeded => ErrorKind::NoSession,
        Refusal::NoQueue
        | Refusal::NoExchange(_)
        | Refusal::NoBinding
        | Refusal::NoConsumer
        | Refusal::NothingToCancel => ErrorKind::NotFound,
        Refusal::Different(_) | Refusal::Permits { .. } | Refusal::Upgrade(_) => {
            ErrorKind::Different
        }
        Refusal::Conflict(_) => ErrorKind::Conflict,
        Refusal::InUse | Refusal::NotEmpty | Refusal::Exclusive => ErrorKind::InUse,
        Refusal::Unroutable => ErrorKind::Unroutable,
        Refusal::Limit(..) | Refusal::QueueFull(_) => ErrorKind::Full,
        Refusal::DiskFull => ErrorKind::DiskFull,
        Refusal::RequestSpent | Refusal::RequestWaiting => ErrorKind::Spent,
        Refusal::PageNeeded => ErrorKind::Unavailable,
        Refusal::Unreadable(_) | Refusal::Stopped => ErrorKind::Broken,
    }
}

/// Why a directory cannot be opened. Nothing was changed in it.
pub(crate) fn not_opened(error: &OpenError) -> Error {
    let kind = match error {
        OpenError::Disk(_) | OpenError::System { .. } => ErrorKind::Unavailable,
        OpenError::Journal(_) | OpenError::Event { .. } | OpenError::Cell(_) => ErrorKind::Broken,
    };
    let retry = if kind == ErrorKind::Unavailable { Retry::Later } else { Retry::Never };
    Error::new(kind, error.to_string()).with_retry(retry)
}

/// The node ended. `asked`: because its user closed it.
pub(crate) fn ended(error: &NodeError, asked: bool) -> Error {
    if asked {
        return Error::new(ErrorKind::Unavailable, "the engine was closed; open it again");
    }
    Error::new(ErrorKind::Broken, format!("{error}; close the engine and open it again"))
}

/// A record that cannot be read although its checksum is right.
pub(crate) fn garbled(error: &DecodeError) -> Error {
    let wrong = format!("{error}: a newer release wrote it; open the directory with that one");
    Error::new(ErrorKind::Broken, wrong).with_retry(Retry::Never)
}

/// An answer to another question.
pub(crate) fn odd(outcome: &Outcome) -> Error {
    Error::new(ErrorKind::Broken, format!("the node answered {outcome:?}; this is a defect"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_core::{Name, Receipt, SessionId, Token};

    #[test]
    fn a_refusal_keeps_its_text_and_its_word_on_retries() {
        let name = Name::new("nightly").expect("a good name");
        let receipt = Receipt { slot: 1, token: Token(2) };
        let refusals = [
            (Refusal::Zero("the credit"), ErrorKind::Invalid),
            (Refusal::Busy { name: name.clone(), holder: None, left_us: None }, ErrorKind::Busy),
            (Refusal::TimedOut, ErrorKind::TimedOut),
            (Refusal::Cancelled, ErrorKind::Cancelled),
            (Refusal::Deadlock(Box::new([])), ErrorKind::Deadlock),
            (Refusal::StaleDelivery(receipt), ErrorKind::Stale),
            (Refusal::ForeignToken(name.clone(), Token(1)), ErrorKind::Foreign),
            (Refusal::NoSession(SessionId(1)), ErrorKind::NoSession),
            (Refusal::NoQueue, ErrorKind::NotFound),
            (Refusal::Permits { name: name.clone(), of: 1, asked: 2 }, ErrorKind::Different),
            (Refusal::Conflict(None), ErrorKind::Conflict),
            (Refusal::NotEmpty, ErrorKind::InUse),
            (Refusal::Unroutable, ErrorKind::Unroutable),
            (Refusal::QueueFull(name), ErrorKind::Full),
            (Refusal::DiskFull, ErrorKind::DiskFull),
            (Refusal::RequestSpent, ErrorKind::Spent),
            (Refusal::PageNeeded, ErrorKind::Unavailable),
            (Refusal::Unreadable("rotten".into()), ErrorKind::Broken),
            (Refusal::Stopped, ErrorKind::Broken),
        ];
        for (refusal, kind) in refusals {
            let error = refused(&refusal);
            assert_eq!(error.kind, kind);
            assert_eq!(error.wrong, refusal.to_string());
            assert_eq!(format!("{:?}", error.retry), format!("{:?}", refusal.retry()));
        }
    }
}
