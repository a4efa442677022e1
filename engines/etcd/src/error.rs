//! What etcd answers when it does not do what was asked.

use std::error::Error as _;

use leasehold_api::{Error, ErrorKind, Retry};
use tonic::{Code, Status};

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It was not heard, or could not decide: nobody knows whether it was done.
    Away(String),
    /// There is no such lease.
    NoLease,
    /// There is a lease with this number already.
    LeaseThere,
    /// Something else is wrong.
    Refused(Error),
}

/// What a refusal means, or that nobody answered.
pub(crate) fn fault(status: &Status) -> Fault {
    match status.source() {
        Some(cause) => judge(status.code(), &format!("{}: {}", status.message(), chain(cause))),
        None => judge(status.code(), status.message()),
    }
}

/// An error with its causes: the first of them seldom says what happened.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    said
}

/// What a refusal means. The texts are etcd's own, in `api/v3rpc/rpctypes/error.go`.
fn judge(code: Code, said: &str) -> Fault {
    let refused = |kind, wrong: String| Fault::Refused(Error::new(kind, wrong));
    if said.contains("requested lease not found") {
        return Fault::NoLease;
    }
    if said.contains("lease already exists") {
        return Fault::LeaseThere;
    }
    match code {
        Code::ResourceExhausted if said.contains("space exceeded") => {
            let wrong = format!(
                "{said}: etcd is over its quota and takes no more; compact, defragment, then \
                 `etcdctl alarm disarm`"
            );
            refused(ErrorKind::DiskFull, wrong)
        }
        Code::ResourceExhausted if said.contains("too many requests") => {
            Fault::Away(said.to_owned())
        }
        Code::InvalidArgument if said.contains("user name is empty") => {
            let wrong = format!(
                "{said}: the cluster asks who you are; put USER:PASSWORD@ before \
                                 the host"
            );
            refused(ErrorKind::Unauthenticated, wrong)
        }
        Code::InvalidArgument if said.contains("authentication failed") => {
            let wrong = format!("{said}: user or password is wrong");
            refused(ErrorKind::Unauthenticated, wrong)
        }
        Code::Unauthenticated => refused(ErrorKind::Unauthenticated, said.to_owned()),
        Code::PermissionDenied => {
            let wrong = format!(
                "{said}: the user needs a role that reads and writes all keys under the prefix \
                 (`etcdctl role grant-permission ROLE readwrite --prefix=true PREFIX/`)"
            );
            refused(ErrorKind::Forbidden, wrong)
        }
        Code::InvalidArgument
            if said.contains("too large") || said.contains("too many operations") =>
        {
            let wrong = format!("{said}: see --max-request-bytes and --max-txn-ops of etcd");
            refused(ErrorKind::Invalid, wrong)
        }
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => {
            Fault::Away(if said.is_empty() { "it hung up".to_owned() } else { said.to_owned() })
        }
        _ => refused(ErrorKind::Broken, said.to_owned()),
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let broken = |wrong: &str| Self::new(ErrorKind::Broken, wrong);
        match fault {
            Fault::Away(why) => Self::new(ErrorKind::Unavailable, why).with_retry(Retry::Unknown),
            Fault::NoLease => broken("etcd knows a lease no more that was just granted"),
            Fault::LeaseThere => broken("another has a lease with the same random number"),
            Fault::Refused(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: Code, said: &str) -> ErrorKind {
        Error::from(judge(code, said)).kind
    }

    #[test]
    fn refusals_have_their_kinds() {
        let full = "etcdserver: mvcc: database space exceeded";
        assert_eq!(kind(Code::ResourceExhausted, full), ErrorKind::DiskFull);
        let denied = "etcdserver: permission denied";
        assert_eq!(kind(Code::PermissionDenied, denied), ErrorKind::Forbidden);
        let nobody = "etcdserver: user name is empty";
        assert_eq!(kind(Code::InvalidArgument, nobody), ErrorKind::Unauthenticated);
        assert_eq!(
            kind(Code::Unavailable, "etcdserver: request timed out"),
            ErrorKind::Unavailable
        );
        assert!(matches!(
            judge(Code::NotFound, "etcdserver: requested lease not found"),
            Fault::NoLease
        ));
        assert!(matches!(
            judge(Code::FailedPrecondition, "etcdserver: lease already exists"),
            Fault::LeaseThere
        ));
    }
}
