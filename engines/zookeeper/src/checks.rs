//! What `doctor` looks at.

use async_trait::async_trait;
use leasehold_api::engine::Gone;
use leasehold_api::{Check, Checks, Error};
use tokio::time::Instant;
use zookeeper_client::Client;

use crate::ZookeeperEngine;
use crate::connect::Patience;

#[async_trait]
impl Checks for ZookeeperEngine {
    async fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.members().await, self.session().await];
        if self.core.server.config.user.is_some() {
            let why = "the password goes over the network as it is; use a network that nobody else \
                       listens to";
            checks.push(Check::warning("encryption", why));
        } else {
            let why = "anybody who reaches the ensemble may change everything; put USER:PASSWORD@ \
                       before the host";
            checks.push(Check::warning("access", why));
        }
        checks
    }
}

impl ZookeeperEngine {
    async fn members(&self) -> Check {
        let mut patience = Patience::until(Some(Instant::now()), Gone::never());
        let call = |client: Client| async move { client.get_config().await };
        let config = match self.core.server.ask(&mut patience, call).await.said {
            Ok((config, _)) => String::from_utf8_lossy(&config).into_owned(),
            Err(fault) => {
                let why = format!("they cannot be looked at: {}", Error::from(fault));
                return Check::warning("members", why);
            }
        };
        let votes = |line: &&str| line.starts_with("server.") && !line.contains(":observer");
        match config.lines().filter(votes).count() {
            0 | 1 => {
                let why = "there is one: its loss is the loss of all; use three";
                Check::warning("members", why)
            }
            even if even % 2 == 0 => {
                let why = format!("{even}: they survive the loss of no more than {} do", even - 1);
                Check::warning("members", why)
            }
            odd => Check::ok("members", format!("{odd}: {} may be lost", odd / 2)),
        }
    }

    async fn session(&self) -> Check {
        let mut patience = Patience::until(Some(Instant::now()), Gone::never());
        match self.core.server.link(&mut patience).await {
            Ok(link) => {
                let timeout = link.client.session_timeout();
                let why = format!("what a dead process held is free after {timeout:?}");
                Check::ok("session", why)
            }
            Err(error) => Check::failed("session", error.to_string()),
        }
    }
}
