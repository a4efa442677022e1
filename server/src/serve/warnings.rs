//! What an operator should know of how the server was started.

use std::time::Duration;

use leasehold_node::Durability;

use super::behind::Behind;
use super::certificate::Tls;
use crate::settings::Settings;

/// What an operator should know.
pub fn all(settings: &Settings, behind: &Behind, tls: &Option<Tls>, open: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let resp_beyond = behind.resp().is_some_and(|address| !address.ip().is_loopback());
    let beyond = !settings.http_listen.ip().is_loopback() || resp_beyond;
    if open && beyond {
        warnings.push("there are no users: whoever reaches the port may do everything".to_owned());
    }
    if !open && beyond && tls.is_none() {
        warnings.push("passwords and tokens cross the network in the clear: no TLS".to_owned());
    }
    if !open && resp_beyond {
        warnings.push("RESP passwords cross the network in the clear: that door has no TLS".into());
    }
    if let Some(warning) = tls.as_ref().and_then(|tls| tls.warning.clone()) {
        warnings.push(warning);
    }
    match behind {
        Behind::Embedded(..) => warnings.extend(power_loss(settings.durability)),
        Behind::Other(_) if settings.http_secret.is_none() => warnings.push(
            "sessions and receipts end with this process, and mean nothing to another gateway: \
             give all of them one file with --http-secret"
                .to_owned(),
        ),
        Behind::Other(_) => {}
    }
    warnings
}

fn power_loss(durability: Durability) -> Option<String> {
    match durability {
        Durability::Always => None,
        Durability::Interval(micros) => {
            let ms = Duration::from_micros(micros).as_millis();
            Some(format!("power loss may cost the last {ms} ms of confirmed changes"))
        }
        Durability::None => {
            Some("power loss may cost confirmed changes, without a bound".to_owned())
        }
    }
}
