//! (c) Millions of waiting messages: memory, publish latency, reopening after kill -9, draining.
//!
//! The work is done by child processes, so that their memory is theirs alone and killing them is
//! real. A child that fills a store says what it measured in one line of JSON and waits to be
//! killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use hdrhistogram::Histogram;
use leasehold_core::message::{Due, Message};
use leasehold_core::{Op, Outcome, QueueConfig, QueueId, Receipt, SessionId, Verdict};
use leasehold_node::{Client, Durability, Node, Notice, Options};
use serde_json::{Value, json};

use crate::figures::{Figure, Figures};
use crate::{load, machine};

const QUEUE: &str = "waiting";
/// Publishes outstanding while the store is filled.
const FILL_DEPTH: usize = 512;
/// Publishes outstanding while latency is looked at: one pause of the shard holds up so many.
const SAMPLE_DEPTH: usize = 64;
/// Publishes whose latency is looked at, at the start and at the end.
const SAMPLE: u64 = 1_000_000;
/// Parts of each sample: the machine's moods differ more between moments than empty from full.
const ROUNDS: u64 = 7;

/// How the messages wait.
const KINDS: [(&str, &str); 4] = [
    ("plain", "plain"),
    ("halved", "every second acked, the others nacked with a delay (count 1)"),
    ("delayed", "delayed, due times mixed over ten seconds"),
    ("priorities", "ten priorities, mixed"),
];

/// Measures all kinds, or one, with `millions` million messages.
pub fn run(directory: &Path, figures: &mut Figures, millions: u64, only: Option<&str>) {
    for (kind, title) in KINDS {
        if only.is_some_and(|only| only != kind) {
            continue;
        }
        let count = millions * 1_000_000;
        let store = directory.join(format!("waiting-{kind}"));
        let title = format!("{millions} M waiting, {title}");
        let mut child = start(&["fill", kind, &count.to_string()], &store);
        let filled = answer(&mut child);
        child.kill().expect("the child is killed");
        child.wait().expect("the child ends");
        let number = |value: &Value, field: &str| value[field].as_f64().unwrap_or(f64::NAN);
        let numbers = |value: &Value, field: &str| -> Vec<f64> {
            let list = value[field].as_array().expect("a list of figures");
            list.iter().map(|each| each.as_f64().unwrap_or(f64::NAN)).collect()
        };
        figures.add(Figure {
            name: format!("{title}: memory at most"),
            unit: "MiB",
            values: vec![number(&filled, "memory_mib")],
            goal: "≤ 64",
            limit: None,
        });
        figures.plain(format!("{title}: fill"), "msg/s", vec![number(&filled, "rate")]);
        let (empty, full) = (numbers(&filled, "empty_us"), numbers(&filled, "full_us"));
        let name = format!("{title}: publish p99.9, empty store");
        figures.plain(name.clone(), "µs", empty);
        let usual = figures.median_of(&name).expect("just added");
        figures.add(Figure {
            name: format!("{title}: publish p99.9, full ÷ empty"),
            unit: "×",
            values: full.iter().map(|full| full / usual).collect(),
            goal: "≤ 2",
            limit: None,
        });
        let mut child = start(&["drain", kind, &count.to_string()], &store);
        let drained = answer(&mut child);
        child.kill().expect("the child is killed");
        child.wait().expect("the child ends");
        figures.add(Figure {
            name: format!("{title}: reopen after kill -9"),
            unit: "s",
            values: vec![number(&drained, "open_s")],
            goal: "≤ 2",
            limit: None,
        });
        figures.add(Figure {
            name: format!("{title}: drain"),
            unit: "msg/s",
            values: vec![number(&drained, "rate")],
            goal: "≥ 500 k",
            limit: None,
        });
        figures.plain(
            format!("{title}: drained, all there and none twice"),
            "msg",
            vec![number(&drained, "drained")],
        );
        figures.plain(
            format!("{title}: memory while draining"),
            "MiB",
            vec![number(&drained, "memory_mib")],
        );
        std::fs::remove_dir_all(&store).expect("the store is removed");
    }
}

fn start(arguments: &[&str], store: &Path) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.arg("child").args(arguments).arg(store);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the child starts")
}

