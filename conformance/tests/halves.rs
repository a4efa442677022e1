//! Engines with one half only: what is there behaves, and what is not there refuses.

mod modest;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use leasehold_api::engine::{
    Binding, Commit, Consume, Delivered, Engine, ExchangeConfig, List, Listed, LockEngine,
    OpenSession, Peeked, Publish, Published, QueueConfig, QueueEngine, QueueView, Receipt, Receive,
    SessionRef, Verdict,
};
use leasehold_api::{Agreement, Atomicity, Guarantees, Queues, Result};
use leasehold_conformance::{Target, judge_engine};
use modest::Modest;

/// Queues alone, as a broker has them: a connection is a session, and nobody opens one.
struct QueuesAlone {
    queues: Arc<dyn QueueEngine>,
    session: SessionRef,
}

const NO_LOCKS: Guarantees = Guarantees {
    queues: Queues::Leased,
    routing: Guarantees::EVERYTHING.routing,
    priorities: Guarantees::EVERYTHING.priorities,
    delays: Guarantees::EVERYTHING.delays,
    expiry: Guarantees::EVERYTHING.expiry,
    dead_letters: Guarantees::EVERYTHING.dead_letters,
    deduplication: Guarantees::EVERYTHING.deduplication,
    key_order: Guarantees::EVERYTHING.key_order,
    bounds: Guarantees::EVERYTHING.bounds,
    consumers: Guarantees::EVERYTHING.consumers,
    sharing: Guarantees::EVERYTHING.sharing,
    management: Guarantees::EVERYTHING.management,
    ..Guarantees::NOTHING
};

const NO_QUEUES: Guarantees = Guarantees {
    agreement: Agreement::One,
    atomicity: Atomicity::Single,
    queues: Queues::No,
    routing: Guarantees::NOTHING.routing,
    priorities: Guarantees::NOTHING.priorities,
    delays: Guarantees::NOTHING.delays,
    expiry: Guarantees::NOTHING.expiry,
    dead_letters: Guarantees::NOTHING.dead_letters,
    deduplication: Guarantees::NOTHING.deduplication,
    key_order: Guarantees::NOTHING.key_order,
    bounds: Guarantees::NOTHING.bounds,
    consumers: Guarantees::NOTHING.consumers,
    sharing: Guarantees::NOTHING.sharing,
    management: Guarantees::NOTHING.management,
    ..Guarantees::EVERYTHING
};

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl QueueEngine for QueuesAlone {
            fn guarantees(&self) -> Guarantees {
                NO_LOCKS
            }

            $(async fn $name(&self, $($argument: $type),*) -> Result<$result> {
                self.queues.$name($($argument),*).await
            })*

            async fn consume(
                &self,
                ask: &Consume,
            ) -> Result<BoxStream<'static, Result<Delivered>>> {
                assert_eq!(ask.session, SessionRef::NONE);
                self.queues.consume(&Consume { session: self.session.clone(), ..ask.clone() }).await
            }

            async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>> {
                assert_eq!(ask.session, SessionRef::NONE);
                self.queues.receive(&Receive { session: self.session.clone(), ..ask.clone() }).await
            }

            async fn commit(&self, _: &Commit) -> Result<Vec<u64>> {
                Err(leasehold_api::Error::unsupported("this engine", "commit"))
            }
        }
    };
}

forward! {
    declare_queue(name: &str, config: &QueueConfig) -> bool;
    delete_queue(name: &str, if_unused: bool, if_empty: bool) -> u64;
    purge(name: &str) -> u64;
    pause(name: &str, paused: bool) -> ();
    inspect_queue(name: &str) -> QueueView;
    list_queues(ask: &List) -> Listed<QueueView>;
    declare_exchange(name: &str, config: &ExchangeConfig) -> ();
    delete_exchange(name: &str, if_unused: bool) -> ();
    bind(binding: &Binding) -> ();
    unbind(binding: &Binding) -> ();
    publish(messages: Vec<Publish>) -> Vec<Result<Published>>;
    settle(receipts: &[Receipt], verdict: Verdict) -> u32;
    extend(receipt: &Receipt, lease: Duration) -> ();
    peek(name: &str, max: u32) -> Vec<Peeked>;
    redrive(from: &str, to: Option<&str>, max: u32) -> u32;
}

async fn sound() -> Engine {
    leasehold::memory().await.expect("it opens").engine().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_alone() {
    let Engine { url, locks, queues, checks } = sound().await;
    let (locks, queues) = (locks.expect("it has locks"), queues.expect("it has queues"));
    let connect = move || {
        let (url, locks, queues) = (url.clone(), locks.clone(), queues.clone());
        let checks = checks.clone();
        async move {
            let session = locks.open_session(&OpenSession::default()).await?.session;
            let queues: Arc<dyn QueueEngine> = Arc::new(QueuesAlone { queues, session });
            Ok(Engine { url, locks: None, queues: Some(queues), checks })
        }
    };
    judge_engine(Target::engine(connect)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_alone() {
    let sound = sound().await;
    let locks = sound.locks.clone().expect("it has locks");
    let locks: Arc<dyn LockEngine> = Arc::new(Modest { locks, guarantees: NO_QUEUES });
    let engine = Engine { locks: Some(locks), queues: None, ..sound };
    judge_engine(Target::engine(move || std::future::ready(Ok(engine.clone())))).await;
}
