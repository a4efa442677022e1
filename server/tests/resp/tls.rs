//! The door behind TLS.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Door;
use crate::raw::{Raw, Said, request};
use crate::support::{PATIENCE, until};
use crate::talk::number_of;

/// A connection behind TLS.
type Secure = Raw<StreamOwned<ClientConnection, TcpStream>>;

/// A door with a certificate of its own, which stands in `chain.pem` of its directory.
fn secured(arguments: &[&str]) -> Door {
    let directory = tempfile::tempdir().expect("a directory");
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    let made: CertifiedKey<KeyPair> =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    std::fs::write(&chain, made.cert.pem()).expect("it is writable");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("it is writable");
    let (chain, key) = (chain.display().to_string(), key.display().to_string());
    let tls = ["--resp-tls-cert", &chain, "--resp-tls-key", &key];
    Door::with(directory, &[&tls, arguments].concat())
}

/// Somebody who trusts the certificate in this file.
fn trusting(door: &Door, chain: &str) -> ClientConfig {
    let chain = door.directory.path().join(chain);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(chain).expect("a certificate")).expect("it is one");
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("there are some")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn connect(door: &Door) -> Secure {
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(trusting(door, "chain.pem")), name);
    let Raw(socket) = door.raw();
    let stream = StreamOwned::new(session.expect("a session"), socket.into_inner());
    Raw(BufReader::new(stream))
}

#[test]
fn a_client_with_tls_is_one_like_any_other() {
    let door = secured(&[]);
    let mut one = connect(&door);
    assert_eq!(one.line("PING"), Said::Status("PONG".into()));
    let address = one.0.get_ref().sock.local_addr().expect("it is connected");
    let Said::Bulk(told) = one.line("CLIENT INFO") else { panic!("it is a text") };
    let told = String::from_utf8_lossy(&told).into_owned();
    let laddr = format!("laddr=127.0.0.1:{}", door.port);
    assert!(told.contains(&format!(" addr={address} ")) && told.contains(&laddr), "{told}");
    // In the smallest pieces, each a record of its own.
    for byte in request(&[b"SET", b"slow", b"ly"]) {
        one.send(&[byte]);
    }
    assert_eq!(one.said(), Said::ok());
    // Pushes, with RESP3 between answers.
    let mut listener = connect(&door);
    assert!(matches!(listener.line("HELLO 3"), Said::Many(b'%', _)));
    assert!(matches!(listener.line("SUBSCRIBE news"), Said::Many(b'>', _)));
    assert_eq!(one.line("PUBLISH news hello"), Said::Int(1));
    let message = vec![Said::text("message"), Said::text("news"), Said::text("hello")];
    assert_eq!(listener.said(), Said::Many(b'>', message));
    assert_eq!(listener.line("GET slow"), Said::text("ly"));
    // A lock, and somebody who waits for it.
    let token = one.line("LEASE.ACQUIRE both me PX 300000").parts()[0].int();
    listener.tell(&["LEASE.ACQUIRE", "both", "you", "PX", "300000", "WAIT", "300000"]);
    assert_eq!(one.line(&format!("LEASE.RELEASE both me {token}")), Said::Int(1));
    assert!(listener.said().parts()[0].int() > token);
}

#[test]
fn ten_thousand_requests_at_once_with_large_values() {
    let door = secured(&[]);
    let mut one = connect(&door);
    let value = |i: usize| -> Vec<u8> { (0..4096).map(|at| ((at ^ i) % 251) as u8).collect() };
    let key = |i: usize| format!("large:{}", i % 100).into_bytes();
    for i in 0..10_000 {
        one.send(&request(&[b"SET", &key(i), &value(i % 100)]));
    }
    for _ in 0..10_000 {
        assert_eq!(one.said(), Said::ok());
    }
    let asks: Vec<u8> = (0..10_000).flat_map(|i| request(&[b"GET", &key(i)])).collect();
    one.send(&asks);
    for i in 0..10_000 {
        assert!(one.said() == Said::Bulk(value(i % 100)), "{i}");
    }
    let largest = vec![b'x'; 1 << 20];
    one.send(&request(&[b"SET", b"largest", &largest]));
    assert_eq!(one.said(), Said::ok());
    assert!(one.line("GET largest") == Said::Bulk(largest));
}

