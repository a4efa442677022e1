//! Queues: one script for each thing that is asked.
//!
//! Requests that change something have a name, so that a script whose answer was lost is asked
//! again and answers as it did before. What time does to queues (delays, deadlines, expiry) is
//! done by whoever comes next, and by the keeper, which sleeps until the first thing is due.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use leasehold_api::engine::{
    Binding, Commit, Consume, Delivered, Due, ExchangeConfig, List, Listed, Peeked, Publish,
    Published, QueueConfig, QueueEngine, QueueView, Receipt, Receive, RequestId, Target, Verdict,
};
use leasehold_api::{Error, ErrorKind, Guarantees, Result};
use leasehold_contenders::{InHand, LineEngine, Sessions, limits, operation};
use redis::Value;

use crate::bells::Bells;
use crate::book::{RedisBook, range};
use crate::connect::Link;
use crate::script::{self, Args, Reply, Script, odd, us};
use crate::{keeper, message};

/// Messages of one script's work, where it could be any number.
const CHUNK: u32 = 500;
/// Most bytes of messages in one publish, and most messages.
const BATCH: (usize, usize) = (4 << 20, 1000);
/// Most deliveries in flight at one consumer.
pub(crate) const CREDIT_MAX: u32 = 65_535;

/// Queues in Redis. Clones are the same engine.
#[derive(Clone)]
pub(crate) struct RedisQueues {
    pub inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub link: Arc<Link>,
    pub bells: Bells,
    pub sessions: Arc<Sessions>,
    pub guarantees: Guarantees,
    /// Sessions that may have something in a queue.
    used: Mutex<HashSet<u64>>,
    keeper: OnceLock<()>,
}

/// Who must be told of a commit's releases.
pub(crate) type Locks = LineEngine<RedisBook>;

impl Inner {
    pub fn new(
        link: Arc<Link>,
        bells: Bells,
        sessions: Arc<Sessions>,
        guarantees: Guarantees,
    ) -> Self {
        let (used, keeper) = (Mutex::default(), OnceLock::new());
        Self { link, bells, sessions, guarantees, used, keeper }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The TTL of a session that lives, which may have something in a queue from now on.
    pub fn session(&self, id: u64) -> Result<Option<Duration>> {
        let state = self.sessions.find(id)?;
        let mut used = self.used();
        if used.insert(id) && used.len().is_power_of_two() {
            // Those that ended by themselves.
            used.retain(|id| self.sessions.find(*id).is_ok());
        }
        Ok(state.ttl)
    }

    /// Runs a script that may be run twice, and reads its answer.
    pub async fn ask(&self, script: &Script, args: &Args) -> Result<Reply> {
        answer(self.link.run_again(script, args).await?)
    }

    /// The bell of a queue.
    pub fn channel(&self, queue: u64) -> String {
        format!("{}:b:q:{queue}", self.link.config().prefix)
    }

    /// Gives back what nobody has seen.
    pub async fn give_back(&self, receipts: &[Receipt]) -> Result<()> {
        for receipt in receipts {
            let (queue, id) = place(receipt);
            let mut args = Args::default();
            args.number(queue).text("").number(id).number(receipt.token);
            self.ask(&script::LEAVE, &args).await?;
        }
        Ok(())
    }
}

/// Where a delivery is: its queue's number, and its own.
pub(crate) fn place(receipt: &Receipt) -> (u64, u64) {
    ((receipt.place >> 64) as u64, receipt.place as u64)
}

/// A script's answer behind its first word, or its refusal.
pub(crate) fn answer(value: Value) -> Result<Reply> {
    let mut reply = Reply::new(value)?;
    match reply.text("answer")?.as_str() {
        "+" => Ok(reply),
        "!" => Err(refusal(&mut reply)?),
        _ => Err(odd("known answer")),
    }
}

pub(crate) fn refusal(reply: &mut Reply) -> Result<Error> {
    let (kind, what) = (reply.text("refusal")?, reply.text("reason")?);
    let (kind, wrong) = match kind.as_str() {
        "not-found" => (ErrorKind::NotFound, format!("there is no queue {what}; declare it")),
        "full" => (ErrorKind::Full, format!("queue {what} is full")),
        "in-use" => (ErrorKind::InUse, format!("queue {what} has a consumer that excludes others")),
        "not-empty" => (ErrorKind::InUse, format!("queue {what} is not empty")),
        "stale" => (
            ErrorKind::Stale,
            format!("the delivery with token {what} is over; the message went to others or back"),
        ),
        "foreign" => (
            ErrorKind::Foreign,
            format!("the delivery with token {what} belongs to another session"),
        ),
        "twice" => (ErrorKind::Invalid, format!("the delivery with token {what} is settled twice")),
        "itself" => {
            (ErrorKind::Invalid, format!("queue {what} is redriven to itself; name another"))
        }
        "no-consumer" => (ErrorKind::NoSession, "the consumer's session has ended".to_owned()),
        _ => return Err(odd("known refusal")),
    };
    Ok(Error::new(kind, wrong))
}

pub(crate) fn request_text(request: Option<RequestId>) -> Result<String> {
    match request {
        Some(request) => Ok(format!("{:032x}", request.0)),
        None => operation(),
    }
}

/// A settlement as the scripts take it.
pub(crate) fn put_settle(args: &mut Args, receipt: &Receipt, verdict: Verdict) -> Result<()> {
    let (queue, id) = place(receipt);
    args.number(queue).number(id).number(receipt.token).number(receipt.session.id);
    match verdict {
        Verdict::Ack => args.text("ack").number(0u32),
        Verdict::Reject => args.text("reject").number(0u32),
        Verdict::Nack(delay) => {
            if !delay.is_zero() {
                limits::ttl(delay)?;
            }
            args.text("nack").number(us(delay))
        }
    };
    Ok(())
}

/// A publish as the scripts take it.
pub(crate) fn put_publish(args: &mut Args, publish: &Publish, request: &str) -> Result<()> {
    let queue = match &publish.target {
        Target::Queue(queue) => queue,
        Target::Exchange(..) => return Err(Error::unsupported("redis", "exchanges")),
    };
    limits::name(queue)?;
    let message = &publish.message;
    message::valid(message)?;
    let (delay, at) = match message.due {
        Due::Now => (0, 0),
        Due::After(delay) => (us(delay), 0),
        Due::At(at) => (0, at.duration_since(UNIX_EPOCH).map_or(0, us)),
    };
    args.text(queue).flag(publish.mandatory).text(request).number(message.priority);
    args.text(message.key.as_deref().unwrap_or_default());
    args.text(message.id.as_deref().unwrap_or_default());
    args.time(message.ttl).number(delay).number(at).number(message.body.len() as u64);
    args.text(queue).bytes(message::content(message, queue));
    Ok(())
}

impl RedisQueues {
    pub fn keep(&self) {
        self.inner.keeper.get_or_init(|| {
            tokio::spawn(keeper::keep(Arc::downgrade(&self.inner)));
        });
    }

