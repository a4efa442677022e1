//! Brokers through librdkafka: everything but membership in groups.
//!
//! What blocks runs on the runtime's threads for that. There is one client that looks and reads,
//! one that publishes and one that administers, each made when it is first needed; looking at
//! what a group has committed takes a client of that group, for a moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use leasehold_api::{Error, ErrorKind, Retry};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::codes::fault;
use super::{Cluster, Committed, Members, NewTopic, Outgoing, Partition, Record, Seat, Turns};
use crate::config::Config;
use crate::error::{Answer, Fault, unavailable};

/// The longest message with everything that goes along with it, bytes.
pub(crate) const MESSAGE_MAX: usize = 17 << 20;
/// What is fetched of a partition at once, bytes; a longer message comes alone. A partition that is
/// paused forgets what was fetched ahead, and fetches it again.
const FETCH: usize = 256 << 10;
/// How long an old list of topics is believed while a topic is published to that is not in it.
const PROPAGATION: Duration = Duration::from_secs(5);
/// How long the client is listened to after a request that failed.
const HEARING: Duration = Duration::from_millis(50);
/// The most that it may say at once.
const WORDS: u32 = 20;

/// See [`super::connect`].
pub(super) fn connect(config: Arc<Config>) -> Arc<dyn Cluster> {
    Arc::new(Brokers {
        config,
        looking: Mutex::default(),
        admin: Mutex::default(),
        producer: Mutex::default(),
    })
}

/// What librdkafka says goes to the log, and what it says of credentials and of TLS is kept:
/// requests that fail for those only run out of time.
#[derive(Debug, Default)]
pub(super) struct Ears {
    refusal: Mutex<Option<Fault>>,
}

impl Ears {
    fn hear(&self, error: &KafkaError) {
        // What else it says passes, or comes as the answer to a request.
        if let Some(code) = error.rdkafka_error_code()
            && let Fault::Refused(error) = fault(code)
            && matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Unauthenticated)
        {
            self.keep(error);
        }
    }

    fn keep(&self, refusal: Error) {
        let refusal = Some(Fault::Refused(refusal));
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    /// Why nothing worked, if that was said.
    pub fn refusal(&self) -> Option<Fault> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, said: &str) {
        log(level, facility, said);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        let code = error.rdkafka_error_code();
        // One that has no TLS hangs up in the middle of the handshake.
        let in_handshake = code == Some(Code::BrokerTransportFailure) && reason.contains("SSL");
        if code == Some(Code::SSL) || in_handshake {
            let wrong = format!("{reason}; is there TLS at this port, and is ca= the right file?");
            self.keep(unavailable(&wrong).with_retry(Retry::Later));
        }
        self.hear(&error);
    }
}

impl ConsumerContext for Ears {}

/// Whatever librdkafka calls an error it tries again, so it is nothing more than a warning.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, said: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::warn!(facility, "librdkafka: {said}"),
        _ => tracing::debug!(facility, "librdkafka: {said}"),
    }
}

/// Tells whoever published what became of it.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, said: &str) {
        log(level, facility, said);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Answer<i64>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(Fault::from(error.clone())),
        };
        // Whoever asked may have gone.
        told.send(answer).ok();
    }
}

type Publisher = ThreadedProducer<Deliveries, NoCustomPartitioner>;
type Looker = BaseConsumer<Ears>;

struct Brokers {
    config: Arc<Config>,
    looking: Mutex<Option<Arc<Looker>>>,
    admin: Mutex<Option<Arc<AdminClient<Ears>>>>,
    producer: Mutex<Option<Arc<Publisher>>>,
}

impl Drop for Brokers {
    fn drop(&mut self) {
        fn take<T>(place: &mut Mutex<T>) -> T
        where
            T: Default,
        {
            std::mem::take(place.get_mut().unwrap_or_else(PoisonError::into_inner))
        }
        let looking = take(&mut self.looking);
        let (admin, producer) = (take(&mut self.admin), take(&mut self.producer));
        // They wait for their threads.
        std::thread::spawn(move || drop((looking, admin, producer)));
    }
}

/// Of a client that nobody listens to all the time: what it has to say would pile up.
fn quiet(mut client: ClientConfig) -> ClientConfig {
    client.set_log_level(RDKafkaLogLevel::Emerg);
    client
}

