//! What goes wrong when connecting, and what the broker cannot do.

use std::time::Duration;

use leasehold_api::engine::{Binding, Destination, ExchangeConfig, ExchangeKind, Target};
use leasehold_api::{
    CheckVerdict, DeadLetter, ErrorKind, Leasehold, Message, Overflow, QueueConfig, Retry, Value,
};
use leasehold_testbed::servers::rabbitmq;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Longer than anything takes that must come: two to three heartbeats of 2 s, and a slow machine.
const LONG: Duration = Duration::from_secs(60);

/// A handle with connections of its own.
async fn handle(url: &str) -> Leasehold {
    Leasehold::new(leasehold_amqp::connect(url).await.expect("it answers"))
}

async fn kind(url: &str) -> ErrorKind {
    leasehold_amqp::connect(url).await.expect_err(url).kind
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_fails_with_a_reason() {
    let rabbit = rabbitmq::start("");
    let port = rabbit.port;
    let bad = |user: &str, vhost: &str| format!("amqp://{user}@127.0.0.1:{port}/{vhost}");
    assert_eq!(kind(&bad("guest:wrong", "")).await, ErrorKind::Unauthenticated);
    assert_eq!(kind(&bad("guest:guest", "nowhere")).await, ErrorKind::Forbidden);
    assert_eq!(kind("amqp://127.0.0.1:1").await, ErrorKind::Unavailable);
    assert_eq!(kind("amqp://").await, ErrorKind::Invalid);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let foreign = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut line, _)) = listener.accept().await {
            line.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
    });
    assert_eq!(kind(&format!("amqp://{foreign}")).await, ErrorKind::Unsupported);

    let a = handle(&rabbit.url()).await;
    let checks = a.engine().checks.clone().expect("it has checks").checks().await;
    let version = checks.iter().find(|check| check.what == "version").expect("it is looked at");
    assert_eq!(version.verdict, CheckVerdict::Ok, "{}", version.why);
    assert!(!checks.iter().any(|check| check.verdict == CheckVerdict::Failed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls() {
    let (_rabbit, port, own) = rabbitmq::start_with_tls();
    let url = format!("amqps://127.0.0.1:{port}");
    let a = handle(&format!("{url}?ca={}", own.certificate.display())).await;
    a.lock("x").acquire().await.expect("it is free").release().await.expect("it is held");
    let queue = a.queue("q");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    queue.publish("hello").await.expect("it is confirmed");
    let came = queue.receive(LONG).await.expect("it answers").expect("it is there");
    assert_eq!(came.body(), b"hello");
    came.ack().await.expect("it is in hand");
    // Nobody vouches for it, and one who speaks no TLS is not understood.
    assert_eq!(kind(&url).await, ErrorKind::Unavailable);
    assert_ne!(kind(&format!("amqp://127.0.0.1:{port}")).await, ErrorKind::Unauthenticated);
    assert_eq!(kind(&format!("{url}?ca=/nowhere.pem")).await, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_of_all_kinds() {
    let rabbit = rabbitmq::start("");
    let a = handle(&rabbit.url()).await;
    let engine = a.engine().queues.clone().expect("it has queues");
    a.queue("all").declare(&QueueConfig::default()).await.expect("it is new");
    let kinds = [
        (ExchangeKind::Direct, "key"),
        (ExchangeKind::Fanout, ""),
        (ExchangeKind::Topic, "a.*"),
        (ExchangeKind::Headers, ""),
    ];
    for (kind, key) in kinds {
        let name = format!("{kind:?}");
        let config = ExchangeConfig::of(kind);
        engine.declare_exchange(&name, &config).await.expect("it is new");
        engine.declare_exchange(&name, &config).await.expect("it is the same");
        let headers = kind == ExchangeKind::Headers;
        let binding = Binding {
            exchange: name.clone(),
            to: Destination::Queue("all".to_owned()),
            key: key.to_owned(),
            arguments: if headers { vec![("h".to_owned(), Value::Int(7))] } else { vec![] },
            match_all: true,
        };
        engine.bind(&binding).await.expect("both are there");
        let routed = if kind == ExchangeKind::Topic { "a.b" } else { key };
        let to = || Target::Exchange((&*name).into(), routed.into());
        let message = Message::new("x").header("h", Value::Int(7));
        let taken = a.publish(to(), message.clone(), true).await.expect("it is bound");
        assert_eq!(taken.queues, 1, "{kind:?}");
        engine.unbind(&binding).await.expect("it is bound");
        let error = a.publish(to(), message.clone(), true).await.expect_err("nobody takes it");
        assert_eq!(error.kind, ErrorKind::Unroutable);
        let dropped = a.publish(to(), message, false).await.expect("nobody has to");
        assert_eq!(dropped.queues, 0);
        engine.delete_exchange(&name, false).await.expect("it is there");
        let gone = engine.delete_exchange(&name, false).await.expect_err("it is gone");
        assert_eq!(gone.kind, ErrorKind::NotFound);
    }
    assert_eq!(a.queue("all").purge().await.expect("it is there"), 4);
    let nowhere = Target::Exchange("nowhere".into(), "".into());
    let error = a.publish(nowhere, Message::new("x"), false).await.expect_err("it is not there");
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_in_use_and_otherwise_than_asked_for() {
    let rabbit = rabbitmq::start("");
    let a = handle(&rabbit.url()).await;
    let engine = a.engine().queues.clone().expect("it has queues");
    let config = QueueConfig {
        messages_max: Some(10),
        bytes_max: Some(1000),
        overflow: Overflow::Reject,
        ttl: Some(LONG),
        dead_letter: Some(DeadLetter::queue("dead")),
        priority_max: 3,
        single_active: true,
        ..QueueConfig::default()
    };
    assert!(!engine.declare_queue("q", &config).await.expect("it is new"));
    assert!(engine.declare_queue("q", &config).await.expect("it is the same"));
    let other = QueueConfig { messages_max: Some(11), ..config };
    let error = engine.declare_queue("q", &other).await.expect_err("it is not");
    assert_eq!(error.kind, ErrorKind::Different, "{error}");
    a.queue("q").publish("x").await.expect("it is taken");
    let error = engine.delete_queue("q", false, true).await.expect_err("it is not empty");
    assert_eq!(error.kind, ErrorKind::InUse, "{error}");
    let consumer = a.queue("q").consume().await.expect("it is there");
    let error = engine.delete_queue("q", true, false).await.expect_err("it is used");
    assert_eq!(error.kind, ErrorKind::InUse, "{error}");
    drop(consumer);
    let counted = QueueConfig { deliveries_max: Some(2), ..QueueConfig::default() };
    engine.declare_queue("counted", &counted).await.expect("quorum queues count");
    let both = QueueConfig { priority_max: 3, ..counted };
    let error = engine.declare_queue("both", &both).await.expect_err("they have no priorities");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unsupported, Retry::Never));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_which_a_part_was_deleted_is_nobodys() {
    let rabbit = rabbitmq::start("");
    let (a, b) = (handle(&rabbit.url()).await, handle(&rabbit.url()).await);
    let ttl = Duration::from_secs(3);
    let guard = a.lock("torn").ttl(ttl).acquire().await.expect("it is free");
    let lost = guard.lost();
    b.queue("leasehold.lock.torn").delete().await.expect("it is there");
    timeout(LONG, lost).await.expect("a renewal notices");
    let error = b.lock("torn").acquire_within(LONG).await.expect_err("it has no token");
    assert_eq!(error.kind, ErrorKind::Broken);
    assert!(error.wrong.contains("exchange leasehold.lock.torn"), "{error}");
    let engine = b.engine().queues.clone().expect("it has queues");
    engine.delete_exchange("leasehold.lock.torn", false).await.expect("it is there");
    let next = b.lock("torn").acquire_within(LONG).await.expect("it is made again");
    assert!(next.token() > guard.token());
    assert!(a.lock("torn").try_acquire().await.expect("it answers").is_none());
    next.release().await.expect("it is held");
}
