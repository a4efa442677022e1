//! Queues.

use leasehold_api::engine as api;
use leasehold_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Deserializer, Serialize};

use crate::time::{duration_of, ms_of};

/// What happens to a publish when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// The oldest waiting message goes, to the dead letters if there are any.
    #[default]
    DropOldest,
    /// The publish is refused.
    Reject,
}

/// Where messages go that died. Give `queue`, or `exchange` with or without `routing_key`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetter {
    /// Straight to this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Through this exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// With this routing key; the one it was published with when it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
}

impl DeadLetter {
    fn into_api(self) -> Result<api::DeadLetter> {
        match self {
            Self { queue: Some(queue), exchange: None, routing_key: None } => {
                Ok(api::DeadLetter::queue(queue))
            }
            Self { queue: None, exchange: Some(exchange), routing_key } => {
                Ok(api::DeadLetter { exchange: Some(exchange), routing_key })
            }
            _ => {
                let wrong = "dead_letter is a queue, or an exchange with or without a routing_key";
                Err(Error::new(ErrorKind::Invalid, wrong))
            }
        }
    }

    fn of(dead_letter: api::DeadLetter) -> Self {
        match dead_letter {
            api::DeadLetter { exchange: None, routing_key } => {
                Self { queue: routing_key, ..Self::default() }
            }
            api::DeadLetter { exchange, routing_key } => {
                Self { queue: None, exchange, routing_key }
            }
        }
    }
}

/// Writes what a queue is declared with, and fields besides.
macro_rules! declaring {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_about])* pub $field: $type,)*
            /// Whether the queue and its messages outlive a restart; true when it is not said.
            pub durable: bool,
            /// Most messages waiting and in flight.
            pub messages_max: Option<u64>,
            /// Most bytes waiting and in flight, as stored.
            pub bytes_max: Option<u64>,
            /// What happens beyond those.
            pub overflow: Overflow,
            /// How long a message may wait.
            pub ttl_ms: Option<u64>,
            /// How long a delivery may stay unsettled; without it as long as its session lives.
            pub lease_ms: Option<u64>,
            /// Deliveries after which a message is dead.
            pub deliveries_max: Option<u16>,
            /// Where the dead go; without it they are dropped.
            pub dead_letter: Option<DeadLetter>,
            /// Highest priority, 0 to 31; 0 makes a plain queue.
            pub priority_max: u8,
            /// How long message ids are remembered; without it not at all.
            pub dedup_ms: Option<u64>,
            /// Deliver to one consumer at a time; the others stand by.
            pub single_active: bool,
            /// It goes when its last consumer goes.
            pub auto_delete: bool,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: Default::default(),)*
                    durable: true,
                    messages_max: None,
                    bytes_max: None,
                    overflow: Overflow::default(),
                    ttl_ms: None,
                    lease_ms: None,
                    deliveries_max: None,
                    dead_letter: None,
                    priority_max: 0,
                    dedup_ms: None,
                    single_active: false,
                    auto_delete: false,
                }
            }
        }

        impl $name {
            /// What the engine is asked.
            ///
            /// # Errors
            /// `Invalid` when `dead_letter` contradicts itself.
            pub fn into_api(self) -> Result<api::QueueConfig> {
                Ok(api::QueueConfig {
                    durable: self.durable,
                    messages_max: self.messages_max,
                    bytes_max: self.bytes_max,
                    overflow: match self.overflow {
                        Overflow::DropOldest => api::Overflow::DropOldest,
                        Overflow::Reject => api::Overflow::Reject,
                    },
                    ttl: duration_of(self.ttl_ms),
                    lease: duration_of(self.lease_ms),
                    deliveries_max: self.deliveries_max,
                    dead_letter: self.dead_letter.map(DeadLetter::into_api).transpose()?,
                    priority_max: self.priority_max,
                    dedup: duration_of(self.dedup_ms),
                    single_active: self.single_active,
                    auto_delete: self.auto_delete,
                })
            }
        }
    };
}

declaring! {
    /// What a queue is declared with.
    QueueConfig {}
}

declaring! {
    /// What a topic's subscription is declared with.
    Subscription {
        /// Subjects it takes: `*` is one word, `#` any number of words; `#` when it is not said.
        filter: Option<String>,
    }
}

impl From<api::QueueConfig> for QueueConfig {
    fn from(config: api::QueueConfig) -> Self {
        Self {
            durable: config.durable,
            messages_max: config.messages_max,
            bytes_max: config.bytes_max,
            overflow: match config.overflow {
                api::Overflow::DropOldest => Overflow::DropOldest,
                api::Overflow::Reject => Overflow::Reject,
            },
            ttl_ms: ms_of(config.ttl),
            lease_ms: ms_of(config.lease),
            deliveries_max: config.deliveries_max,
            dead_letter: config.dead_letter.map(DeadLetter::of),
            priority_max: config.priority_max,
            dedup_ms: ms_of(config.dedup),
            single_active: config.single_active,
            auto_delete: config.auto_delete,
        }
    }
}

/// A queue was declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Whether it was there before, with equal settings.
    pub existed: bool,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

impl From<api::QueueView> for QueueView {
    fn from(view: api::QueueView) -> Self {
        let api::QueueTotals { published, acked, returned, dead, dropped, purged } = view.totals;
        Self {
            name: view.name,
            config: view.config.into(),
            ready: view.ready,
            in_flight: view.in_flight,
            delayed: view.delayed,
            parked: view.parked,
            bytes: view.bytes,
            consumers: view.consumers,
            paused: view.paused,
            totals: QueueTotals { published, acked, returned, dead, dropped, purged },
        }
    }
}