/// What every client is told.
pub(super) fn settings(config: &Config) -> ClientConfig {
    let millis = |time: Duration| time.as_millis().to_string();
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", config.bootstrap())
        .set("client.id", "leasehold")
        .set("socket.timeout.ms", millis(config.timeout))
        .set("socket.keepalive.enable", "true")
        // A lost connection is made anew after pauses that double, each a little shorter or longer.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "2000");
    let protocol = match (config.tls, config.user.is_some()) {
        (false, false) => "plaintext",
        (false, true) => "sasl_plaintext",
        (true, false) => "ssl",
        (true, true) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if let Some((user, password)) = &config.user {
        client.set("sasl.mechanism", config.mechanism.name());
        client.set("sasl.username", user).set("sasl.password", password);
    }
    if let Some(ca) = &config.ca {
        client.set("ssl.ca.location", ca);
    }
    client
}

/// What everybody is told who takes messages or looks at groups.
pub(super) fn consuming(config: &Config, group: &str) -> ClientConfig {
    let mut client = settings(config);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.message.max.bytes", FETCH.to_string())
        .set("fetch.max.bytes", (2 * MESSAGE_MAX).to_string())
        // Our own window is what counts; this only keeps it filled.
        .set("queued.min.messages", "500")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "20");
    client
}

/// Runs what blocks where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let gone = |_| Fault::Lost("the runtime is gone".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(gone)?
}

/// The client in a place, made if there is none.
fn made<T>(place: &Mutex<Option<Arc<T>>>, make: impl FnOnce() -> Answer<T>) -> Answer<Arc<T>> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = &*place {
        return Ok(made.clone());
    }
    let new = Arc::new(make()?);
    *place = Some(new.clone());
    Ok(new)
}

impl Brokers {
    fn looking(&self) -> Answer<Arc<Looker>> {
        made(&self.looking, || {
            let group = format!("{}look", self.config.prefix);
            Ok(quiet(consuming(&self.config, &group)).create_with_context(Ears::default())?)
        })
    }

    fn admin(&self) -> Answer<Arc<AdminClient<Ears>>> {
        made(
            &self.admin,
            || Ok(quiet(settings(&self.config)).create_with_context(Ears::default())?),
        )
    }

    /// The publisher; one that broke for good is replaced.
    fn producer(&self) -> Answer<Arc<Publisher>> {
        let is_broken = |made: &mut Arc<Publisher>| made.client().fatal_error().is_some();
        let broken = {
            let mut place = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
            if place.as_mut().is_some_and(is_broken) { place.take() } else { None }
        };
        if let Some(broken) = broken {
            tracing::warn!(error = ?broken.client().fatal_error(), "the publisher is replaced");
            // It waits for its thread when it is dropped.
            std::thread::spawn(move || drop(broken));
        }
        made(&self.producer, || {
            let mut client = settings(&self.config);
            client
                .set("enable.idempotence", "true")
                .set("acks", "all")
                .set("message.timeout.ms", self.config.timeout.as_millis().to_string())
                .set("message.max.bytes", MESSAGE_MAX.to_string())
                .set("linger.ms", "0")
                // As the Java client does, so that a key is in the same partition for all.
                .set("partitioner", "murmur2_random")
                .set("sticky.partitioning.linger.ms", "0")
                .set("topic.metadata.propagation.max.ms", PROPAGATION.as_millis().to_string());
            Ok(client.create_with_context(Deliveries)?)
        })
    }

    fn options(&self) -> AdminOptions {
        let timeout = Some(self.config.timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }

    /// Looks at something with a client that blocks.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Looker, Duration) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let (looking, timeout) = (self.looking()?, self.config.timeout);
        blocking(move || {
            let answer = look(&looking, timeout);
            // What the client has to say waits until it is asked, and most of it is for the log.
            let patience = if answer.is_err() { HEARING } else { Duration::ZERO };
            for _ in 0..WORDS {
                if let Some(Err(error)) = looking.poll(patience) {
                    looking.context().hear(&error);
                } else if answer.is_err() {
                    break;
                }
            }
            match (answer, looking.context().refusal()) {
                (Err(Fault::Lost(_)), Some(refusal)) => Err(refusal),
                (answer, _) => answer,
            }
        })
        .await
    }

