//! Locks and queues for teams that run many processes: *only one of us may do this now*, and
//! *somebody do this, once, later, please*.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> leasehold::Result<()> {
//! let leasehold = leasehold::memory().await?; // or open("./data"), or connect("http://…")
//!
//! let guard = leasehold.lock("nightly").acquire().await?;
//! println!("working under fencing token {}", guard.token());
//! guard.release().await?;
//!
//! let orders = leasehold.queue("orders");
//! orders.declare(&leasehold::QueueConfig::default()).await?;
//! orders.publish("order 42").await?;
//! let mut consumer = orders.consume().await?;
//! if let Some(order) = consumer.next().await? {
//!     assert_eq!(order.body(), b"order 42");
//!     order.ack().await?;
//! }
//! # Ok(()) }
//! ```
//!
//! The engine is picked by URL, so outgrowing one process, or one machine, means changing a URL:
//!
//! | URL | engine | feature |
//! |---|---|---|
//! | `./dir`, `file:DIR` | embedded and durable, in this process | `native` |
//! | `mem:` | embedded, in memory | `native` |
//! | `http://HOST:7070`, `https://…` | a Leasehold server | `http` |
//! | `file:///DIR` | locks in a directory that processes of one machine share | `files` |
//! | `redis://…`, `rediss://…`, `valkey://…` | Redis and what speaks like it | `redis` |
//! | `postgres://…`, `postgresql://…` | PostgreSQL | `postgres` |
//! | `mysql://…`, `mariadb://…` | MySQL and MariaDB | `mysql` |
//! | `zookeeper://…` | ZooKeeper | `zookeeper` |
//! | `etcd://…`, `etcds://…` | etcd | `etcd` |
//! | `amqp://…`, `amqps://…` | RabbitMQ | `amqp` |
//! | `kafka://…`, `kafkas://…` | Kafka | `kafka` (not a default one), `kafka-tls` |
//!
//! What each of them promises is in `GUARANTEES.md`;
//! [`Leasehold::require`](leasehold_api::Leasehold::require) demands it in a program.
//!
//! A server's URL carries the credentials, `https://USER:PASSWORD@HOST` or `https://:TOKEN@HOST`
//! (or the environment does, `LEASEHOLD_BEARER_TOKEN`),
//! and with `?ca=FILE` an authority of one's own.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

use std::path::Path;

pub use leasehold_api::*;

/// Opens the embedded, durable engine on a directory, which is made if it is not there. One
/// process at a time may have it open.
///
/// # Errors
/// `Unavailable` when another process has it open or it cannot be written; `Broken` when its
/// journal is damaged, naming the file and the offset; `Unsupported` when this build has no
/// embedded engine.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let directory = directory.path();
/// let leasehold = leasehold::open(directory).await?;
/// let guard = leasehold.lock("nightly").acquire().await?;
/// guard.release().await?;
/// # Ok(()) }
/// ```
pub async fn open(path: impl AsRef<Path>) -> Result<Leasehold> {
    native(Some(path.as_ref())).await
}

/// Opens an embedded engine that keeps everything in memory.
///
/// # Errors
/// `Unsupported` when this build has no embedded engine.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// let leasehold = leasehold::memory().await?;
/// assert_eq!(leasehold.guarantees()?.survives, leasehold::Survives::Nothing);
/// # Ok(()) }
/// ```
pub async fn memory() -> Result<Leasehold> {
    native(None).await
}

/// Opens the engine that a URL names; see the table on top.
///
/// # Errors
/// `Invalid` for a URL that names no engine; `Unsupported`, naming the feature to add, for an
/// engine that was not built in; and what the engine says.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// let leasehold = leasehold::connect("mem:").await?;
/// assert!(leasehold::connect("gopher://example").await.is_err());
/// # Ok(()) }
/// ```
pub async fn connect(url: &str) -> Result<Leasehold> {
    match url.split_once(':') {
        Some(("mem", _)) => memory().await,
        Some(("file", path)) if !path.starts_with("//") => open(path).await,
        Some((scheme, _)) if is_scheme(scheme) => {
            // `redis+sentinel` and the like are kinds of one.
            let plain = scheme.split('+').next().unwrap_or(scheme);
            let known = SCHEMES.iter().find(|(known, _)| *known == plain);
            let (_, feature) = known.ok_or_else(|| unknown(scheme, url))?;
            Ok(Leasehold::new(reach(feature, url).await?))
        }
        _ if url.is_empty() => {
            let wrong = "the URL is empty; give a directory or a URL such as http://localhost:7070";
            Err(Error::new(ErrorKind::Invalid, wrong).asking("connect"))
        }
        _ => open(url).await,
    }
}