fn answer(child: &mut Child) -> Value {
    let mut line = String::new();
    let out = child.stdout.as_mut().expect("its output is ours");
    BufReader::new(out).read_line(&mut line).expect("the child answers");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("the child said {line:?}: {error}"))
}

/// What a child process does: `fill|drain KIND COUNT DIRECTORY`.
pub fn child(arguments: &[String]) {
    let [what, kind, count, store] = arguments else { panic!("fill|drain KIND COUNT DIRECTORY") };
    let count: u64 = count.parse().expect("COUNT is a number");
    let result = match what.as_str() {
        "fill" => fill(Path::new(store), kind, count),
        _ => drain(Path::new(store), kind, count),
    };
    println!("{result}");
    std::io::stdout().flush().expect("the parent listens");
    // Waits to be killed; ends by itself should the parent be gone.
    std::io::stdin().lines().for_each(drop);
}

fn options() -> Options {
    Options { durability: Durability::None, ..Options::default() }
}

fn fill(store: &Path, kind: &str, count: u64) -> Value {
    let node = Node::open(store, options()).expect("opens");
    let client = node.client();
    let config = QueueConfig { priority_max: 9, ..QueueConfig::default() };
    let queue = load::declare(&client, QUEUE, config);
    let base = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Late enough that filling is over before the first is due.
    let base = base.expect("after 1970").as_micros() as u64 + 15_000_000 + count * 4;
    let started = Instant::now();
    let make = |i: u64| message(kind, i, base);
    let sample = SAMPLE.min(count / 3);
    let empty = rounds(&client, queue, 0..sample, make);
    publish(&client, queue, sample..count - sample, FILL_DEPTH, make);
    if kind == "halved" {
        halve(&client, count - sample, base);
    }
    // Filling dirties memory faster than the disk takes it, and the kernel then holds up writers;
    // that debt is the filling's, not the full store's.
    rustix::fs::sync();
    let full = rounds(&client, queue, count - sample..count, make);
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let result = json!({
        "memory_mib": machine::memory_mib().1,
        "rate": rate,
        "empty_us": empty,
        "full_us": full,
    });
    // The parent kills this process; the store must not be closed first.
    std::mem::forget((node, client));
    result
}

fn message(kind: &str, i: u64, base: u64) -> Message {
    let mut body = vec![0; 100];
    body[..8].copy_from_slice(&i.to_le_bytes());
    let mut message = Message::new(body);
    let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    match kind {
        "delayed" => message.more().due = Due::At(base + mixed % 10_000_000),
        "priorities" => message.priority = (mixed % 10) as u8,
        _ => {}
    }
    message
}

/// Publishes a sample in [`ROUNDS`] parts and gives the 99.9th percentile of each, in µs.
fn rounds(
    client: &Client,
    queue: QueueId,
    range: std::ops::Range<u64>,
    make: impl Fn(u64) -> Message + Copy,
) -> Vec<f64> {
    let part = (range.end - range.start).div_ceil(ROUNDS);
    let starts = range.clone().step_by(part as usize);
    let parts = starts.map(|start| start..range.end.min(start + part));
    parts.map(|part| publish(client, queue, part, SAMPLE_DEPTH, make)).collect()
}

/// Publishes and gives the 99.9th percentile of the confirms, in µs.
fn publish(
    client: &Client,
    queue: QueueId,
    range: std::ops::Range<u64>,
    depth: usize,
    make: impl Fn(u64) -> Message,
) -> f64 {
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
    let mut sent = std::collections::VecDeque::new();
    let mut batch = Vec::with_capacity(depth);
    let mut notices = Vec::new();
    let mut next = range.start;
    while next < range.end || !sent.is_empty() {
        while next < range.end && sent.len() < depth {
            batch.push(load::command(client, SessionId::NONE, load::publish(queue, make(next))));
            sent.push_back(Instant::now());
            next += 1;
        }
        client.send_all(batch.drain(..)).expect("the node runs");
        client.receive(&mut notices, Some(load::PATIENCE)).expect("the node runs");
        for (_, notice) in notices.drain(..) {
            assert!(matches!(notice, Notice::Reply(Ok(Outcome::Published { .. }))), "{notice:?}");
            let began: Instant = sent.pop_front().expect("sent before");
            times.saturating_record(began.elapsed().as_nanos() as u64);
        }
    }
    times.value_at_quantile(0.999) as f64 / 1e3
}

