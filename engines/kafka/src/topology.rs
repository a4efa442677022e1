//! Queues as topics: making, removing and emptying them.

use std::time::Duration;

use leasehold_api::engine::QueueConfig;
use leasehold_api::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::consume::Consuming;
use crate::driver::{Cluster, NewTopic};
use crate::error::{Answer, Fault, not_found, unavailable};
use crate::names;
use crate::progress::Progress;
use crate::settings::Rules;

/// The longest message with all that goes along, bytes: 16 MiB and its headers.
const MESSAGE_MAX: usize = 17 << 20;
/// How often it is asked whether a new topic is ready.
const LOOK: Duration = Duration::from_millis(10);
/// How long another process may take from making a topic to writing its settings.
const WRITING: Duration = Duration::from_secs(2);

fn topic(name: &str, config: &Config) -> NewTopic {
    let mut settings = vec![
        ("cleanup.policy", "delete".to_owned()),
        // A message stays until it is done; what is done is removed by whoever did it.
        ("retention.ms", if config.trim { "-1".to_owned() } else { String::new() }),
        ("retention.bytes", "-1".to_owned()),
        ("max.message.bytes", MESSAGE_MAX.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    settings.retain(|(_, value)| !value.is_empty());
    if config.replicas >= 3 {
        // A confirmed message is on two machines at least.
        settings.push(("min.insync.replicas", "2".to_owned()));
    }
    let name = name.to_owned();
    NewTopic { name, partitions: config.partitions, replicas: config.replicas, settings }
}

/// Waits until every partition of a new topic has a leader.
pub(crate) async fn led(cluster: &dyn Cluster, topic: &str, within: Duration) -> Answer<()> {
    let until = Instant::now() + within;
    loop {
        let found = cluster.partitions(topic).await?;
        let has_leaders = |partitions: &Vec<crate::driver::Partition>| {
            !partitions.is_empty() && partitions.iter().all(|partition| partition.has_leader)
        };
        if found.as_ref().is_some_and(has_leaders) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Fault::Lost(format!("topic {topic} has no leaders after {within:?}")));
        }
        sleep(LOOK).await;
    }
}

