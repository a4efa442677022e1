//! Queues: messages as rows, deliveries as leases on them.
//!
//! ```text
//! publish ─► ready=1, turn by priority ─► taken: ready=0 until its lease or session ends ─► gone
//!            ▲                              │ nack, lost lease, given back
//!            └── due ◄── ready=0, held=0 ◄──┘ with a delay
//! ```
//! What nobody settles comes again by itself, as its `turn` passes. The signs of life of a session
//! move the deadlines of what this process knows that it has in hand; a delivery whose answer was
//! lost is not among them, and comes again.

mod commit;
mod consume;
mod death;
mod manage;
mod publish;
mod route;
mod settings;
mod settle;
mod take;
mod topology;
mod tx;
mod upkeep;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::future::BoxFuture;
use leasehold_api::engine::{
    Binding, Commit, Consume, Delivered, List, Listed, Peeked, Publish, QueueEngine, QueueView,
    Receipt, Receive, RequestId, Verdict,
};
use leasehold_api::{Error, ExchangeConfig, Guarantees, Published, QueueConfig, Result};
use leasehold_contenders::{InHand, LineEngine, Sessions};
use tokio::time::Instant;

use crate::bells::{Bells, queue_door};
use crate::book::{Entries, random};
use crate::connect::{Repeat, Server, cell, jittered};
use crate::error::Fault;
use crate::queue::consume::Credit;
use crate::queue::settings::us;
use crate::queue::settle::kept;
use crate::queue::tx::{Known, Tx, known, no_queue};
use crate::queue::upkeep::Upkeep;

/// How long a delivery of a session without a TTL lives.
const ENDLESS: Duration = Duration::from_secs(86_400);
/// Queues remembered by name; beyond that all are looked up anew.
const KNOWN_MAX: usize = 10_000;

/// What a session has in hand in this process.
#[derive(Debug, Default)]
struct Hand {
    /// Tokens of deliveries that arrived here.
    tokens: BTreeSet<u64>,
    consumers: BTreeSet<u64>,
}

/// The queues of one installation, and what this process has of them.
pub(crate) struct Queues {
    pub server: Arc<Server>,
    pub bells: Arc<Bells>,
    pub sessions: Arc<Sessions>,
    known: Mutex<HashMap<Arc<str>, Known>>,
    bounded: Mutex<HashSet<Arc<str>>>,
    hands: Mutex<HashMap<u64, Hand>>,
    /// Deliveries that count against a consumer's credit.
    credits: Mutex<HashMap<(u128, u64), Weak<Credit>>>,
    upkeep: OnceLock<Upkeep>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queues {
    pub fn new(server: Arc<Server>, bells: Arc<Bells>, sessions: Arc<Sessions>) -> Arc<Self> {
        Arc::new(Self {
            server,
            bells,
            sessions,
            known: Mutex::default(),
            bounded: Mutex::default(),
            hands: Mutex::default(),
            credits: Mutex::default(),
            upkeep: OnceLock::new(),
        })
    }

    /// Does something in a transaction, and wakes whom it concerns in this process.
    async fn tx<T: Send + 'static>(
        &self,
        repeat: Repeat,
        work: impl for<'t> Fn(&'t mut Tx<'_>) -> BoxFuture<'t, std::result::Result<T, Fault>>
        + Send
        + Sync
        + 'static,
    ) -> Result<T> {
        let (work, server) = (Arc::new(work), self.server.clone());
        let done = self.server.run(repeat, move |line| {
            let (work, server) = (work.clone(), server.clone());
            Box::pin(async move {
                let mut tx = Tx::new(line, &server.tables, server.packet());
                let value = work(&mut tx).await?;
                Ok((value, tx.commit().await?))
            })
        });
        let (value, woken) = done.await?;
        woken.into_iter().for_each(|queue| self.bells.knock(&queue_door(queue)));
        Ok(value)
    }

    /// Names of queues that are known to have bounds.
    fn bounded(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        locked(&self.bounded)
    }

    /// A queue by name, as it was last seen: a queue with a number never changes its settings.
    async fn find(&self, name: &str) -> Result<Known> {
        let found = locked(&self.known).get(name).cloned();
        match found {
            Some(found) => Ok(found),
            None => self.find_anew(name).await,
        }
    }