/// The schemes of URLs with a host, or with `//`, and the feature that each needs.
const SCHEMES: &[(&str, &str)] = &[
    ("http", "http"),
    ("https", "http"),
    ("file", "files"),
    ("redis", "redis"),
    ("rediss", "redis"),
    ("valkey", "redis"),
    ("valkeys", "redis"),
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("zookeeper", "zookeeper"),
    ("etcd", "etcd"),
    ("etcds", "etcd"),
    ("amqp", "amqp"),
    ("amqps", "amqp"),
    ("kafka", "kafka"),
    ("kafkas", "kafka"),
];

/// One letter is a drive, or a directory with a colon in its name.
fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
}

fn unknown(scheme: &str, url: &str) -> Error {
    let known: Vec<_> = SCHEMES.iter().map(|(known, _)| format!("{known}://")).collect();
    let known = known.join(", ");
    let wrong =
        format!("{scheme}: names no engine; use a directory, file:DIR, mem: or one of {known}");
    Error::new(ErrorKind::Invalid, wrong).asking(format!("connect to {}", shown(url)))
}

/// Opens an engine over a system that other processes reach as well.
async fn reach(feature: &'static str, url: &str) -> Result<Engine> {
    match feature {
        #[cfg(feature = "http")]
        "http" => leasehold_http::connect(url, &leasehold_http::HttpOptions::default()).await,
        #[cfg(feature = "files")]
        "files" => leasehold_files::connect(url).await,
        #[cfg(feature = "redis")]
        "redis" => leasehold_redis::connect(url).await,
        #[cfg(feature = "postgres")]
        "postgres" => leasehold_postgres::connect(url).await,
        #[cfg(feature = "mysql")]
        "mysql" => leasehold_mysql::connect(url).await,
        #[cfg(feature = "zookeeper")]
        "zookeeper" => leasehold_zookeeper::connect(url).await,
        #[cfg(feature = "etcd")]
        "etcd" => leasehold_etcd::connect(url).await,
        #[cfg(feature = "amqp")]
        "amqp" => leasehold_amqp::connect(url).await,
        #[cfg(feature = "kafka")]
        "kafka" => leasehold_kafka::connect(url).await,
        _ => Err(missing(feature).asking(format!("connect to {}", shown(url)))),
    }
}

/// A URL without what may be a password.
fn shown(url: &str) -> String {
    match (url.split_once(':'), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(feature = "native")]
async fn native(path: Option<&Path>) -> Result<Leasehold> {
    let options = leasehold_node::Options::default();
    let engine = match path {
        Some(path) => leasehold_native::NativeEngine::open(path, options)?,
        None => leasehold_native::NativeEngine::memory(options)?,
    };
    Ok(Leasehold::new(engine.engine()))
}

#[cfg(not(feature = "native"))]
async fn native(_: Option<&Path>) -> Result<Leasehold> {
    Err(missing("native"))
}

fn missing(feature: &str) -> Error {
    let wrong = format!("this build has no such engine; add the feature `{feature}` to leasehold");
    Error::new(ErrorKind::Unsupported, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unknown_scheme_is_told_the_known_ones() {
        let error = connect("gopher://user:secret@host/x").await.expect_err("there is none");
        assert_eq!(error.kind, ErrorKind::Invalid);
        let text = error.to_string();
        let known = SCHEMES.iter().all(|(scheme, _)| text.contains(&format!("{scheme}://")));
        assert!(known && text.contains("mem:") && text.contains("gopher"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn an_engine_that_is_not_built_in_names_its_feature() {
        let error = reach("telepathy", "kafka://user:secret@host").await.expect_err("it is not");
        assert_eq!(error.kind, ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains("`telepathy`") && text.contains("kafka://host:"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn a_file_url_is_one_of_two_engines() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display();
        let embedded = connect(&format!("file:{path}/embedded")).await;
        assert!(embedded.is_ok_and(|handle| handle.engine().queues.is_some()));
        let shared = connect(&format!("file://{path}/shared")).await;
        match cfg!(feature = "files") {
            true => assert!(shared.expect("it opens").engine().queues.is_none()),
            false => assert_eq!(shared.expect_err("none").kind, ErrorKind::Unsupported),
        }
    }
}