/// Makes a queue, or finds it with equal settings; gives whether it was there before.
pub(crate) async fn declare(engine: &Consuming, queue: &str, ask: &QueueConfig) -> Result<bool> {
    let (name, rules) = (names::topic(queue)?, Rules::of(ask)?);
    let is_settings = name == engine.config.settings();
    if is_settings {
        let wrong = format!("queue {queue} would be the topic of all settings; see ?prefix=");
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    let told = |fault: Fault| fault.of_queue(queue);
    let existed = engine.cluster.partitions(&name).await.map_err(told)?.is_some();
    let is_new = match existed {
        true => false,
        false => {
            // What was said of a topic that was deleted by other means does not count.
            engine.settings.erase(&name).await.map_err(told)?;
            engine.cluster.create(&topic(&name, &engine.config)).await.map_err(told)?
        }
    };
    led(&*engine.cluster, &name, engine.config.timeout).await.map_err(told)?;
    let found = match is_new {
        true => engine.settings.write(&name, &rules).await.map_err(told)?,
        false => found(engine, &name, &rules, existed).await.map_err(told)?,
    };
    if found != rules {
        let wrong = format!("queue {queue} is there with other settings: {found:?}");
        return Err(Error::new(ErrorKind::Different, wrong));
    }
    Ok(!is_new)
}

/// The settings of a topic that is there. One that somebody else made, and said nothing of, gets
/// these; but whoever made it in this moment has time to say something first.
async fn found(engine: &Consuming, name: &str, rules: &Rules, existed: bool) -> Answer<Rules> {
    let until = Instant::now() + if existed { WRITING / 4 } else { WRITING };
    loop {
        if let Some(found) = engine.settings.of(name).await? {
            return Ok(found);
        }
        if Instant::now() >= until {
            return engine.settings.write(name, rules).await;
        }
        sleep(LOOK).await;
    }
}

/// How far each partition of a queue goes, and how many messages wait or are in somebody's hand.
pub(crate) struct Backlog {
    pub ends: Vec<(i32, i64)>,
    pub messages: u64,
}

/// Counts what is in a queue and not done.
pub(crate) async fn backlog(engine: &Consuming, queue: &str) -> Result<Backlog> {
    let topic = names::topic(queue)?;
    let told = |fault: Fault| fault.of_queue(queue);
    let partitions = engine.cluster.partitions(&topic).await.map_err(told)?;
    let partitions = partitions.ok_or_else(|| not_found(queue))?;
    let ids: Vec<i32> = partitions.iter().map(|partition| partition.id).collect();
    let group = engine.config.group(&topic);
    let committed = engine.cluster.committed(&group, &topic, &ids).await.map_err(told)?;
    let (mut ends, mut messages) = (Vec::with_capacity(ids.len()), 0);
    for one in committed {
        let (low, end) = engine.cluster.ends(&topic, one.partition).await.map_err(told)?;
        let offset = one.offset.unwrap_or(low);
        let progress = Progress::read(&one.text).unwrap_or_default();
        let is_there = |behind: &&i64| offset + **behind >= low && offset + **behind < end;
        let done = progress.done.iter().filter(is_there).count() as u64;
        let all = u64::try_from(end - offset.max(low)).unwrap_or(0);
        messages += all.saturating_sub(done);
        ends.push((one.partition, end));
    }
    Ok(Backlog { ends, messages })
}

/// Removes the messages that wait; gives how many.
pub(crate) async fn purge(engine: &Consuming, queue: &str) -> Result<u64> {
    let topic = names::topic(queue)?;
    let Backlog { ends, messages } = backlog(engine, queue).await?;
    let member = engine.member(queue).await;
    let in_hand = member.as_ref().map_or(0, |member| member.in_hand());
    let below: Vec<_> = ends.into_iter().filter(|(_, end)| *end > 0).collect();
    if !below.is_empty() {
        engine.cluster.trim(&topic, &below).await.map_err(|fault| fault.of_queue(queue))?;
    }
    if let Some(member) = member {
        for change in member.purge() {
            member.is_committed(&change, 0).await?;
        }
    }
    Ok(messages.saturating_sub(in_hand))
}

/// Removes a queue; gives how many messages went with it.
pub(crate) async fn delete(
    engine: &Consuming,
    queue: &str,
    unused: bool,
    empty: bool,
) -> Result<u64> {
    let topic = names::topic(queue)?;
    let group = engine.config.group(&topic);
    let told = |fault: Fault| fault.of_queue(queue);
    let Backlog { messages, .. } = backlog(engine, queue).await?;
    let in_use = |what: String| Err(Error::new(ErrorKind::InUse, what));
    if empty && messages > 0 {
        return in_use(format!("queue {queue} has {messages} messages"));
    }
    if unused {
        let members = engine.cluster.members(&group).await.map_err(told)?;
        if members > 0 {
            return in_use(format!("queue {queue} is being consumed"));
        }
    }
    // First the topic: without it nobody takes the settings for those of a queue.
    if !engine.cluster.delete(&topic).await.map_err(told)? {
        return Err(not_found(queue));
    }
    if let Some(member) = engine.member(queue).await {
        member.delete();
        member.left().await;
    }
    engine.settings.erase(&topic).await.map_err(told)?;
    if let Err(fault) = engine.cluster.forget(&group).await {
        // Others are in it; what it has committed went with the topic.
        tracing::debug!(group, ?fault, "the group stays");
    }
    is_gone(engine, &topic).await.map_err(told)?;
    Ok(messages)
}

/// Waits until nobody sees the topic any more.
async fn is_gone(engine: &Consuming, topic: &str) -> Answer<()> {
    let until = Instant::now() + engine.config.timeout;
    while engine.cluster.partitions(topic).await?.is_some() {
        if Instant::now() >= until {
            let why = format!("topic {topic} is still there");
            return Err(Fault::Refused(unavailable(&why)));
        }
        sleep(LOOK).await;
    }
    Ok(())
}
