//! `leasehold serve`: the embedded engine behind its doors, or a gateway: the HTTP door in front of
//! another engine.
//!
//! Everything that can be wrong with the settings is found before the data directory is touched.
//! The port is taken before the journal is opened, so that clients which come during a recovery
//! wait in the system's queue instead of being refused.

mod behind;
mod certificate;
mod descriptors;
mod figures;
mod greeting;
mod logs;
mod reload;
mod secret;
mod seen;
mod users;
mod warnings;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use leasehold_http_door::{DoorConfig, HttpDoor, HttpLimits, ServerInfo};
use tokio::net::TcpListener;

pub use logs::quiet;
pub use secret::write_private;

use crate::cli::Global;
use crate::failure::Failure;
use crate::settings::{Given, Settings};
use crate::signals::Signals;
use behind::Behind;
use certificate::Certificate;
use greeting::Greeting;
use reload::Reload;
use users::Keeper;
use warnings::Warnings;

/// Serves until it is told to end.
pub async fn run(given: Given, global: Global) -> Result<ExitCode> {
    let began = Instant::now();
    let whole = given.clone().with_file()?;
    let settings = Settings::resolve(&whole)?;
    logs::start(&settings)?;
    let keeper = Keeper::start(&given, &settings)?;
    let users = keeper.users();
    let (tls, resp_tls) = (http_tls(&settings)?, resp_tls(&settings)?);
    let listener = listen(&settings).await?;
    let http = listener.local_addr().context("find the port that was taken")?;

    let behind = match &settings.engine {
        Some(url) => Behind::other(url, &whole, &global).await?,
        None => Behind::embedded(&settings, &users, resp_tls.as_ref())?,
    };
    let mut config = DoorConfig {
        users: users.clone(),
        hosts: settings.http_hosts.0.clone(),
        limits: HttpLimits {
            body_bytes: settings.limits_body.size(),
            connections: room(&settings, resp_tls.is_some()),
            ..HttpLimits::default()
        },
        counters: behind.counters(),
        ..DoorConfig::new(behind.secret(&settings)?, behind.counters(), ServerInfo::default())
    };
    let secured = [tls.as_ref(), resp_tls.as_ref()];
    let warnings = Warnings::new(&settings, &behind, users, secured);
    for warning in warnings.all() {
        tracing::warn!("{warning}");
    }
    config.info = behind.info(&settings);
    config.warnings = Box::new(move || warnings.all());
    let mut signals = Signals::listen()?;
    let door = HttpDoor::new(behind.engine(), config);
    let secure = (tls.is_some(), resp_tls.is_some());
    let greeting = Greeting { settings: &settings, http, behind: &behind, secure, began };
    greeting.print(global.json)?;
    let config = tls.as_ref().map(Certificate::config);
    let certificates = tls.into_iter().chain(resp_tls).collect();
    let mut reload = Reload { users: keeper, certificates };
    let at_terminal = std::io::stdin().is_terminal();
    let serving = leasehold_http_door::serve(listener, config, door, async move {
        // Closing the terminal ends what runs in it; a service is told to read its files again.
        let signal = reload.keep(&mut signals, at_terminal).await;
        tracing::info!(signal = signal.as_raw(), "told to end: letting requests finish");
        tokio::spawn(async move {
            signals.next().await;
            // Whoever asks twice does not want to wait; the journal is safe in any case.
            std::process::exit(crate::failure::REFUSED.into());
        });
    });
    let served = serving.await.context("serve HTTP");
    behind.close().await?;
    served?;
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
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

fn http_tls(settings: &Settings) -> Result<Option<Certificate>> {
    let (chain, key) = (&settings.http_tls_cert, &settings.http_tls_key);
    tls(chain.as_deref(), key.as_deref(), "speak HTTPS", ["http", "HTTP"])
}

fn resp_tls(settings: &Settings) -> Result<Option<Certificate>> {
    let (chain, key) = (&settings.resp_tls_cert, &settings.resp_tls_key);
    tls(chain.as_deref(), key.as_deref(), "speak TLS with RESP clients", ["resp", "RESP"])
}

fn tls(
    chain: Option<&Path>,
    key: Option<&Path>,
    what: &str,
    [door, shown]: [&'static str; 2],
) -> Result<Option<Certificate>> {
    match (chain, key) {
        (Some(chain), Some(key)) => Certificate::load(shown, chain, key).map(Some),
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

/// A path as it helps people: whole.
fn whole(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
