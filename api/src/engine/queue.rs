//! What is asked of and answered by [`QueueEngine`](super::QueueEngine).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{HoldRef, RequestId, SessionRef, Wait, Write};

/// What a queue is declared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Whether the queue and its messages outlive a restart.
    pub durable: bool,
    /// Most messages waiting and in flight.
    pub messages_max: Option<u64>,
    /// Most bytes waiting and in flight, as stored.
    pub bytes_max: Option<u64>,
    /// What happens beyond those.
    pub overflow: Overflow,
    /// How long a message may wait.
    pub ttl: Option<Duration>,
    /// How long a delivery may stay unsettled; `None`: as long as its session lives.
    pub lease: Option<Duration>,
    /// Deliveries after which a message is dead.
    pub deliveries_max: Option<u16>,
    /// Where the dead go; `None`: they are dropped.
    pub dead_letter: Option<DeadLetter>,
    /// Highest priority, 0 to 31; 0 makes a plain queue.
    pub priority_max: u8,
    /// How long message ids are remembered; `None`: not at all.
    pub dedup: Option<Duration>,
    /// Deliver to one consumer at a time; the others stand by.
    pub single_active: bool,
    /// It goes when its last consumer goes.
    pub auto_delete: bool,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            durable: true,
            messages_max: None,
            bytes_max: None,
            overflow: Overflow::DropOldest,
            ttl: None,
            lease: None,
            deliveries_max: None,
            dead_letter: None,
            priority_max: 0,
            dedup: None,
            single_active: false,
            auto_delete: false,
        }
    }
}

/// What happens to a publish when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overflow {
    /// The oldest waiting message goes, to the dead letters if there are any.
    #[default]
    DropOldest,
    /// The publish is refused.
    Reject,
}

/// Where messages go that died in a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeadLetter {
    /// Through this exchange; `None`: straight to the queue named by `routing_key`.
    pub exchange: Option<String>,
    /// With this routing key; `None`: the one it was published with.
    pub routing_key: Option<String>,
}

impl DeadLetter {
    /// Straight to a queue.
    pub fn queue(name: impl Into<String>) -> Self {
        Self { exchange: None, routing_key: Some(name.into()) }
    }
}

/// A header's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Anything else, as its door encodes it.
    Bytes(Vec<u8>),
}

/// When a message may first be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// After this time.
    After(Duration),
    /// At this time of the wall clock.
    At(SystemTime),
}

/// A message to publish.
///
/// ```
/// use leasehold_api::Message;
/// use std::time::Duration;
/// let message = Message::new("order 42").priority(5).id("order-42").delay(Duration::from_secs(3));
/// assert_eq!(message.body, b"order 42");
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// The payload, at most 16 MiB.
    pub body: Vec<u8>,
    /// 0 is the lowest; more than the queue knows counts as its highest.
    pub priority: u8,
    /// It may be lost with the machine; its confirm does not wait for the disk.
    pub transient: bool,
    /// Application headers; the headers exchange routes by them. At most 64 KiB together.
    pub headers: Vec<(String, Value)>,
    /// The idempotence key: a queue with a window takes each id once.
    pub id: Option<String>,
    /// The ordering key: messages of one key are delivered one at a time, in order.
    pub key: Option<String>,
    /// Dropped or dead-lettered if it waits longer.
    pub ttl: Option<Duration>,
    /// When it may first be delivered.
    pub due: Due,
}

impl Message {
    /// A plain message.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Sets the priority; 0 is the lowest.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the idempotence key.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the ordering key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: Value) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// Holds it back for a time.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Due::After(delay);
        self
    }

    /// Holds it back until a time of the wall clock.
    #[must_use]
    pub fn at(mut self, at: SystemTime) -> Self {
        self.due = Due::At(at);
        self
    }

    /// Lets it die if it waits longer.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Lets it be lost with the machine.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }
}

impl<B: Into<Vec<u8>>> From<B> for Message {
    fn from(body: B) -> Self {
        Self::new(body)
    }
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// To one queue by name.
    Queue(Arc<str>),
    /// Through an exchange with a routing key (which may be empty).
    Exchange(Arc<str>, Arc<str>),
}

/// One message on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// Where to.
    pub target: Target,
    /// What.
    pub message: Message,
    /// Refuse when no queue takes it.
    pub mandatory: bool,
    /// Names the request across retries.
    pub request: Option<RequestId>,
}

/// A message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Published {
    /// Queues that took it.
    pub queues: u32,
    /// Queues that had taken the same message id before.
    pub duplicates: u32,
}

