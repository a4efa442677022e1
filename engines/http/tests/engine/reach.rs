//! Reaching a server, and not reaching it.

use std::time::{Duration, Instant};

use leasehold_api::{ErrorKind, Leasehold, Result, Retry, Survives};
use leasehold_http::{Credentials, HttpOptions, connect};
use leasehold_users::{Allowance, Permission, User, hash_password, hash_token, token_hash};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::server::{Server, until};

async fn reach(url: &str) -> Result<Leasehold> {
    connect(url, &HttpOptions::default()).await.map(Leasehold::new)
}

#[tokio::test]
async fn where_nothing_listens_nothing_is_waited_for() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://u:p@{}", free.local_addr().expect("it is bound"));
    drop(free);
    let began = Instant::now();
    let error = reach(&url).await.expect_err("nobody is there");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Later));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let shown = url.replace("u:p@", "");
    assert!(error.to_string().contains(&format!("connect to {shown}")), "{error}");
    assert!(error.to_string().contains("refused") && !error.to_string().contains("u:p"), "{error}");
}

#[tokio::test]
async fn bad_urls_and_options_are_invalid() {
    for url in ["http://", "http://h:0", "http://h?x=1", "ftp://h", "http://h?ca=/x"] {
        let error = reach(url).await.expect_err(url);
        assert_eq!(error.kind, ErrorKind::Invalid, "{url}: {error}");
    }
    let error = reach("https://h?ca=/no/such/file").await.expect_err("there is no such file");
    assert!(error.to_string().contains("/no/such/file"), "{error}");
    let error = reach("http://no-such-host.invalid:7070").await.expect_err("no such host");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

/// Answers every connection with the same bytes.
async fn always(says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                if socket.read(&mut bytes).await.is_ok() {
                    socket.write_all(says).await.ok();
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn what_is_no_leasehold_server_is_named_so() {
    let cases: [(&[u8], ErrorKind); 5] = [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope", ErrorKind::Unsupported),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", ErrorKind::Broken),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", ErrorKind::Unavailable),
        (b"SSH-2.0-OpenSSH\r\n", ErrorKind::Unavailable),
        (b"", ErrorKind::Unavailable),
    ];
    for (says, kind) in cases {
        let url = always(says).await;
        let error = reach(&url).await.expect_err("that is no server");
        assert_eq!(error.kind, kind, "{error}");
    }
}

fn ada() -> User {
    User {
        name: "ada".to_owned(),
        password: Some(hash_password("se:cret").expect("it is hashed")),
        tokens: vec![token_hash(&hash_token("tok")).expect("a hash")],
        allowances: vec![Allowance { on: "*".to_owned(), allow: vec![Permission::Lock] }],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_checked_when_connecting() {
    let server = Server::with(vec![ada()], None).await;
    let at = server.address;
    for wrong in ["", "ada:wrong@", "ada@", "bob:se%3Acret@", ":other@"] {
        let error = reach(&format!("http://{wrong}{at}")).await.expect_err(wrong);
        assert_eq!(error.kind, ErrorKind::Unauthenticated, "{wrong}: {error}");
    }
    for right in [format!("http://ada:se%3Acret@{at}"), format!("http://:tok@{at}")] {
        let a = reach(&right).await.expect("it is let in");
        a.lock("x").acquire().await.expect("it may").release().await.expect("it is held");
        let error = a.queue("x").purge().await.expect_err("it may not");
        assert_eq!(error.kind, ErrorKind::Forbidden, "{error}");
        assert_eq!(format!("{:?}", a.engine()), format!("Engine {{ url: \"http://{at}\", .. }}"));
    }
    reach(&format!("http://{at}?token=tok")).await.expect("it is let in");
    let token = Some(Credentials::Token("tok".to_owned()));
    let options = HttpOptions { credentials: token, ..HttpOptions::default() };
    connect(&format!("http://{at}"), &options).await.expect("it is let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_promises_what_the_server_promises() {
    let server = Server::start().await;
    let native = Leasehold::new(server.native()).guarantees().expect("it has locks");
    let told = server.handle().await.guarantees().expect("it has locks");
    assert_eq!(told, native);
    assert_eq!(told.survives, Survives::Power);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_ends_with_the_url_and_the_cause() {
    let mut server = Server::start().await;
    let patience = Duration::from_millis(400);
    let options = HttpOptions { patience, ..HttpOptions::default() };
    let a = Leasehold::new(connect(&server.url(), &options).await.expect("it connects"));
    a.register("x").write("1").await.expect("it is written");
    server.kill().await;
    let began = Instant::now();
    let error = a.register("x").write("2").await.expect_err("nobody is there");
    assert!((patience / 2..20 * patience).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Later));
    assert!(error.to_string().contains(&server.url()), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

struct Tls {
    server: Server,
    ca: tempfile::NamedTempFile,
}

async fn tls() -> Tls {
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("it is signed");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(names).expect("good names");
    let certificate = certificate.signed_by(&key, &authority).expect("it is signed");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a good certificate");
    let ca = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(ca.path(), authority.pem()).expect("it is written");
    Tls { server: Server::with(Vec::new(), Some(config)).await, ca }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_authority_of_ones_own() {
    let Tls { server, ca } = tls().await;
    let (port, file) = (server.address.port(), ca.path().display());
    for host in ["localhost", "127.0.0.1"] {
        let a = reach(&format!("https://{host}:{port}?ca={file}")).await.expect("it is trusted");
        let guard = a.lock("x").acquire().await.expect("it is free");
        // Hanging up goes through TLS as well.
        let lock = a.lock("x");
        let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
        until("the waiter", async || Ok(a.inspect("x").await?.waiting == 1)).await;
        waiting.abort();
        until("its withdrawal", async || Ok(a.inspect("x").await?.waiting == 0)).await;
        guard.release().await.expect("it is held");
    }

    let error = reach(&format!("https://localhost:{port}")).await.expect_err("unknown authority");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Never));
    assert!(error.to_string().contains("?ca=FILE"), "{error}");
    let error = reach(&format!("https://[::1]:{port}?ca={file}")).await.expect_err("not there");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    reach(&format!("http://localhost:{port}")).await.expect_err("it speaks TLS");

    let plain = Server::start().await;
    let port = plain.address.port();
    let error = reach(&format!("https://localhost:{port}?ca={file}")).await.expect_err("no TLS");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}