    async fn configs(&self, of: &ResourceSpecifier<'_>) -> Answer<BTreeMap<String, String>> {
        let admin = self.admin()?;
        let told = admin.describe_configs([of], &self.options()).await?;
        let told = told.into_iter().next().unwrap_or(Err(Code::NoEnt)).map_err(fault)?;
        let value = |entry: rdkafka::admin::ConfigEntry| Some((entry.name, entry.value?));
        Ok(told.entries.into_iter().filter_map(value).collect())
    }
}

#[async_trait]
impl Cluster for Brokers {
    async fn brokers(&self) -> Answer<Vec<i32>> {
        let ids = self.look(|looking, timeout| {
            // Without a topic that is not there it would ask for all of them.
            let metadata = looking.client().fetch_metadata(Some("leasehold-none"), timeout)?;
            Ok(metadata.brokers().iter().map(|broker| broker.id()).collect())
        });
        ids.await
    }

    async fn partitions(&self, topic: &str) -> Answer<Option<Vec<Partition>>> {
        let topic = topic.to_owned();
        let found = self.look(move |looking, timeout| {
            let metadata = looking.client().fetch_metadata(Some(&topic), timeout)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let Some(found) = found else { return Ok(None) };
            match found.error().map(|error| fault(error.into())) {
                None => {}
                Some(Fault::Missing) => return Ok(None),
                Some(other) => return Err(other),
            }
            let partition = |partition: &rdkafka::metadata::MetadataPartition| Partition {
                id: partition.id(),
                has_leader: partition.leader() >= 0,
                replicas: partition.replicas().len(),
                in_sync: partition.isr().len(),
            };
            Ok(Some(found.partitions().iter().map(partition).collect()))
        });
        found.await
    }

    async fn create(&self, topic: &NewTopic) -> Answer<bool> {
        let replicas = TopicReplication::Fixed(topic.replicas);
        let mut new = rdkafka::admin::NewTopic::new(&topic.name, topic.partitions, replicas);
        for (name, value) in &topic.settings {
            new = new.set(name, value);
        }
        let made = self.admin()?.create_topics([&new], &self.options()).await?;
        match made.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(fault(code)),
            None => Err(Fault::Lost("no answer".to_owned())),
        }
    }

    async fn delete(&self, topic: &str) -> Answer<bool> {
        let gone = self.admin()?.delete_topics(&[topic], &self.options()).await?;
        match gone.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, code))) => match fault(code) {
                Fault::Missing => Ok(false),
                other => Err(other),
            },
            None => Err(Fault::Lost("no answer".to_owned())),
        }
    }

    async fn forget(&self, group: &str) -> Answer<()> {
        let gone = self.admin()?.delete_groups(&[group], &self.options()).await?;
        match gone.into_iter().next() {
            Some(Ok(_)) | Some(Err((_, Code::GroupIdNotFound))) => Ok(()),
            Some(Err((_, code))) => Err(fault(code)),
            None => Err(Fault::Lost("no answer".to_owned())),
        }
    }

    async fn trim(&self, topic: &str, below: &[(i32, i64)]) -> Answer<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in below {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        let trimmed = self.admin()?.delete_records(&list, &self.options()).await?;
        for element in trimmed.elements() {
            element.error()?;
        }
        Ok(())
    }

    async fn ends(&self, topic: &str, partition: i32) -> Answer<(i64, i64)> {
        let topic = topic.to_owned();
        let ends = self.look(move |looking, timeout| {
            Ok(looking.client().fetch_watermarks(&topic, partition, timeout)?)
        });
        ends.await
    }

    async fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Answer<Vec<Committed>> {
        let client = consuming(&self.config, group);
        let (topic, partitions) = (topic.to_owned(), partitions.to_vec());
        let timeout = self.config.timeout;
        blocking(move || {
            let member: Looker = client.create_with_context(Ears::default())?;
            committed(&member, &topic, &partitions, timeout)
        })
        .await
    }

    async fn members(&self, group: &str) -> Answer<Members> {
        let group = group.to_owned();
        let members = self.look(move |looking, timeout| {
            let groups = looking.client().fetch_group_list(Some(&group), timeout)?;
            let found = groups.groups().iter().find(|found| found.name() == group);
            Ok(found.map_or(0, |group| group.members().len()))
        });
        members.await
    }

    async fn topic_settings(&self, topic: &str) -> Answer<BTreeMap<String, String>> {
        self.configs(&ResourceSpecifier::Topic(topic)).await
    }

    async fn broker_settings(&self, broker: i32) -> Answer<BTreeMap<String, String>> {
        self.configs(&ResourceSpecifier::Broker(broker)).await
    }

    async fn read(&self, topic: &str, from: i64) -> Answer<Vec<Record>> {
        let (_, end) = self.ends(topic, 0).await?;
        if end <= from {
            return Ok(Vec::new());
        }
        let client = consuming(&self.config, &format!("{}look", self.config.prefix));
        let (topic, timeout) = (topic.to_owned(), self.config.timeout);
        blocking(move || {
            let reader: Looker = client.create_with_context(Ears::default())?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, 0, Offset::Offset(from))?;
            reader.assign(&list)?;
            let (mut found, until) = (Vec::new(), Instant::now() + timeout);
            // Compaction may have taken what was last, so the position is asked and not counted.
            while position(&reader, from)? < end {
                if Instant::now() >= until {
                    let why = format!("topic {topic} could not be read within {timeout:?}");
                    return Err(Fault::Lost(why));
                }
                match reader.poll(Duration::from_millis(100)) {
                    Some(Ok(message)) => found.push(record(&message)),
                    Some(Err(error)) => tracing::debug!(%error, topic, "reading"),
                    None => {}
                }
            }
            Ok(found)
        })
        .await
    }

    fn send(&self, message: Outgoing) -> BoxFuture<'static, Answer<i64>> {
        let sent = self.producer().and_then(|producer| put(&producer, &message));
        async move {
            match sent {
                Err(fault) => Err(fault),
                Ok(told) => match told.await {
                    Ok(answer) => answer,
                    Err(_) => Err(Fault::Lost("the publisher is gone".to_owned())),
                },
            }
        }
        .boxed()
    }

    fn join(&self, group: &str, topic: &str, turns: Arc<dyn Turns>) -> Answer<Box<dyn Seat>> {
        super::seat::join(&self.config, group, topic, turns)
    }
}

