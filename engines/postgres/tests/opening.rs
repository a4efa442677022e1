//! Opening an engine: what is wrong is named, and what weakens a promise is told.

mod client;

use client::client;
use leasehold_api::{CheckVerdict, ErrorKind, Fencing, Leasehold, Survives};
use leasehold_testbed::servers::postgres;

async fn refused(url: &str) -> leasehold_api::Error {
    leasehold_postgres::connect(url).await.expect_err("it must be refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named() {
    let server = postgres::start(&[]);
    let port = server.port;
    let client = client(&server).await;
    let latin = "create database latin encoding 'LATIN1' template template0";
    client.batch_execute(latin).await.expect("we may do everything");
    client
        .batch_execute(
            "create role poor login; create schema newer; \
             create table newer.migrations (version integer, applied timestamptz); \
             insert into newer.migrations values (999, now())",
        )
        .await
        .expect("we may do everything");
    let error = refused(&format!("postgres://poor@127.0.0.1:{port}/postgres")).await;
    assert_eq!(error.kind, ErrorKind::Forbidden, "{error}");
    assert!(error.to_string().contains("permission denied for database"), "{error}");
    let error = refused(&format!("postgres://leasehold@127.0.0.1:{port}/nowhere")).await;
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    let error = refused(&format!("postgres://nobody@127.0.0.1:{port}/postgres")).await;
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "{error}");
    let error = refused(&format!("postgres://leasehold@127.0.0.1:{port}/latin")).await;
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("UTF8"), "{error}");
    let error = refused(&format!("{}?schema=newer", postgres::url(port))).await;
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("999"), "{error}");
    let error = refused(&format!("{}?sslmode=require", postgres::url(port))).await;
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    let error = refused("postgres://me@127.0.0.1:1/db").await;
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_open_a_new_schema_at_once_and_a_poor_user_may_use_it() {
    let server = postgres::start(&[]);
    let url = server.url();
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { leasehold_postgres::connect(&url).await })
        })
        .collect();
    for one in opening {
        one.await.expect("no panic").expect("one makes it, the others find it");
    }
    let client = client(&server).await;
    client
        .batch_execute(
            "create role poor login; grant usage on schema leasehold to poor; \
             grant select, insert, update, delete on all tables in schema leasehold to poor; \
             grant usage on all sequences in schema leasehold to poor",
        )
        .await
        .expect("we may do everything");
    let url = format!("postgres://poor@127.0.0.1:{}/postgres", server.port);
    let poor = Leasehold::new(leasehold_postgres::connect(&url).await.expect("it may use it"));
    poor.lock("l").acquire().await.expect("it is free").release().await.expect("it is held");
    let queue = poor.queue("q");
    queue.declare(&leasehold_api::QueueConfig::default()).await.expect("it may");
    queue.publish("x").await.expect("it may");
    let one = queue.receive(std::time::Duration::ZERO).await.expect("it may").expect("there");
    one.ack().await.expect("it may");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_weaken_a_promise_are_told() {
    let server = postgres::start(&["synchronous_commit=off"]);
    let handle = leasehold_postgres::connect(&server.url()).await.expect("it accepts");
    let checks = handle.checks.clone().expect("it can be looked at").checks().await;
    let failed: Vec<_> =
        checks.iter().filter(|check| check.verdict == CheckVerdict::Failed).collect();
    assert_eq!(failed.len(), 1, "{checks:?}");
    assert_eq!(failed[0].what, "synchronous_commit");
    let handle = Leasehold::new(handle);
    let guarantees = handle.guarantees().expect("it has some");
    assert_eq!((guarantees.survives, guarantees.fencing), (Survives::Nothing, Fencing::Advisory));
    let good = postgres::start(&[]);
    let handle = leasehold_postgres::connect(&good.url()).await.expect("it accepts");
    let checks = handle.checks.clone().expect("it can be looked at").checks().await;
    assert!(checks.iter().all(|check| check.verdict == CheckVerdict::Ok), "{checks:?}");
    assert_eq!(leasehold_postgres::GUARANTEES.survives, Survives::Power);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_as_strict_as_the_url_wants() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let files = [("server.crt", certificate.as_str()), ("server.key", key.as_str())];
    let settings = ["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key"];
    let server = postgres::start_with(&settings, &files);
    let root = server.file("server.crt");
    let url = |host: &str, query: &str| {
        format!("postgres://leasehold@{host}:{}/postgres?{query}", server.port)
    };
    let trusting = format!("sslrootcert={}", root.display());
    for (host, query) in [
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-ca&{trusting}")),
        ("localhost", format!("sslmode=verify-full&{trusting}")),
        ("127.0.0.1", "sslmode=disable".to_owned()),
    ] {
        leasehold_postgres::connect(&url(host, &query)).await.expect(&query);
    }
    for (host, query) in [
        ("127.0.0.1", format!("sslmode=verify-full&{trusting}")),
        ("localhost", "sslmode=verify-full".to_owned()),
        ("localhost", "sslmode=verify-ca".to_owned()),
    ] {
        let error = refused(&url(host, &query)).await;
        assert_eq!(error.kind, ErrorKind::Unavailable, "{query}: {error}");
        assert!(error.to_string().contains("certificate"), "{query}: {error}");
    }
}
