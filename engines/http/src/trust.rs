//! Whom to trust: what the system trusts, or the certificates of one file and nothing else.

use std::sync::Arc;

use leasehold_api::{Error, ErrorKind, Result};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::place::Place;

fn invalid(wrong: String) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

/// What makes TLS of a connection; `None`: the URL wants none.
///
/// # Errors
/// `Invalid` when the CA file cannot be read or has no certificate in it.
pub(crate) fn connector(place: &Place) -> Result<Option<TlsConnector>> {
    if !place.https {
        return match &place.ca {
            Some(_) => Err(invalid("a CA is for https:// URLs; this is http://".to_owned())),
            None => Ok(None),
        };
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| invalid(format!("TLS: {error}")))?;
    let mut config = match &place.ca {
        Some(file) => config.with_root_certificates(roots(file)?).with_no_client_auth(),
        None => {
            let trusting = config.with_platform_verifier();
            let none = |error| invalid(format!("this system's trusted certificates: {error}"));
            trusting.map_err(none)?.with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

fn roots(file: &std::path::Path) -> Result<RootCertStore> {
    let shown = file.display();
    let unread = |error| invalid(format!("the CA file {shown} cannot be read: {error}"));
    let certificates = CertificateDer::pem_file_iter(file).map_err(unread)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let wrong = |error| invalid(format!("the CA file {shown} has no such roots: {error}"));
        roots.add(certificate.map_err(unread)?).map_err(wrong)?;
    }
    if roots.is_empty() {
        return Err(invalid(format!("the CA file {shown} has no certificate in it (PEM)")));
    }
    Ok(roots)
}
