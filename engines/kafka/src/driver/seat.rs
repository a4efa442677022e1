//! Membership in a group through librdkafka.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::librdkafka::{committed, consuming, log, record};
use super::{Bell, Committed, Desk, Record, Seat, Turns};
use crate::config::Config;
use crate::error::{Answer, Fault};

/// Signs of life within the time that a member may be silent; by them it also learns of changes.
const SIGNS: u32 = 20;
/// How often it is asked before nothing is believed to be there.
const EVENTS: usize = 16;

/// Told of changes in the group, in the thread that takes messages.
struct Member {
    topic: String,
    timeout: Duration,
    turns: Arc<dyn Turns>,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, said: &str) {
        log(level, facility, said);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, member: &BaseConsumer<Self>, change: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = change {
            let lost = member.assignment_lost();
            self.turns.revoked(&At(member), &self.partitions(list), lost);
        }
    }

    fn post_rebalance(&self, member: &BaseConsumer<Self>, change: &Rebalance<'_>) {
        match change {
            Rebalance::Assign(list) => {
                self.turns.granted(&At(member), &self.partitions(list));
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a change in the group failed"),
        }
    }
}

impl Member {
    fn partitions(&self, list: &TopicPartitionList) -> Vec<i32> {
        list.elements_for_topic(&self.topic).iter().map(|element| element.partition()).collect()
    }
}

/// A member at work on its partitions.
struct At<'a>(&'a BaseConsumer<Member>);

impl At<'_> {
    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.0.context().topic, *partition);
        }
        list
    }
}

impl Desk for At<'_> {
    fn committed(&self, partitions: &[i32]) -> Answer<Vec<Committed>> {
        let member = self.0.context();
        committed(self.0, &member.topic, partitions, member.timeout)
    }

    fn commit(&self, marks: &[(i32, i64, String)]) -> Answer<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset, text) in marks {
            let mut element = list.add_partition(&self.0.context().topic, *partition);
            element.set_offset(Offset::Offset(*offset))?;
            element.set_metadata(text);
        }
        match self.0.commit(&list, CommitMode::Sync) {
            Ok(()) => Ok(()),
            // Said when the member has no place in the group at the moment.
            Err(error)
                if matches!(
                    error.rdkafka_error_code(),
                    Some(Code::AssignmentLost | Code::State | Code::UnknownGroup | Code::Fenced)
                ) =>
            {
                Err(Fault::Moving(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn pause(&self, partitions: &[i32]) -> Answer<()> {
        Ok(self.0.pause(&self.list(partitions))?)
    }

    fn resume(&self, partitions: &[i32]) -> Answer<()> {
        Ok(self.0.resume(&self.list(partitions))?)
    }
}

/// See [`Seat`].
struct Taken {
    member: BaseConsumer<Member>,
    bell: Arc<Bell>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        // A member without partitions that is closed says nothing (librdkafka 2.12), and the others
        // wait for it until its session is over. One that unsubscribes leaves in so many words.
        if self.member.assignment().is_ok_and(|list| list.count() == 0) {
            self.member.unsubscribe();
        }
    }
}

/// Becomes a member.
pub(super) fn join(
    config: &Config,
    group: &str,
    topic: &str,
    turns: Arc<dyn Turns>,
) -> Answer<Box<dyn Seat>> {
    let mut client = consuming(config, group);
    let millis = |time: Duration| time.as_millis().to_string();
    client
        // Who comes or goes takes nothing away from those who keep their partitions.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", millis(config.session))
        .set("heartbeat.interval.ms", millis(config.session / SIGNS))
        .set("max.poll.interval.ms", millis(config.session.max(Duration::from_secs(300))));
    let context = Member { topic: topic.to_owned(), timeout: config.timeout, turns };
    let mut member: BaseConsumer<Member> = client.create_with_context(context)?;
    let bell = Arc::new(Bell::default());
    let rung = bell.clone();
    member.set_nonempty_callback(move || rung.ring());
    member.subscribe(&[topic])?;
    Ok(Box::new(Taken { member, bell }))
}

impl Desk for Taken {
    fn committed(&self, partitions: &[i32]) -> Answer<Vec<Committed>> {
        At(&self.member).committed(partitions)
    }

    fn commit(&self, marks: &[(i32, i64, String)]) -> Answer<()> {
        At(&self.member).commit(marks)
    }

    fn pause(&self, partitions: &[i32]) -> Answer<()> {
        At(&self.member).pause(partitions)
    }

    fn resume(&self, partitions: &[i32]) -> Answer<()> {
        At(&self.member).resume(partitions)
    }
}

impl Seat for Taken {
    fn wait(&self, within: Duration) {
        self.bell.wait(within);
    }

    fn next(&self) -> Option<Answer<Record>> {
        // It says that nothing is there also when it did something else instead.
        let came = (0..EVENTS).find_map(|_| self.member.poll(Duration::ZERO))?;
        Some(came.map(|message| record(&message)).map_err(Fault::from))
    }

    fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }
}
