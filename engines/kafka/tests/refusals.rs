//! What goes wrong when connecting, what Kafka cannot do, and what doctor says of settings.

#![cfg(feature = "librdkafka")]

mod broker;

use std::time::Duration;

use broker::{LONG, handle};
use leasehold_api::engine::Target;
use leasehold_api::{CheckVerdict, Checks, ErrorKind, Leasehold, Message, QueueConfig, Retry};
use leasehold_testbed::servers::kafka::{Broker, Ports, Wishes};
use tokio::io::AsyncWriteExt;

async fn kind(url: &str) -> ErrorKind {
    leasehold_kafka::connect(url).await.expect_err(url).kind
}

async fn checks(a: &Leasehold) -> Vec<leasehold_api::Check> {
    let checks: std::sync::Arc<dyn Checks> = a.engine().checks.clone().expect("it has checks");
    checks.checks().await
}

fn verdict(checks: &[leasehold_api::Check], what: &str) -> CheckVerdict {
    let found = checks.iter().find(|check| check.what == what);
    found.unwrap_or_else(|| panic!("{what} is not looked at: {checks:?}")).verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_fails_with_a_reason() {
    let broker = Broker::start();
    let guarded = |user: &str| format!("kafka://{user}@127.0.0.1:{}?timeout=5", broker.guarded);
    assert_eq!(kind(&guarded("owner:wrong")).await, ErrorKind::Unauthenticated);
    assert_eq!(kind("kafka://127.0.0.1:1").await, ErrorKind::Unavailable);
    assert_eq!(kind("kafka://").await, ErrorKind::Invalid);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let foreign = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut line, _)) = listener.accept().await {
            line.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
    });
    assert_eq!(kind(&format!("kafka://{foreign}")).await, ErrorKind::Unsupported);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let error = leasehold_kafka::connect(&format!("kafka://{silent}")).await;
    let error = error.expect_err("it hangs up");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Later), "{error}");
    assert!(error.to_string().contains("hung up"), "{error}");
    // One of several that answers is enough.
    handle(&format!("kafka://127.0.0.1:1,127.0.0.1:{}", broker.server.port)).await;

    let owner = handle(&guarded("owner:secret")).await;
    owner.queue("owned").declare(&QueueConfig::default()).await.expect("it may");
    owner.queue("owned").publish("x").await.expect("it may");
    let guest = handle(&guarded("guest:secret")).await;
    let queue = guest.queue("owned");
    let error = queue.declare(&QueueConfig::default()).await.expect_err("it may not");
    assert_eq!((error.kind, error.retry), (ErrorKind::Forbidden, Retry::Never), "{error}");
    let error = queue.publish("x").await.expect_err("it may not");
    assert_eq!(error.kind, ErrorKind::Forbidden, "{error}");
    let error = queue.receive(Duration::ZERO).await.expect_err("it may not");
    assert_eq!(error.kind, ErrorKind::Forbidden, "{error}");
}

