//! Metrics of calls over gRPC, by method and how they ended.
//!
//! Names are those of OpenTelemetry. Methods are a fixed list that the `grpc` room hands in, and one
//! place for all other paths, so that nobody adds a series by asking for what is not there. All places
//! exist from the start; shown are those that a call of that method usually ends in, and every other
//! one in which a call has ended.
//!
//! Source: OpenTelemetry semantic conventions 1.45, RPC metrics (`rpc.server.call.duration`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::SpanContext;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::Metrics;
use super::exemplars::Exemplars;
use super::histogram::Histogram;

/// Names of the statuses, in the order of their numbers.
///
/// Source: `google/rpc/code.proto`.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Label of calls of no known method.
const OTHER: &str = "_OTHER";

/// A method and the numbers of the statuses that its calls usually end with.
#[derive(Debug, Clone)]
pub struct Method {
    /// Its full name, without the slash in front.
    pub name: String,
    /// Numbers of statuses.
    pub usual: Vec<usize>,
}

/// What the calls of the data port count. Clones share it.
#[derive(Debug, Clone)]
pub struct CallMetrics(Arc<[MethodMetrics]>);

/// What the calls of one method count.
#[derive(Debug)]
struct MethodMetrics {
    method: Method,
    begun: AtomicU64,
    received: Messages,
    sent: Messages,
    durations: [Histogram; CODES.len()],
}

