//! Figures for Prometheus.
//!
//! What the door counts itself is requests by route and status. Everything else is read from the
//! server's counters and from the newest sample when somebody asks. Routes are labelled by their
//! pattern and queues are at most 200, so the number of series is bounded.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use leasehold_api::engine::QueueView;
use leasehold_api::{Error, ErrorKind, Result};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Totals;
use crate::door::Door;

/// Bounds of the request histogram, seconds: from a grant without a wait to a long poll.
const BUCKETS: [f64; 9] = [0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    method: &'static str,
    route: String,
    status: u16,
}

impl EncodeLabelSet for Route {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        EncodeLabel::encode(&("method", self.method), encoder.encode_label())?;
        EncodeLabel::encode(&("route", self.route.as_str()), encoder.encode_label())?;
        EncodeLabel::encode(&("status", u64::from(self.status)), encoder.encode_label())
    }
}

type Histograms = Family<Route, Histogram, fn() -> Histogram>;

/// Requests by route and status.
pub(crate) struct Requests(Histograms);

impl Default for Requests {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}

/// The layer that counts requests.
pub(crate) async fn observe(
    State(door): State<Arc<Door>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = method_name(request.method());
    let answer = next.run(request).await;
    let route = matched.as_ref().map_or("none", MatchedPath::as_str).to_string();
    let route = Route { method, route, status: answer.status().as_u16() };
    door.requests.0.get_or_create(&route).observe(began.elapsed().as_secs_f64());
    answer
}

/// Methods are free text, and labels must not be.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// Everything as text.
///
/// # Errors
/// `Broken` when it cannot be written.
pub(crate) fn text(door: &Door) -> Result<String> {
    let mut registry = Registry::with_prefix("leasehold");
    let help = "Time to the head of the answer";
    registry.register("http_request_seconds", help, door.requests.0.clone());
    let figures = Figures { totals: door.counters.read(), queues: door.sampler.queues() };
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|error| Error::new(ErrorKind::Broken, format!("no metrics: {error}")))?;
    Ok(text)
}

#[derive(Debug)]
struct Figures {
    totals: Totals,
    queues: Arc<Vec<QueueView>>,
}

impl Figures {
    fn counts(&self) -> [(&'static str, &'static str, u64); 9] {
        let all = &self.totals;
        [
            ("lock_requests", "Times that a lock was asked for", all.lock_requests),
            ("grants", "Times that a lock was granted", all.grants),
            ("releases", "Times that a lock was released", all.releases),
            ("lock_waits", "Grants that had to wait", all.lock_waits),
            ("published", "Messages accepted", all.published),
            ("delivered", "Deliveries", all.delivered),
            ("settled", "Deliveries settled", all.settled),
            ("refused", "Requests refused", all.refused),
            ("syncs", "Syncs of the journal", all.syncs),
        ]
    }

    fn gauges(&self) -> [(&'static str, &'static str, u64); 4] {
        let all = &self.totals;
        [
            ("messages", "Messages there are", all.messages),
            ("locks", "Locks that are held", all.locks),
            ("sessions", "Open sessions", all.sessions),
            ("memory_bytes", "Memory of the process", all.memory_bytes),
        ]
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

type OfQueue = fn(&QueueView) -> u64;

const QUEUE_GAUGES: [(&str, &str, OfQueue); 5] = [
    ("queue_ready", "Messages ready for delivery", |queue| queue.ready),
    ("queue_in_flight", "Messages delivered and not settled", |queue| queue.in_flight),
    ("queue_delayed", "Delayed messages", |queue| queue.delayed),
    ("queue_bytes", "Bytes waiting and in flight", |queue| queue.bytes),
    ("queue_consumers", "Consumers", |queue| queue.consumers as u64),
];

const QUEUE_COUNTS: [(&str, &str, OfQueue); 4] = [
    ("queue_published", "Messages accepted", |queue| queue.totals.published),
    ("queue_acked", "Messages acknowledged", |queue| queue.totals.acked),
    ("queue_dead", "Messages sent to the dead letters", |queue| queue.totals.dead),
    ("queue_dropped", "Messages dropped", |queue| queue.totals.dropped),
];

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for (name, help, value) in self.counts() {
            let into = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(into)?;
        }
        for (name, help, us) in [
            ("lock_wait_seconds", "Time waited for locks", self.totals.lock_wait_us),
            ("sync_seconds", "Time spent in syncs", self.totals.sync_us),
        ] {
            let into = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(seconds(us)).encode(into)?;
        }
        let longest = seconds(self.totals.lock_wait_us_max);
        let help = "The longest wait for a lock";
        let name = "lock_wait_max_seconds";
        let into = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(longest).encode(into)?;
        for (name, help, value) in self.gauges() {
            let into = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(into)?;
        }
        for (name, help, of) in QUEUE_GAUGES {
            let mut into = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for queue in self.queues.iter() {
                let labels = [("queue", queue.name.as_str())];
                ConstGauge::new(of(queue)).encode(into.encode_family(&labels)?)?;
            }
        }
        for (name, help, of) in QUEUE_COUNTS {
            let mut into = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for queue in self.queues.iter() {
                let labels = [("queue", queue.name.as_str())];
                ConstCounter::new(of(queue)).encode(into.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