    async fn find_anew(&self, name: &str) -> Result<Known> {
        let sql = self.server.tables.named("SELECT id,name,config FROM {}queues WHERE name=");
        let sql = sql.bytes(name.as_bytes());
        let row = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move { Ok(line.ask(sql).await?.rows()?.into_iter().next()) })
        });
        let mut row = row.await?.ok_or_else(|| no_queue(name))?;
        let found = known(&mut row).map_err(Fault::error)?;
        let mut all = locked(&self.known);
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(found.name.clone(), found.clone());
        Ok(found)
    }

    fn forget(&self, name: &str) {
        locked(&self.known).remove(name);
        self.bounded().remove(name);
    }

    /// How long to sleep before the next look.
    fn pause(&self) -> Duration {
        jittered(self.server.config.look)
    }

    /// How long a session lives without a sign of life.
    fn ttl_of(&self, session: u64) -> Result<Duration> {
        Ok(self.sessions.find(session)?.ttl.unwrap_or(ENDLESS))
    }

    /// What sessions have in hand; those that fell silent are forgotten when another one comes.
    fn hands_with(&self, session: u64) -> MutexGuard<'_, HashMap<u64, Hand>> {
        let mut hands = locked(&self.hands);
        if !hands.contains_key(&session) {
            hands.retain(|id, _| self.sessions.find(*id).is_ok());
        }
        hands
    }

    /// Deliveries have arrived: the session's signs of life are theirs, too.
    fn picked_up(&self, session: u64, taken: &[Delivered]) {
        if !taken.is_empty() {
            let mut hands = self.hands_with(session);
            let hand = hands.entry(session).or_default();
            hand.tokens.extend(taken.iter().map(|one| one.receipt.token));
        }
    }

    /// A consumer's row has to be kept alive, or not any more.
    fn consumes(&self, session: u64, consumer: u64, is_there: bool) {
        let mut hands = self.hands_with(session);
        if is_there {
            hands.entry(session).or_default().consumers.insert(consumer);
        } else if let Some(hand) = hands.get_mut(&session) {
            hand.consumers.remove(&consumer);
        }
    }

    /// Deliveries that nobody has got.
    fn put_down<'r>(&self, receipts: impl Iterator<Item = &'r Receipt>) {
        self.settled(receipts);
    }

    /// A delivery counts against a consumer's credit.
    fn credit(&self, receipt: &Receipt, credit: &Arc<Credit>) {
        let mut credits = locked(&self.credits);
        if credits.len() % 1024 == 1023 {
            credits.retain(|_, credit| credit.strong_count() > 0);
        }
        credits.insert((receipt.place, receipt.token), Arc::downgrade(credit));
    }

    /// Deliveries are settled: they count no more.
    fn settled<'r>(&self, receipts: impl Iterator<Item = &'r Receipt>) {
        for receipt in receipts {
            let credit = locked(&self.credits).remove(&(receipt.place, receipt.token));
            if let Some(credit) = credit.and_then(|credit| credit.upgrade()) {
                credit.free(receipt);
            }
        }
    }

    /// The lease of a delivery was moved.
    fn extended(&self, receipt: &Receipt, lease: Duration) {
        let credit = locked(&self.credits).get(&(receipt.place, receipt.token)).cloned();
        if let Some(credit) = credit.and_then(|credit| credit.upgrade()) {
            credit.extend(receipt, Instant::now() + lease);
        }
    }
}

#[async_trait]
impl InHand for Queues {
    async fn kept(&self, session: u64, ttl: Duration) -> Result<()> {
        let (tokens, consumers) = match locked(&self.hands).get(&session) {
            Some(hand) => (hand.tokens.clone(), hand.consumers.clone()),
            None => return Ok(()),
        };
        if tokens.is_empty() && consumers.is_empty() {
            return Ok(());
        }
        let sql = kept(&self.server.tables, session, us(ttl), &tokens, &consumers);
        let rows = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move {
                let rows = line.ask(sql).await?.rows()?.into_iter();
                rows.map(|mut row| cell(&mut row, 0)).collect::<std::result::Result<_, Fault>>()
            })
        });
        let open: BTreeSet<u64> = rows.await?;
        if let Some(hand) = locked(&self.hands).get_mut(&session) {
            // What came meanwhile is not judged by what was seen before.
            hand.tokens.retain(|token| open.contains(token) || !tokens.contains(token));
        }
        Ok(())
    }

    async fn ended(&self, session: u64) -> Result<()> {
        if locked(&self.hands).remove(&session).is_none() {
            return Ok(());
        }
        self.tx(Repeat::Freely, move |tx| {
            Box::pin(async move {
                let sql = tx.sql("SELECT DISTINCT queue FROM {}messages WHERE held=1 AND session=");
                let rows = tx.ask(sql.number(session)).await?.rows()?;
                for mut row in rows {
                    tx.woken.insert(cell(&mut row, 0)?);
                }
                // Due at once: whoever looks makes them ready, and counts the failed delivery.
                let sql = tx.sql(
                    "UPDATE {}messages SET turn=@n WHERE held=1 AND ready=0 AND \
                                  turn>@n AND session=",
                );
                tx.put(sql.number(session).add(";")).await?;
                let sql = tx.sql("DELETE FROM {}consumers WHERE session=");
                tx.put(sql.number(session).add(";")).await
            })
        })
        .await
    }
}

