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
        Some(("http" | "https", _)) => http(url).await,
        Some((scheme, _))
            if scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            let wrong = format!(
                "{scheme}: names no engine; use a directory, file:DIR, mem:, http:// or https://"
            );
            Err(Error::new(ErrorKind::Invalid, wrong).asking(format!("connect to {url}")))
        }
        _ if url.is_empty() => {
            let wrong = "the URL is empty; give a directory or a URL such as http://localhost:7070";
            Err(Error::new(ErrorKind::Invalid, wrong).asking("connect"))
        }
        _ => open(url).await,
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

#[cfg(feature = "http")]
async fn http(url: &str) -> Result<Leasehold> {
    let engine = leasehold_http::connect(url, &leasehold_http::HttpOptions::default()).await?;
    Ok(Leasehold::new(engine))
}

#[cfg(not(feature = "http"))]
async fn http(_: &str) -> Result<Leasehold> {
    Err(missing("http"))
}

#[cfg(not(all(feature = "native", feature = "http")))]
fn missing(feature: &str) -> Error {
    let wrong = format!("this build has no such engine; add the feature `{feature}` to leasehold");
    Error::new(ErrorKind::Unsupported, wrong)
}