    async fn published(&self, batch: &Args) -> Result<Vec<Result<Published>>> {
        let mut reply = self.inner.ask(&script::PUBLISH, batch).await?;
        let mut answers = Vec::new();
        while !reply.is_empty() {
            let mut one = reply.list("answer")?;
            answers.push(match one.text("answer")?.as_str() {
                "!" => Err(refusal(&mut one)?),
                _ => Ok(Published {
                    queues: one.number("number of queues")? as u32,
                    duplicates: one.number("number of duplicates")? as u32,
                }),
            });
        }
        Ok(answers)
    }

    async fn try_publish(&self, messages: Vec<Publish>) -> Result<Vec<Result<Published>>> {
        self.keep();
        let mut answers: Vec<Option<Result<Published>>> = Vec::new();
        let (mut batch, mut places, mut bytes) = (Args::default(), Vec::new(), 0);
        let last = messages.len();
        for (at, publish) in messages.iter().enumerate() {
            let request = request_text(publish.request)?;
            let before = batch.len();
            answers.push(match put_publish(&mut batch, publish, &request) {
                Ok(()) => {
                    places.push(at);
                    bytes += publish.message.body.len();
                    None
                }
                Err(error) => {
                    batch.truncate(before);
                    Some(Err(error))
                }
            });
            let is_full = bytes >= BATCH.0 || places.len() >= BATCH.1 || at + 1 == last;
            if is_full && !places.is_empty() {
                let done = self.published(&batch).await;
                self.spread(&mut answers, &places, done)?;
                (batch, bytes) = (Args::default(), 0);
                places.clear();
            }
        }
        answers.into_iter().map(|answer| answer.ok_or_else(|| odd("answer"))).collect()
    }

    /// Puts the answers of a batch in their places. Of the batches before one that failed it is
    /// known what became of them.
    fn spread(
        &self,
        answers: &mut [Option<Result<Published>>],
        places: &[usize],
        done: Result<Vec<Result<Published>>>,
    ) -> Result<()> {
        let done = match done {
            Ok(done) if done.len() == places.len() => done,
            Ok(_) => return Err(odd("answer for every message")),
            Err(error) if answers.len() == places.len() => return Err(error),
            Err(error) => vec![Err(error); places.len()],
        };
        for (place, done) in places.iter().zip(done) {
            answers[*place] = Some(done);
        }
        Ok(())
    }

