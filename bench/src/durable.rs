//! (b) Confirmed publishes in mode `always`, by depth and by number of queues.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use leasehold_core::QueueConfig;
use leasehold_core::message::Message;
use leasehold_core::{Outcome, QueueId, SessionId};
use leasehold_node::{Client, Node, Notice, Options};

use crate::figures::{Figure, Figures};
use crate::{load, machine};

/// Measures all depths and numbers of queues; each for about `time`.
pub fn run(directory: &Path, figures: &mut Figures, rounds: usize, time: Duration) {
    let node = Node::open(directory.join("durable"), Options::default()).expect("opens");
    let client = node.client();
    let declared = |n: usize| {
        let declare = |i| load::declare(&client, &format!("durable-{i}"), QueueConfig::default());
        (0..n).map(declare).collect::<Vec<QueueId>>()
    };
    let queues = declared(1000);
    for depth in [1, 10, 100, 1000] {
        for among in [1, 100, 1000] {
            let mut rates = Vec::new();
            for _ in 0..rounds {
                rates.push(publish_for(&client, &queues[..among], depth, 100, time).0);
                empty(&client, among);
            }
            figures.plain(
                format!("durable publish 100 B, {depth} outstanding, {among} queues"),
                "msg/s",
                rates,
            );
        }
    }
    single(directory, &client, &queues, figures, rounds, time);
    wide(directory, &client, &queues, figures, rounds, time);
    node.close().expect("closes");
}

/// One publish at a time, against the machine's sync measured in between.
fn single(
    directory: &Path,
    client: &Client,
    queues: &[QueueId],
    figures: &mut Figures,
    rounds: usize,
    time: Duration,
) {
    let (mut ours, mut limit, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds.max(5) {
        let before = machine::sync_of_written_block(directory, 500).expect("the limit").0;
        let p50 = publish_for(client, &queues[..1], 1, 100, time).1;
        let after = machine::sync_of_written_block(directory, 500).expect("the limit").0;
        let sync = (before + after) / 2.0;
        ours.push(p50);
        limit.push(sync);
        ratios.push(p50 / sync);
        empty(client, 1);
    }
    figures.plain("fdatasync of a written, preallocated 4 KiB block, p50", "µs", limit);
    figures.plain("single durable publish, p50", "µs", ours);
    figures.add(Figure {
        name: "single durable publish ÷ that fdatasync, pair by pair".into(),
        unit: "×",
        values: ratios,
        goal: "≤ 1.3",
        limit: None,
    });
}

/// Many large publishes, against the machine's sequential writing measured in between.
fn wide(
    directory: &Path,
    client: &Client,
    queues: &[QueueId],
    figures: &mut Figures,
    rounds: usize,
    time: Duration,
) {
    let mut columns = [Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds.max(5) {
        let (synced, buffered) = machine::sequential_write(directory, 256).expect("the limit");
        let rate = publish_for(client, &queues[..1], 1000, 1024, time).0;
        let mib = rate * 1024.0 / f64::from(1 << 20);
        empty(client, 1);
        let values = [mib, synced, buffered, mib / synced, mib / buffered];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let [ours, synced, buffered, to_synced, to_buffered] = columns;
    figures.plain("durable publish 1 KiB, 1000 outstanding", "MiB/s", ours);
    figures.plain("sequential write, 1 MiB pieces, each synced", "MiB/s", synced);
    figures.plain("sequential write, buffered, synced at the end", "MiB/s", buffered);
    for (name, values) in [("each piece synced", to_synced), ("buffered", to_buffered)] {
        figures.add(Figure {
            name: format!("durable publish 1 KiB ÷ sequential write, {name}"),
            unit: "×",
            values,
            goal: "≥ 0.5",
            limit: None,
        });
    }
}

/// Publishes for about `time` with so many outstanding; rate, and median latency in µs.
pub fn publish_for(
    client: &Client,
    queues: &[QueueId],
    depth: usize,
    bytes: usize,
    time: Duration,
) -> (f64, f64) {
    let body = vec![7u8; bytes];
    let started = Instant::now();
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
    let mut sent = std::collections::VecDeque::with_capacity(depth);
    let mut batch = Vec::with_capacity(depth);
    let mut notices = Vec::new();
    let (mut next, mut confirmed) = (0usize, 0usize);
    loop {
        let over = started.elapsed() >= time;
        if over && sent.is_empty() {
            break;
        }
        while !over && sent.len() < depth {
            let op = load::publish(queues[next % queues.len()], Message::new(body.clone()));
            batch.push(load::command(client, SessionId::NONE, op));
            sent.push_back(Instant::now());
            next += 1;
        }
        client.send_all(batch.drain(..)).expect("the node runs");
        client.receive(&mut notices, Some(load::PATIENCE)).expect("the node runs");
        for (_, notice) in notices.drain(..) {
            assert!(matches!(notice, Notice::Reply(Ok(Outcome::Published { .. }))), "{notice:?}");
            let began = sent.pop_front().expect("sent before it was confirmed");
            times.saturating_record(began.elapsed().as_nanos() as u64);
            confirmed += 1;
        }
    }
    let rate = confirmed as f64 / started.elapsed().as_secs_f64();
    (rate, times.value_at_quantile(0.5) as f64 / 1e3)
}

fn empty(client: &Client, queues: usize) {
    for i in 0..queues {
        let op = leasehold_core::Op::Purge(load::name(&format!("durable-{i}")));
        load::call(client, SessionId::NONE, op);
    }
}
