//! The client: one channel over all members, and the calls that are used.
//!
//! A channel connects again by itself. Streams do not: whoever has one begins anew.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use leasehold_api::{Error, ErrorKind, Result};

use crate::config::{Config, Files};
use crate::rpc;

/// The largest answer that is read: a line of ten thousand, a page of registers.
const ANSWER_BYTES: usize = 128 << 20;
/// Pings on a connection that has something open, and how long their answer may take. etcd hangs
/// up on clients that ping more often than every 5 s (`--grpc-keepalive-min-time`).
const PINGS: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(4));

type Called<T> = std::result::Result<T, Status>;

/// Watches, until this is dropped.
pub(crate) struct Watching {
    said: Streaming<rpc::Watched>,
    _open: oneshot::Sender<()>,
}

impl Watching {
    /// What is said next; `None`: etcd hung up.
    pub async fn next(&mut self) -> Called<Option<rpc::Watched>> {
        self.said.message().await
    }
}

/// A cluster's client. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    user: Option<(String, String)>,
    /// What etcd gave for the password.
    token: Arc<Mutex<Option<MetadataValue<Ascii>>>>,
}

impl Client {
    /// Makes a client; it connects when it is first used.
    ///
    /// # Errors
    /// `Invalid` for a bad host or bad certificates.
    pub fn new(config: &Config, connect: Duration) -> Result<Self> {
        let invalid = |error: tonic::transport::Error| {
            let wrong = crate::error::chain(&error);
            Error::new(ErrorKind::Invalid, format!("the host or a certificate: {wrong}"))
        };
        let tls = config.tls.as_ref().map(tls).transpose()?;
        let mut endpoints = Vec::with_capacity(config.endpoints.len());
        for endpoint in &config.endpoints {
            let mut endpoint = Endpoint::from_shared(endpoint.clone())
                .map_err(invalid)?
                .connect_timeout(connect)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PINGS.0)
                .keep_alive_timeout(PINGS.1)
                .keep_alive_while_idle(false);
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone()).map_err(invalid)?;
            }
            endpoints.push(endpoint);
        }
        let channel = Channel::balance_list(endpoints.into_iter());
        Ok(Self { channel, user: config.user.clone(), token: Arc::default() })
    }

    fn token(&self) -> Option<MetadataValue<Ascii>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ready(&self) -> Called<Grpc<Channel>> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES);
        let away = |error| Status::unavailable(crate::error::chain(&error));
        grpc.ready().await.map_err(away)?;
        Ok(grpc)
    }

    fn request<Q>(&self, ask: Q, token: Option<MetadataValue<Ascii>>) -> Request<Q> {
        let mut request = Request::new(ask);
        // A member that lost the others refuses, and ends what waits there, instead of keeping it
        // in the dark.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = token {
            request.metadata_mut().insert("token", token);
        }
        request
    }

    /// Shows who we are, if etcd wants to know.
    async fn sign_in(&self) -> Called<()> {
        let Some((name, password)) = self.user.clone() else { return Ok(()) };
        let ask = self.request(rpc::Authenticate { name, password }, None);
        let path = PathAndQuery::from_static("/etcdserverpb.Auth/Authenticate");
        let codec = ProstCodec::default();
        let said = self.ready().await?.unary(ask, path, codec).await?;
        let rpc::Authenticated { token } = said.into_inner();
        let token = token.parse().map_err(|_| Status::internal("the token is no text"))?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    /// A token, asked for if there is none yet.
    async fn signed_in(&self) -> Called<Option<MetadataValue<Ascii>>> {
        if self.user.is_some() && self.token().is_none() {
            self.sign_in().await?;
        }
        Ok(self.token())
    }

    async fn unary<Q, A>(&self, path: &'static str, ask: Q) -> Called<A>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let token = self.signed_in().await?;
        let call = async |token| {
            let request = self.request(ask.clone(), token);
            let path = PathAndQuery::from_static(path);
            let said = self.ready().await?.unary(request, path, ProstCodec::default()).await?;
            Ok::<A, Status>(said.into_inner())
        };
        match call(token).await {
            Err(status) if self.user.is_some() && is_old(&status) => {
                self.sign_in().await?;
                call(self.token()).await
            }
            said => said,
        }
    }

    async fn stream<Q, A>(
        &self,
        path: &'static str,
        asks: impl stream::Stream<Item = Q> + Send + 'static,
    ) -> Called<Streaming<A>>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let token = self.signed_in().await?;
        let request = self.request(asks, token);
        let path = PathAndQuery::from_static(path);
        let said = self.ready().await?.streaming(request, path, ProstCodec::default()).await;
        said.map(tonic::Response::into_inner).inspect_err(|status| {
            if is_old(status) {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        })
    }

    /// Reads keys.
    pub async fn range(&self, ask: rpc::Range) -> Called<rpc::Read> {
        self.unary("/etcdserverpb.KV/Range", ask).await
    }

    /// Carries a transaction out.
    pub async fn txn(&self, ask: rpc::Txn) -> Called<rpc::TxnDone> {
        self.unary("/etcdserverpb.KV/Txn", ask).await
    }

    /// Grants a lease.
    pub async fn grant(&self, id: i64, ttl: i64) -> Called<rpc::Lease> {
        self.unary("/etcdserverpb.Lease/LeaseGrant", rpc::LeaseGrant { ttl, id }).await
    }

    /// Ends a lease and its keys.
    pub async fn revoke(&self, id: i64) -> Called<rpc::Done> {
        self.unary("/etcdserverpb.Lease/LeaseRevoke", rpc::LeaseId { id }).await
    }

    /// Time left of a lease.
    pub async fn left(&self, id: i64) -> Called<rpc::Lease> {
        self.unary("/etcdserverpb.Lease/LeaseTimeToLive", rpc::LeaseId { id }).await
    }

    /// Lets the time of a lease count anew.
    pub async fn keep_alive(&self, id: i64) -> Called<rpc::Lease> {
        let once = stream::iter([rpc::LeaseId { id }]);
        let mut said = self.stream("/etcdserverpb.Lease/LeaseKeepAlive", once).await?;
        said.message().await?.ok_or_else(|| Status::unavailable("it hung up"))
    }

    /// Begins watches.
    pub async fn watch(&self, watches: Vec<rpc::Watch>) -> Called<Watching> {
        let asks = watches.into_iter().map(|watch| rpc::WatchAsk { create: Some(watch) });
        // etcd ends a watch when what is asked ends. Dropping the answers alone would leave the
        // connection with a stream that is open one way.
        let (open, closed) = oneshot::channel::<()>();
        let end = stream::once(closed).filter_map(|_| std::future::ready(None));
        let asks = stream::iter(asks).chain(end);
        let said = self.stream("/etcdserverpb.Watch/Watch", asks).await?;
        Ok(Watching { said, _open: open })
    }

    /// How the member is that answers.
    pub async fn status(&self) -> Called<rpc::Status> {
        self.unary("/etcdserverpb.Maintenance/Status", rpc::Done {}).await
    }

    /// All alarms.
    pub async fn alarms(&self) -> Called<rpc::Alarms> {
        self.unary("/etcdserverpb.Maintenance/Alarm", rpc::Done {}).await
    }

    /// All members.
    pub async fn members(&self) -> Called<rpc::Members> {
        self.unary("/etcdserverpb.Cluster/MemberList", rpc::Done {}).await
    }
}

/// Whether a token ran out, was forgotten with the restart of a member, or is older than a change
/// of users or roles.
fn is_old(status: &Status) -> bool {
    let said = status.message();
    status.code() == Code::Unauthenticated || said.contains("revision of auth store is old")
}

fn tls(files: &Files) -> Result<ClientTlsConfig> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|error| {
            let wrong = format!("the file {} cannot be read: {error}", path.display());
            Error::new(ErrorKind::Invalid, wrong)
        })
    };
    let mut options = ClientTlsConfig::new();
    options = match &files.ca {
        Some(ca) => options.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => options.with_webpki_roots(),
    };
    if let Some((cert, key)) = &files.identity {
        options = options.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(options)
}
