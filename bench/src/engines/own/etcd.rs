//! etcd, by its own lock service: a lease, `Lock` with it, `Unlock`. The messages are written down
//! by hand, as in the engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::engines::ways::{Client, Process};

/// Grants a lease, of so many seconds.
#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrant {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Lease {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Lock {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
}

/// The key that is deleted to unlock.
#[derive(Clone, PartialEq, prost::Message)]
struct Locked {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unlock {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unlocked {}

/// One connection that all tasks share.
struct Locks(Channel);

struct Task {
    channel: Channel,
    lease: Option<(i64, Instant)>,
    key: Vec<u8>,
}

/// A process that locks.
pub async fn process(url: &str) -> Arc<dyn Process> {
    let endpoint = Endpoint::from_shared(url.replacen("etcd:", "http:", 1)).expect("a URL");
    let channel = endpoint.tcp_nodelay(true).connect().await.expect("it accepts");
    Arc::new(Locks(channel))
}

#[async_trait]
impl Process for Locks {
    async fn client(&self) -> Box<dyn Client> {
        Box::new(Task { channel: self.0.clone(), lease: None, key: Vec::new() })
    }
}

impl Task {
    async fn ask<Q, A>(&self, path: &'static str, ask: Q) -> A
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.expect("it is there");
        let path = PathAndQuery::from_static(path);
        let said = grpc.unary(Request::new(ask), path, ProstCodec::default()).await;
        said.expect("it answers").into_inner()
    }
}

#[async_trait]
impl Client for Task {
    async fn acquire(&mut self, lock: &str, ttl: Duration) {
        // A lease serves for many locks, as long as it lasts long enough for the next.
        let lease = match self.lease {
            Some((id, since)) if since.elapsed() < ttl / 2 => id,
            _ => {
                let ask = LeaseGrant { ttl: ttl.as_secs().cast_signed() };
                let lease: Lease = self.ask("/etcdserverpb.Lease/LeaseGrant", ask).await;
                self.lease = Some((lease.id, Instant::now()));
                lease.id
            }
        };
        let ask = Lock { name: format!("own/{lock}").into_bytes(), lease };
        let locked: Locked = self.ask("/v3lockpb.Lock/Lock", ask).await;
        self.key = locked.key;
    }

    async fn release(&mut self) {
        let key = std::mem::take(&mut self.key);
        let _: Unlocked = self.ask("/v3lockpb.Lock/Unlock", Unlock { key }).await;
    }
}
