//! `leasehold serve`: the embedded engine behind its doors.
//!
//! Everything that can be wrong with the settings is found before the data directory is touched.
//! The port is taken before the journal is opened, so that clients which come during a recovery
//! wait in the system's queue instead of being refused.

mod certificate;
mod descriptors;
mod figures;
mod greeting;
mod logs;
mod secret;
mod users;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use leasehold_http_door::{DoorConfig, HttpDoor, HttpLimits, ServerInfo};
use leasehold_native::NativeEngine;
use leasehold_node::{Durability, Options};
use leasehold_resp_door::{Listening, RespConfig, RespLimits};
use leasehold_users::Users;
use tokio::net::TcpListener;

pub use logs::quiet;
pub use secret::write_private;

use crate::failure::Failure;
use crate::settings::{Given, Settings};
use crate::signals::Signals;
use certificate::Tls;
use figures::Figures;
use greeting::Greeting;
use users::Keeper;

/// Serves until it is told to end.
pub async fn run(given: Given, json: bool) -> Result<ExitCode> {
    let began = Instant::now();
    let settings = Settings::resolve(&given.clone().with_file()?)?;
    logs::start(&settings)?;
    let mut keeper = Keeper::start(&given, &settings)?;
    let users = keeper.users();
    let (tls, resp_tls) = (http_tls(&settings)?, resp_tls(&settings)?);
    let listener = listen(&settings).await?;
    let http = listener.local_addr().context("find the port that was taken")?;
    let resp_port = listen_resp(&settings, &users, resp_tls.as_ref())?;

    let asked = || format!("open {}", settings.data_dir.display());
    let engine = NativeEngine::open(&settings.data_dir, options(&settings)).with_context(asked)?;
    let resp = resp_port.as_ref().map(Listening::address);
    let secret = secret::load(&settings.data_dir)?;
    if let Some(port) = resp_port {
        engine.lodge(port.door(&secret)).context("open the RESP door")?;
    }
    let warnings = warnings(&settings, [tls.as_ref(), resp_tls.as_ref()], users.is_open());
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let config = DoorConfig {
        secret,
        users,
        hosts: settings.http_hosts.0.clone(),
        limits: HttpLimits {
            body_bytes: settings.limits_body.size(),
            connections: room(&settings, resp_tls.is_some()),
            ..HttpLimits::default()
        },
        counters: Arc::new(Figures::new(engine.metrics())),
        info: ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            durability: durability(settings.durability).to_owned(),
            engine: format!("embedded, {}", settings.data_dir.display()),
            warnings,
        },
    };
    let mut signals = Signals::listen()?;
    let door = HttpDoor::new(engine.engine(), config);
    let secure = (tls.is_some(), resp_tls.is_some());
    let greeting = Greeting { settings: &settings, http, resp, secure, began };
    greeting.print(json)?;
    let tls = tls.map(|tls| tls.config);
    let at_terminal = std::io::stdin().is_terminal();
    let serving = leasehold_http_door::serve(listener, tls, door, async move {
        // Closing the terminal ends what runs in it; a service is told to read its users again.
        let signal = keeper.keep(&mut signals, at_terminal).await;
        tracing::info!(signal = signal.as_raw(), "told to end: letting requests finish");
        tokio::spawn(async move {
            signals.next().await;
            // Whoever asks twice does not want to wait; the journal is safe in any case.
            std::process::exit(crate::failure::REFUSED.into());
        });
    });
    let served = serving.await.context("serve HTTP");
    engine.close().await.context("close the data directory")?;
    served?;
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// Takes the port of the RESP door.
fn listen_resp(
    settings: &Settings,
    users: &Arc<Users>,
    tls: Option<&Tls>,
) -> Result<Option<Listening>> {
    let Some(address) = settings.resp_listen.0 else { return Ok(None) };
    let mut limits = RespLimits { clients: settings.resp_clients as usize, ..Default::default() };
    limits.scripts.time = settings.resp_script_time;
    let runtime = tokio::runtime::Handle::current();
    let tls = tls.map(|tls| Arc::new(tls.config.clone()));
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

/// Takes the port.
async fn listen(settings: &Settings) -> Result<TcpListener> {
    let address = settings.http_listen;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "stop the other program, or choose another port with --http-listen"
            }
            std::io::ErrorKind::PermissionDenied => {
                "choose a port from 1024 on with --http-listen, or let systemd grant this one"
            }
            _ => "choose an address of this machine with --http-listen",
        };
        Failure::usage(format!("{error}; {advice}"))
    });
    listener.with_context(|| format!("listen on {address}"))
}

/// Raises the limit on open files for all connections; how many the HTTP door may have.
fn room(settings: &Settings, resp_tls: bool) -> usize {
    // TLS takes a pair of sockets more for each client.
    let each = if resp_tls { 3 } else { 1 };
    let resp = settings.resp_listen.0.map_or(0, |_| settings.resp_clients.saturating_mul(each));
    descriptors::room_for(settings.limits_connections, resp) as usize
}

fn http_tls(settings: &Settings) -> Result<Option<Tls>> {
    let (chain, key) = (&settings.http_tls_cert, &settings.http_tls_key);
    tls(chain.as_deref(), key.as_deref(), "speak HTTPS", "http")
}

fn resp_tls(settings: &Settings) -> Result<Option<Tls>> {
    let (chain, key) = (&settings.resp_tls_cert, &settings.resp_tls_key);
    tls(chain.as_deref(), key.as_deref(), "speak TLS with RESP clients", "resp")
}

fn tls(chain: Option<&Path>, key: Option<&Path>, what: &str, door: &str) -> Result<Option<Tls>> {
    match (chain, key) {
        (Some(chain), Some(key)) => certificate::load(chain, key).map(Some),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::usage(format!(
            "{what}: there is a certificate and no key; give {door}.tls_key as well"
        ))
        .into()),
        (None, Some(_)) => Err(Failure::usage(format!(
            "{what}: there is a key and no certificate; give {door}.tls_cert as well"
        ))
        .into()),
    }
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

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Always => "always",
        Durability::Interval(_) => "interval",
        Durability::None => "none",
    }
}

/// What an operator should know.
fn warnings(settings: &Settings, tls: [Option<&Tls>; 2], open: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let [http_tls, resp_tls] = tls;
    let resp = settings.resp_listen.0;
    let resp_beyond = resp.is_some_and(|address| !address.ip().is_loopback());
    let http_beyond = !settings.http_listen.ip().is_loopback();
    if open && (http_beyond || resp_beyond) {
        warnings.push("there are no users: whoever reaches the port may do everything".to_owned());
    }
    if !open && http_beyond && http_tls.is_none() {
        warnings.push("passwords and tokens cross the network in the clear: no TLS".to_owned());
    }
    if !open && resp_beyond && resp_tls.is_none() {
        warnings.push("RESP passwords cross the network in the clear: that door has no TLS".into());
    }
    let ends = |tls: &Tls| tls.warning.clone();
    warnings.extend(http_tls.and_then(ends));
    let resp_ends = resp_tls.and_then(ends);
    warnings.extend(resp_ends.map(|warning| format!("RESP: {warning}")));
    match settings.durability {
        Durability::Always => {}
        Durability::Interval(micros) => {
            let ms = Duration::from_micros(micros).as_millis();
            warnings.push(format!("power loss may cost the last {ms} ms of confirmed changes"));
        }
        Durability::None => {
            warnings.push("power loss may cost confirmed changes, without a bound".to_owned());
        }
    }
    warnings
}

/// A path as it helps people: whole.
fn whole(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
