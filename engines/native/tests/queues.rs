//! Queues, exchanges and the commit in their ordinary course.

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use leasehold_api::engine::{
    Binding, Commit, DeadLetter, Destination, ExchangeConfig, ExchangeKind, Expect, List,
    LockEngine, Overflow, Publish, QueueEngine, RegisterTtl, RequestId, Write,
};
use leasehold_api::{ErrorKind, Message, QueueConfig, Retry, Target, Value, Verdict, Wait};
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_declared_shown_paused_purged_and_deleted() {
    let home = home();
    let config = QueueConfig {
        messages_max: Some(100),
        bytes_max: Some(1 << 20),
        overflow: Overflow::Reject,
        ttl: Some(TTL),
        lease: Some(TTL),
        deliveries_max: Some(7),
        dead_letter: Some(DeadLetter { exchange: None, routing_key: Some("dead".to_owned()) }),
        priority_max: 5,
        dedup: Some(TTL),
        ..QueueConfig::default()
    };
    assert!(!home.declare_queue("orders", &config).await.expect("declared"));
    assert!(home.declare_queue("orders", &config).await.expect("declared"));
    let other = home.declare_queue("orders", &QueueConfig::default()).await.expect_err("different");
    assert_eq!((other.kind, other.retry), (ErrorKind::Different, Retry::Never));
    assert_eq!(other.asked, "declare queue orders");

    home.send("orders", 4).await;
    home.pause("orders", true).await.expect("paused");
    let view = home.inspect_queue("orders").await.expect("shown");
    assert_eq!((view.name.as_str(), view.ready, view.paused), ("orders", 4, true));
    assert_eq!((view.config, view.totals.published), (config.clone(), 4));
    let page = home.list_queues(&List { prefix: "ord".to_owned(), after: 0, max: 10 }).await;
    let page = page.expect("listed");
    assert_eq!((page.items.len(), page.next), (1, None));
    assert_eq!((&page.items[0].config, page.items[0].ready), (&config, 4));

    assert_eq!(kind(home.delete_queue("orders", false, true).await), ErrorKind::InUse);
    assert_eq!(home.purge("orders").await.expect("purged"), 4);
    assert_eq!(home.delete_queue("orders", true, true).await.expect("deleted"), 0);
    for gone in [home.purge("orders").await, home.delete_queue("orders", false, false).await] {
        assert_eq!(kind(gone), ErrorKind::NotFound);
    }
    assert_eq!(kind(home.inspect_queue("orders").await), ErrorKind::NotFound);
    assert_eq!(kind(home.pause("orders", true).await), ErrorKind::NotFound);
    assert_eq!(kind(home.peek("orders", 1).await), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_arrives_with_all_it_has() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig { priority_max: 9, ..QueueConfig::default() }).await;
    let headers = [
        ("flag", Value::Bool(true)),
        ("int", Value::Int(-3)),
        ("float", Value::Float(0.5)),
        ("text", Value::Text("ä".to_owned())),
        ("bytes", Value::Bytes(vec![0, 255])),
    ];
    let mut sent = Message::new("body").priority(4).id("one").key("k").ttl(TTL);
    sent.headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let mut publish = message("orders", "");
    publish.message = sent.clone();
    let before = SystemTime::now();
    let answers = home.publish(vec![publish]).await.expect("answered");
    assert_eq!(answers[0].as_ref().expect("accepted").queues, 1);

    let peeked = home.peek("orders", 10).await.expect("peeked");
    let came = home.receive_now("orders", &session, 10).await;
    let ([peeked], [came]) = (&peeked[..], &came[..]) else { panic!("one message") };
    assert_eq!((peeked.attempts, &peeked.content), (0, &came.content));
    assert_eq!((came.attempt, came.redelivered), (1, false));
    let content = &came.content;
    assert_eq!((&content.body, content.priority), (&sent.body, 4));
    assert_eq!(content.headers, sent.headers);
    assert_eq!((content.id.as_deref(), content.key.as_deref()), (Some("one"), Some("k")));
    assert_eq!((content.exchange.as_str(), content.routing_key.as_str()), ("", "orders"));
    let age = content.published_at.duration_since(before).unwrap_or_default();
    assert!(age < PATIENCE && content.deaths.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_published_each_by_itself() {
    let home = home();
    let config = QueueConfig {
        messages_max: Some(1000),
        overflow: Overflow::Reject,
        dedup: Some(TTL),
        ..QueueConfig::default()
    };
    home.declare("orders", config).await;
    let mut once = message("orders", "x");
    once.message.id = Some("same".to_owned());
    once.request = Some(RequestId(3));
    let mut twice = once.clone();
    twice.request = None;
    let nobody = Target::Exchange(Arc::from("none"), Arc::from(""));
    let many = vec![
        once.clone(),
        message("or\tders", "x"),
        twice,
        Publish { target: nobody, ..message("", "x") },
        message("missing", "x"),
        once,
    ];
    let answers = home.publish(many).await.expect("answered");
    let said: Vec<_> = answers
        .into_iter()
        .map(|one| one.map(|done| (done.queues, done.duplicates)).map_err(|error| error.kind))
        .collect();
    use ErrorKind::{Invalid, NotFound};
    assert_eq!(said[..3], [Ok((1, 0)), Err(Invalid), Ok((0, 1))]);
    assert_eq!((said[3], said[5]), (Err(NotFound), Ok((1, 0))));
    assert!(matches!(said[4], Err(NotFound | ErrorKind::Unroutable)), "{:?}", said[4]);

    let all = (0..1200).map(|_| message("orders", "x")).collect();
    let answers = soon(home.publish(all)).await.expect("answered");
    let full = answers.iter().filter_map(|one| one.as_ref().err()).collect::<Vec<_>>();
    assert_eq!(full.len(), 201);
    assert!(full.iter().all(|error| error.kind == ErrorKind::Full && error.retry == Retry::Later));
    assert_eq!(full[0].asked, "publish to queue orders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_route() {
    let home = home();
    let session = home.session().await;
    home.declare("eu", QueueConfig::default()).await;
    let topic = ExchangeConfig::of(ExchangeKind::Topic);
    home.declare_exchange("events", &topic).await.expect("declared");
    let fanout = ExchangeConfig::of(ExchangeKind::Fanout);
    assert_eq!(kind(home.declare_exchange("events", &fanout).await), ErrorKind::Different);
    let binding = Binding {
        exchange: "events".to_owned(),
        to: Destination::Queue("eu".to_owned()),
        key: "*.eu".to_owned(),
        arguments: Vec::new(),
        match_all: true,
    };
    home.bind(&binding).await.expect("bound");
    let to = |key: &str| Publish {
        target: Target::Exchange(Arc::from("events"), Arc::from(key)),
        ..message("", key)
    };
    let answers = home.publish(vec![to("order.eu"), to("order.us")]).await.expect("answered");
    assert!(answers[0].is_ok());
    assert_eq!(kind(answers[1].clone()), ErrorKind::Unroutable);
    let came = home.receive_now("eu", &session, 10).await;
    assert_eq!(came.len(), 1);
    assert_eq!(came[0].content.exchange, "events");
    assert_eq!(came[0].content.routing_key, "order.eu");
    assert_eq!(kind(home.delete_exchange("events", true).await), ErrorKind::InUse);
    home.unbind(&binding).await.expect("unbound");
    assert_eq!(kind(home.unbind(&binding).await), ErrorKind::NotFound);
    home.delete_exchange("events", true).await.expect("deleted");
    assert_eq!(kind(home.bind(&binding).await), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receive_takes_what_is_there_and_waits_for_the_first() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    assert!(home.receive_now("orders", &session, 5).await.is_empty());
    let brief = home.receiving("orders", &session, 5, Wait::AtMost(Duration::from_micros(10)));
    assert!(soon(home.receive(&brief)).await.expect("received").is_empty());
    let ask = home.receiving("orders", &session, 200, Wait::Forever);
    let mut waits = Box::pin(home.receive(&ask));
    assert!(poll(&mut waits).await.is_pending());
    home.send("orders", 1).await;
    let first = soon(waits).await.expect("received");
    assert_eq!(first.len(), 1);
    home.send("orders", 150).await;
    let mut all = soon(home.receive(&ask)).await.expect("received");
    assert_eq!(all.len(), 150);
    all.extend(first);
    home.ack(&all).await;

    let none = home.receiving("orders", &session, 0, Wait::No);
    assert_eq!(kind(home.receive(&none).await), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receive_does_not_wait_for_a_key_in_flight() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    let keyed = |body: &str| {
        let mut publish = message("orders", body);
        publish.message.key = Some("same".to_owned());
        publish
    };
    home.publish(vec![keyed("1"), keyed("2"), keyed("3")]).await.expect("answered");
    // It does not wait until there are three: the tests' patience would end before.
    let long = home.receiving("orders", &session, 3, Wait::AtMost(Duration::from_secs(3600)));
    let first = soon(home.native.receive(&long)).await.expect("received");
    assert_eq!(first.len(), 1, "one of a key at a time");
    assert!(home.receive_now("orders", &session, 3).await.is_empty());
    home.ack(&first).await;
    assert_eq!(home.receive_now("orders", &session, 3).await[0].content.body, b"2");
    home.until_quiet(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receive_may_bring_its_own_lease() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    home.declare("orders", QueueConfig::default()).await;
    home.send("orders", 2).await;
    let mut ask = home.receiving("orders", &one, 2, Wait::No);
    ask.lease = Some(Duration::ZERO);
    assert_eq!(kind(home.receive(&ask).await), ErrorKind::Invalid);
    ask.lease = Some(Duration::from_millis(30));
    let lost = home.receive(&ask).await.expect("received");
    assert_eq!(lost.len(), 2);
    // Nobody says anything, so they come again.
    let ask = home.receiving("orders", &other, 1, Wait::AtMost(PATIENCE));
    let again = soon(home.receive(&ask)).await.expect("received");
    assert_eq!((again.len(), again[0].attempt, again[0].redelivered), (1, 2, true));
    let late = home.settle(&[lost[0].receipt.clone()], Verdict::Ack).await.expect_err("late");
    assert_eq!((late.kind, late.retry), (ErrorKind::Stale, Retry::Never));
    assert_eq!(kind(home.extend(&lost[0].receipt, TTL).await), ErrorKind::Stale);
    home.extend(&again[0].receipt, TTL).await.expect("extended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_are_settled_one_or_many() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    home.declare("dead", QueueConfig::default()).await;
    let dead_letter = Some(DeadLetter::queue("dead"));
    home.declare("orders", QueueConfig { dead_letter, ..QueueConfig::default() }).await;
    home.send("orders", 3).await;
    let came = home.receive_now("orders", &one, 3).await;
    let receipts: Vec<_> = came.iter().map(|one| one.receipt.clone()).collect();

    let mut foreign = receipts[0].clone();
    foreign.session = other.clone();
    assert_eq!(kind(home.settle(&[foreign.clone()], Verdict::Ack).await), ErrorKind::Foreign);
    let mixed = [foreign, receipts[1].clone()];
    assert_eq!(kind(home.settle(&mixed, Verdict::Ack).await), ErrorKind::Invalid);
    let mut nowhere = receipts[0].clone();
    nowhere.place = u128::MAX;
    assert_eq!(kind(home.settle(&[nowhere], Verdict::Ack).await), ErrorKind::Invalid);
    assert_eq!(home.settle(&[], Verdict::Ack).await.expect("nothing"), 0);

    let back = Verdict::Nack(Duration::ZERO);
    assert_eq!(home.settle(&receipts[..1], back).await.expect("returned"), 1);
    let reject = home.settle(&receipts[1..2], Verdict::Reject).await;
    assert_eq!(reject.expect("rejected"), 1);
    let all = home.settle(&receipts, Verdict::Ack).await.expect_err("two are settled");
    assert_eq!((all.kind, all.asked.as_str()), (ErrorKind::Stale, "settle 3 deliveries"));

    let peeked = home.peek("dead", 10).await.expect("peeked");
    let [death] = &peeked[0].content.deaths[..] else { panic!("one death") };
    assert_eq!((death.queue.as_str(), death.reason.as_str()), ("orders", "rejected"));
    assert_eq!(home.redrive("dead", None, 10).await.expect("moved"), 1);
    assert_eq!(home.inspect_queue("orders").await.expect("shown").ready, 2);
    assert_eq!(kind(home.redrive("orders", Some("orders"), 1).await), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_does_all_or_nothing() {
    let home = home();
    let session = home.session().await;
    home.declare("in", QueueConfig::default()).await;
    home.declare("out", QueueConfig::default()).await;
    home.send("in", 1).await;
    let grant = home.take("nightly", Some(&session)).await;
    let came = home.receive_now("in", &session, 1).await;
    let mut commit = Commit {
        checks: vec![(Arc::from("nightly"), grant.token)],
        settles: vec![(came[0].receipt.clone(), Verdict::Ack)],
        publishes: vec![message("out", "result")],
        writes: vec![Write {
            key: b"done".to_vec(),
            value: Some(b"1".to_vec()),
            expect: Expect::Present,
            ttl: RegisterTtl::Never,
            guard: None,
            request: None,
        }],
        releases: vec![held("nightly", grant.token, Some(&session))],
        request: Some(RequestId(9)),
    };
    assert_eq!(kind(home.commit(&commit).await), ErrorKind::Conflict);
    assert_eq!(home.inspect_queue("out").await.expect("shown").ready, 0);
    commit.writes[0].expect = Expect::Absent;
    let versions = home.commit(&commit).await.expect("committed");
    assert_eq!(versions.len(), 1);
    assert_eq!(home.commit(&commit).await.expect("answered alike"), versions);
    let written = home.read(b"done").await.expect("read").expect("a value");
    assert_eq!(written.version, versions[0]);
    assert_eq!(home.inspect_queue("out").await.expect("shown").ready, 1);
    assert_eq!(home.inspect_queue("in").await.expect("shown").totals.acked, 1);
    assert!(!home.check("nightly", grant.token).await.expect("checked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_messages_come_when_they_are_due() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    let mut later = message("orders", "later");
    later.message = later.message.delay(Duration::from_millis(20));
    let mut past = message("orders", "past");
    past.message = past.message.at(SystemTime::UNIX_EPOCH);
    home.publish(vec![later, past]).await.expect("answered");
    let ask = home.receiving("orders", &session, 1, Wait::AtMost(PATIENCE));
    let first = soon(home.receive(&ask)).await.expect("received");
    let second = soon(home.receive(&ask)).await.expect("received");
    assert_eq!(
        (&first[0].content.body[..], &second[0].content.body[..]),
        (&b"past"[..], &b"later"[..])
    );
}