    async fn try_settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        if receipts.len() > CREDIT_MAX as usize {
            let wrong = format!("{} deliveries at once; at most {CREDIT_MAX}", receipts.len());
            return Err(Error::new(ErrorKind::Invalid, wrong));
        }
        let mut args = Args::default();
        args.text(&operation()?);
        for receipt in receipts {
            put_settle(&mut args, receipt, verdict)?;
        }
        let mut reply = self.inner.ask(&script::SETTLE, &args).await?;
        Ok(reply.number("count")? as u32)
    }

    async fn try_declare(&self, name: &str, config: &QueueConfig) -> Result<bool> {
        limits::name(name)?;
        message::valid_config(config)?;
        let mut args = Args::default();
        args.text(name);
        let asked = message::settings(&mut args, config);
        let mut reply = self.inner.ask(&script::DECLARE, &args).await?;
        let existed = reply.number("answer")? == 1;
        let known = reply.text("settings")?;
        let differences = message::differences(&known, &asked)?;
        if differences.is_empty() {
            return Ok(existed);
        }
        let wrong = format!("it exists with other settings: {}", differences.join(", "));
        Err(Error::new(ErrorKind::Different, wrong))
    }

    async fn try_purge(&self, name: &str) -> Result<u64> {
        limits::name(name)?;
        let (mut count, mut rounds) = (0, None);
        loop {
            let mut args = Args::default();
            args.text(name).number(CHUNK).text(&operation()?);
            let mut reply = self.inner.ask(&script::PURGE, &args).await?;
            count += reply.number("count")?;
            let left = reply.number("rest")?;
            // As many rounds as were needed at first: publishers may be faster than we are.
            let rounds = rounds.get_or_insert(left.div_ceil(u64::from(CHUNK)) + 1);
            *rounds -= 1;
            if left == 0 || *rounds == 0 {
                return Ok(count);
            }
        }
    }

    async fn try_redrive(&self, from: &str, to: Option<&str>, max: u32) -> Result<u32> {
        limits::name(from)?;
        to.map_or(Ok(()), limits::name)?;
        let mut count = 0;
        while count < max {
            let some = CHUNK.min(max - count);
            let mut args = Args::default();
            args.text(from).text(to.unwrap_or_default()).number(some).text(&operation()?);
            let moved = self.inner.ask(&script::REDRIVE, &args).await?.number("count")? as u32;
            count += moved;
            if moved < some {
                break;
            }
        }
        Ok(count)
    }

    async fn view(&self, name: &str) -> Result<QueueView> {
        limits::name(name)?;
        let mut args = Args::default();
        args.text(name);
        message::view(self.inner.ask(&script::VIEW, &args).await?.list("queue")?)
    }
}

/// Names what was asked in an error.
fn asking<'a>(what: &'a str, name: &'a str) -> impl Fn(Error) -> Error + 'a {
    move |error| error.asking(format!("{what} {name}"))
}

fn no_exchanges<T>() -> Result<T> {
    Err(Error::unsupported("redis", "exchanges"))
}

#[async_trait]
impl InHand for RedisQueues {
    async fn kept(&self, session: u64, ttl: Duration) -> Result<()> {
        if !self.inner.used().contains(&session) {
            return Ok(());
        }
        let mut args = Args::default();
        args.number(session).number(us(ttl));
        self.inner.ask(&script::KEPT, &args).await.map(drop)
    }

    async fn ended(&self, session: u64) -> Result<()> {
        if !self.inner.used().remove(&session) {
            return Ok(());
        }
        let mut args = Args::default();
        args.number(session);
        self.inner.ask(&script::ENDED, &args).await.map(drop)
    }
}

#[async_trait]
impl QueueEngine for Queues {
    fn guarantees(&self) -> Guarantees {
        self.queues.inner.guarantees
    }

    async fn declare_queue(&self, name: &str, config: &QueueConfig) -> Result<bool> {
        self.queues.try_declare(name, config).await.map_err(asking("declare queue", name))
    }