impl QueueView {
    /// What a client reads.
    ///
    /// # Errors
    /// `Invalid` when the settings contradict themselves.
    pub fn into_api(self) -> Result<api::QueueView> {
        let QueueTotals { published, acked, returned, dead, dropped, purged } = self.totals;
        Ok(api::QueueView {
            name: self.name,
            config: self.config.into_api()?,
            ready: self.ready,
            in_flight: self.in_flight,
            delayed: self.delayed,
            parked: self.parked,
            bytes: self.bytes,
            consumers: self.consumers,
            paused: self.paused,
            totals: api::QueueTotals { published, acked, returned, dead, dropped, purged },
        })
    }
}

/// Some queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Queues {
    /// These.
    pub items: Vec<QueueView>,
    /// Where to go on; null: that was all.
    pub next: Option<u32>,
}

/// On what conditions something is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct DeleteQueue {
    /// Only when nobody consumes from it.
    #[serde(deserialize_with = "flag")]
    pub if_unused: bool,
    /// Only when nothing waits in it.
    #[serde(deserialize_with = "flag")]
    pub if_empty: bool,
}

/// Messages were removed or moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Removed {
    /// How many.
    pub messages: u64,
}

/// Takes a few messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Receive {
    /// How many at most, 1 when it is not said.
    pub max: Option<u32>,
    /// How long to wait for the first, 0 to 600000. Hanging up gives everything back.
    pub wait_ms: u64,
    /// Who takes them. Without it the door's own session does; then only the lease ends a
    /// delivery that is not settled.
    pub session: Option<String>,
    /// How long the deliveries may stay unsettled. Without a session 30000 when it is not said,
    /// with one the queue's own lease.
    pub lease_ms: Option<u64>,
}

/// Takes messages as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct Consume {
    /// How many may be in flight at once, 10 when it is not said.
    pub prefetch: Option<u32>,
    /// Who consumes. Without it the stream has a session of its own that ends with it.
    pub session: Option<String>,
    /// Deliver and forget: no lease, no ack.
    #[serde(deserialize_with = "flag")]
    pub no_ack: bool,
    /// Refuse, and be refused, any other consumer of the queue.
    #[serde(deserialize_with = "flag")]
    pub exclusive: bool,
    /// Shown to whoever looks at the queue; at most 1024 bytes.
    pub label: Option<String>,
}

/// A switch in a query: `?if_empty` and `?if_empty=true` say the same.
pub(crate) fn flag<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<bool, D::Error> {
    match String::deserialize(from)?.as_str() {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(serde::de::Error::custom(format!("{other} is neither true nor false"))),
    }
}

/// How many messages to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct Peek {
    /// At most so many, 10 when it is not said.
    pub max: Option<u32>,
}

/// Moves dead letters back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Redrive {
    /// To this queue; without it each to where it died first.
    pub to: Option<String>,
    /// At most so many, 1000 when it is not said.
    pub max: Option<u32>,
}

/// How a publish treats what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct Declare {
    /// Whether a queue or topic that does not exist is declared with the usual settings; true
    /// when it is not said. It needs the permission `admin`.
    #[serde(deserialize_with = "flag")]
    pub declare: bool,
}

impl Default for Declare {
    fn default() -> Self {
        Self { declare: true }
    }
}

/// What the query of a publish says. The fields of a message are for bodies that are not JSON:
/// those are published as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct PublishQuery {
    /// Whether a queue that does not exist is declared with the usual settings; true when it is
    /// not said. It needs the permission `admin`.
    #[serde(deserialize_with = "flag")]
    pub declare: bool,
    /// 0 is the lowest.
    pub priority: Option<u8>,
    /// The idempotence key.
    pub id: Option<String>,
    /// The ordering key.
    pub key: Option<String>,
    /// Dropped or dead-lettered if it waits longer.
    pub ttl_ms: Option<u64>,
    /// Delivered after this time at the earliest.
    pub delay_ms: Option<u64>,
    /// Delivered at this time (milliseconds since 1970) at the earliest.
    pub at_ms: Option<u64>,
    /// It may be lost with the machine.
    #[serde(deserialize_with = "flag")]
    pub transient: bool,
    /// Names the request across retries.
    pub request_id: Option<String>,
}

impl Default for PublishQuery {
    fn default() -> Self {
        Self {
            declare: true,
            priority: None,
            id: None,
            key: None,
            ttl_ms: None,
            delay_ms: None,
            at_ms: None,
            transient: false,
            request_id: None,
        }
    }
}

impl PublishQuery {
    /// Whether it says anything about the message.
    pub fn about_message(&self) -> bool {
        *self != Self { declare: self.declare, ..Self::default() }
    }

    /// The message without its body.
    pub fn into_message(self) -> crate::message::Message {
        crate::message::Message {
            priority: self.priority.unwrap_or(0),
            id: self.id,
            key: self.key,
            ttl_ms: self.ttl_ms,
            delay_ms: self.delay_ms,
            at_ms: self.at_ms,
            transient: self.transient,
            request_id: self.request_id,
            ..crate::message::Message::default()
        }
    }
}