/// Takes messages as they come.
#[derive(Debug, Clone)]
pub struct Consume {
    /// From which queue.
    pub queue: Arc<str>,
    /// Who consumes.
    pub session: SessionRef,
    /// How many may be in flight at once.
    pub prefetch: u32,
    /// Deliver and forget: no lease, no ack.
    pub no_ack: bool,
    /// Refuse, and be refused, any other consumer of the queue.
    pub exclusive: bool,
    /// Shown by inspect; at most 1024 bytes.
    pub label: Option<Arc<str>>,
}

/// Takes a few messages.
#[derive(Debug, Clone)]
pub struct Receive {
    /// From which queue.
    pub queue: Arc<str>,
    /// Who takes them.
    pub session: SessionRef,
    /// How many at most.
    pub max: u32,
    /// How long to wait for the first.
    pub wait: Wait,
    /// A lease of their own; `None`: the queue's.
    pub lease: Option<Duration>,
}

/// Names one delivery. A late hand has an old token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The fencing token of the delivery.
    pub token: u64,
    /// Where the engine keeps it.
    pub place: u128,
    /// The session it was delivered to.
    pub session: SessionRef,
}

/// A message as delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// Names the delivery.
    pub receipt: Receipt,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// What.
    pub content: Content,
}

/// A message in a queue, as published.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// The payload.
    pub body: Vec<u8>,
    /// Its priority as published.
    pub priority: u8,
    /// Application headers.
    pub headers: Vec<(String, Value)>,
    /// The idempotence key.
    pub id: Option<String>,
    /// The ordering key.
    pub key: Option<String>,
    /// The exchange it was published to; empty for the default one.
    pub exchange: String,
    /// Its routing key; the queue's name with the default exchange.
    pub routing_key: String,
    /// When it was accepted.
    pub published_at: SystemTime,
    /// Its deaths, the latest last.
    pub deaths: Vec<Death>,
}

/// One death of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The queue in which it died.
    pub queue: String,
    /// Why: `rejected`, `expired`, `overflow` or `deliveries`.
    pub reason: String,
    /// How often, there and for that reason.
    pub count: u32,
    /// When first.
    pub first_at: SystemTime,
}

/// A message as peek shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Peeked {
    /// Failed deliveries so far.
    pub attempts: u32,
    /// What.
    pub content: Content,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Done; the message is gone.
    Ack,
    /// Not done; again, after this time (zero: at once, in its old place).
    Nack(Duration),
    /// Never again: to the dead letters, or dropped when the queue has none.
    Reject,
}

/// A queue as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub config: QueueConfig,
    /// Messages ready for delivery.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub in_flight: u64,
    /// Delayed messages.
    pub delayed: u64,
    /// Messages that wait for one of the same ordering key.
    pub parked: u64,
    /// Bytes waiting and in flight.
    pub bytes: u64,
    /// Its consumers.
    pub consumers: u32,
    /// Deliveries are held back.
    pub paused: bool,
    /// Sums since it was declared.
    pub totals: QueueTotals,
}

/// Sums since a queue was declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueTotals {
    /// Messages accepted.
    pub published: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Deliveries that came back.
    pub returned: u64,
    /// Messages sent to the dead letters.
    pub dead: u64,
    /// Messages dropped by expiry, overflow, rejection or delivery count without dead letters.
    pub dropped: u64,
    /// Messages purged.
    pub purged: u64,
}

/// How an exchange chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// Bindings whose key equals the routing key.
    Direct,
    /// All bindings.
    Fanout,
    /// Bindings whose pattern matches: `*` is one word, `#` any number of words.
    Topic,
    /// Bindings whose arguments are all, or any, among the message's headers.
    Headers,
}

/// What an exchange is declared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExchangeConfig {
    /// How it chooses.
    pub kind: ExchangeKind,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes when its last binding goes.
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
}

impl ExchangeConfig {
    /// A durable exchange of a kind.
    pub fn of(kind: ExchangeKind) -> Self {
        Self { kind, durable: true, auto_delete: false, internal: false }
    }
}

/// One binding.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// From which exchange.
    pub exchange: String,
    /// To which queue or exchange.
    pub to: Destination,
    /// The routing key or pattern; ignored by fanout and headers.
    pub key: String,
    /// What a headers exchange compares.
    pub arguments: Vec<(String, Value)>,
    /// Whether all arguments must match, or any one.
    pub match_all: bool,
}

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To a queue.
    Queue(String),
    /// To another exchange.
    Exchange(String),
}

/// What happens all at once or not at all, in this order. Receipts and holds name their sessions,
/// which need not be the same.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Each lock must be held with this token.
    pub checks: Vec<(Arc<str>, u64)>,
    /// Deliveries to settle.
    pub settles: Vec<(Receipt, Verdict)>,
    /// Messages to publish.
    pub publishes: Vec<Publish>,
    /// Registers to write.
    pub writes: Vec<Write>,
    /// Holds to release.
    pub releases: Vec<HoldRef>,
    /// Names the request across retries.
    pub request: Option<RequestId>,
}