    async fn delete_queue(&self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64> {
        let asked = asking("delete queue", name);
        limits::name(name).map_err(&asked)?;
        let mut args = Args::default();
        args.text(name).flag(if_unused).flag(if_empty).text(&operation()?);
        let reply = self.queues.inner.ask(&script::DELETE, &args).await;
        reply.and_then(|mut reply| reply.number("count")).map_err(asked)
    }

    async fn purge(&self, name: &str) -> Result<u64> {
        self.queues.try_purge(name).await.map_err(asking("purge queue", name))
    }

    async fn pause(&self, name: &str, paused: bool) -> Result<()> {
        let asked = asking("pause queue", name);
        limits::name(name).map_err(&asked)?;
        let mut args = Args::default();
        args.text(name).flag(paused);
        self.queues.inner.ask(&script::PAUSE, &args).await.map(drop).map_err(asked)
    }

    async fn inspect_queue(&self, name: &str) -> Result<QueueView> {
        self.queues.view(name).await.map_err(asking("inspect queue", name))
    }

    async fn list_queues(&self, ask: &List) -> Result<Listed<QueueView>> {
        let asked = asking("list queues from", &ask.prefix);
        limits::list(ask).map_err(&asked)?;
        let mut args = Args::default();
        let (from, upto) = range(ask.prefix.as_bytes());
        args.bytes(from).bytes(upto).number(ask.after).number(ask.max);
        let mut reply = self.queues.inner.ask(&script::QUEUES, &args).await.map_err(&asked)?;
        let mut items = Vec::new();
        while !reply.is_empty() {
            let view = reply.list("queue").and_then(message::view);
            items.push(view.map_err(&asked)?);
        }
        let next = (items.len() as u32 == ask.max).then(|| ask.after + ask.max);
        Ok(Listed { items, next })
    }

    async fn declare_exchange(&self, _name: &str, _config: &ExchangeConfig) -> Result<()> {
        no_exchanges()
    }

    async fn delete_exchange(&self, _name: &str, _if_unused: bool) -> Result<()> {
        no_exchanges()
    }

    async fn bind(&self, _binding: &Binding) -> Result<()> {
        no_exchanges()
    }

    async fn unbind(&self, _binding: &Binding) -> Result<()> {
        no_exchanges()
    }

    async fn publish(&self, messages: Vec<Publish>) -> Result<Vec<Result<Published>>> {
        self.queues.try_publish(messages).await.map_err(|error| error.asking("publish"))
    }

    async fn consume(&self, ask: &Consume) -> Result<BoxStream<'static, Result<Delivered>>> {
        self.queues.keep();
        let asked = asking("consume from queue", &ask.queue);
        crate::consume::consume(&self.queues.inner, ask).await.map_err(asked)
    }

    async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>> {
        self.queues.keep();
        let asked = asking("receive from queue", &ask.queue);
        crate::receive::receive(&self.queues.inner, ask).await.map_err(asked)
    }

    async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        let settled = self.queues.try_settle(receipts, verdict).await;
        settled.map_err(|error| error.asking("settle a delivery"))
    }

    async fn extend(&self, receipt: &Receipt, lease: Duration) -> Result<()> {
        let asked = |error: Error| error.asking("extend a delivery");
        limits::ttl(lease).map_err(asked)?;
        let (queue, id) = place(receipt);
        let mut args = Args::default();
        args.number(queue).number(id).number(receipt.token).number(receipt.session.id);
        args.number(us(lease));
        self.queues.inner.ask(&script::EXTEND, &args).await.map(drop).map_err(asked)
    }

    async fn peek(&self, name: &str, max: u32) -> Result<Vec<Peeked>> {
        let asked = asking("peek into queue", name);
        limits::name(name).map_err(&asked)?;
        let mut args = Args::default();
        args.text(name).number(max.min(1000));
        let mut reply = self.queues.inner.ask(&script::PEEK, &args).await.map_err(&asked)?;
        let mut seen = Vec::new();
        while !reply.is_empty() && max > 0 {
            let mut one = reply.list("message")?;
            let attempts = one.number("failures")? as u32;
            let born = one.number("time of birth")?;
            let deaths = message::deaths(one.list("deaths")?)?;
            let content = message::read(&one.bytes("content")?, born, deaths)?;
            seen.push(Peeked { attempts, content });
        }
        Ok(seen)
    }

    async fn redrive(&self, from: &str, to: Option<&str>, max: u32) -> Result<u32> {
        self.queues.try_redrive(from, to, max).await.map_err(asking("redrive queue", from))
    }

    async fn commit(&self, commit: &Commit) -> Result<Vec<u64>> {
        self.queues.keep();
        crate::commit::commit(self, commit).await.map_err(|error| error.asking("commit"))
    }
}

/// The queues as their users take them: with the locks, for commits over both.
pub(crate) struct Queues {
    pub queues: RedisQueues,
    pub locks: Arc<Locks>,
    pub book: Arc<RedisBook>,
}
