//! Whether the brokers and the topics of the queues are set up well.

use std::collections::BTreeMap;

use async_trait::async_trait;
use leasehold_api::{Check, Checks};

use crate::error::Fault;
use crate::{KafkaEngine, greeting};

/// The most queues whose topics are looked at.
const QUEUES_MAX: usize = 100;
/// What a commit's text may need, bytes.
const TEXT_MAX: u64 = 4096;
/// A group that nobody is in forgets what is done after so long; less than a week is short.
const RETENTION_MIN: u64 = 7 * 24 * 60;

type Settings = BTreeMap<String, String>;

fn number(settings: &Settings, name: &str) -> Option<i64> {
    settings.get(name)?.parse().ok()
}

fn is_set(settings: &Settings, name: &str) -> bool {
    settings.get(name).is_some_and(|value| value == "true")
}

#[async_trait]
impl Checks for KafkaEngine {
    async fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.version().await];
        match self.consuming.cluster.brokers().await {
            Err(fault) => {
                checks.push(Check::failed("connection", fault.told().to_string()));
                return checks;
            }
            Ok(brokers) => {
                checks.push(match brokers.len() {
                    1 => Check::warning("brokers", "one: what it loses is lost"),
                    count => Check::ok("brokers", format!("{count}")),
                });
                if let Some(first) = brokers.first() {
                    match self.consuming.cluster.broker_settings(*first).await {
                        Ok(settings) => checks.extend(self.of_broker(&settings, brokers.len())),
                        Err(fault) => checks.push(unseen("the brokers' settings", fault)),
                    }
                }
            }
        }
        checks.extend(self.of_queues().await);
        if self.config.user.is_some() && !self.config.tls {
            let is_local = |(host, _): &(String, u16)| {
                ["localhost", "127.0.0.1", "::1"].contains(&host.as_str())
            };
            if !self.config.brokers.iter().all(is_local) {
                let why = "the password goes over the network unencrypted; use kafkas://";
                checks.push(Check::warning("encryption", why));
            }
        }
        checks
    }
}

fn unseen(what: &str, fault: Fault) -> Check {
    let error = fault.told();
    Check::warning(what, format!("they cannot be looked at ({error}); it takes DescribeConfigs"))
}

/// One thing that is as it should be, or not.
fn judged(what: &str, is_well: bool, well: String, bad: Check) -> Check {
    if is_well { Check::ok(what, well) } else { bad }
}

impl KafkaEngine {
    async fn version(&self) -> Check {
        match greeting::greeting(&self.config).await {
            Ok(None) => Check::warning("version", "behind TLS it is not looked at"),
            Ok(Some(greeting)) => match (greeting.new_enough(), greeting.version()) {
                (Ok(()), Some(version)) => Check::ok("version", format!("{version} or later")),
                (Err(error), _) => Check::failed("version", error.wrong),
                (Ok(()), None) => Check::warning("version", "it is not known"),
            },
            Err(error) => Check::failed("connection", error.to_string()),
        }
    }

    /// What is set for all topics and groups.
    fn of_broker(&self, settings: &Settings, brokers: usize) -> Vec<Check> {
        let default = number(settings, "default.replication.factor").unwrap_or(1);
        let replicas = match self.config.replicas {
            -1 => default,
            replicas => replicas.into(),
        };
        let in_sync = match self.config.replicas {
            3.. => 2,
            _ => number(settings, "min.insync.replicas").unwrap_or(1),
        };
        let mut checks = vec![replication(replicas, in_sync, brokers)];
        checks.push(judged(
            "unclean.leader.election.enable",
            !is_set(settings, "unclean.leader.election.enable"),
            "false".to_owned(),
            Check::failed(
                "unclean.leader.election.enable",
                "a replica that has not got everything may lead: confirmed messages vanish, and \
                 what is done comes again; set it to false",
            ),
        ));
        checks.push(judged(
            "auto.create.topics.enable",
            !is_set(settings, "auto.create.topics.enable"),
            "false".to_owned(),
            Check::warning(
                "auto.create.topics.enable",
                "true: a publish to a queue that was just deleted may make a topic anew, with the \
                 brokers' settings",
            ),
        ));
        let kept = number(settings, "offsets.retention.minutes").unwrap_or(0).cast_unsigned();
        checks.push(judged(
            "offsets.retention.minutes",
            kept >= RETENTION_MIN,
            format!("{kept}"),
            Check::warning(
                "offsets.retention.minutes",
                format!("{kept}: a queue that nobody consumes for so long forgets what is done"),
            ),
        ));
        let text = number(settings, "offset.metadata.max.bytes").unwrap_or(0).cast_unsigned();
        checks.push(judged(
            "offset.metadata.max.bytes",
            text >= TEXT_MAX,
            format!("{text}"),
            Check::failed(
                "offset.metadata.max.bytes",
                format!("{text}: what is done out of order does not fit; set it to {TEXT_MAX}"),
            ),
        ));
        let session = self.config.session.as_millis() as i64;
        let least = number(settings, "group.min.session.timeout.ms").unwrap_or(0);
        let most = number(settings, "group.max.session.timeout.ms").unwrap_or(i64::MAX);
        checks.push(judged(
            "session",
            (least..=most).contains(&session),
            format!("{session} ms"),
            Check::failed("session", format!("the brokers take {least} to {most} ms")),
        ));
        checks
    }

