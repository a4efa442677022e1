//! (a) CPU per operation: one shard, one processor, durability `none`.
//!
//! Client and shard share the processor, so the figure has everything in it: making the command,
//! the inbox, the rules, the journal record and its write, the mailbox.

use std::path::Path;

use leasehold_core::message::Message;
use leasehold_core::{Op, Outcome, QueueConfig, Receipt, Verdict};
use leasehold_node::{Client, Durability, Node, Notice, Options};

use crate::figures::{Figure, Figures};
use crate::load;
use crate::machine::cpu_time;

const OUTSTANDING: usize = 512;

/// Measures both kinds of operation, `rounds` times `count` each.
pub fn run(directory: &Path, figures: &mut Figures, rounds: usize, count: usize) {
    let options = Options { durability: Durability::None, ..Options::default() };
    let node = Node::open(directory.join("speed"), options).expect("a new directory opens");
    let client = node.client();
    let mut locks = Vec::new();
    let mut messages = Vec::new();
    let mut batched = Vec::new();
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    load::declare(&client, "speed", QueueConfig::default());
    for _ in 0..rounds {
        let (cpu, rate) = measure(count, || lock_pairs(&client, count));
        locks.push(cpu);
        rates[0].push(rate);
        let (cpu, rate) = measure(count, || message_cycles(&client, count, false));
        messages.push(cpu);
        rates[1].push(rate);
        let (cpu, rate) = measure(count, || message_cycles(&client, count, true));
        batched.push(cpu);
        rates[2].push(rate);
    }
    let cpu = "µs CPU";
    let goal = |name: &str, values, goal| Figure {
        name: name.into(),
        unit: cpu,
        values,
        goal,
        limit: None,
    };
    figures.add(goal("lock + unlock", locks, "≤ 1"));
    figures.add(goal("publish + deliver + ack, 16 B", messages, "≤ 0.5"));
    figures.add(goal("the same, acks sent in batches", batched, ""));
    let [a, b, c] = rates;
    figures.plain("lock + unlock, rate", "pairs/s", a);
    figures.plain("publish + deliver + ack, 16 B, rate", "msg/s", b);
    figures.plain("the same, acks sent in batches, rate", "msg/s", c);
    node.close().expect("closes");
}

fn measure(count: usize, work: impl FnOnce()) -> (f64, f64) {
    let (cpu, wall) = (cpu_time(), std::time::Instant::now());
    work();
    let cpu = (cpu_time() - cpu).as_secs_f64();
    (cpu * 1e6 / count as f64, count as f64 / wall.elapsed().as_secs_f64())
}

/// Takes and releases `count` different locks, up to `OUTSTANDING` of them at a time.
pub fn lock_pairs(client: &Client, count: usize) {
    let session = load::open_session(client);
    let names: Vec<_> = (0..OUTSTANDING).map(|i| load::name(&format!("stock/{i}"))).collect();
    let mut begun = 0;
    let mut ended = 0;
    let mut batch = Vec::with_capacity(OUTSTANDING);
    let mut held = std::collections::VecDeque::with_capacity(OUTSTANDING);
    while begun < OUTSTANDING.min(count) {
        held.push_back(begun);
        batch.push(load::command(client, session, load::acquire(names[begun].clone(), 1)));
        begun += 1;
    }
    client.send_all(batch.drain(..)).expect("the node runs");
    let mut notices = Vec::new();
    while ended < count {
        client.receive(&mut notices, Some(load::PATIENCE)).expect("the node runs");
        for (_, notice) in notices.drain(..) {
            // Answers come in the order of commands, so the queue of what was asked matches them.
            match notice {
                Notice::Reply(Ok(Outcome::Granted { token, .. })) => {
                    let lock = held.pop_front().expect("asked for");
                    held.push_back(lock);
                    let op = load::release(names[lock].clone(), token, 1);
                    batch.push(load::command(client, session, op));
                }
                Notice::Reply(Ok(Outcome::Released { .. })) => {
                    ended += 1;
                    let lock = held.pop_front().expect("asked for");
                    if begun < count {
                        begun += 1;
                        held.push_back(lock);
                        let op = load::acquire(names[lock].clone(), 1);
                        batch.push(load::command(client, session, op));
                    }
                }
                other => panic!("a grant or a release was expected, not {other:?}"),
            }
        }
        client.send_all(batch.drain(..)).expect("the node runs");
    }
}

/// Publishes `count` messages of 16 bytes, receives and acknowledges each.
pub fn message_cycles(client: &Client, count: usize, ack_batches: bool) {
    let session = load::open_session(client);
    let queue = load::declare(client, "speed", QueueConfig::default());
    let consumer = client.send(session, None, load::consume("speed", 1024)).expect("sent");
    let (mut published, mut confirmed, mut acked) = (0, 0, 0);
    let mut batch = Vec::with_capacity(2 * OUTSTANDING);
    let mut receipts: Vec<Receipt> = Vec::with_capacity(OUTSTANDING);
    let mut notices = Vec::new();
    while acked < count {
        while published < count && published < confirmed + OUTSTANDING {
            let message = Message::new(vec![7; 16]);
            batch.push(load::command(client, session, load::publish(queue, message)));
            published += 1;
        }
        client.send_all(batch.drain(..)).expect("the node runs");
        client.receive(&mut notices, Some(load::PATIENCE)).expect("the node runs");
        for (_, notice) in notices.drain(..) {
            match notice {
                Notice::Delivery(parts) => {
                    let receipt = parts.0.receipt;
                    if ack_batches {
                        receipts.push(receipt);
                    } else {
                        let op = Op::Settle(receipt, Verdict::Ack);
                        batch.push(load::command(client, session, op));
                    }
                }
                Notice::Reply(Ok(Outcome::Published { .. })) => confirmed += 1,
                Notice::Reply(Ok(Outcome::Settled(n))) => acked += n as usize,
                Notice::Reply(Ok(Outcome::Consuming(_))) => {}
                other => panic!("a confirm, a message or an ack was expected, not {other:?}"),
            }
        }
        if !receipts.is_empty() {
            let all = std::mem::take(&mut receipts).into_boxed_slice();
            batch.push(load::command(client, session, Op::SettleMany(all, Verdict::Ack)));
        }
    }
    let _ = consumer;
    load::call(client, session, Op::CloseSession { lost: false });
}
