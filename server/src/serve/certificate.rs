//! The certificate of a door, looked at before clients find out what is wrong with it.

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

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// A certificate from the first day of 2030 to the first of 2031.
    fn certificate() -> (String, String) {
        let mut params =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2031, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_is_judged_by_its_days() {
        let (pem, _) = certificate();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("it is PEM");
        let begin = UNIX_EPOCH + DAY * 21_915;
        let judge = |at| judge(&der, at);
        assert!(judge(begin - DAY).expect_err("too early").contains("it begins on"));
        assert_eq!(judge(begin + DAY), Ok(None));
        let warning = judge(begin + DAY * 360).expect("it is valid").expect("it ends soon");
        assert!(warning.contains("the certificate ends in 5d"), "{warning}");
        assert!(judge(begin + DAY * 366).expect_err("too late").contains("it ended on"));
    }

    #[test]
    fn a_chain_and_a_foreign_key_are_refused() {
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let here = tempfile::tempdir().expect("a directory");
        let key = rcgen::KeyPair::generate().expect("a key");
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let (chain, other) = (here.path().join("chain.pem"), here.path().join("key.pem"));
        std::fs::write(&chain, own.cert.pem()).expect("it is writable");
        std::fs::write(&other, own.signing_key.serialize_pem()).expect("it is writable");
        assert!(load(&chain, &other).expect("they belong together").warning.is_none());
        std::fs::write(&other, key.serialize_pem()).expect("it is writable");
        let error = load(&chain, &other).map(|_| ()).expect_err("they do not");
        assert!(format!("{error:#}").contains("belong to the certificate?"), "{error:#}");
    }
}
