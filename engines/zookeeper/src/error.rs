//! What ZooKeeper answers when it does not do what was asked.

use leasehold_api::{Error, ErrorKind, Retry};
use zookeeper_client::Error as Said;

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It was not heard: nobody knows whether it was done.
    Away(String),
    /// The ZooKeeper session has ended, and its nodes with it.
    Lost,
    /// There is no such node.
    NoNode,
    /// There is one already.
    NodeExists,
    /// It was changed.
    BadVersion,
    /// Something else is wrong.
    Refused(Error),
}

/// The result of something that the caller may know how to repair.
pub(crate) type Tried<T> = std::result::Result<T, Fault>;

/// What a refusal means, or that nobody answered.
pub(crate) fn fault(said: &Said) -> Fault {
    let refused = |kind, what: &str| Fault::Refused(Error::new(kind, format!("{said}: {what}")));
    match said {
        Said::NoNode => Fault::NoNode,
        Said::NodeExists => Fault::NodeExists,
        Said::BadVersion => Fault::BadVersion,
        Said::SessionExpired | Said::ClientClosed => Fault::Lost,
        Said::ConnectionLoss
        | Said::Timeout
        | Said::NoHosts
        | Said::SessionMoved
        | Said::Throttled
        | Said::NotReadOnly
        | Said::Custom(_) => Fault::Away(said.to_string()),
        Said::NoAuth => refused(
            ErrorKind::Forbidden,
            "the user must be allowed to do everything below the root of the URL; see its ACLs \
             (`getAcl -s PATH`)",
        ),
        Said::AuthFailed => refused(
            ErrorKind::Unauthenticated,
            "the ensemble wants to know who you are; put USER:PASSWORD@ before the host",
        ),
        Said::QuotaExceeded => {
            refused(ErrorKind::Full, "a quota is on a node above (`listquota PATH`)")
        }
        Said::Unimplemented => {
            refused(ErrorKind::Unsupported, "the server is older than ZooKeeper 3.5")
        }
        _ => refused(ErrorKind::Broken, "ZooKeeper did not take it"),
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let broken = |wrong: &str| Self::new(ErrorKind::Broken, wrong);
        match fault {
            Fault::Away(why) => Self::new(ErrorKind::Unavailable, why).with_retry(Retry::Unknown),
            Fault::Lost => {
                let wrong = "the session with ZooKeeper ended meanwhile; ask again";
                Self::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Unknown)
            }
            Fault::NoNode => broken("a node is missing that was there; who else deletes below?"),
            Fault::NodeExists => broken("a node is there that should not be"),
            Fault::BadVersion => broken("a node was changed that nobody else writes"),
            Fault::Refused(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_kinds() {
        let kind = |said: Said| Error::from(fault(&said)).kind;
        assert_eq!(kind(Said::NoAuth), ErrorKind::Forbidden);
        assert_eq!(kind(Said::AuthFailed), ErrorKind::Unauthenticated);
        assert_eq!(kind(Said::ConnectionLoss), ErrorKind::Unavailable);
        assert_eq!(kind(Said::SessionExpired), ErrorKind::Unavailable);
        assert_eq!(kind(Said::Unimplemented), ErrorKind::Unsupported);
    }
}
