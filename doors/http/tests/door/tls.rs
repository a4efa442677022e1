//! TLS, and both versions of HTTP behind it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::harness::{Server, config, server_with_tls, until, until_closed};

/// A door with a certificate of its own, and who trusts it.
async fn secured() -> (Server, ClientConfig) {
    let made = generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let CertifiedKey { cert, signing_key } = made;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = config();
    config.limits.head_read = Duration::from_millis(500);
    (server_with_tls(config, Some(tls)).await, client)
}

async fn connect(server: &Server, mut client: ClientConfig, alpn: &[u8]) -> TlsStream<TcpStream> {
    client.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, server.connect().await).await.unwrap()
}

#[tokio::test]
async fn both_versions_are_spoken() {
    let (server, client) = secured().await;
    let socket = TokioIo::new(connect(&server, client.clone(), b"http/1.1").await);
    let (mut sender, connection) = http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/healthz").header("host", "localhost");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);

    let socket = TokioIo::new(connect(&server, client, b"h2").await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    tokio::spawn(connection);
    let post = |path: &str, body: Value| {
        let request = Request::post(format!("https://localhost{path}"));
        sender.clone().send_request(request.body(Full::<Bytes>::from(body.to_string())).unwrap())
    };
    // A reset stream withdraws what waits, as a closed connection does.
    let granted = post("/v1/locks/a/acquire", json!({})).await.unwrap();
    let granted = granted.into_body().collect().await.unwrap().to_bytes();
    let granted: Value = serde_json::from_slice(&granted).unwrap();
    let view = || {
        let request = Request::get("https://localhost/v1/locks/a");
        let answer = sender.clone().send_request(request.body(Full::<Bytes>::default()).unwrap());
        async {
            let body = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&body).unwrap()
        }
    };
    let waiting = post("/v1/locks/a/acquire", json!({"wait_ms": 60_000}));
    tokio::select! {
        _ = waiting => panic!("the lock is held"),
        () = until("it waits", || async { view().await["waiting"] == 1 }) => {}
    }
    until("it waits no longer", || async { view().await["waiting"] == 0 }).await;
    let hold = json!({"token": granted["token"], "hold": granted["hold"]});
    let released = post("/v1/locks/a/release", hold).await.unwrap();
    assert_eq!(released.status(), 200);
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let (server, _) = secured().await;
    let mut silent = server.connect().await;
    assert_eq!(until_closed(&mut silent).await, "");
    let mut plain = server.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = until_closed(&mut plain).await;
    assert!(!answer.starts_with("HTTP"), "{answer}");
    server.stop().await;
}
