//! Consuming and receiving: whoever wants messages of a queue goes to this engine's member of its
//! group, which is there as long as somebody does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::future::join_all;
use leasehold_api::engine::{Consume, Delivered, Receipt, Receive, SessionRef, Verdict, Wait};
use leasehold_api::{Error, ErrorKind, Result, Retry};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::driver::Cluster;
use crate::error::{not_found, stale, unavailable};
use crate::member::{Member, Taken, User, Want};
use crate::settings::Settings;
use crate::window::Handed;
use crate::{message, names};

/// The most that a consumer can have in hand.
const PREFETCH_MAX: u32 = 65_535;
/// The most that can be received at once.
const RECEIVE_MAX: u32 = 1000;
/// How long brokers wait for more members before they begin a group, at most.
const GATHERING: Duration = Duration::from_secs(10);
/// How long after a change in the group another one may follow that gives us more.
const SETTLING: Duration = Duration::from_millis(1500);
/// How long what is there may take to come.
const FETCHING: Duration = Duration::from_secs(3);
/// A pause before a queue that failed is opened again.
const PAUSE: Duration = Duration::from_millis(100);

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Member>>>>;

/// This engine's members.
pub(crate) struct Consuming {
    pub cluster: Arc<dyn Cluster>,
    pub settings: Settings,
    pub config: Arc<Config>,
    slots: Mutex<HashMap<Arc<str>, Slot>>,
    by_id: Mutex<HashMap<u32, Weak<Member>>>,
}

