//! Loads of locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::Barrier;
use tokio::time::Instant;

use super::Shown;
use super::requests;
use super::ways::{Client, Way};

/// Longer than anybody holds a lock here.
const TTL: Duration = Duration::from_secs(10);

/// Clients of one process, each with a lock of its own.
pub async fn alone(way: Way, url: &str, name: &str, clients: usize, time: Duration) -> Shown {
    let process = way.process(url).await;
    let start = Arc::new(Barrier::new(clients));
    let mut running = Vec::new();
    for place in 0..clients {
        let (client, lock) = (process.client().await, format!("{name}-{place}"));
        running.push(tokio::spawn(pairs(client, lock, start.clone(), time)));
    }
    let mut all = histogram();
    let mut rate = 0.0;
    for task in running {
        let (times, per_second) = task.await.expect("it does not panic");
        all.add(times).expect("the same bounds");
        rate += per_second;
    }
    let us = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
    vec![("pairs", "/s", rate), ("acquire p50", "µs", us(0.5)), ("acquire p99", "µs", us(0.99))]
}

async fn pairs(
    mut client: Box<dyn Client>,
    lock: String,
    start: Arc<Barrier>,
    time: Duration,
) -> (Histogram<u64>, f64) {
    let mut times = histogram();
    // The first makes connections and what else is needed.
    client.acquire(&lock, TTL).await;
    client.release().await;
    start.wait().await;
    let began = Instant::now();
    while began.elapsed() < time {
        let start = Instant::now();
        client.acquire(&lock, TTL).await;
        times.saturating_record(start.elapsed().as_nanos() as u64);
        client.release().await;
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    (times, rate)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("good bounds")
}

/// Processes that want one lock. A handoff is a grant to another one than had it last.
pub async fn crowd(way: Way, url: &str, name: &str, clients: usize, time: Duration) -> Shown {
    let start = Arc::new(Barrier::new(clients));
    let last = Arc::new(AtomicUsize::new(usize::MAX));
    let mut running = Vec::new();
    let asked_before = requests::so_far(way, url).await;
    for place in 0..clients {
        let process = way.process(url).await;
        let (start, last, name) = (start.clone(), last.clone(), name.to_owned());
        running.push(tokio::spawn(async move {
            let mut client = process.client().await;
            let own = format!("{name}-{place}");
            client.acquire(&own, TTL).await;
            client.release().await;
            start.wait().await;
            let (began, mut grants, mut handoffs) = (Instant::now(), 0u64, 0u64);
            loop {
                client.acquire(&name, TTL).await;
                let over = began.elapsed() >= time;
                if !over {
                    grants += 1;
                    let before = last.swap(place, Ordering::Relaxed);
                    handoffs += u64::from(before != place);
                }
                client.release().await;
                if over {
                    return (grants, handoffs);
                }
            }
        }));
    }
    let (mut grants, mut handoffs) = (Vec::new(), 0);
    for task in running {
        let (own, handed) = task.await.expect("it does not panic");
        grants.push(own);
        handoffs += handed;
    }
    let asked = match (asked_before, requests::so_far(way, url).await) {
        (Some(before), Some(after)) => (after - before) as f64 / handoffs.max(1) as f64,
        _ => f64::NAN,
    };
    let seconds = time.as_secs_f64();
    let (most, least) = (grants.iter().max(), grants.iter().min());
    let count = |grants: Option<&u64>| grants.copied().unwrap_or(0) as f64;
    vec![
        ("handoffs", "/s", handoffs as f64 / seconds),
        ("grants", "/s", grants.iter().sum::<u64>() as f64 / seconds),
        ("most ÷ least", "×", count(most) / count(least).max(1.0)),
        ("requests a handoff", "requests", asked),
    ]
}
