//! Exchanges and bindings.

use leasehold_api::engine as api;
use leasehold_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::message::Headers;

/// How an exchange chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExchangeConfig {
    /// How it chooses.
    pub kind: ExchangeKind,
    /// Whether it outlives a restart; true when it is not said.
    #[serde(default = "yes")]
    pub durable: bool,
    /// Whether it goes when its last binding goes.
    #[serde(default)]
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    #[serde(default)]
    pub internal: bool,
}

fn yes() -> bool {
    true
}

impl From<ExchangeConfig> for api::ExchangeConfig {
    fn from(config: ExchangeConfig) -> Self {
        let kind = match config.kind {
            ExchangeKind::Direct => api::ExchangeKind::Direct,
            ExchangeKind::Fanout => api::ExchangeKind::Fanout,
            ExchangeKind::Topic => api::ExchangeKind::Topic,
            ExchangeKind::Headers => api::ExchangeKind::Headers,
        };
        let ExchangeConfig { durable, auto_delete, internal, .. } = config;
        Self { kind, durable, auto_delete, internal }
    }
}

impl From<api::ExchangeConfig> for ExchangeConfig {
    fn from(config: api::ExchangeConfig) -> Self {
        let kind = match config.kind {
            api::ExchangeKind::Direct => ExchangeKind::Direct,
            api::ExchangeKind::Fanout => ExchangeKind::Fanout,
            api::ExchangeKind::Topic => ExchangeKind::Topic,
            api::ExchangeKind::Headers => ExchangeKind::Headers,
        };
        let api::ExchangeConfig { durable, auto_delete, internal, .. } = config;
        Self { kind, durable, auto_delete, internal }
    }
}

/// Leads from the exchange in the path to a queue or to another exchange, exactly one of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Binding {
    /// To this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// To this exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// The routing key or pattern; ignored by fanout and headers.
    pub key: String,
    /// What a headers exchange compares.
    pub arguments: Headers,
    /// Whether any one argument is enough; otherwise all must match.
    pub match_any: bool,
}

impl Binding {
    /// What the engine is asked.
    ///
    /// # Errors
    /// `Invalid` when it leads nowhere, or to two places.
    pub fn into_api(self, exchange: &str) -> Result<api::Binding> {
        let to = match (self.queue, self.exchange) {
            (Some(queue), None) => api::Destination::Queue(queue),
            (None, Some(exchange)) => api::Destination::Exchange(exchange),
            _ => {
                let wrong = "a binding leads to a queue or to an exchange: give one of the two";
                return Err(Error::new(ErrorKind::Invalid, wrong));
            }
        };
        Ok(api::Binding {
            exchange: exchange.to_string(),
            to,
            key: self.key,
            arguments: self.arguments.0,
            match_all: !self.match_any,
        })
    }

    /// What a client sends to the binding's exchange.
    pub fn of(binding: &api::Binding) -> Self {
        let (queue, exchange) = match &binding.to {
            api::Destination::Queue(queue) => (Some(queue.clone()), None),
            api::Destination::Exchange(exchange) => (None, Some(exchange.clone())),
        };
        Self {
            queue,
            exchange,
            key: binding.key.clone(),
            arguments: Headers(binding.arguments.clone()),
            match_any: !binding.match_all,
        }
    }
}