/// Acks every second of the messages that wait and nacks the others with a delay.
fn halve(client: &Client, count: u64, base: u64) {
    let session = load::open_session(client);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let delay_us = base.saturating_sub(now.expect("after 1970").as_micros() as u64) + 10_000_000;
    client.send(session, None, load::consume(QUEUE, 1000)).expect("sent");
    let mut seen = 0;
    let (mut acks, mut nacks): (Vec<Receipt>, Vec<Receipt>) = (Vec::new(), Vec::new());
    let mut notices = Vec::new();
    let mut settled = 0;
    while settled < count {
        client.receive(&mut notices, Some(load::PATIENCE)).expect("the node runs");
        for (_, notice) in notices.drain(..) {
            match notice {
                Notice::Delivery(parts) => {
                    seen += 1;
                    if seen % 2 == 0 { &mut acks } else { &mut nacks }.push(parts.0.receipt);
                }
                Notice::Reply(Ok(Outcome::Settled(n))) => settled += u64::from(n),
                Notice::Reply(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        for (list, verdict) in [(&mut acks, Verdict::Ack), (&mut nacks, Verdict::Nack { delay_us })]
        {
            if !list.is_empty() {
                let receipts = std::mem::take(list).into_boxed_slice();
                client.send(session, None, Op::SettleMany(receipts, verdict)).expect("sent");
            }
        }
    }
    load::call(client, session, Op::CloseSession { lost: false });
}

fn drain(store: &Path, kind: &str, count: u64) -> Value {
    let started = Instant::now();
    let node = Node::open(store, options()).expect("reopens");
    let open_s = started.elapsed().as_secs_f64();
    let client = node.client();
    let sample = SAMPLE.min(count / 3);
    let expected = if kind == "halved" { sample + (count - sample).div_ceil(2) } else { count };
    if matches!(kind, "delayed" | "halved") {
        wait_until_ready(&client);
    }
    let session = load::open_session(&client);
    let started = Instant::now();
    client.send(session, None, load::consume(QUEUE, 4096)).expect("sent");
    let mut seen = vec![false; count as usize];
    let (mut drained, mut settled) = (0u64, 0u64);
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut notices = Vec::new();
    while settled < expected {
        client.receive(&mut notices, Some(load::PATIENCE)).expect("the node runs");
        for (_, notice) in notices.drain(..) {
            match notice {
                Notice::Delivery(parts) => {
                    receipts.push(parts.0.receipt);
                    let received = leasehold_node::Received::from(parts);
                    let body = received.message().expect("a message").body;
                    let i = u64::from_le_bytes(body[..8].try_into().expect("eight bytes"));
                    assert!(!std::mem::replace(&mut seen[i as usize], true), "{i} came twice");
                    drained += 1;
                }
                Notice::Reply(Ok(Outcome::Settled(n))) => settled += u64::from(n),
                Notice::Reply(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        if !receipts.is_empty() {
            let all = std::mem::take(&mut receipts).into_boxed_slice();
            client.send(session, None, Op::SettleMany(all, Verdict::Ack)).expect("sent");
        }
    }
    let rate = drained as f64 / started.elapsed().as_secs_f64();
    assert_eq!(drained, expected, "every message that was not acked is there");
    // The ledger of what was seen is the benchmark's own.
    let at_most = machine::memory_mib().1 - count as f64 / f64::from(1 << 20);
    let result = json!({
        "open_s": open_s, "rate": rate, "drained": drained,
        "memory_mib": at_most,
    });
    std::mem::forget((node, client));
    result
}

/// Waits until no message is delayed any more.
fn wait_until_ready(client: &Client) {
    loop {
        let op = Op::InspectQueue(load::name(QUEUE));
        let Outcome::QueueView(view) = load::call(client, SessionId::NONE, op) else {
            panic!("a view of the queue was expected")
        };
        if view.delayed == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
