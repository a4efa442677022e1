//! What has to happen although nobody asks for it: messages die when their time is over, and what
//! is remembered for a time is forgotten after it.
//!
//! Every process that uses queues does it; rows that another one has locked are skipped.

use std::sync::{Arc, Weak};
use std::time::Duration;

use leasehold_api::Result;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::connect::{Repeat, cell, jittered};
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::tx::{Known, known};
use crate::sql::{NOW, Sql};

/// How often messages whose time is over are looked for.
const EXPIRY: Duration = Duration::from_millis(500);
/// Each so many times the rest is done, too.
const REST: u32 = 20;
/// Queues dealt with at once, rows removed at once.
const SOME: u32 = 256;

/// The task that does it; it ends with the engine.
pub(crate) struct Upkeep(JoinHandle<()>);

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upkeep {
    pub fn begin(queues: &Arc<Queues>) -> Self {
        Self(tokio::spawn(keep_up(Arc::downgrade(queues))))
    }
}

async fn keep_up(queues: Weak<Queues>) {
    let mut round = 0u32;
    loop {
        sleep(jittered(EXPIRY)).await;
        let Some(queues) = queues.upgrade() else { return };
        round = round.wrapping_add(1);
        let mut done = queues.expire_all().await;
        if round % REST == 1 {
            done = done.and(queues.tidy().await);
        }
        if let Err(error) = done {
            tracing::warn!(%error, "the upkeep of queues has to wait");
        }
    }
}

impl Queues {
    /// Queues that a condition picks.
    async fn such(&self, which: Sql) -> Result<Vec<Known>> {
        let sql = self.server.tables.named("SELECT id,name,config FROM {}queues q WHERE ");
        let sql = sql.and(which).add(" LIMIT ").number(SOME);
        let rows = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move {
                let rows = line.ask(sql).await?.rows()?.into_iter();
                rows.map(|mut row| known(&mut row)).collect::<std::result::Result<_, Fault>>()
            })
        });
        rows.await
    }

    async fn expire_all(self: &Arc<Self>) -> Result<()> {
        let which = self.server.tables.named(
            "q.id IN (SELECT m.queue FROM {}messages m WHERE \
                                              m.ready=1 AND m.dies<=",
        );
        for queue in self.such(which.add(NOW).add(")")).await? {
            while self.expire(&queue).await? {}
        }
        Ok(())
    }

    /// Makes ready what is due, where nobody looks; forgets what is over.
    async fn tidy(self: &Arc<Self>) -> Result<()> {
        let which = self.server.tables.named(
            "EXISTS(SELECT 1 FROM {}messages m FORCE INDEX \
            (turns) WHERE m.queue=q.id AND m.ready=0 AND m.turn<=",
        );
        for queue in self.such(which.add(NOW).add(")")).await? {
            self.catch_up(&queue).await?;
        }
        self.strike_out().await?;
        for (table, column) in [("requests", "until"), ("ids", "until"), ("entries", "ends")] {
            let text = format!("DELETE FROM {{}}{table} WHERE {column}<=");
            while self.remove_some(self.server.tables.named(&text).add(NOW)).await? {}
        }
        self.doomed().await
    }

    /// Strikes out consumers that showed no sign of life.
    async fn strike_out(self: &Arc<Self>) -> Result<()> {
        let sql = self.server.tables.named(
            "SELECT q.id,q.name,q.config,c.id FROM \
            {}consumers c JOIN {}queues q ON q.id=c.queue WHERE c.until<=",
        );
        let sql = sql.add(NOW).add(" LIMIT ").number(SOME);
        let rows = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move {
                let rows = line.ask(sql).await?.rows()?.into_iter();
                let both = |mut row| Ok((cell::<u64>(&mut row, 3)?, known(&mut row)?));
                rows.map(both).collect::<std::result::Result<Vec<_>, Fault>>()
            })
        });
        for (consumer, queue) in rows.await? {
            self.unregister(&queue, consumer).await?;
        }
        Ok(())
    }

    /// Removes some rows; gives whether there may be more.
    async fn remove_some(&self, sql: Sql) -> Result<bool> {
        let sql = sql.add(" LIMIT ").number(SOME).add(";SELECT ROW_COUNT()");
        let count = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move { cell::<i64>(&mut line.ask(sql).await?.row()?, 0) })
        });
        Ok(count.await? == i64::from(SOME))
    }

    /// Removes the messages of queues that were deleted.
    async fn doomed(&self) -> Result<()> {
        let sql = self.server.tables.named("SELECT queue FROM {}doomed LIMIT ").number(SOME);
        let rows = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move {
                let rows = line.ask(sql).await?.rows()?.into_iter();
                rows.map(|mut row| cell(&mut row, 0)).collect::<std::result::Result<_, Fault>>()
            })
        });
        let queues: Vec<u64> = rows.await?;
        for queue in queues {
            let named = |text: &str| self.server.tables.named(text).number(queue);
            while self.remove_some(named("DELETE FROM {}messages WHERE queue=")).await? {}
            while self.remove_some(named("DELETE FROM {}keys WHERE queue=")).await? {}
            self.remove_some(named("DELETE FROM {}sums WHERE queue=")).await?;
            self.remove_some(named("DELETE FROM {}doomed WHERE queue=")).await?;
        }
        Ok(())
    }

    /// Removes the messages of a deleted queue soon.
    pub fn sweep(self: &Arc<Self>) {
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.doomed().await {
                tracing::debug!(%error, "the messages of a deleted queue go later");
            }
        });
    }
}
