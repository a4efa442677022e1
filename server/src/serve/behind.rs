//! What is behind the doors: the embedded engine, or another one that they are a gateway to.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use leasehold::Engine;
use leasehold_http_door::{Counters, NoCounters, ServerInfo};
use leasehold_native::NativeEngine;
use leasehold_node::{Durability, Options};
use leasehold_resp_door::{Listening, RespConfig, RespLimits};
use leasehold_users::Users;

use super::certificate::Certificate;
use super::figures::Figures;
use super::secret::{self, Secret};
use super::whole;
use crate::cli::Global;
use crate::connect;
use crate::failure::Failure;
use crate::settings::{Given, Settings};

/// What is behind the doors.
pub enum Behind {
    /// The embedded engine, and where its RESP door listens.
    Embedded(NativeEngine, Option<SocketAddr>),
    /// Another engine.
    Other(Engine),
}

impl Behind {
    /// Opens the embedded engine. The port of the RESP door is taken before the journal is read.
    pub fn embedded(
        settings: &Settings,
        users: &Arc<Users>,
        tls: Option<&Certificate>,
    ) -> Result<Self> {
        let port = listen_resp(settings, users, tls)?;
        let asked = || format!("open {}", settings.data_dir.display());
        let engine = NativeEngine::open(&settings.data_dir, options(settings));
        let engine = engine.with_context(asked)?;
        let address = port.as_ref().map(Listening::address);
        if let Some(port) = port {
            engine.lodge(port.door(&own_secret(settings)?)).context("open the RESP door")?;
        }
        Ok(Self::Embedded(engine, address))
    }

    /// Opens another engine. It has to be there: a gateway that starts and refuses everything
    /// would look well to whoever started it.
    pub async fn other(url: &str, given: &Given, global: &Global) -> Result<Self> {
        if given.text("resp.listen").is_some_and(|listen| listen != "off") {
            let origin = given.origin("resp.listen");
            let wrong = format!(
                "the RESP door lives in the embedded engine, and a gateway has none; take \
                 {origin} back, or say `off`"
            );
            return Err(Failure::usage(wrong).into());
        }
        let global = Global { on: url.to_owned(), ..global.clone() };
        let handle = connect::open(&global, None).await;
        Ok(Self::Other(handle.context("be a gateway")?.engine().clone()))
    }

    /// The engine as its users take it.
    pub fn engine(&self) -> Engine {
        match self {
            Self::Embedded(engine, _) => engine.engine(),
            Self::Other(engine) => engine.clone(),
        }
    }

    /// Where the RESP door listens.
    pub fn resp(&self) -> Option<SocketAddr> {
        match self {
            Self::Embedded(_, resp) => *resp,
            Self::Other(_) => None,
        }
    }

    /// The URL of the engine that this is a gateway to, fit to be shown.
    pub fn gateway_to(&self) -> Option<String> {
        match self {
            Self::Embedded(..) => None,
            Self::Other(engine) => Some(connect::without_user(&engine.url)),
        }
    }

    pub fn counters(&self) -> Arc<dyn Counters> {
        match self {
            Self::Embedded(engine, _) => Arc::new(Figures::new(engine.metrics())),
            Self::Other(_) => Arc::new(NoCounters),
        }
    }

    /// What seals sessions and receipts.
    pub fn secret(&self, settings: &Settings) -> Result<Secret> {
        match self {
            Self::Other(_) if settings.http_secret.is_none() => secret::random(),
            _ => own_secret(settings),
        }
    }

    /// What the status page says.
    pub fn info(&self, settings: &Settings) -> ServerInfo {
        let (engine, durability) = match self.gateway_to() {
            Some(url) => (format!("gateway to {url}"), "as its engine"),
            None => {
                let engine = format!("embedded, {}", settings.data_dir.display());
                (engine, durability(settings.durability))
            }
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        ServerInfo { version, durability: durability.to_owned(), engine }
    }

    /// Where the data is, for the greeting.
    pub fn place(&self, settings: &Settings) -> String {
        self.gateway_to().unwrap_or_else(|| whole(&settings.data_dir))
    }

    /// Lets what is under way end.
    pub async fn close(self) -> Result<()> {
        match self {
            Self::Embedded(engine, _) => engine.close().await.context("close the data directory"),
            Self::Other(_) => Ok(()),
        }
    }
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Always => "always",
        Durability::Interval(_) => "interval",
        Durability::None => "none",
    }
}

/// The secret in a file: the one that is named, or the one beside the data.
fn own_secret(settings: &Settings) -> Result<Secret> {
    match &settings.http_secret {
        Some(path) => secret::load(path),
        None => secret::load(&settings.data_dir.join(secret::NAME)),
    }
}

/// Takes the port of the RESP door.
fn listen_resp(
    settings: &Settings,
    users: &Arc<Users>,
    tls: Option<&Certificate>,
) -> Result<Option<Listening>> {
    let Some(address) = settings.resp_listen.0 else { return Ok(None) };
    let mut limits = RespLimits { clients: settings.resp_clients as usize, ..Default::default() };
    limits.scripts.time = settings.resp_script_time;
    let runtime = tokio::runtime::Handle::current();
    let tls = tls.map(|tls| Arc::new(tls.config()));
    let config = RespConfig { users: users.clone(), runtime, tls, limits };
    let listening = Listening::on(address, config).map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "stop the other program, choose another port with --resp-listen, or say \
                 --resp-listen off"
            }
            _ => "choose an address of this machine with --resp-listen, or say --resp-listen off",
        };
        Failure::usage(format!("{error}; {advice}"))
    });
    listening.map(Some).with_context(|| format!("listen on {address} for RESP"))
}

/// What the node is opened with.
fn options(settings: &Settings) -> Options {
    let mut options = Options {
        durability: settings.durability,
        tail_cache_bytes: settings.memory_tail.size(),
        read_cache_bytes: settings.memory_read.size(),
        ..Options::default()
    };
    let limits = &mut options.limits;
    limits.segment_bytes = settings.journal_segment.0;
    limits.resident_entries = settings.memory_entries as usize;
    let grace = settings.restart_grace.as_micros();
    limits.restart_grace_us = u64::try_from(grace).unwrap_or(u64::MAX);
    options
}