impl Drop for Consuming {
    fn drop(&mut self) {
        let members = self.by_id.get_mut().unwrap_or_else(PoisonError::into_inner);
        members.values().filter_map(Weak::upgrade).for_each(|member| member.abandon());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a receipt's delivery is.
fn place(receipt: &Receipt) -> (u32, (i32, i64, u64)) {
    let partition = ((receipt.place >> 64) as u32).cast_signed();
    let offset = (receipt.place as u64).cast_signed();
    ((receipt.place >> 96) as u32, (partition, offset, receipt.token))
}

impl Consuming {
    pub fn new(cluster: Arc<dyn Cluster>, config: Arc<Config>) -> Self {
        let settings = Settings::new(cluster.clone(), config.clone());
        let (slots, by_id) = (Mutex::default(), Mutex::default());
        Self { cluster, settings, config, slots, by_id }
    }

    /// Becomes a user of a queue's member, which is made if there is none.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn user(&self, queue: &Arc<str>) -> Result<User> {
        let topic = names::topic(queue)?;
        let slot = locked(&self.slots).entry(queue.clone()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(member) = &*slot {
            if let Some(user) = member.user() {
                return Ok(user);
            }
            // Two members of one process would only take partitions from each other. One that does
            // not reach the brokers may take long to leave.
            timeout(self.config.timeout, member.left()).await.ok();
            *slot = None;
        }
        let found = self.cluster.partitions(&topic).await.map_err(|fault| fault.of_queue(queue))?;
        let Some(partitions) = found else {
            locked(&self.slots).remove(queue);
            return Err(not_found(queue));
        };
        let rules = self.settings.of(&topic).await.map_err(|fault| fault.told())?;
        let member = Member::start(
            self.cluster.clone(),
            self.config.clone(),
            (queue.clone(), topic),
            rules.unwrap_or_default(),
            partitions.len(),
        )?;
        let user = member.user().ok_or_else(|| unavailable("it left at once"))?;
        let mut by_id = locked(&self.by_id);
        by_id.retain(|_, member| member.strong_count() > 0);
        by_id.insert(member.id, Arc::downgrade(&member));
        *slot = Some(member);
        Ok(user)
    }

    /// This engine's member of a queue, if there is one.
    pub async fn member(&self, queue: &str) -> Option<Arc<Member>> {
        let slot = locked(&self.slots).get(queue)?.clone();
        slot.lock().await.clone()
    }

    fn of(&self, receipt: &Receipt) -> Result<(Arc<Member>, (i32, i64, u64))> {
        let (id, place) = place(receipt);
        let member = locked(&self.by_id).get(&id).and_then(Weak::upgrade);
        let open = member.filter(|member| member.open(place.0, place.1, place.2));
        Ok((open.ok_or_else(|| stale(receipt.token))?, place))
    }

    /// Settles deliveries, all or none.
    pub async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        let mut open = Vec::with_capacity(receipts.len());
        for (at, receipt) in receipts.iter().enumerate() {
            let is_twice = receipts[..at].iter().any(|other| other.place == receipt.place);
            open.push(self.of(receipt).and_then(|open| match is_twice {
                true => Err(stale(receipt.token)),
                false => Ok(open),
            })?);
        }
        match verdict {
            Verdict::Ack => {
                let mut changes = Vec::with_capacity(open.len());
                for (member, place) in &open {
                    changes.push((member, member.ack(*place)?, place.2));
                }
                for (member, change, token) in changes {
                    member.is_committed(&change, token).await?;
                }
            }
            Verdict::Nack(_) => {
                for (member, place) in &open {
                    member.nack(*place)?;
                }
            }
            Verdict::Reject => {
                let rejects = open.iter().map(|(member, place)| member.reject(*place));
                for rejected in join_all(rejects).await {
                    rejected?;
                }
            }
        }
        Ok(u32::try_from(open.len()).unwrap_or(u32::MAX))
    }

    pub fn extend(&self, receipt: &Receipt, lease: Duration) -> Result<()> {
        let (member, place) = self.of(receipt)?;
        member.extend(place, lease)
    }
}

/// Gives a message to a user.
fn deliver(taken: Taken, session: &SessionRef) -> Delivered {
    let member = taken.member.clone();
    let (partition, Handed { offset, token, attempt, record }) = taken.give();
    let place = u128::from(member.id) << 96
        | u128::from(partition.cast_unsigned()) << 64
        | u128::from(offset.cast_unsigned());
    Delivered {
        receipt: Receipt { token, place, session: session.clone() },
        attempt,
        redelivered: attempt > 1,
        content: message::content(&member.queue, &record),
    }
}

/// Waits until the group has said what is ours.
async fn joined(user: &User, config: &Config) -> Result<()> {
    let member = &user.member;
    let joined = member.until(|view| match view.end() {
        Some(Ok(())) => Some(Err(not_found(&member.queue))),
        Some(Err(error)) => Some(Err(error)),
        None => view.has_joined().then_some(Ok(())),
    });
    let patience = config.timeout + GATHERING;
    let late = |_| {
        let why = format!("the group of queue {} did not form in {patience:?}", member.queue);
        Err(unavailable(&why).with_retry(Retry::Later))
    };
    timeout(patience, joined).await.unwrap_or_else(late)
}

/// The next message for somebody; `None` when the queue is gone.
async fn next(member: &Arc<Member>, want: &Want) -> Result<Option<Taken>> {
    loop {
        let taken = member.until(|view| match view.end() {
            Some(Ok(())) => Some(Ok(None)),
            Some(Err(error)) => Some(Err(error)),
            None => view.take(member, want).map(|taken| Ok(Some(taken))),
        });
        match taken.await? {
            Some(taken) if !taken.may_be_seen().await => {}
            taken => return Ok(taken),
        }
    }
}

/// A stream of deliveries.
struct Stream {
    engine: Arc<Consuming>,
    ask: Consume,
    user: Option<User>,
    is_over: bool,
}

impl Stream {
    async fn next(&mut self) -> Option<Result<Delivered>> {
        let mut until = None;
        while !self.is_over {
            match self.look().await {
                Ok(Some(delivered)) => return Some(Ok(delivered)),
                Ok(None) => self.is_over = true,
                // The member lost its footing; another takes its place.
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    self.user = None;
                    let patience = || Instant::now() + self.engine.config.timeout;
                    if Instant::now() >= *until.get_or_insert_with(patience) {
                        self.is_over = true;
                        return Some(Err(error));
                    }
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    async fn look(&mut self) -> Result<Option<Delivered>> {
        let user = match &self.user {
            Some(user) => user,
            None => {
                let user = self.engine.user(&self.ask.queue).await?;
                self.user.insert(user)
            }
        };
        let prefetch = self.ask.prefetch;
        let want = Want { consumer: user.consumer, prefetch, lease: None };
        let Some(taken) = next(&user.member, &want).await? else { return Ok(None) };
        let (member, place) = (user.member.clone(), taken.place());
        let delivered = deliver(taken, &self.ask.session);
        if self.ask.no_ack {
            // Committed with whatever comes next.
            member.ack(place)?;
        }
        Ok(Some(delivered))
    }
}

/// Begins to consume.
pub(crate) async fn consume(
    engine: Arc<Consuming>,
    ask: &Consume,
) -> Result<BoxStream<'static, Result<Delivered>>> {
    if !(1..=PREFETCH_MAX).contains(&ask.prefetch) {
        let wrong = format!("a prefetch is 1 to {PREFETCH_MAX}");
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    if ask.exclusive {
        return Err(Error::unsupported("kafka", "exclusive consumers"));
    }
    let user = engine.user(&ask.queue).await?;
    joined(&user, &engine.config).await?;
    let stream = Stream { engine, ask: ask.clone(), user: Some(user), is_over: false };
    let next = |mut stream: Stream| async { stream.next().await.map(|item| (item, stream)) };
    Ok(futures_util::stream::unfold(stream, next).boxed())
}

/// Takes a few messages.
pub(crate) async fn receive(engine: &Consuming, ask: &Receive) -> Result<Vec<Delivered>> {
    if !(1..=RECEIVE_MAX).contains(&ask.max) {
        let wrong = format!("1 to {RECEIVE_MAX} messages can be received at once");
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    let until = match ask.wait {
        Wait::No => Some(Instant::now()),
        // What lies beyond the clock's end is forever.
        Wait::AtMost(wait) => Instant::now().checked_add(wait),
        Wait::Forever => None,
    };
    let user = engine.user(&ask.queue).await?;
    joined(&user, &engine.config).await?;
    let want = Want { consumer: user.consumer, prefetch: ask.max, lease: ask.lease };
    let mut first = look(engine, &user, &want).await?;
    if first.is_none() {
        first = match until {
            None => next(&user.member, &want).await?,
            Some(until) => {
                let late = until.saturating_duration_since(Instant::now());
                match timeout(late, next(&user.member, &want)).await {
                    Ok(taken) => taken?,
                    Err(_) => return Ok(Vec::new()),
                }
            }
        };
        if first.is_none() {
            return Err(not_found(&ask.queue));
        }
    }
    let mut taken: Vec<Taken> = first.into_iter().collect();
    while taken.len() < ask.max as usize {
        let member = &user.member;
        let more = member.until(|view| Some(view.take(member, &want))).await;
        let Some(more) = more else { break };
        if more.may_be_seen().await {
            taken.push(more);
        }
    }
    Ok(taken.into_iter().map(|taken| deliver(taken, &ask.session)).collect())
}

/// Takes a message if one is there: asks the brokers where the partitions end, and waits until all
/// was taken up to there.
async fn look(engine: &Consuming, user: &User, want: &Want) -> Result<Option<Taken>> {
    let member = &user.member;
    let looking = async {
        loop {
            let opened = member.until(|view| {
                if let Some(end) = view.end() {
                    return Some(Err(end.err().unwrap_or_else(|| not_found(&member.queue))));
                }
                if let Some(taken) = view.take(member, want) {
                    return Some(Ok(Err(taken)));
                }
                view.positions().map(|positions| Ok(Ok((positions, view.owns_all()))))
            });
            let (positions, (owns_all, since)) = match opened.await? {
                Ok(opened) => opened,
                Err(taken) if taken.may_be_seen().await => return Ok(Some(taken)),
                Err(_) => continue,
            };
            if !owns_all && since < SETTLING {
                // Somebody may be leaving, and what he had comes to us.
                let changed = member.until(|view| (view.owns_all().1 < since).then_some(()));
                if timeout(SETTLING - since, changed).await.is_ok() {
                    continue;
                }
            }
            let of = |(partition, ..): &(i32, i64, bool)| {
                let (topic, partition) = (&member.topic, *partition);
                async move { (partition, engine.cluster.ends(topic, partition).await) }
            };
            let ends = join_all(positions.iter().map(of)).await;
            let mut behind = Vec::with_capacity(ends.len());
            for (partition, ends) in ends {
                let (low, end) = ends.map_err(|fault| fault.of_queue(&member.queue))?;
                // What was removed from the topic will not come.
                behind.extend((low < end).then_some((partition, end)));
            }
            return caught_up(member, want, behind).await;
        }
    };
    timeout(FETCHING + SETTLING, looking).await.unwrap_or(Ok(None))
}

/// Waits until all was taken up to there, or a message comes.
async fn caught_up(
    member: &Arc<Member>,
    want: &Want,
    ends: Vec<(i32, i64)>,
) -> Result<Option<Taken>> {
    loop {
        let found = member.until(|view| {
            if let Some(end) = view.end() {
                return Some(Err(end.err().unwrap_or_else(|| not_found(&member.queue))));
            }
            if let Some(taken) = view.take(member, want) {
                return Some(Ok(Some(taken)));
            }
            let positions = view.positions()?;
            let is_there = |(partition, end): &(i32, i64)| {
                let position = positions.iter().find(|(known, ..)| known == partition);
                // What is not ours any more is somebody else's to hand out.
                position.is_none_or(|(_, at, is_full)| at >= end || *is_full)
            };
            ends.iter().all(is_there).then_some(Ok(None))
        });
        match found.await? {
            Some(taken) if !taken.may_be_seen().await => {}
            found => return Ok(found),
        }
    }
}