    /// What is set for the topics of queues.
    async fn of_queues(&self) -> Vec<Check> {
        let topics = match self.consuming.settings.topics().await {
            Ok(topics) => topics,
            Err(fault) => return vec![unseen("the settings of queues", fault)],
        };
        let mut checks = Vec::new();
        for topic in topics.iter().take(QUEUES_MAX) {
            let partitions = match self.consuming.cluster.partitions(topic).await {
                Ok(Some(partitions)) => partitions,
                // It was deleted by other means.
                Ok(None) => continue,
                Err(fault) => {
                    checks.push(unseen(&format!("topic {topic}"), fault));
                    continue;
                }
            };
            match self.consuming.cluster.topic_settings(topic).await {
                Ok(settings) => checks.extend(of_topic(topic, &settings, &partitions)),
                Err(fault) => checks.push(unseen(&format!("topic {topic}"), fault)),
            }
        }
        if topics.len() > QUEUES_MAX {
            let why = format!("{QUEUES_MAX} of {} were looked at", topics.len());
            checks.push(Check::warning("topics", why));
        }
        checks
    }
}

/// Whether what is confirmed outlives a broker.
fn replication(replicas: i64, in_sync: i64, brokers: usize) -> Check {
    let told = format!("{replicas} replicas, {in_sync} of them to confirm");
    let what = "replication";
    if in_sync > replicas {
        let why = "brokers before 4.0 refuse every publish, and newer ones confirm with less";
        Check::failed(what, format!("{told}: {why}; lower min.insync.replicas"))
    } else if replicas as usize > brokers {
        Check::failed(what, format!("{told}, on {brokers} brokers: no queue can be made"))
    } else if replicas < 2 {
        Check::warning(what, format!("{told}: a broker's disk is all there is; use ?replicas=3"))
    } else if in_sync < 2 {
        let why = "a confirmed message may be on one machine alone; set min.insync.replicas to 2";
        Check::warning(what, format!("{told}: {why}"))
    } else {
        Check::ok(what, told)
    }
}

/// Only what is wrong, as there may be many.
fn of_topic(
    topic: &str,
    settings: &Settings,
    partitions: &[crate::driver::Partition],
) -> Vec<Check> {
    let mut checks = Vec::new();
    let what = format!("topic {topic}");
    if settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        let why = "cleanup.policy is compact: of messages with one key all but the last vanish";
        checks.push(Check::failed(&what, why));
    }
    if is_set(settings, "unclean.leader.election.enable") {
        let why = "unclean.leader.election.enable: confirmed messages may vanish";
        checks.push(Check::failed(&what, why));
    }
    if let Some(kept) = number(settings, "retention.ms").filter(|kept| *kept >= 0) {
        let why = format!("retention.ms is {kept}: a message that waits longer vanishes");
        checks.push(Check::warning(&what, why));
    }
    if let Some(kept) = number(settings, "retention.bytes").filter(|kept| *kept >= 0) {
        let why = format!("retention.bytes is {kept}: beyond that the oldest messages vanish");
        checks.push(Check::warning(&what, why));
    }
    let least = number(settings, "min.insync.replicas").unwrap_or(1);
    let replicas = partitions.iter().map(|partition| partition.replicas).min().unwrap_or(0);
    if least as usize > replicas {
        let why = format!("min.insync.replicas is {least} of {replicas}: it cannot be kept");
        checks.push(Check::failed(&what, why));
    }
    let behind = partitions.iter().filter(|partition| partition.in_sync < partition.replicas);
    match behind.count() {
        0 => {}
        count => {
            let why = format!("replicas of {count} of its partitions are not in step");
            checks.push(Check::warning(&what, why));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok(what, format!("{} partitions", partitions.len())));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_api::CheckVerdict;

    #[test]
    fn replication_that_breaks_the_promise_fails() {
        assert_eq!(replication(3, 2, 3).verdict, CheckVerdict::Ok);
        assert_eq!(replication(1, 1, 1).verdict, CheckVerdict::Warning);
        assert_eq!(replication(3, 1, 3).verdict, CheckVerdict::Warning);
        assert_eq!(replication(1, 2, 3).verdict, CheckVerdict::Failed);
        assert_eq!(replication(3, 2, 2).verdict, CheckVerdict::Failed);
    }
}
