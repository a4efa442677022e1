//! A turn among all processes at one line: an advisory lock of a session.
//!
//! Whoever comes to a line together with many others fails to swap it again and again, as each
//! failure is a transaction in which somebody else succeeds at most. After some failures it waits
//! for this lock, and swaps then nearly alone. Nothing depends on it: a process that is stopped in
//! the middle holds the others up for as long as they want to wait for a turn, and no swap.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::server::Server;

/// How much later than asked an answer may come.
const LATE: Duration = Duration::from_secs(1);

/// One turn at a time: its connection is one that swaps want too.
#[derive(Debug)]
pub(crate) struct Turns {
    server: Arc<Server>,
    one: Arc<Semaphore>,
}

/// A connection that has a turn, or is about to.
struct Turn {
    server: Arc<Server>,
    client: Option<Object>,
    name: Vec<u8>,
    is_held: bool,
    _one: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, one: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for a turn; `None`: go without.
    pub async fn wait(&self, name: &[u8], at_most: Duration) -> Option<Box<dyn Send>> {
        let one = self.one.clone().try_acquire_owned().ok()?;
        let server = self.server.clone();
        if server.pool.status().max_size < 2 {
            return None;
        }
        let client = timeout(at_most, server.pool.get()).await.ok()?.ok()?;
        let name = name.to_vec();
        let mut turn = Turn { server, client: Some(client), name, is_held: false, _one: one };
        let begun = timeout(at_most + LATE, turn.begin(at_most)).await;
        match begun.ok()?.ok()? {
            true => turn.is_held = true,
            false => {
                // It goes back to the pool as it came.
                drop(turn.client.take());
                return None;
            }
        }
        Some(Box::new(turn))
    }
}

impl Turn {
    async fn begin(&self, at_most: Duration) -> Result<bool, tokio_postgres::Error> {
        let Some(client) = &self.client else { return Ok(false) };
        let begin = client.prepare_cached(&self.server.call("begin_turn", 2)).await?;
        let at_most = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
        client.query_one(&begin, &[&self.name, &at_most]).await?.try_get(0)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        // A connection of which it is not known what it has in hand must not be anybody else's.
        let client = match (self.is_held, Handle::try_current()) {
            (true, Ok(runtime)) => {
                let (end, name) = (self.server.call("end_turn", 1), std::mem::take(&mut self.name));
                let answer = self.server.config.answer;
                runtime.spawn(async move {
                    if !matches!(timeout(answer, end_turn(&client, &end, &name)).await, Ok(Ok(())))
                    {
                        drop(Object::take(client));
                    }
                });
                return;
            }
            _ => client,
        };
        drop(Object::take(client));
    }
}

async fn end_turn(client: &Object, sql: &str, name: &[u8]) -> Result<(), tokio_postgres::Error> {
    let end = client.prepare_cached(sql).await?;
    client.query_one(&end, &[&name]).await.map(drop)
}
