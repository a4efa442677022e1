//! Callers who go: whenever a future is dropped, nothing stays behind.
//!
//! A proxy makes everything slow, so that the drops hit every stage: connecting, asking, waiting,
//! the answer under way, the answer there.

use std::time::Duration;

use futures_util::StreamExt;
use leasehold_api::engine::{Acquire, Consume, Mode, OpenSession, Receive, SessionRef, Want};
use leasehold_api::{Leasehold, QueueConfig, Verdict, Wait};

use crate::proxy::Proxy;
use crate::server::{Server, engine, handle, locks, queues, until};

const SLOW: Duration = Duration::from_millis(8);
/// Long enough for a new connection, a question and its answer through the slow proxy.
const STEPS: u32 = 50;

async fn slow() -> (Server, Proxy) {
    let server = Server::start().await;
    let proxy = Proxy::before(server.address).await;
    proxy.delay(SLOW);
    (server, proxy)
}

fn want(name: &str, wait: Wait, session: Option<SessionRef>) -> Acquire {
    Acquire {
        wants: vec![Want { name: name.into(), mode: Mode::Exclusive }],
        session,
        hold: 1,
        reentrant: false,
        // Longer than the test waits: what stays behind is found.
        ttl: Some(Duration::from_secs(600)),
        bound: false,
        wait,
        lock_delay: Duration::ZERO,
        label: None,
        request: None,
    }
}

async fn is_free(server: &Leasehold, name: &str) {
    until("the withdrawal", async || {
        let view = server.inspect(name).await?;
        Ok(view.holders.is_empty() && view.waiting == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_acquire_of_a_free_lock_leaves_nothing() {
    let (server, proxy) = slow().await;
    let (real, client) = (Leasehold::new(server.native()), locks(&engine(&proxy.url()).await));
    for step in 0..STEPS {
        let name = format!("free/{step}");
        let ask = want(&name, Wait::Forever, None);
        let time = Duration::from_millis(u64::from(step));
        let granted = tokio::time::timeout(time, client.acquire(&ask)).await;
        if granted.is_err() {
            is_free(&real, &name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_wait_leaves_nothing() {
    let (server, proxy) = slow().await;
    let (real, client) = (Leasehold::new(server.native()), locks(&engine(&proxy.url()).await));
    for step in 0..STEPS {
        let name = format!("held/{step}");
        let guard = real.lock(&*name).acquire().await.expect("it is free");
        let ask = want(&name, Wait::AtMost(Duration::from_secs(600)), None);
        let waiting = client.acquire(&ask);
        // It is released just when the caller goes, or a little before or after.
        let release = async {
            tokio::time::sleep(Duration::from_millis(u64::from(STEPS / 2))).await;
            guard.release().await
        };
        let time = Duration::from_millis(u64::from(step));
        let (granted, released) = tokio::join!(tokio::time::timeout(time, waiting), release);
        released.expect("it is held");
        assert!(granted.is_err() || step > STEPS / 2);
        if granted.is_err() {
            is_free(&real, &name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_acquire_leaves_nothing_when_answers_are_lost_too() {
    let (server, proxy) = slow().await;
    let (real, client) = (Leasehold::new(server.native()), locks(&engine(&proxy.url()).await));
    for step in 0..STEPS / 2 {
        let name = format!("lost/{step}");
        proxy.lose("/v1/locks/acquire", 1);
        let ask = want(&name, Wait::Forever, None);
        let time = Duration::from_millis(u64::from(4 * step));
        if tokio::time::timeout(time, client.acquire(&ask)).await.is_err() {
            is_free(&real, &name).await;
        }
    }
}

/// Leaving a re-entry is asked once only, so the one time must reach the server: not on the
/// connection that was hung up to withdraw the acquire, although its answer still came there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_entry_whose_answer_comes_after_hanging_up_is_left() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.address).await;
    let (real, client) = (Leasehold::new(server.native()), locks(&engine(&proxy.url()).await));
    for step in 0..5 {
        let name = format!("re-entry/{step}");
        let ask = Acquire { reentrant: true, ..want(&name, Wait::Forever, None) };
        proxy.keep("/v1/locks/acquire");
        tokio::select! {
            granted = client.acquire(&ask) => panic!("its answer was kept, but came: {granted:?}"),
            () = until("the answer", async || Ok(proxy.kept() == 1)) => {}
        }
        is_free(&real, &name).await;
    }
}

async fn opened(client: &leasehold_api::engine::Engine) -> SessionRef {
    let ask = OpenSession { ttl: Some(Duration::from_secs(600)), ..OpenSession::default() };
    locks(client).open_session(&ask).await.expect("it opens").session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_receive_gives_back() {
    let (server, proxy) = slow().await;
    let (real, client) = (Leasehold::new(server.native()), engine(&proxy.url()).await);
    let session = opened(&client).await;
    for step in 0..STEPS {
        let queue = real.queue(format!("receive/{step}"));
        queue.declare(&QueueConfig::default()).await.expect("it is declared");
        queue.publish_all(["1", "2", "3"]).await.expect("they are published");
        let ask = Receive {
            queue: queue.name().into(),
            session: session.clone(),
            max: 2,
            wait: Wait::AtMost(Duration::from_secs(600)),
            lease: None,
        };
        let client = queues(&client);
        let time = Duration::from_millis(u64::from(step));
        let mut kept = 0;
        if let Ok(came) = tokio::time::timeout(time, client.receive(&ask)).await {
            kept = came.expect("it is received").len() as u64;
        }
        until("the return", async || {
            let view = queue.inspect().await?;
            Ok((view.ready, view.in_flight) == (3 - kept, kept))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_consumer_gives_back_what_was_not_handed_out() {
    let (server, proxy) = slow().await;
    let (real, client) = (Leasehold::new(server.native()), engine(&proxy.url()).await);
    let session = opened(&client).await;
    for step in 0..STEPS {
        let queue = real.queue(format!("consume/{step}"));
        queue.declare(&QueueConfig::default()).await.expect("it is declared");
        queue.publish_all((0..20u8).map(|i| vec![i; 1000])).await.expect("they are published");
        let ask = Consume {
            queue: queue.name().into(),
            session: session.clone(),
            prefetch: 15,
            no_ack: false,
            exclusive: false,
            label: None,
        };
        let client = queues(&client);
        let mut kept = Vec::new();
        let taking = async {
            let mut stream = client.consume(&ask).await.expect("it begins");
            while let Some(one) = stream.next().await {
                kept.push(one.expect("it goes on").receipt);
                // Acknowledged ones make room, so more is always under way.
                if kept.len() % 2 == 0 {
                    let receipt = kept.pop().expect("there are two");
                    client.settle(&[receipt], Verdict::Ack).await.expect("it is ours");
                }
            }
        };
        drop(tokio::time::timeout(Duration::from_millis(u64::from(2 * step)), taking).await);
        let kept = kept.len() as u64;
        until("the return", async || {
            let view = queue.inspect().await?;
            let left = 20 - view.totals.acked;
            // The ack that was dropped may not have been carried out.
            let kept = view.in_flight == kept || view.in_flight == kept + 1;
            Ok(view.consumers == 0 && kept && view.ready + view.in_flight == left)
        })
        .await;
        queues(&server.native()).purge(queue.name()).await.expect("it is there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_dropped_with_its_runtime_busy_releases() {
    let (server, proxy) = slow().await;
    let a = handle(&proxy.url()).await;
    let real = Leasehold::new(server.native());
    let guard = a.lock("dropped").acquire().await.expect("it is free");
    drop(guard);
    is_free(&real, "dropped").await;
}