/// The queue half of an engine.
pub(crate) struct QueueHalf {
    pub queues: Arc<Queues>,
    pub lines: LineEngine<Entries>,
}

#[async_trait]
impl QueueEngine for QueueHalf {
    fn guarantees(&self) -> Guarantees {
        self.queues.server.guarantees()
    }

    async fn declare_queue(&self, name: &str, config: &QueueConfig) -> Result<bool> {
        let asked = |error: Error| error.asking(format!("declare queue {name}"));
        self.queues.declare(name, config).await.map_err(asked)
    }

    async fn delete_queue(&self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64> {
        let asked = |error: Error| error.asking(format!("delete queue {name}"));
        self.queues.delete(name, if_unused, if_empty).await.map_err(asked)
    }

    async fn purge(&self, name: &str) -> Result<u64> {
        let asked = |error: Error| error.asking(format!("purge queue {name}"));
        self.queues.empty(name).await.map_err(asked)
    }

    async fn pause(&self, name: &str, paused: bool) -> Result<()> {
        let word = if paused { "pause" } else { "resume" };
        let asked = |error: Error| error.asking(format!("{word} queue {name}"));
        self.queues.hold_back(name, paused).await.map_err(asked)
    }

    async fn inspect_queue(&self, name: &str) -> Result<QueueView> {
        let asked = |error: Error| error.asking(format!("inspect queue {name}"));
        self.queues.inspect_one(name).await.map_err(asked)
    }

    async fn list_queues(&self, ask: &List) -> Result<Listed<QueueView>> {
        let asked = |error: Error| error.asking(format!("list queues from {:?}", ask.prefix));
        self.queues.list(ask).await.map_err(asked)
    }

    async fn declare_exchange(&self, name: &str, config: &ExchangeConfig) -> Result<()> {
        let asked = |error: Error| error.asking(format!("declare exchange {name}"));
        self.queues.exchange(name, config).await.map_err(asked)
    }

    async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<()> {
        let asked = |error: Error| error.asking(format!("delete exchange {name}"));
        self.queues.delete_exchange(name, if_unused).await.map_err(asked)
    }

    async fn bind(&self, binding: &Binding) -> Result<()> {
        let asked = |error: Error| error.asking(format!("bind to exchange {}", binding.exchange));
        self.queues.binding(binding, true).await.map_err(asked)
    }

    async fn unbind(&self, binding: &Binding) -> Result<()> {
        let asked =
            |error: Error| error.asking(format!("unbind from exchange {}", binding.exchange));
        self.queues.binding(binding, false).await.map_err(asked)
    }

    async fn publish(&self, mut messages: Vec<Publish>) -> Result<Vec<Result<Published>>> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        self.queues.keep_up();
        // With a name an outcome that was lost is found out.
        for message in messages.iter_mut().filter(|message| message.request.is_none()) {
            message.request = Some(RequestId(u128::from_be_bytes(random()?)));
        }
        let this = (self.queues.clone(), Arc::new(messages));
        let published = self.queues.tx(Repeat::Freely, move |tx| {
            let (queues, messages) = this.clone();
            Box::pin(async move { queues.publish_in(tx, &messages, false).await })
        });
        published.await.map_err(|error| error.asking("publish"))
    }

    async fn consume(&self, ask: &Consume) -> Result<BoxStream<'static, Result<Delivered>>> {
        let asked = |error: Error| error.asking(format!("consume from queue {}", ask.queue));
        self.queues.open_consumer(ask).await.map_err(asked)
    }

    async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>> {
        let asked = |error: Error| error.asking(format!("receive from queue {}", ask.queue));
        self.queues.receive_some(ask).await.map_err(asked)
    }

    async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        let asked = |error: Error| error.asking("settle deliveries");
        self.queues.settle_all(receipts, verdict).await.map_err(asked)
    }

    async fn extend(&self, receipt: &Receipt, lease: Duration) -> Result<()> {
        let asked = |error: Error| error.asking(format!("extend delivery {}", receipt.token));
        self.queues.extend_one(receipt, lease).await.map_err(asked)
    }

    async fn peek(&self, name: &str, max: u32) -> Result<Vec<Peeked>> {
        let asked = |error: Error| error.asking(format!("peek into queue {name}"));
        self.queues.look_into(name, max).await.map_err(asked)
    }

    async fn redrive(&self, from: &str, to: Option<&str>, max: u32) -> Result<u32> {
        let asked = |error: Error| error.asking(format!("redrive queue {from}"));
        self.queues.redrive_some(from, to, max).await.map_err(asked)
    }

    async fn commit(&self, commit: &Commit) -> Result<Vec<u64>> {
        let version = self.queues.commit_all(commit).await;
        let version = version.map_err(|error| error.asking("commit"))?;
        commit.releases.iter().for_each(|hold| self.lines.released(hold));
        Ok(vec![version; commit.writes.len()])
    }
}
