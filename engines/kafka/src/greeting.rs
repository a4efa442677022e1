//! What a broker says that it can do, before anybody logs in (`ApiVersions`): whether it is a
//! broker at all, and how old. The client has no word for either, it only does not connect.

use leasehold_api::{Error, ErrorKind, Result, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Config;
use crate::error::unavailable;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;
const DESCRIBE_TRANSACTIONS: i16 = 65;
const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
/// What first appeared in which version, the latest first.
const MARKS: [(i16, i16, &str); 7] = [
    (LIST_OFFSETS, 11, "4.2"),
    (PRODUCE, 13, "4.1"),
    (LIST_OFFSETS, 10, "4.0"),
    (FETCH, 17, "3.9"),
    (DESCRIBE_TOPIC_PARTITIONS, 0, "3.8"),
    (DESCRIBE_TRANSACTIONS, 0, "3.0"),
    (CREATE_TOPICS, 5, OLDEST),
];
/// The oldest that has all that is asked for.
const OLDEST: &str = "2.4";
/// No answer is longer, bytes.
const LENGTH_MAX: usize = 64 << 10;

/// What a broker can do: requests and their newest versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    newest: Vec<(i16, i16)>,
}

/// Asks the first broker that answers, and goes. `None` behind TLS: there it is the client's turn.
///
/// # Errors
/// `Unavailable` when none answers, one that hangs up included; `Unsupported` when what answers is
/// no broker.
pub(crate) async fn greeting(config: &Config) -> Result<Option<Greeting>> {
    if config.tls {
        return Ok(None);
    }
    let mut last = unavailable("the URL names none");
    for (host, port) in &config.brokers {
        let asked = timeout(config.timeout, ask(host, *port)).await;
        let late = |_| Err(unavailable(&format!("no answer within {:?}", config.timeout)));
        match asked.unwrap_or_else(late) {
            Ok(greeting) => return Ok(Some(greeting)),
            Err(error) if error.kind == ErrorKind::Unavailable => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last.with_retry(Retry::Later))
}

async fn ask(host: &str, port: u16) -> Result<Greeting> {
    let down = |error: std::io::Error| unavailable(&format!("{host}:{port}: {error}"));
    let mut stream = TcpStream::connect((host, port)).await.map_err(down)?;
    // Length, request 18 in version 0, number 1, no client id.
    let request = [0, 0, 0, 10, 0, API_VERSIONS as u8, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    stream.write_all(&request).await.map_err(down)?;
    let mut length = [0; 4];
    // A broker that starts or ends hangs up, and so does a proxy in front of none.
    let hung_up = |error: std::io::Error| {
        unavailable(&format!(
            "{host}:{port} hung up ({error}); if it does so each time it is no broker's port, or one \
             that wants TLS, which is kafkas://"
        ))
    };
    stream.read_exact(&mut length).await.map_err(hung_up)?;
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| foreign())?;
    if length > LENGTH_MAX {
        return Err(foreign());
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await.map_err(|_| foreign())?;
    Greeting::read(&answer).ok_or_else(foreign)
}

fn foreign() -> Error {
    let wrong = "what answers there does not speak Kafka; is it the right port? A broker's is 9092 \
                 in most places, and one that wants TLS is kafkas://";
    Error::new(ErrorKind::Unsupported, wrong)
}

impl Greeting {
    fn read(answer: &[u8]) -> Option<Self> {
        let int = |at: usize| Some(i32::from_be_bytes(answer.get(at..at + 4)?.try_into().ok()?));
        let short = |at: usize| Some(i16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
        if int(0)? != 1 || short(4)? != 0 {
            return None;
        }
        let count = usize::try_from(int(6)?).ok()?;
        let known = (0..count).map(|at| Some((short(10 + 6 * at)?, short(10 + 6 * at + 4)?)));
        Some(Self { newest: known.collect::<Option<_>>()? })
    }

    /// The version that it is at least; `None`: older than all that are known here.
    pub fn version(&self) -> Option<&'static str> {
        let has = |(key, version, _): &&(i16, i16, &str)| {
            self.newest.iter().any(|(known, newest)| known == key && newest >= version)
        };
        MARKS.iter().find(has).map(|(_, _, version)| *version)
    }

    /// Whether it has all that is asked for.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn new_enough(&self) -> Result<()> {
        let wrong = || {
            let wrong = format!("the broker is older than Kafka {OLDEST}");
            Error::new(ErrorKind::Unsupported, wrong)
        };
        self.version().map(drop).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(newest: &[(i16, i16)]) -> Vec<u8> {
        let mut answer = vec![0, 0, 0, 1, 0, 0];
        answer.extend((newest.len() as i32).to_be_bytes());
        for (key, version) in newest {
            answer.extend([key.to_be_bytes(), [0, 0], version.to_be_bytes()].concat());
        }
        answer
    }

    #[test]
    fn a_version_follows_from_what_a_broker_can_do() {
        let version = |newest: &[(i16, i16)]| {
            Greeting::read(&answer(newest)).expect("it is an answer").version()
        };
        assert_eq!(version(&[(PRODUCE, 13), (LIST_OFFSETS, 10), (FETCH, 17)]), Some("4.1"));
        assert_eq!(version(&[(FETCH, 17), (CREATE_TOPICS, 7)]), Some("3.9"));
        assert_eq!(version(&[(CREATE_TOPICS, 4)]), None);
        let old = Greeting::read(&answer(&[(CREATE_TOPICS, 4)])).expect("it is an answer");
        assert_eq!(old.new_enough().expect_err("it is old").kind, ErrorKind::Unsupported);
    }

    #[test]
    fn what_is_no_answer_is_seen() {
        assert_eq!(Greeting::read(b"HTTP/1.1 400 Bad Request"), None);
        assert_eq!(Greeting::read(&[]), None);
        assert_eq!(Greeting::read(&answer(&[(1, 1)])[..12]), None);
    }
}
