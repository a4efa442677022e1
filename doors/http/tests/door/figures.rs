//! The pages, the status and the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_http_door::{Counters, Totals};
use serde_json::{Value, json};

use crate::harness::{config, server, server_with, until};

/// Figures that rise at every look.
#[derive(Default)]
struct Rising(AtomicU64);

impl Counters for Rising {
    fn read(&self) -> Totals {
        let looks = self.0.fetch_add(1, Ordering::Relaxed);
        Totals {
            published: looks * 100,
            lock_waits: looks,
            lock_wait_us: looks * 2000,
            locks: 1,
            memory_bytes: 12 << 20,
            ..Totals::default()
        }
    }
}

#[tokio::test]
async fn the_status_has_everything_that_the_page_shows() {
    let mut counted = config();
    counted.counters = Arc::new(Rising::default());
    let server = server_with(counted).await;
    server.post("/v1/locks/l/acquire", json!({"label": "me"})).await.good();
    let permits = json!({"permits": 2, "of": 5});
    server.post("/v1/semaphores/s/acquire", permits).await.good();
    server.post("/v1/queues/q/messages", json!({"body": "x"})).await.good();
    until("there is a history", || async {
        let status = server.get("/v1/status").await.good();
        let rates = status["history"]["published"].as_array().unwrap().clone();
        let queue = status["queues"][0]["history"].as_array().unwrap().clone();
        rates.len() >= 2 && queue.len() >= 2 && queue.last() == Some(&json!(1))
    })
    .await;
    let status = server.get("/v1/status").await.good();
    assert_eq!(status["server"]["ready"], true);
    assert_eq!(status["server"]["version"], "1.2.3");
    assert!(status["totals"]["published"].as_u64().unwrap() > 0);
    assert_eq!(status["totals"]["memory_bytes"], 12 << 20);
    assert_eq!(status["totals"]["lock_wait_ms_avg"], 2.0);
    let history = &status["history"];
    assert_eq!(history["step_ms"], 1000);
    for field in [
        "published",
        "delivered",
        "settled",
        "lock_requests",
        "grants",
        "releases",
        "lock_wait_ms",
        "sync_ms",
    ] {
        let length = history[field].as_array().unwrap().len();
        assert_eq!(length, history["published"].as_array().unwrap().len(), "{field}");
    }
    assert_eq!(history["lock_wait_ms"][0], 2.0);
    assert_eq!(history["sync_ms"][0], Value::Null);

    assert_eq!(status["locks_total"], 2);
    let modes: Vec<&str> = status["locks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lock| lock["holders"][0]["mode"].as_str().unwrap())
        .collect();
    assert!(modes.contains(&"exclusive") && modes.contains(&"permits 2 of 5"), "{modes:?}");
    let queue = &status["queues"][0];
    assert_eq!((&queue["name"], &queue["ready"]), (&json!("q"), &json!(1)));
    assert!(queue["oldest_ms"].is_u64(), "{queue}");
    assert_eq!(queue["drain_ms"], Value::Null);
    assert_eq!(status["queues_total"], 1);
    server.stop().await;
}

#[tokio::test]
async fn prometheus_reads_all_figures() {
    let mut counted = config();
    counted.counters = Arc::new(Rising::default());
    let server = server_with(counted).await;
    server.post("/v1/queues/q/messages", json!({"body": "x"})).await.good();
    server.get("/nowhere").await;
    until("the queue was sampled", || async {
        server.get("/metrics").await.text().contains("leasehold_queue_ready{queue=\"q\"} 1")
    })
    .await;
    let reply = server.get("/metrics").await;
    let kind = reply.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = reply.text();
    for series in [
        "leasehold_lock_requests_total 0",
        "leasehold_grants_total",
        "leasehold_releases_total",
        "leasehold_lock_wait_seconds_total",
        "leasehold_lock_wait_max_seconds",
        "leasehold_published_total",
        "leasehold_syncs_total",
        "leasehold_sync_seconds_total",
        "leasehold_locks 1",
        "leasehold_sessions 0",
        "leasehold_queue_published_total{queue=\"q\"} 1",
        "leasehold_http_request_seconds_count{method=\"POST\",\
         route=\"/v1/queues/{name}/messages\",status=\"200\"} 1",
        "route=\"none\",status=\"404\"",
        "# EOF",
    ] {
        assert!(text.contains(series), "{series} is missing in\n{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_pages_come_with_their_policies() {
    let server = server().await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/status.css", "text/css"),
        ("/status.js", "text/javascript"),
        ("/favicon.svg", "image/svg+xml"),
        ("/docs/", "text/html"),
        ("/docs/swagger-initializer.js", "text/javascript"),
        ("/docs/swagger-ui-bundle.js", "text/javascript"),
    ] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        let header = |name: &str| reply.headers[name].to_str().unwrap().to_string();
        assert!(header("content-type").starts_with(kind), "{path}: {}", header("content-type"));
        let policy = header("content-security-policy");
        assert!(policy.contains("script-src 'self';"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("x-frame-options"), "DENY");
        assert!(!reply.body.is_empty());
    }
    let script = server.get("/docs/swagger-initializer.js").await.text();
    assert!(script.contains("/v1/openapi.json"), "{script}");
    let moved = server.get("/docs").await;
    assert_eq!(moved.headers["location"], "/docs/");
    let answer = server.get("/v1/locks/a").await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    server.stop().await;
}

#[tokio::test]
async fn health_and_readiness_are_two_things() {
    let server = server().await;
    assert_eq!(server.get("/healthz").await.text(), "alive\n");
    assert_eq!(server.get("/readyz").await.text(), "ready\n");
    server.engine.close().await.unwrap();
    assert_eq!(server.get("/healthz").await.text(), "alive\n");
    let reply = server.get("/readyz").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    let status = server.get("/v1/status").await.good();
    assert_eq!(status["server"]["ready"], false);
    server.stop().await;
}
