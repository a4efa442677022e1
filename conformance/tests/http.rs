//! The suite over HTTP: the real door in this process, every handle a connection of its own.

use leasehold_conformance::{Target, judge_engine};
use leasehold_http_door::{DoorConfig, HttpDoor, NoCounters, ServerInfo, serve};
use leasehold_native::NativeEngine;
use std::sync::Arc;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = leasehold_node::Options::default();
    let native = NativeEngine::open(directory.path(), options).expect("it opens");
    let config = DoorConfig::new([7; 32], Arc::new(NoCounters), ServerInfo::default());
    let door = HttpDoor::new(native.engine(), config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, None, door, async { drop(stopped.await) }));

    let target = Target::new(move || {
        let url = url.clone();
        async move { leasehold::connect(&url).await }
    });
    judge_engine(target).await;

    stop.send(()).ok();
    serving.await.expect("it does not panic").expect("it closes");
    native.close().await.expect("it closes");
}
