//! Who still wants an answer: how engines keep the promise that a dropped future leaves nothing.
//!
//! What leaves something behind (a grant, deliveries, a session) and may wait for long is asked for
//! by a task of its own, see [`apart`]. The caller's future holds a [`Caller`]; when it is dropped
//! the task's [`Gone`] resolves, and the task withdraws what it does and gives back whatever comes
//! nonetheless. An answer that nobody takes out of the channel gives itself back, see [`Owned`].
//!
//! What is mostly over soon needs a task only when its caller goes, see [`seen_through`].

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
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

type Work<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Work that was begun. What is left of it when this is dropped is done by a task.
struct Begun<T: Send + 'static, G: FnOnce(T) + Send + 'static> {
    /// `None`: it is done, or it has panicked.
    left: Option<(Work<T>, G)>,
    runtime: Handle,
}

impl<T: Send + 'static, G: FnOnce(T) + Send + 'static> Unpin for Begun<T, G> {}

impl<T: Send + 'static, G: FnOnce(T) + Send + 'static> Future for Begun<T, G> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut work, give_back) = self.left.take().expect("it is not done yet");
        let done = work.as_mut().poll(context);
        if done.is_pending() {
            self.left = Some((work, give_back));
        }
        done
    }
}

impl<T: Send + 'static, G: FnOnce(T) + Send + 'static> Drop for Begun<T, G> {
    fn drop(&mut self) {
        if let Some((work, give_back)) = self.left.take() {
            self.runtime.spawn(async move {
                // Errors have left nothing behind, and nobody is there to be told.
                drop(work.await.map(give_back));
            });
        }
    }
}

/// Runs something in place and waits for it. If this future is dropped after it has begun, a task
/// sees it through, and what it brings is given back. For engines, and for what is a few round
/// trips: work that waits for others makes no progress while its caller does not poll it.
///
/// # Errors
/// What the work says.
///
/// ```
/// use leasehold_api::engine::seen_through;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold_api::Result<()> {
/// let work = async { Ok(7) };
/// let token = seen_through(work, |token: u64| println!("nobody wanted token {token}")).await?;
/// assert_eq!(token, 7);
/// # Ok(()) }
/// ```
pub async fn seen_through<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    give_back: impl FnOnce(T) + Send + 'static,
) -> Result<T> {
    Begun { left: Some((Box::pin(work), give_back)), runtime: Handle::current() }.await
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_was_begun_is_seen_through_and_given_back() {
        let (go, going) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let work = async move { going.await.map(|()| 7).map_err(|_| Gone::cancelled()) };
        let mut asked = Box::pin(seen_through(work, move |seven| _ = tell.send(seven)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(asked.as_mut().poll(&mut context).is_pending());
        drop(asked);
        go.send(()).expect("the work goes on");
        assert_eq!(told.await, Ok(7));
    }

    #[tokio::test]
    async fn what_was_taken_is_not_given_back() {
        let (tell, told) = oneshot::channel::<u64>();
        let work = async { Ok(7) };
        let taken = seen_through(work, move |seven| _ = tell.send(seven)).await;
        assert_eq!(taken.map_err(|error| error.kind), Ok(7));
        assert!(told.await.is_err());
    }

    #[tokio::test]
    async fn what_was_not_begun_is_left() {
        let (tell, told) = oneshot::channel::<u64>();
        drop(seen_through(async { Ok(7) }, move |seven| _ = tell.send(seven)));
        assert!(told.await.is_err());
    }
}