/// Messages of one direction.
#[derive(Debug, Default)]
struct Messages {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Messages {
    fn add(&self, count: u64, bytes: u64) {
        // Most parts of a long message end none.
        if count > 0 {
            self.count.fetch_add(count, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl CallMetrics {
    /// Of `methods`, and of all others.
    pub fn new(methods: Vec<Method>) -> Self {
        let unimplemented = CODES.iter().position(|code| *code == "UNIMPLEMENTED");
        let other = Method { name: OTHER.to_owned(), usual: unimplemented.into_iter().collect() };
        let metrics = |method| MethodMetrics {
            method,
            begun: AtomicU64::new(0),
            received: Messages::default(),
            sent: Messages::default(),
            durations: std::array::from_fn(|_| Histogram::seconds()),
        };
        Self(methods.into_iter().chain([other]).map(metrics).collect())
    }

    /// Place of the method at `index` of the list; that of all others for `None`.
    pub fn place(&self, index: Option<usize>) -> usize {
        index.unwrap_or(self.0.len() - 1)
    }

    /// Name of the method at this place.
    pub fn name(&self, place: usize) -> &str {
        &self.0[place].method.name
    }

    /// A call of the method at this place begins.
    pub fn begin(&self, place: usize) {
        self.0[place].begun.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes came, and with them the ends of `messages`.
    pub fn received(&self, place: usize, messages: u64, bytes: u64) {
        self.0[place].received.add(messages, bytes);
    }

    /// So many bytes went, and with them the ends of `messages`.
    pub fn sent(&self, place: usize, messages: u64, bytes: u64) {
        self.0[place].sent.add(messages, bytes);
    }

    /// A call ended with the status of that number, `took` after it began.
    pub fn end(&self, place: usize, code: usize, took: Duration) {
        self.0[place].durations[code].observe(took);
    }
}

impl CallMetrics {
    /// A call whose trace is recorded was such a one.
    pub fn exemplify(&self, place: usize, code: usize, took: Duration, trace: &SpanContext) {
        self.0[place].durations[code].exemplify(took, trace);
    }

    /// What durations are exemplified by.
    pub(super) fn exemplars(&self, found: &mut Exemplars) {
        for MethodMetrics { method, durations, .. } in self.0.iter() {
            for (code, histogram) in CODES.iter().zip(durations) {
                let labels =
                    [("rpc_method", method.name.as_str()), ("rpc_response_status_code", *code)];
                histogram
                    .exemplars(|bound, exemplar| found.put(DURATION, bound, &labels, exemplar));
            }
        }
    }
}

/// Name of the distribution of durations.
const DURATION: &str = "rpc_server_call_duration_seconds";

type Value = fn(&MethodMetrics) -> u64;

impl MethodMetrics {
    fn active(&self) -> u64 {
        // Ends first: a call that ends in between is then counted as active, and none twice as over.
        let ended = self.durations.iter().map(Histogram::count).sum();
        self.begun.load(Ordering::Relaxed).saturating_sub(ended)
    }
}

impl Collector for CallMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = (DURATION, "Calls over gRPC, to the last byte.");
        let mut histograms = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for MethodMetrics { method, durations, .. } in self.0.iter() {
            for (code, histogram) in durations.iter().enumerate() {
                if method.usual.contains(&code) || histogram.count() > 0 {
                    let labels = [
                        ("rpc_method", method.name.as_str()),
                        ("rpc_response_status_code", CODES[code]),
                    ];
                    histogram.encode(histograms.encode_family(&labels)?)?;
                }
            }
        }
        let (name, help) = ("rpc_server_active_calls", "Calls under way.");
        let mut gauges = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for method in self.0.iter() {
            let labels = [("rpc_method", method.method.name.as_str())];
            gauges.encode_family(&labels)?.encode_gauge(&method.active())?;
        }
        let counters: [(&str, &str, Value); 4] = [
            ("rpc_server_received_messages", "Messages received.", |method| {
                method.received.count.load(Ordering::Relaxed)
            }),
            ("rpc_server_received_bytes", "Bytes of them.", |method| {
                method.received.bytes.load(Ordering::Relaxed)
            }),
            ("rpc_server_sent_messages", "Messages sent.", |method| {
                method.sent.count.load(Ordering::Relaxed)
            }),
            ("rpc_server_sent_bytes", "Bytes of them.", |method| {
                method.sent.bytes.load(Ordering::Relaxed)
            }),
        ];
        for (name, help, value) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for method in self.0.iter() {
                let labels = [("rpc_method", method.method.name.as_str())];
                let mut counter = family.encode_family(&labels)?;
                counter.encode_counter(&value(method), None::<&Exemplar<NoLabelSet, u64>>)?;
            }
        }
        Ok(())
    }
}

impl Metrics {
    /// The part that calls over gRPC count, at zero. To be called once.
    pub fn calls(&self, methods: Vec<Method>) -> CallMetrics {
        let calls = CallMetrics::new(methods);
        self.plain().register_collector(Box::new(calls.clone()));
        drop(self.calls.set(calls.clone()));
        calls
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn text(calls: &CallMetrics) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(calls.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn usual_ends_are_there_at_zero_and_others_when_they_happen() {
        let calls = CallMetrics::new(vec![Method { name: "a/B".to_owned(), usual: vec![0] }]);
        let count = "rpc_server_call_duration_seconds_count";
        let ok = format!("{count}{{rpc_method=\"a/B\",rpc_response_status_code=\"OK\"}} ");
        let lost = format!("{count}{{rpc_method=\"a/B\",rpc_response_status_code=\"DATA_LOSS\"}} ");
        let other = "rpc_method=\"_OTHER\",rpc_response_status_code=\"UNIMPLEMENTED\"";
        let before = text(&calls);
        assert!(before.contains(&format!("{ok}0\n")) && before.contains(other), "{before}");
        assert!(!before.contains(&lost));

        let place = calls.place(Some(0));
        for _ in 0..3 {
            calls.begin(place);
        }
        calls.end(place, 0, Duration::from_millis(1));
        calls.end(place, 15, Duration::from_millis(1));
        calls.received(place, 0, 10);
        calls.received(place, 1, 20);
        calls.sent(calls.place(None), 2, 7);
        let after = text(&calls);
        for line in [
            &format!("{ok}1\n"),
            &format!("{lost}1\n"),
            "rpc_server_active_calls{rpc_method=\"a/B\"} 1\n",
            "rpc_server_received_messages_total{rpc_method=\"a/B\"} 1\n",
            "rpc_server_received_bytes_total{rpc_method=\"a/B\"} 30\n",
            "rpc_server_sent_messages_total{rpc_method=\"_OTHER\"} 2\n",
            "rpc_server_sent_bytes_total{rpc_method=\"_OTHER\"} 7\n",
        ] {
            assert!(after.contains(line), "{line}{after}");
        }
    }
}