/// TLS with a certificate that the URL names, and a login that sends no password; and what is said
/// when either is wrong.
#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_and_scram_logs_in() {
    let broker = Broker::start();
    let ca = broker.certificate.certificate.display();
    let at = format!("127.0.0.1:{}", broker.encrypted);
    let url = format!("kafkas://owner:secret@{at}?sasl=scram-sha-256&ca={ca}&timeout=5");
    let owner = handle(&url).await;
    let queue = owner.queue("sealed");
    queue.declare(&QueueConfig::default()).await.expect("it may");
    queue.publish("x").await.expect("it may");
    let one = queue.receive(LONG).await.expect("it answers").expect("it is there");
    assert_eq!(one.body(), b"x");
    one.ack().await.expect("it is ours");
    assert_eq!(kind(&url.replace("secret", "wrong")).await, ErrorKind::Unauthenticated);
    assert_eq!(kind(&url.replace("sasl=scram-sha-256&", "")).await, ErrorKind::Unauthenticated);
    // Nobody vouches for it where the URL names no certificate.
    let untrusted = format!("kafkas://owner:secret@{at}?sasl=scram-sha-256&timeout=5");
    let error = leasehold_kafka::connect(&untrusted).await.expect_err("nobody vouches for it");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    let open = url.replace(&at, &format!("127.0.0.1:{}", broker.server.port));
    let error = leasehold_kafka::connect(&open).await.expect_err("there is no TLS");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Later), "{error}");
    assert!(error.to_string().contains("is there TLS at this port"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_break_the_promise_are_told() {
    let broker = Broker::start();
    let a = handle(&broker.url()).await;
    a.queue("well").declare(&QueueConfig::default()).await.expect("it is new");
    let found = checks(&a).await;
    assert!(!found.iter().any(|check| check.verdict == CheckVerdict::Failed), "{found:?}");
    assert_eq!(verdict(&found, "version"), CheckVerdict::Ok);
    assert_eq!(verdict(&found, "replication"), CheckVerdict::Warning);
    assert_eq!(verdict(&found, "topic well"), CheckVerdict::Ok);

    let settings = "min.insync.replicas=2\nauto.create.topics.enable=true\n\
                    unclean.leader.election.enable=true\noffset.metadata.max.bytes=100\n\
                    offsets.retention.minutes=60\ngroup.min.session.timeout.ms=20000";
    let wishes = Wishes { settings, ..Wishes::default() };
    let bad = Broker::started(Ports::find(), &wishes);
    let b = handle(&bad.url()).await;
    let found = checks(&b).await;
    for what in
        ["replication", "unclean.leader.election.enable", "offset.metadata.max.bytes", "session"]
    {
        assert_eq!(verdict(&found, what), CheckVerdict::Failed, "{what}: {found:?}");
    }
    for what in ["auto.create.topics.enable", "offsets.retention.minutes"] {
        assert_eq!(verdict(&found, what), CheckVerdict::Warning, "{what}: {found:?}");
    }
    // And what is done all the same says why it is not.
    let three = handle(&format!("{}?replicas=3", bad.url())).await;
    let error = three.queue("q").declare(&QueueConfig::default()).await.expect_err("one broker");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_in_use_and_otherwise_than_asked_for() {
    let broker = Broker::start();
    let (a, b) = (handle(&broker.url()).await, handle(&broker.url()).await);
    let engine = a.engine().queues.clone().expect("it has queues");
    let config = QueueConfig { lease: Some(LONG), ..QueueConfig::default() };
    assert!(!engine.declare_queue("q", &config).await.expect("it is new"));
    let other = b.engine().queues.clone().expect("it has queues");
    assert!(other.declare_queue("q", &config).await.expect("it is the same"));
    let error = other.declare_queue("q", &QueueConfig::default()).await.expect_err("it is not");
    assert_eq!(error.kind, ErrorKind::Different, "{error}");
    a.queue("q").publish("x").await.expect("it is taken");
    let error = engine.delete_queue("q", false, true).await.expect_err("it is not empty");
    assert_eq!(error.kind, ErrorKind::InUse, "{error}");
    let mut consumer = b.queue("q").consume().await.expect("it is there");
    let error = engine.delete_queue("q", true, false).await.expect_err("it is used");
    assert_eq!(error.kind, ErrorKind::InUse, "{error}");
    let held = consumer.next().await.expect("it answers").expect("it was published");
    assert_eq!(engine.delete_queue("q", false, false).await.expect("it is there"), 1);
    let end = tokio::time::timeout(LONG, consumer.next()).await.expect("it ends");
    assert!(end.expect("without an error").is_none());
    assert_eq!(held.ack().await.expect_err("it went with it").kind, ErrorKind::Stale);
    // Another queue of that name has other settings.
    let plain = QueueConfig::default();
    assert!(!engine.declare_queue("q", &plain).await.expect("it is new"));
    // A topic of an exchange is not there.
    let to = Target::Exchange("x".into(), "".into());
    let error = a.publish(to, Message::new("x"), false).await.expect_err("there are none");
    assert_eq!(error.kind, ErrorKind::Unsupported);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_declare_one_queue() {
    let broker = Broker::start();
    let mut tasks = Vec::new();
    for i in 0..8u64 {
        let a = handle(&broker.url()).await;
        let lease = Some(Duration::from_secs(1 + i % 2));
        let config = QueueConfig { lease, ..QueueConfig::default() };
        tasks.push(tokio::spawn(async move {
            match a.queue("contested").declare(&config).await {
                Ok(_) => Some(i % 2),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Different, "{error}");
                    None
                }
            }
        }));
    }
    let mut agreed = std::collections::BTreeSet::new();
    for task in tasks {
        agreed.extend(task.await.expect("no panic"));
    }
    assert_eq!(agreed.len(), 1, "two settings were declared at once");
}
