//! The certificate of a door, looked at before clients find out what is wrong with it, and changed
//! while the server runs: who renews certificates renews files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::time::ASN1Time;

use super::seen::Seen;
use crate::failure::{Failure, one_line};
use crate::span;

/// A certificate that ends sooner is warned of.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// A door's certificate and where it comes from.
pub struct Certificate {
    /// `HTTP` or `RESP`.
    door: &'static str,
    chain: PathBuf,
    key: PathBuf,
    seen: [Seen; 2],
    presented: Arc<Presented>,
}

/// What handshakes present from now on.
#[derive(Debug)]
pub struct Presented(RwLock<Loaded>);

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    ends: ASN1Time,
}

impl Certificate {
    /// Loads a certificate chain and its key.
    ///
    /// # Errors
    /// When one of them cannot be read, they do not belong together, or the certificate has ended.
    pub fn load(door: &'static str, chain: &Path, key: &Path) -> Result<Self> {
        // Looked at before they are read: what changes in between is read once more.
        let seen = [Seen::at(chain), Seen::at(key)];
        let presented = Arc::new(Presented(RwLock::new(load(chain, key)?)));
        Ok(Self { door, chain: chain.to_owned(), key: key.to_owned(), seen, presented })
    }

    /// TLS that presents it, and what it is renewed to.
    pub fn config(&self) -> ServerConfig {
        let resolver = Arc::clone(&self.presented);
        ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver)
    }

    /// What is presented, for those who watch it.
    pub fn presented(&self) -> Arc<Presented> {
        Arc::clone(&self.presented)
    }

    /// Reads the files again if they look different. The two are not written at one moment, so
    /// they may not fit together until they are looked at once more.
    pub fn look(&mut self) {
        if [Seen::at(&self.chain), Seen::at(&self.key)] != self.seen {
            self.read_again();
        }
    }

    /// Reads the files again. What is not acceptable changes nothing.
    pub fn read_again(&mut self) {
        self.seen = [Seen::at(&self.chain), Seen::at(&self.key)];
        let door = self.door;
        match load(&self.chain, &self.key) {
            Err(error) => {
                tracing::error!(door, "the certificate stays as it was: {}", one_line(&error));
            }
            Ok(loaded) => {
                tracing::info!(door, ends = %loaded.ends, "the certificate was read again");
                *self.presented.0.write().unwrap_or_else(PoisonError::into_inner) = loaded;
            }
        }
    }
}

impl Presented {
    /// That it ends soon, or has ended.
    pub fn warning(&self) -> Option<String> {
        let loaded = self.0.read().unwrap_or_else(PoisonError::into_inner);
        warning(loaded.ends, SystemTime::now())
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&loaded.key))
    }
}

fn load(chain: &Path, key: &Path) -> Result<Loaded> {
    let asked = || format!("read certificate {}", chain.display());
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
        .and_then(|certificates| certificates.collect())
        .map_err(|error| Failure::usage(format!("{error}; name a PEM file that can be read")))
        .with_context(asked)?;
    let Some(first) = certificates.first() else {
        let wrong = "there is no certificate in it; name a PEM file with the chain";
        return Err(Failure::usage(wrong)).with_context(asked);
    };
    let ends = judge(first, SystemTime::now()).map_err(Failure::usage).with_context(asked)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| Failure::usage(format!("{error}; name a PEM file with a private key")))
        .with_context(|| format!("read key {}", key.display()))?;
    let provider = CryptoProvider::get_default().context("find what does the cryptography")?;
    let key = CertifiedKey::from_der(certificates, private, provider)
        .map_err(|error| {
            Failure::usage(format!(
                "{error}; does the key {} belong to the certificate?",
                key.display()
            ))
        })
        .with_context(asked)?;
    Ok(Loaded { key: Arc::new(key), ends })
}

fn seconds(now: SystemTime) -> i64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Refuses a certificate that has ended or not begun; else says when it ends.
fn judge(certificate: &[u8], now: SystemTime) -> Result<ASN1Time, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("it is no X.509 certificate ({error}); make it anew"))?;
    let (begins, ends) = (parsed.validity().not_before, parsed.validity().not_after);
    if seconds(now) > ends.timestamp() {
        return Err(format!("it ended on {ends}, no client will trust it; renew it"));
    }
    if seconds(now) < begins.timestamp() {
        return Err(format!("it begins on {begins} only; look at this machine's clock"));
    }
    Ok(ends)
}

fn warning(ends: ASN1Time, now: SystemTime) -> Option<String> {
    let Ok(left) = u64::try_from(ends.timestamp() - seconds(now)) else {
        return Some(format!("the certificate ended on {ends}; renew it"));
    };
    let left = Duration::from_secs(left);
    (left < SOON).then(|| format!("the certificate ends in {}; renew it", span::show(left)))
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
        let ends = judge(begin + DAY).expect("it is valid");
        assert_eq!(warning(ends, begin + DAY), None);
        let soon = warning(ends, begin + DAY * 360).expect("it ends soon");
        assert!(soon.contains("the certificate ends in 5d"), "{soon}");
        let late = warning(ends, begin + DAY * 366).expect("it has ended");
        assert!(late.contains("the certificate ended on"), "{late}");
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
        assert!(load(&chain, &other).is_ok());
        std::fs::write(&other, key.serialize_pem()).expect("it is writable");
        let error = load(&chain, &other).map(|_| ()).expect_err("they do not");
        assert!(format!("{error:#}").contains("belong to the certificate?"), "{error:#}");
    }
}
