//! What an operator should know of a running server.

use std::sync::Arc;
use std::time::Duration;

use leasehold_node::Durability;
use leasehold_users::Users;

use super::behind::Behind;
use super::certificate::{Certificate, Presented};
use crate::settings::Settings;

/// Where warnings come from. They are asked for anew each time: users come, certificates age.
pub struct Warnings {
    users: Arc<Users>,
    http: Reach,
    resp: Reach,
    standing: Option<String>,
}

/// Who reaches a door, and by what.
struct Reach {
    beyond: bool,
    certificate: Option<Arc<Presented>>,
}

impl Reach {
    fn ends(&self) -> Option<String> {
        self.certificate.as_ref().and_then(|presented| presented.warning())
    }
}

impl Warnings {
    /// Of this server; `tls` is that of the HTTP and of the RESP door.
    pub fn new(
        settings: &Settings,
        behind: &Behind,
        users: Arc<Users>,
        tls: [Option<&Certificate>; 2],
    ) -> Self {
        let [http, resp] = tls.map(|tls| tls.map(Certificate::presented));
        let beyond = behind.resp().is_some_and(|address| !address.ip().is_loopback());
        let resp = Reach { beyond, certificate: resp };
        let http = Reach { beyond: !settings.http_listen.ip().is_loopback(), certificate: http };
        let standing = match behind {
            Behind::Embedded(..) => power_loss(settings.durability),
            Behind::Other(_) if settings.http_secret.is_none() => Some(
                "sessions and receipts end with this process, and mean nothing to another \
                 gateway: give all of them one file with --http-secret"
                    .to_owned(),
            ),
            Behind::Other(_) => None,
        };
        Self { users, http, resp, standing }
    }

    /// All of them, now.
    pub fn all(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (open, http, resp) = (self.users.is_open(), &self.http, &self.resp);
        if open && (http.beyond || resp.beyond) {
            let wrong = "there are no users: whoever reaches the port may do everything";
            warnings.push(wrong.to_owned());
        }
        if !open && http.beyond && http.certificate.is_none() {
            warnings.push("passwords and tokens cross the network in the clear: no TLS".to_owned());
        }
        if !open && resp.beyond && resp.certificate.is_none() {
            let wrong = "RESP passwords cross the network in the clear: that door has no TLS";
            warnings.push(wrong.to_owned());
        }
        warnings.extend(http.ends());
        warnings.extend(resp.ends().map(|warning| format!("RESP: {warning}")));
        warnings.extend(self.standing.clone());
        warnings
    }
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