#[test]
fn who_shakes_no_hands_is_closed_and_harms_nobody() {
    let door = secured(&[]);
    let mut one = connect(&door);
    one.line("PING");
    // In the clear, and with noise.
    for bytes in [&b"PING\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16; 600]] {
        let mut plain = door.raw();
        plain.send(bytes);
        assert!(plain.end() < 100, "an alert at most");
    }
    // Trusting somebody else.
    let other = generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let other_chain = door.directory.path().join("other.pem");
    std::fs::write(other_chain, other.cert.pem()).expect("it is writable");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session =
        ClientConnection::new(Arc::new(trusting(&door, "other.pem")), name).expect("a session");
    let mut socket = door.raw().0.into_inner();
    let refused = session.complete_io(&mut socket).expect_err("it is another certificate");
    assert!(refused.to_string().contains("certificate"), "{refused}");
    drop(socket);
    // Who says nothing holds nobody up.
    let mut silent: Vec<Raw> = (0..100).map(|_| door.raw()).collect();
    assert_eq!(connect(&door).line("PING"), Said::Status("PONG".into()));
    assert_eq!(silent[0].end(), 0, "its time for the handshake is over");
    until("only one is left", || number_of(&one.line("INFO clients"), "connected_clients") == 1);
}

#[test]
fn clients_with_tls_are_counted_ended_and_forgotten() {
    let door = secured(&["--resp-clients", "2"]);
    let (mut one, mut two) = (connect(&door), connect(&door));
    let id = two.line("CLIENT ID").int();
    one.line("PING");
    assert_eq!(connect(&door).said(), Said::Error("ERR max number of clients reached".into()));
    // Cut off by another.
    assert_eq!(one.line(&format!("CLIENT KILL ID {id}")), Said::Int(1));
    assert_eq!(two.end(), 0);
    // By itself: what was asked before is answered.
    let mut three = connect(&door);
    let asks: String = (0..3000).map(|i| format!("SET half:{i} {i}\r\n")).collect();
    three.send(asks.as_bytes());
    let stream = three.0.get_mut();
    stream.conn.send_close_notify();
    stream.flush().expect("it is open");
    for _ in 0..3000 {
        assert_eq!(three.said(), Said::ok());
    }
    assert_eq!(three.end(), 0);
    // Gone without a word.
    let mut four = connect(&door);
    four.tell(&["BLPOP", "never", "0"]);
    drop(four);
    until("it is forgotten", || number_of(&one.line("INFO clients"), "connected_clients") == 1);
}

#[test]
fn who_does_not_read_behind_tls_is_cut_off() {
    let door = secured(&[]);
    let mut slow = connect(&door);
    slow.line("SUBSCRIBE news");
    let mut teller = connect(&door);
    let publish = request(&[b"PUBLISH", b"news", &vec![b'x'; 1 << 20]]);
    let mut most = 0;
    until("it is cut off", || {
        teller.send(&publish);
        most = most.max(door.memory());
        teller.said() == Said::Int(0)
    });
    assert!(most < 512 << 20, "{most} bytes");
    // The task behind it ends as well, and with it the connection.
    let mut rest = [0; 1 << 16];
    slow.0.get_ref().sock.set_read_timeout(Some(PATIENCE)).expect("a socket");
    while !matches!(slow.0.get_mut().sock.read(&mut rest), Ok(0) | Err(_)) {}
}

#[test]
fn redis_cli_with_tls() {
    let door = secured(&[]);
    let chain = door.directory.path().join("chain.pem").display().to_string();
    let tls = ["-h", "localhost", "--tls", "--cacert", &chain];
    let cli = |words: &[&str], input: &str| door.cli(&[&tls, words].concat(), input);
    assert_eq!(cli(&["ping"], ""), "PONG\n");
    let asks: String = (0..10_000).map(|i| format!("SET cli:{i} {i}\r\n")).collect();
    let told = cli(&["--pipe"], &asks);
    assert!(told.contains("errors: 0, replies: 10000"), "{told}");
    assert_eq!(cli(&["dbsize"], ""), "10000\n");
}
