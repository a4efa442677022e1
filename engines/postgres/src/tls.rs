//! TLS as the URL's `sslmode` wants it, with the meaning that libpq gives to it.

use std::path::Path;
use std::sync::Arc;

use leasehold_api::Result;
use rustls_platform_verifier::Verifier;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};

use crate::config::{Config, Trust};
use crate::error::invalid;

/// What makes TLS of a connection.
///
/// # Errors
/// `Invalid` when a file cannot be read or has no certificate in it.
pub(crate) fn connector(config: &Config) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| invalid(format!("TLS: {error}")))?;
    let verifier = verifier(config, provider)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let client = match &config.own {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let shown = key.display();
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| invalid(format!("sslkey={shown} cannot be read: {error}")))?;
            let wrong = |error| invalid(format!("sslcert and sslkey={shown}: {error}"));
            builder.with_client_auth_cert(chain, key).map_err(wrong)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(client))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = file.display();
    let unread = |error| invalid(format!("the file {shown} cannot be read: {error}"));
    let found = CertificateDer::pem_file_iter(file).map_err(unread)?;
    let found = found.collect::<std::result::Result<Vec<_>, _>>().map_err(unread)?;
    if found.is_empty() {
        return Err(invalid(format!("the file {shown} has no certificate in it (PEM)")));
    }
    Ok(found)
}

fn verifier(config: &Config, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let inner: Option<Arc<dyn ServerCertVerifier>> = match (config.trust, &config.root) {
        (Trust::Anybody, _) => None,
        (_, Some(file)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                let shown = file.display();
                let wrong = |error| invalid(format!("{shown} has no such roots: {error}"));
                roots.add(certificate).map_err(wrong)?;
            }
            let built = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
            Some(built.build().map_err(|error| invalid(format!("TLS: {error}")))?)
        }
        (_, None) => {
            let none = |error| invalid(format!("this system's trusted certificates: {error}"));
            Some(Arc::new(Verifier::new(provider.clone()).map_err(none)?))
        }
    };
    match (config.trust, inner) {
        (Trust::Named, Some(inner)) => Ok(inner),
        (_, inner) => Ok(Arc::new(Lenient { inner, provider })),
    }
}

/// Overlooks the name in a certificate, or everything: what `verify-ca` and `require` mean.
#[derive(Debug)]
struct Lenient {
    inner: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(certificate, chain, name, ocsp, now) {
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