/// Where a reader is.
fn position(reader: &Looker, from: i64) -> Answer<i64> {
    let position = reader.position()?;
    let offsets = position.elements().into_iter().map(|element| element.offset());
    let known = offsets.filter_map(|offset| match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    });
    Ok(known.max().unwrap_or(from))
}

/// Puts a message on its way.
fn put(producer: &Publisher, message: &Outgoing) -> Answer<oneshot::Receiver<Answer<i64>>> {
    let (tell, told) = oneshot::channel();
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
    for (key, value) in &message.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut record = BaseRecord::with_opaque_to(&message.topic, Box::new(tell))
        .payload(message.body.as_slice())
        .headers(headers);
    record.key = message.key.as_deref();
    record.timestamp = message.timestamp;
    producer.send(record).map_err(|(error, _)| Fault::from(error))?;
    Ok(told)
}

/// A message as it came.
pub(super) fn record(message: &impl Message) -> Record {
    let headers = message.headers().map(|headers| {
        let of = |header: Header<'_, &[u8]>| {
            (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
        };
        headers.iter().map(of).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        body: message.payload().unwrap_or_default().to_vec(),
        headers: headers.unwrap_or_default(),
        timestamp: message.timestamp().to_millis().unwrap_or_default(),
    }
}

/// What is committed for partitions of a topic.
pub(super) fn committed<C: ConsumerContext>(
    member: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Answer<Vec<Committed>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    let list = member.committed_offsets(list, timeout)?;
    let mut found = Vec::with_capacity(partitions.len());
    for element in list.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let text = if offset.is_some() { element.metadata().to_owned() } else { String::new() };
        found.push(Committed { partition: element.partition(), offset, text });
    }
    if found.len() < partitions.len() {
        let wrong = unavailable("they did not tell what is committed for every partition");
        return Err(Fault::Refused(wrong));
    }
    Ok(found)
}
