//! What a broker says of itself before anybody logs in: its product and version, which the driver
//! does not tell (AMQP 0-9-1, `connection.start`).

use futures_util::{AsyncReadExt, AsyncWriteExt};
use lapin::tcp::AMQPUriTcpExt;
use lapin::types::{AMQPValue, FieldTable, parsing};
use leasehold_api::{Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::config::Config;
use crate::connect::ANSWER;
use crate::error::unavailable;

/// The protocol header of AMQP 0-9-1.
const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// A method frame on channel 0.
const FRAME: [u8; 3] = [1, 0, 0];
/// `connection.start`, version 0.9.
const START: [u8; 6] = [0, 10, 0, 10, 0, 9];
/// No greeting is longer.
const LENGTH_MAX: usize = 64 << 10;
/// The oldest RabbitMQ that is supported.
const OLDEST: (u32, u32) = (3, 10);

/// What a broker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub product: String,
    pub version: String,
}

/// Asks a broker for its greeting, and goes.
pub(crate) async fn greeting(config: &Config) -> Result<Greeting> {
    let late = |_| unavailable(&format!("no answer within {ANSWER:?}"));
    timeout(ANSWER, ask(config)).await.map_err(late)?
}

async fn ask(config: &Config) -> Result<Greeting> {
    let down = |error: std::io::Error| {
        unavailable(&error.to_string()).with_retry(leasehold_api::Retry::Later)
    };
    let runtime = lapin::runtime::default_runtime();
    let runtime = runtime.map_err(|error| unavailable(&error.to_string()))?;
    let tls = config.tls();
    let connected = config.uri.connect_with_config_async(tls.as_ref(), &runtime).await;
    let mut stream = connected.map_err(down)?;
    stream.write_all(HEADER).await.map_err(down)?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.map_err(|_| foreign())?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    if head[..3] != FRAME || length > LENGTH_MAX {
        return Err(foreign());
    }
    let mut start = vec![0; length];
    stream.read_exact(&mut start).await.map_err(down)?;
    let told = start.strip_prefix(&START).ok_or_else(foreign)?;
    let (_, properties) = parsing::parse_field_table(told).map_err(|_| foreign())?;
    Ok(Greeting::of(&properties))
}

fn foreign() -> Error {
    let wrong = "what answers there does not speak AMQP 0-9-1; is it the right port? RabbitMQ's is \
                 5672, with TLS 5671 and amqps://";
    Error::new(ErrorKind::Unsupported, wrong)
}

impl Greeting {
    fn of(properties: &FieldTable) -> Self {
        let text = |name: &str| match properties.inner().get(name) {
            Some(AMQPValue::LongString(text)) => text.to_string(),
            _ => String::new(),
        };
        Self { product: text("product"), version: text("version") }
    }

    /// Major and minor version of RabbitMQ; others count their own way.
    fn rabbit(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.split('.').map(|number| number.parse().ok());
        let version = (numbers.next()??, numbers.next()??);
        (self.product == "RabbitMQ").then_some(version)
    }

    /// # Errors
    /// `Unsupported` when it is too old.
    pub fn new_enough(&self) -> Result<()> {
        if self.rabbit().is_none_or(|version| version >= OLDEST) {
            return Ok(());
        }
        let wrong = format!("RabbitMQ {} is too old: 3.10 or later is needed", self.version);
        Err(Error::new(ErrorKind::Unsupported, wrong))
    }

    /// Whether quorum queues drop what was returned too often unless they are told not to: from
    /// 4.0 on (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
    pub fn limits_returns(&self) -> bool {
        self.rabbit().is_some_and(|version| version >= (4, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared() {
        let of = |product: &str, version: &str| Greeting {
            product: product.to_owned(),
            version: version.to_owned(),
        };
        assert!(of("RabbitMQ", "3.10.8").new_enough().is_ok());
        assert!(of("RabbitMQ", "4.1.0").limits_returns());
        assert!(of("LavinMQ", "2.9.0").new_enough().is_ok());
        let error = of("RabbitMQ", "3.9.27").new_enough().expect_err("it is too old");
        assert_eq!(error.kind, ErrorKind::Unsupported);
    }
}
