//! Registers: versioned values, for optimistic locking by compare-and-set.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Write;
use crate::{Error, ErrorKind, Expect, Leasehold, LockGuard, RegisterTtl, Result, random};

pub use crate::engine::Register as Versioned;

/// One register, by key.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let stock = leasehold.register("stock/42");
/// let version = stock.write("10").await?;
/// let read = stock.read().await?.expect("just written");
/// assert_eq!((read.value, read.version), (b"10".to_vec(), version));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Register {
    at: Leasehold,
    key: Vec<u8>,
    ttl: RegisterTtl,
    guard: Option<(Arc<str>, u64)>,
}

impl Leasehold {
    /// A register; its key is 1 to 1024 bytes of any kind.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// assert!(leasehold.register("stock/42").read().await?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn register(&self, key: impl Into<Vec<u8>>) -> Register {
        Register { at: self.clone(), key: key.into(), ttl: RegisterTtl::Never, guard: None }
    }
}

impl Register {
    /// Lets values written vanish after a time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let seen = leasehold.register("seen/7").ttl(Duration::from_secs(60));
    /// seen.write("yes").await?;
    /// assert!(seen.read().await?.is_some_and(|read| read.left.is_some()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = RegisterTtl::After(ttl);
        self
    }

    /// Lets writes be refused unless this guard's lock is still held: the engine checks the token
    /// in the same step as it writes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("stock").acquire().await?;
    /// let stock = leasehold.register("stock/42").guarded_by(&guard);
    /// stock.write("9").await?;
    /// guard.release().await?;
    /// let late = stock.write("8").await.unwrap_err();
    /// assert_eq!(late.kind, leasehold::ErrorKind::Stale);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn guarded_by(self, guard: &LockGuard) -> Self {
        self.fenced(guard.hold().name.clone(), guard.token())
    }

    /// Lets writes be refused unless this lock is held with this token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("stock").acquire().await?;
    /// // The token may have travelled to another process.
    /// leasehold.register("stock/42").fenced("stock", guard.token()).write("9").await?;
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn fenced(mut self, lock: impl Into<Arc<str>>, token: u64) -> Self {
        self.guard = Some((lock.into(), token));
        self
    }

    /// Its value and version, if it has one.
    ///
    /// # Errors
    /// `Invalid` for a bad key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let motto = leasehold.register("motto");
    /// motto.write("slowly").await?;
    /// assert_eq!(motto.read().await?.map(|read| read.value), Some(b"slowly".to_vec()));
    /// # Ok(()) }
    /// ```
    pub async fn read(&self) -> Result<Option<Versioned>> {
        self.at.locks()?.read(&self.key).await
    }

    /// Writes whatever was there; gives the new version.
    ///
    /// # Errors
    /// `Stale` when the guard's lock is not held any more.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let motto = leasehold.register("motto");
    /// let (first, second) = (motto.write("slowly").await?, motto.write("steadily").await?);
    /// assert!(second > first);
    /// # Ok(()) }
    /// ```
    pub async fn write(&self, value: impl Into<Vec<u8>>) -> Result<u64> {
        self.put(Some(value.into()), Expect::Anything).await
    }

    /// Writes if the register is as expected.
    ///
    /// # Errors
    /// `Conflict` when it is not: read it and decide again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use leasehold::{ErrorKind, Expect};
    /// let motto = leasehold.register("motto");
    /// let version = motto.write_if(Expect::Absent, "slowly").await?;
    /// motto.write_if(Expect::Version(version), "steadily").await?;
    /// let late = motto.write_if(Expect::Version(version), "fast").await.unwrap_err();
    /// assert_eq!(late.kind, ErrorKind::Conflict);
    /// # Ok(()) }
    /// ```
    pub async fn write_if(&self, expect: Expect, value: impl Into<Vec<u8>>) -> Result<u64> {
        self.put(Some(value.into()), expect).await
    }

    /// Deletes if the register is as expected.
    ///
    /// # Errors
    /// `Conflict` when it is not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use leasehold::Expect;
    /// let motto = leasehold.register("motto");
    /// let version = motto.write("slowly").await?;
    /// motto.delete_if(Expect::Version(version)).await?;
    /// assert!(motto.read().await?.is_none());
    /// # Ok(()) }
    /// ```
    pub async fn delete_if(&self, expect: Expect) -> Result<u64> {
        self.put(None, expect).await
    }

    /// Reads, computes and writes until nobody came in between: optimistic locking in one call.
    /// `change` gets the value and gives the new one; `None` leaves it as it is.
    ///
    /// # Errors
    /// `Stale` when the guard's lock is not held any more.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let stock = leasehold.register("stock/42");
    /// stock.update(|value| {
    ///     let left: u32 = String::from_utf8_lossy(value.unwrap_or(b"0")).parse().unwrap_or(0);
    ///     left.checked_sub(1).map(|left| left.to_string().into_bytes())
    /// }).await?;
    /// # Ok(()) }
    /// ```
    pub async fn update(
        &self,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<u64>> {
        loop {
            let now = self.read().await?;
            let expect = now.as_ref().map_or(Expect::Absent, |r| Expect::Version(r.version));
            let Some(value) = change(now.as_ref().map(|r| &r.value[..])) else { return Ok(None) };
            match self.put(Some(value), expect).await {
                // Somebody else was quicker: that one made progress, so this loop ends for all.
                Err(Error { kind: ErrorKind::Conflict, .. }) => {}
                result => return result.map(Some),
            }
        }
    }

    /// Waits until the version is not `known` any more (`None`: no value), at most so long, and
    /// gives the register as it is then.
    ///
    /// # Errors
    /// `Invalid` for a bad key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let config = leasehold.register("config");
    /// let version = config.write("1").await?;
    /// let watches = config.clone();
    /// let minute = Duration::from_secs(60);
    /// let watching = tokio::spawn(async move { watches.changed(Some(version), minute).await });
    /// config.write("2").await?;
    /// let now = watching.await.expect("it does not panic")?;
    /// assert_eq!(now.map(|read| read.value), Some(b"2".to_vec()));
    /// # Ok(()) }
    /// ```
    pub async fn changed(&self, known: Option<u64>, wait: Duration) -> Result<Option<Versioned>> {
        self.at.locks()?.watch_register(&self.key, known, wait).await
    }

    async fn put(&self, value: Option<Vec<u8>>, expect: Expect) -> Result<u64> {
        let write = Write {
            key: self.key.clone(),
            value,
            expect,
            ttl: self.ttl,
            guard: self.guard.clone(),
            request: Some(random::request()),
        };
        let asked = |error: Error| {
            error.asking(format!("write register {}", String::from_utf8_lossy(&self.key)))
        };
        self.at.locks()?.write(&write).await.map_err(asked)
    }
}
