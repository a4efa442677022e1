//! What an operator should know of how the server was started.

use std::time::Duration;

use leasehold_node::Durability;

use super::behind::Behind;
use super::certificate::Tls;
use crate::settings::Settings;

/// What an operator should know; `tls` is that of the HTTP and of the RESP door.
pub fn all(
    settings: &Settings,
    behind: &Behind,
    tls: [Option<&Tls>; 2],
    open: bool,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let [http_tls, resp_tls] = tls;
    let resp_beyond = behind.resp().is_some_and(|address| !address.ip().is_loopback());
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
    warnings.extend(http_tls.and_then(|tls| tls.warning.clone()));
    let resp_ends = resp_tls.and_then(|tls| tls.warning.clone());
    warnings.extend(resp_ends.map(|warning| format!("RESP: {warning}")));
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
