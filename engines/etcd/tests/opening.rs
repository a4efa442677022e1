//! Who may come in, and over what.

use std::process::Command;

use leasehold_api::{Error, ErrorKind, Leasehold};
use leasehold_testbed::servers::etcd;
use leasehold_testbed::{Certificate, Server, free_port, program};

async fn open(url: &str) -> Result<Leasehold, Error> {
    Ok(Leasehold::new(leasehold_etcd::connect(url).await?))
}

async fn refused(url: &str) -> Error {
    open(url).await.expect_err(url)
}

/// Runs `etcdctl`.
fn control(port: u16, arguments: &str) {
    let program = program("etcdctl", &[], "etcd-client").unwrap_or_else(|error| panic!("{error}"));
    let mut call = Command::new(program);
    call.env("ETCDCTL_API", "3").arg(format!("--endpoints=127.0.0.1:{port}"));
    let done = call.args(arguments.split(' ')).output().expect("it runs");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_roles() {
    let mut server = etcd::start();
    let port = server.port;
    for arguments in [
        "user add root:secret",
        "user grant-role root root",
        "role add locks",
        "role grant-permission locks readwrite --prefix=true leasehold/",
        "user add me:p@ss",
        "user grant-role me locks",
        "user add other:other",
        "auth enable",
    ] {
        control(port, arguments);
    }
    let place = format!("127.0.0.1:{port}");
    let nobody = refused(&format!("etcd://{place}")).await;
    assert_eq!(nobody.kind, ErrorKind::Unauthenticated, "{nobody}");
    let wrong = refused(&format!("etcd://me:wrong@{place}")).await;
    assert_eq!(wrong.kind, ErrorKind::Unauthenticated, "{wrong}");
    assert!(!wrong.to_string().contains("me:wrong"), "{wrong}");
    let other = refused(&format!("etcd://other:other@{place}")).await;
    assert_eq!(other.kind, ErrorKind::Forbidden, "{other}");
    let elsewhere = refused(&format!("etcd://me:p%40ss@{place}/elsewhere")).await;
    assert_eq!(elsewhere.kind, ErrorKind::Forbidden, "{elsewhere}");

    let me = open(&format!("etcd://me:p%40ss@{place}")).await.expect("it is right");
    let held = me.lock("x").acquire().await.expect("it is free");
    // A token is forgotten with a restart, and old when roles change.
    server.restart();
    me.register("x").guarded_by(&held).write("1").await.expect("it is held");
    control(port, "--user=root:secret role add more");
    me.register("x").guarded_by(&held).write("2").await.expect("it is held");
    held.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls() {
    let directory = Server::directory();
    let own = Certificate::new(directory.path(), "127.0.0.1");
    let port = free_port();
    let mut call = etcd::alone(&directory, port);
    let client = format!("https://127.0.0.1:{port}");
    call.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    call.arg("--cert-file").arg(&own.certificate).arg("--key-file").arg(&own.key);
    let _server = Server::start(directory, port, call);
    let url = format!("etcds://127.0.0.1:{port}");
    let a = open(&format!("{url}?ca={}", own.certificate.display())).await.expect("it is trusted");
    a.lock("x").acquire().await.expect("it is free").release().await.expect("it is held");
    let stranger = refused(&url).await;
    assert_eq!(stranger.kind, ErrorKind::Unavailable, "{stranger}");
    let plain = refused(&format!("etcd://127.0.0.1:{port}")).await;
    assert_eq!(plain.kind, ErrorKind::Unavailable, "{plain}");
    let missing = refused(&format!("{url}?ca=/nowhere.pem")).await;
    assert_eq!(missing.kind, ErrorKind::Invalid, "{missing}");
}
