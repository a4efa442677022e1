//! The certificate of the HTTP door, looked at before clients find out what is wrong with it.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::failure::Failure;
use crate::span;

/// A certificate that ends sooner is warned of.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// What the door presents, and what an operator should know of it.
pub struct Tls {
    /// What it is presented with.
    pub config: ServerConfig,
    /// That the certificate ends soon.
    pub warning: Option<String>,
}

/// Loads a certificate chain and its key.
///
/// # Errors
/// When one of them cannot be read, they do not belong together, or the certificate has ended.
pub fn load(chain: &Path, key: &Path) -> Result<Tls> {
    let asked = || format!("read certificate {}", chain.display());
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
        .and_then(|certificates| certificates.collect())
        .map_err(|error| Failure::usage(format!("{error}; name a PEM file that can be read")))
        .with_context(asked)?;
    let Some(first) = certificates.first() else {
        let wrong = "there is no certificate in it; name a PEM file with the chain";
        return Err(Failure::usage(wrong)).with_context(asked);
    };
    let warning = judge(first, SystemTime::now()).map_err(Failure::usage).with_context(asked)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| Failure::usage(format!("{error}; name a PEM file with a private key")))
        .with_context(|| format!("read key {}", key.display()))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| {
            Failure::usage(format!(
                "{error}; does the key {} belong to the certificate?",
                key.display()
            ))
        })
        .with_context(asked)?;
    Ok(Tls { config, warning })
}

/// Refuses a certificate that has ended or not begun; warns of one that ends soon.
fn judge(certificate: &[u8], now: SystemTime) -> Result<Option<String>, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("it is no X.509 certificate ({error}); make it anew"))?;
    let validity = parsed.validity();
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now_s > validity.not_after.timestamp() {
        return Err(format!(
            "it ended on {}, no client will trust it; renew it",
            validity.not_after
        ));
    }
    if now_s < validity.not_before.timestamp() {
        let begins = validity.not_before;
        return Err(format!("it begins on {begins} only; look at this machine's clock"));
    }
    let left = u64::try_from(validity.not_after.timestamp() - now_s).unwrap_or(0);
    let left = Duration::from_secs(left);
    let warning = format!("the certificate ends in {}; renew it", span::show(left));
    Ok((left < SOON).then_some(warning))
}
