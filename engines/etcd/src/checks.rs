//! What `doctor` looks at.

use async_trait::async_trait;
use leasehold_api::engine::Gone;
use leasehold_api::{Check, Checks, Error};
use leasehold_contenders::random;
use tokio::time::Instant;

use crate::EtcdEngine;
use crate::client::Client;
use crate::connect::Patience;
use crate::error::Fault;

/// The kinds of alarms.
const NO_SPACE: i32 = 1;
const CORRUPT: i32 = 2;
/// A lease floor above this makes the dead stay long, seconds.
const FLOOR_MAX: i64 = 5;

fn patience() -> Patience {
    Patience::until(Some(Instant::now()), Gone::never())
}

fn unknown(what: &str, fault: Fault) -> Check {
    Check::warning(what, format!("it cannot be looked at: {}", Error::from(fault)))
}

#[async_trait]
impl Checks for EtcdEngine {
    async fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.status().await, self.members().await];
        checks.extend([self.alarms().await, self.floor().await]);
        let config = &self.core.server.config;
        if config.user.is_some() && config.tls.is_none() {
            let why = "the password goes over the network as it is; use etcds://";
            checks.push(Check::warning("encryption", why));
        }
        checks
    }
}

impl EtcdEngine {
    async fn status(&self) -> Check {
        let call = |client: Client| async move { client.status().await };
        let status = match self.core.server.ask(&mut patience(), call).await {
            Ok(heard) => heard.answer,
            Err(fault) => return unknown("version", fault),
        };
        if status.leader == 0 {
            let why = "no member leads: nothing can be decided; are most members up?";
            return Check::failed("leader", why);
        }
        let (version, bytes) = (status.version, status.db_size);
        Check::ok("version", format!("etcd {version}, whose data take {bytes} bytes"))
    }

    async fn members(&self) -> Check {
        let call = |client: Client| async move { client.members().await };
        let members = match self.core.server.ask(&mut patience(), call).await {
            Ok(heard) => heard.answer.members,
            Err(fault) => return unknown("members", fault),
        };
        match members.iter().filter(|member| !member.is_learner).count() {
            1 => Check::warning("members", "there is one: its loss is the loss of all; use three"),
            even if even % 2 == 0 => {
                let why = format!("{even}: they survive the loss of no more than {} do", even - 1);
                Check::warning("members", why)
            }
            odd => Check::ok("members", format!("{odd}: {} may be lost", odd / 2)),
        }
    }

    async fn alarms(&self) -> Check {
        let call = |client: Client| async move { client.alarms().await };
        let alarms = match self.core.server.ask(&mut patience(), call).await {
            Ok(heard) => heard.answer.alarms,
            Err(fault) => return unknown("alarms", fault),
        };
        let raised = |kind| alarms.iter().any(|alarm| alarm.kind == kind);
        if raised(NO_SPACE) {
            let why = "NOSPACE: the quota is used up and nothing is taken; compact, defragment, \
                       `etcdctl alarm disarm`";
            return Check::failed("alarms", why);
        }
        if raised(CORRUPT) {
            return Check::failed("alarms", "CORRUPT: members differ; restore from a snapshot");
        }
        Check::ok("alarms", "none is raised")
    }

    /// The shortest lease, which follows from the election timeout.
    async fn floor(&self) -> Check {
        let id = (random().unwrap_or(1) >> 12).max(1).cast_signed();
        let call = |client: Client| async move { client.grant(id, 1).await };
        let floor = match self.core.server.ask(&mut patience(), call).await {
            Ok(heard) => heard.answer.ttl,
            Err(fault) => return unknown("election timeout", fault),
        };
        self.core.leases.end(id);
        let why = format!("a lock of a dead holder stays for {floor} s at least");
        match floor > FLOOR_MAX {
            true => {
                let why = format!("{why}; lower --election-timeout if the network allows it");
                Check::warning("election timeout", why)
            }
            false => Check::ok("election timeout", why),
        }
    }
}
