//! (d) Many of everything: memory and time per operation.

use std::path::Path;
use std::time::Instant;

use leasehold_core::{Acquire, Mode, Op, Outcome, SessionId, Tenure, Wait, command::Wants};
use leasehold_node::{Client, Durability, Node, Notice, Options};

use crate::figures::Figures;
use crate::{load, machine};

/// Locks held, waiters on one lock, sessions open.
pub fn run(directory: &Path, figures: &mut Figures) {
    let options = Options { durability: Durability::None, ..Options::default() };
    let node = Node::open(directory.join("many"), options).expect("opens");
    let client = node.client();
    locks(&client, figures, 100_000);
    waiters(&client, figures, 10_000);
    sessions(&client, figures, 1_000_000);
    node.close().expect("closes");
}

/// Sends commands made by `make` and waits for all answers; µs and bytes of memory per command.
fn each(
    client: &Client,
    count: usize,
    mut make: impl FnMut(usize) -> (SessionId, Op),
    mut take: impl FnMut(usize, Outcome),
) -> (f64, f64) {
    let (memory, started) = (machine::memory_mib().0, Instant::now());
    let mut notices = Vec::new();
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        let upto = count.min(answered + 2048);
        let batch = (sent..upto).map(|i| {
            let (session, op) = make(i);
            load::command(client, session, op)
        });
        client.send_all(batch.collect::<Vec<_>>()).expect("the node runs");
        sent = sent.max(upto);
        client.receive(&mut notices, Some(load::PATIENCE)).expect("the node runs");
        for (_, notice) in notices.drain(..) {
            let Notice::Reply(answer) = notice else { continue };
            take(answered, answer.expect("the command is good"));
            answered += 1;
        }
    }
    let us = started.elapsed().as_secs_f64() * 1e6 / count as f64;
    (us, (machine::memory_mib().0 - memory) * f64::from(1 << 20) / count as f64)
}

fn locks(client: &Client, figures: &mut Figures, count: usize) {
    let session = load::open_session(client);
    let names: Vec<_> = (0..count).map(|i| load::name(&format!("shop/stock/{i}"))).collect();
    let mut tokens = vec![leasehold_core::Token(0); count];
    let acquire = |i: usize| (session, load::acquire(names[i].clone(), 1));
    let (us, bytes) = each(client, count, acquire, |i, outcome| {
        if let Outcome::Granted { token, .. } = outcome {
            tokens[i] = token;
        }
    });
    figures.plain(format!("{count} locks held: acquire"), "µs", vec![us]);
    figures.plain(format!("{count} locks held: memory each, name included"), "B", vec![bytes]);
    let renew = |i: usize| {
        let hold = leasehold_core::HoldRef { name: names[i].clone(), token: tokens[i], hold: 1 };
        (session, Op::Renew { hold, ttl_us: None })
    };
    let (us, _) = each(client, count, renew, |_, _| {});
    figures.plain(format!("{count} locks held: renew"), "µs", vec![us]);
    let release = |i: usize| (session, load::release(names[i].clone(), tokens[i], 1));
    let (us, _) = each(client, count, release, |_, _| {});
    figures.plain(format!("{count} locks held: release"), "µs", vec![us]);
}

fn waiters(client: &Client, figures: &mut Figures, count: usize) {
    let session = load::open_session(client);
    let name = load::name("hot");
    let ask = |hold: usize| {
        Op::Acquire(Box::new(Acquire {
            wants: Wants::One(name.clone(), Mode::Exclusive),
            hold: hold as u64,
            reentrant: false,
            tenure: Tenure { ttl_us: Some(60_000_000), session: false },
            wait: Wait::Forever,
            lock_delay_us: 0,
            label: None,
        }))
    };
    let memory = machine::memory_mib().0;
    let first = load::call(client, session, ask(0));
    let Outcome::Granted { token, .. } = first else { panic!("the lock is free") };
    let started = Instant::now();
    let batch = (1..=count).map(|i| load::command(client, session, ask(i)));
    client.send_all(batch.collect::<Vec<_>>()).expect("the node runs");
    load::call(client, session, Op::InspectLock(name.clone()));
    let queued = started.elapsed().as_secs_f64() * 1e6 / count as f64;
    let bytes = (machine::memory_mib().0 - memory) * f64::from(1 << 20) / count as f64;
    let started = Instant::now();
    client.send(session, None, load::release(name.clone(), token, 0)).expect("the node runs");
    let (mut handed, mut released, mut hold) = (0, 0, 1);
    load::take_until(client, |_, notice| {
        if let Notice::Reply(Ok(Outcome::Granted { token, .. })) = notice {
            handed += 1;
            let op = load::release(name.clone(), token, hold);
            client.send(session, None, op).expect("the node runs");
            hold += 1;
        }
        released += usize::from(matches!(notice, Notice::Reply(Ok(Outcome::Released { .. }))));
        handed == count && released == count + 1
    });
    let each = started.elapsed().as_secs_f64() * 1e6 / count as f64;
    figures.plain(format!("{count} waiters on one lock: to queue one"), "µs", vec![queued]);
    figures.plain(format!("{count} waiters on one lock: memory each"), "B", vec![bytes]);
    figures.plain(
        format!("{count} waiters on one lock: one handoff, wake-ups included"),
        "µs",
        vec![each],
    );
    load::call(client, session, Op::CloseSession { lost: false });
}

fn sessions(client: &Client, figures: &mut Figures, count: usize) {
    let mut ids = Vec::with_capacity(count);
    let open = |_| {
        let op = Op::OpenSession { ttl_us: Some(3_600_000_000), resume: None, label: None };
        (SessionId::NONE, op)
    };
    let (us, bytes) = each(client, count, open, |_, outcome| {
        if let Outcome::Session { id, .. } = outcome {
            ids.push(id);
        }
    });
    figures.plain(format!("{count} sessions: open"), "µs", vec![us]);
    figures.plain(format!("{count} sessions: memory each"), "B", vec![bytes]);
    let (us, _) = each(client, count, |i| (ids[i], Op::KeepAlive), |_, _| {});
    figures.plain(format!("{count} sessions: keep alive"), "µs", vec![us]);
    let close = |i: usize| (ids[i], Op::CloseSession { lost: false });
    let (us, _) = each(client, count, close, |_, _| {});
    figures.plain(format!("{count} sessions: close"), "µs", vec![us]);
}
