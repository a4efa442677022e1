//! What the driver and the server say, in the words of the API.

use leasehold_api::{Error, ErrorKind, Retry};
use mysql_async::{DriverError, ServerError, UrlError};

/// Why a transaction was not carried out.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is refused. It is rolled back, and the connection is good.
    Refused(Error),
    /// Somebody stood in the way. It is rolled back; again, at once.
    Again(Error),
    /// The connection is lost, and whether it was carried out is not known.
    Lost(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<mysql_async::Error> for Fault {
    fn from(error: mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(said) => server(&said),
            mysql_async::Error::Driver(
                error @ (DriverError::FromRow { .. } | DriverError::FromValue { .. }),
            ) => Self::Lost(odd(&error.to_string())),
            error => Self::Lost(Error::new(ErrorKind::Unavailable, error.to_string())),
        }
    }
}

/// Something that only a defect explains.
pub(crate) fn odd(what: &str) -> Error {
    let wrong = format!("the server's answer is not what was asked for: {what}");
    Error::new(ErrorKind::Broken, wrong)
}

/// What a server refuses; numbers as in "Server Error Message Reference" of the MySQL manual and
/// "MariaDB Error Code Reference".
fn server(said: &ServerError) -> Fault {
    let wrong = |what: &str| format!("{what} (error {}: {})", said.code, said.message);
    let refused = |kind, what: &str| Fault::Refused(Error::new(kind, wrong(what)));
    let lost = |what: &str| Fault::Lost(Error::new(ErrorKind::Unavailable, wrong(what)));
    match said.code {
        // Deadlock; lock wait timeout; a duplicate that came in between; a record that changed.
        1213 | 1205 | 1062 | 1020 | 3058 | 3101 => {
            let busy = wrong("others write the same rows all the time; try later");
            Fault::Again(Error::new(ErrorKind::Unavailable, busy).with_retry(Retry::Later))
        }
        1045 | 1698 | 1524 | 1251 => {
            refused(ErrorKind::Unauthenticated, "the server does not know these credentials")
        }
        1044 => refused(
            ErrorKind::Forbidden,
            "the user may not use the database; grant it SELECT, INSERT, UPDATE, DELETE, CREATE",
        ),
        1142 | 1143 | 1227 | 1370 => refused(
            ErrorKind::Forbidden,
            "a privilege is missing; grant SELECT, INSERT, UPDATE, DELETE, CREATE on the database",
        ),
        1049 => refused(ErrorKind::Invalid, "there is no such database; CREATE DATABASE first"),
        1153 | 1301 => {
            refused(ErrorKind::Invalid, "it is longer than the server's max_allowed_packet")
        }
        1021 | 1114 => refused(ErrorKind::DiskFull, "the server has no room"),
        // Too many connections, of all or of this user: nothing was begun.
        1040 | 1203 | 1226 => {
            let full = wrong("the server takes no more connections");
            Fault::Lost(Error::new(ErrorKind::Unavailable, full).with_retry(Retry::Later))
        }
        // Shutting down, read only after a failover, killed, too late.
        1053
        | 1077
        | 1079
        | 1290
        | 1836
        | 1792
        | 1317
        | 1152
        | 1158..=1161
        | 1184
        | 1927
        | 1969
        | 3024
        | 3032
        | 3169
        | 4031
        | 1205..=1206 => lost("the server ended it"),
        // Galera: not part of the cluster now.
        1047 => lost("the server does not serve now"),
        _ => refused(ErrorKind::Broken, "the server refuses"),
    }
}

impl Fault {
    /// As users see it.
    pub fn error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Again(error) | Self::Lost(error) => error,
        }
    }
}

/// Why a connection was not made.
pub(crate) fn not_connected(error: mysql_async::Error) -> Error {
    match error {
        mysql_async::Error::Server(said) => server(&said).error(),
        mysql_async::Error::Url(UrlError::Invalid) => odd("the URL"),
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            let wrong = "the server has no TLS; set it up, or say tls=off in the URL";
            Error::new(ErrorKind::Invalid, wrong)
        }
        mysql_async::Error::Driver(
            error @ (DriverError::UnknownAuthPlugin { .. }
            | DriverError::MysqlOldPasswordDisabled
            | DriverError::CleartextPluginDisabled),
        ) => {
            let wrong = format!("{error}; give the user another authentication plugin");
            Error::new(ErrorKind::Unauthenticated, wrong)
        }
        mysql_async::Error::Io(mysql_async::IoError::Tls(error)) => no_tls(&error.to_string()),
        mysql_async::Error::Io(mysql_async::IoError::Io(error))
            if error.get_ref().is_some_and(|inside| inside.is::<tokio_rustls::rustls::Error>()) =>
        {
            no_tls(&error.to_string())
        }
        error => Error::new(ErrorKind::Unavailable, error.to_string()).with_retry(Retry::Later),
    }
}

fn no_tls(why: &str) -> Error {
    let wrong = format!("TLS: {why}; give the CA with ca=FILE, or say tls=trust");
    Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later)
}
