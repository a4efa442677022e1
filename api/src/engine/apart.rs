//! Who still wants an answer: how engines keep the promise that a dropped future leaves nothing.
//!
//! What leaves something behind (a grant, deliveries, a session) is asked for by a task of its own.
//! The caller's future holds a [`Caller`]; when it is dropped the task's [`Gone`] resolves, and the
//! task withdraws what it does and gives back whatever comes nonetheless. An answer that nobody
//! takes out of the channel gives itself back, see [`Owned`].

use tokio::sync::{oneshot, watch};

use crate::{Error, ErrorKind, Result};

/// The caller's end: as long as it is there, somebody wants the answer.
#[derive(Debug)]
struct Caller {
    _here: watch::Sender<()>,
}

/// Resolves when the caller of [`apart`] is gone.
#[derive(Debug, Clone)]
pub struct Gone(Option<watch::Receiver<()>>);

impl Gone {
    /// For requests whose future is the caller itself.
    pub fn never() -> Self {
        Self(None)
    }

    fn of_caller() -> (Caller, Self) {
        let (here, gone) = watch::channel(());
        (Caller { _here: here }, Self(Some(gone)))
    }

    /// Whether nobody wants the answer any more.
    pub fn is_so(&self) -> bool {
        self.0.as_ref().is_some_and(|caller| caller.has_changed().is_err())
    }

    /// Waits until nobody wants the answer any more.
    pub async fn wait(&mut self) {
        match &mut self.0 {
            // Nothing is ever sent, so this ends with the sender only.
            Some(caller) => while caller.changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    }

    /// Demands that somebody still wants the answer.
    ///
    /// # Errors
    /// [`cancelled`](Self::cancelled).
    pub fn check(&self) -> Result<()> {
        if self.is_so() { Err(Self::cancelled()) } else { Ok(()) }
    }

    /// What those are told who do not listen.
    pub fn cancelled() -> Error {
        Error::new(ErrorKind::Cancelled, "nobody waits for it any more")
    }
}

/// A value that has to be given back unless somebody takes it.
struct Owned<T, G: FnOnce(T) + Send>(Option<(T, G)>);

impl<T, G: FnOnce(T) + Send> Owned<T, G> {
    fn take(mut self) -> T {
        self.0.take().expect("it is taken once").0
    }
}

impl<T, G: FnOnce(T) + Send> Drop for Owned<T, G> {
    fn drop(&mut self) {
        if let Some((value, give_back)) = self.0.take() {
            give_back(value);
        }
    }
}

/// Runs something in a task of its own and waits for it. If this future is dropped the task is
/// told, and what it brings is given back. For engines; the task must end when its caller is gone.
///
/// # Errors
/// What the work says; `Broken` when the runtime is shutting down.
///
/// ```
/// use leasehold_api::engine::{Gone, apart};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold_api::Result<()> {
/// let work = |_gone: Gone| async { Ok(7) };
/// let token = apart(work, |token: u64| println!("nobody wanted token {token}")).await?;
/// assert_eq!(token, 7);
/// # Ok(()) }
/// ```
pub async fn apart<T, F>(
    work: impl FnOnce(Gone) -> F + Send,
    give_back: impl FnOnce(T) + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (caller, gone) = Gone::of_caller();
    let (tell, told) = oneshot::channel();
    let work = work(gone);
    tokio::spawn(async move {
        let done = work.await.map(|value| Owned(Some((value, give_back))));
        // If nobody takes it, dropping it gives it back.
        drop(tell.send(done));
    });
    let done = told.await;
    drop(caller);
    let done = done.map_err(|_| Error::new(ErrorKind::Broken, "the runtime is gone"))?;
    done.map(Owned::take)
}
