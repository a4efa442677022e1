//! What is said when something is wrong with the URL, the server or the user; and TLS.

use leasehold_api::{CheckVerdict, ErrorKind, Leasehold, Survives};
use leasehold_mysql::connect;
use leasehold_testbed::servers::mysql;
use leasehold_testbed::{Certificate, Server, free_port};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

async fn statements(server: &Server, statements: &[&str]) {
    let mut conn = Conn::from_url(server.url()).await.expect("it connects");
    for statement in statements {
        conn.query_drop(*statement).await.expect(statement);
    }
    conn.disconnect().await.expect("it is open");
}

async fn refused(url: &str, kind: ErrorKind, part: &str) {
    let error = connect(url).await.expect_err(url);
    assert_eq!(error.kind, kind, "{url}: {error}");
    assert!(error.to_string().contains(part), "{url}: {error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said() {
    let server = mysql::start(&[]);
    let port = server.port;
    statements(
        &server,
        &[
            "CREATE USER lease IDENTIFIED BY 'secret'",
            "GRANT SELECT, INSERT ON leasehold.* TO lease",
            "CREATE USER nobody IDENTIFIED BY 'secret'",
        ],
    )
    .await;
    let at = |user: &str, database: &str| format!("mysql://{user}@127.0.0.1:{port}/{database}");
    refused("mysql://127.0.0.1/x?colour=1", ErrorKind::Invalid, "colour").await;
    let nobody = format!("mysql://127.0.0.1:{}/x", free_port());
    refused(&nobody, ErrorKind::Unavailable, "127.0.0.1").await;
    refused(&at("lease:wrong", "leasehold"), ErrorKind::Unauthenticated, "credentials").await;
    refused(&at("root:", "missing"), ErrorKind::Invalid, "CREATE DATABASE").await;
    refused(&at("nobody:secret", "leasehold"), ErrorKind::Forbidden, "grant").await;
    refused(&at("lease:secret", "leasehold"), ErrorKind::Forbidden, "CREATE").await;
    refused(&format!("{}?tls=verify", at("root:", "leasehold")), ErrorKind::Invalid, "tls=off")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_made_once_and_newer_ones_refused() {
    let server = mysql::start(&[]);
    let url = server.url();
    // Several come at once to an empty database.
    let all = futures_util::future::join_all((0..4).map(|_| connect(&url))).await;
    all.into_iter().for_each(|engine| drop(engine.expect("it makes the tables or finds them")));
    statements(
        &server,
        &[
            "CREATE USER lease IDENTIFIED BY 'secret'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON leasehold.* TO lease",
        ],
    )
    .await;
    let lease = format!("mysql://lease:secret@127.0.0.1:{}/leasehold", server.port);
    let handle = Leasehold::new(connect(&lease).await.expect("the tables are there"));
    handle.register("r").write("x").await.expect("it may write");
    let other = Leasehold::new(connect(&format!("{url}?prefix=other_")).await.expect("new tables"));
    assert!(other.register("r").read().await.expect("it answers").is_none(), "one installation");
    statements(&server, &["INSERT INTO leasehold_schema VALUES (1000)"]).await;
    refused(&url, ErrorKind::Unsupported, "version 1000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_tear_a_promise_are_told() {
    let server = mysql::start(&["--innodb-flush-log-at-trx-commit=2"]);
    let engine = connect(&server.url()).await.expect("it connects");
    let checks = engine.checks.clone().expect("it can be looked at").checks().await;
    let flush = checks.iter().find(|check| check.what.starts_with("innodb_flush"));
    assert_eq!(flush.map(|check| check.verdict), Some(CheckVerdict::Failed), "{checks:?}");
    let version = checks.iter().find(|check| check.what == "version");
    assert_eq!(version.map(|check| check.verdict), Some(CheckVerdict::Ok), "{checks:?}");
    let guarantees = Leasehold::new(engine).guarantees().expect("it has them");
    assert_eq!(guarantees.survives, Survives::Process);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified() {
    let certificates = Server::directory();
    let own = Certificate::new(certificates.path(), "localhost");
    let (cert, key) = (own.certificate.display(), own.key.display());
    let (with_cert, with_key) = (format!("--ssl-cert={cert}"), format!("--ssl-key={key}"));
    let server = mysql::start(&[&with_cert, &with_key, "--require-secure-transport=ON"]);
    let at =
        |host: &str, words: &str| format!("mysql://root:@{host}:{}/leasehold?{words}", server.port);
    connect(&at("127.0.0.1", "tls=off")).await.expect_err("it demands TLS");
    refused(&at("localhost", "tls=verify"), ErrorKind::Unavailable, "TLS").await;
    let engine = connect(&at("127.0.0.1", "tls=trust")).await.expect("whoever it is");
    let handle = Leasehold::new(engine);
    handle.lock("a").acquire().await.expect("it is free").release().await.expect("it holds");
    let ca = at("localhost", &format!("ca={cert}"));
    Leasehold::new(connect(&ca).await.expect("it is who it says"))
        .register("r")
        .read()
        .await
        .expect("it answers");
}
