//! Whether the broker is set up well, as far as the protocol tells.

use async_trait::async_trait;
use leasehold_api::{Check, Checks};

use crate::{AmqpEngine, greeting};

#[async_trait]
impl Checks for AmqpEngine {
    async fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        match greeting::greeting(&self.config).await {
            Ok(greeting) => {
                let what = format!("{} {}", greeting.product, greeting.version);
                checks.push(match greeting.new_enough() {
                    Ok(()) => Check::ok("version", what),
                    Err(error) => Check::failed("version", error.wrong),
                });
            }
            Err(error) => checks.push(Check::failed("connection", error.to_string())),
        }
        checks.push(Check::warning(
            "consumer_timeout",
            "AMQP does not tell it (30 minutes unless set): after that the broker takes a lock \
             or a delivery away from a live holder; look with rabbitmqctl environment, and set it \
             above the longest hold",
        ));
        checks.push(match self.config.quorum {
            true => Check::ok("locks", "in quorum queues: they survive the loss of a node"),
            false => Check::warning(
                "locks",
                "in classic queues, which live on one node; in a cluster use ?locks=quorum",
            ),
        });
        let heartbeat = self.config.heartbeat;
        checks.push(match heartbeat {
            ..=15 => Check::ok("heartbeat", format!("{heartbeat} s")),
            _ => Check::warning(
                "heartbeat",
                format!(
                    "{heartbeat} s: the locks of a machine that is gone stay held for two to \
                     three times that"
                ),
            ),
        });
        if self.config.uri.scheme == lapin::uri::AMQPScheme::AMQP {
            let host = &self.config.uri.authority.host;
            let is_local = ["localhost", "127.0.0.1", "::1"].contains(&&**host);
            if !is_local {
                let why = "the password goes over the network unencrypted; use amqps://";
                checks.push(Check::warning("encryption", why));
            }
        }
        checks
    }
}
