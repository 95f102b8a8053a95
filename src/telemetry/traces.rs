//! Traces: a span for each call, one for each run, and what joins them.
//!
//! A call goes on with the trace that its caller brings (W3C Trace Context) and follows what that one
//! decided on recording; without one, a share of calls begins a trace of its own. A run belongs to all
//! of its riders, so its span is nobody's child: it has a trace of its own, linked to the span of each
//! rider that is recorded. Spans go to a collector over OTLP, by a thread and a bounded queue of their
//! own: when the queue is full they are dropped, and nobody waits.
//!
//! Where no collector is named, nothing is recorded. A context that a caller brings is then still known,
//! for the log and for exemplars.
//!
//! Source: W3C Trace Context; OpenTelemetry semantic conventions 1.45, RPC and HTTP spans.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceId, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, SdkTracer,
    SdkTracerProvider, ShouldSample, Span,
};
use tokio::time::Instant;

use crate::config::TraceSettings;

/// The header that carries a trace.
///
/// A name that is made once: looking for a text, the library takes it apart each time.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest time that sending spans may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Spans wait so long for others to be sent with them.
const EXPORT_EVERY: Duration = Duration::from_secs(1);
/// Riders that a run's span names; the largest usual batch.
const MOST_LINKS: u32 = 1024;

/// Where spans go. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

/// The trace that a call belongs to.
#[derive(Debug, Clone)]
pub struct CallTrace {
    /// The call's own span if it is recorded, else its caller's.
    pub context: Arc<SpanContext>,
    span: Option<Arc<Mutex<OwnSpan>>>,
}

/// A span of a call. The library would take the wall clock for its end, too, which may have jumped since
/// the beginning.
#[derive(Debug)]
struct OwnSpan {
    span: Span,
    began_at: SystemTime,
    began: Instant,
}

/// A run, as its span tells it.
#[derive(Debug)]
pub struct RunFacts<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Its version.
    pub version: u64,
    /// Rows of all riders.
    pub rows: usize,
    /// Riders.
    pub requests: usize,
    /// How long ago it began.
    pub took: Duration,
    /// Whether it failed.
    pub failed: bool,
}

impl Traces {
    /// Sends spans as `settings` say; nowhere without them. Must be called on the async runtime.
    pub fn start(settings: Option<&TraceSettings>) -> Self {
        let Some(settings) = settings else { return Self(None) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&settings.endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build();
        let exporter = match exporter {
            Ok(exporter) => exporter,
            Err(error) => {
                tracing::error!(%error, "traces are not sent");
                return Self(None);
            }
        };
        let queue = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue_spans)
            .with_scheduled_delay(EXPORT_EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(queue).build();
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        // Attributes in the environment (OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME) are the library's
        // to read; they go before these.
        let named = Resource::builder().build().get(&Key::new("service.name"));
        let is_named = named.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
        let resource = Resource::builder().with_attribute(version);
        let resource = if is_named { resource } else { resource.with_service_name("onnxd") };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Share(Sampler::TraceIdRatioBased(settings.sample_ratio)))
            .with_max_links_per_span(MOST_LINKS)
            .with_resource(resource.build())
            .build();
        let tracer = provider.tracer("onnxd");
        Self(Some(Arc::new(Recorder { tracer, provider })))
    }

    /// The trace that a call with these headers belongs to, if it is recorded anywhere. A span begins
    /// with it where spans are sent, but a call that `follows` begins no trace of its own.
    pub fn of_call(
        &self,
        headers: &HeaderMap,
        follows: impl FnOnce() -> bool,
        describe: impl FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
    ) -> Option<CallTrace> {
        let parent = headers.contains_key(&TRACEPARENT).then(|| {
            let found = TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &Headers(headers));
            found.span().span_context().clone()
        });
        let parent = parent.filter(SpanContext::is_valid);
        let Some(recorder) = &self.0 else {
            let context = Arc::new(parent.filter(SpanContext::is_sampled)?);
            return Some(CallTrace { context, span: None });
        };
        if parent.as_ref().map_or_else(follows, |parent| !parent.is_sampled()) {
            return None;
        }
        let (name, attributes) = describe();
        let (began_at, began) = (SystemTime::now(), Instant::now());
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_start_time(began_at)
            .with_attributes(attributes);
        let around = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let span = recorder.tracer.build_with_context(builder, &around);
        if !span.is_recording() {
            return None;
        }
        let context = Arc::new(span.span_context().clone());
        let span = OwnSpan { span, began_at, began };
        Some(CallTrace { context, span: Some(Arc::new(Mutex::new(span))) })
    }

    /// A run has ended that these calls rode.
    pub fn run<'a>(
        &self,
        facts: &RunFacts<'_>,
        riders: impl Iterator<Item = Option<&'a Arc<SpanContext>>>,
    ) {
        let Some(recorder) = &self.0 else { return };
        let links: Vec<Link> =
            riders.flatten().map(|rider| Link::with_context((**rider).clone())).collect();
        if links.is_empty() {
            return;
        }
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let now = SystemTime::now();
        let mut builder = SpanBuilder::from_name("run")
            .with_kind(SpanKind::Internal)
            .with_start_time(now.checked_sub(facts.took).unwrap_or(now))
            .with_attributes([
                KeyValue::new("onnxd.model.name", facts.model.to_owned()),
                KeyValue::new(
                    "onnxd.model.version",
                    i64::try_from(facts.version).unwrap_or(i64::MAX),
                ),
                KeyValue::new("onnxd.run.rows", number(facts.rows)),
                KeyValue::new("onnxd.run.requests", number(facts.requests)),
            ]);
        builder.links = Some(links);
        let mut span = recorder.tracer.build_with_context(builder, &Context::new());
        if facts.failed {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(now);
    }

    /// Sends what has not been sent, at most for `limit`, and nothing from then on.
    pub async fn finish(&self, limit: Duration) {
        let Some(recorder) = &self.0 else { return };
        let provider = recorder.provider.clone();
        let (done, ended) = tokio::sync::oneshot::channel();
        // Waits for the exporter, whose connection lives on the runtime that must not wait.
        let thread = std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
            drop(done.send(provider.shutdown_with_timeout(limit)));
        });
        if thread.is_err() {
            return;
        }
        if !matches!(tokio::time::timeout(limit, ended).await, Ok(Ok(Ok(())))) {
            tracing::warn!("not all spans could be sent");
        }
    }
}

impl CallTrace {
    /// Tells more of the call, if it is recorded here.
    pub fn tell(&self, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(mut own) = self.span() {
            own.span.set_attributes(attributes());
        }
    }

    /// The call has ended, with a fault of the server or not.
    pub fn end(&self, attribute: KeyValue, failed: bool) {
        if let Some(mut own) = self.span() {
            own.span.set_attribute(attribute);
            if failed {
                own.span.set_status(Status::error(""));
            }
            own.end();
        }
    }

    /// The trace, as exemplars name it.
    pub fn trace_id(&self) -> TraceId {
        self.context.trace_id()
    }

    fn span(&self) -> Option<MutexGuard<'_, OwnSpan>> {
        Some(self.span.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl OwnSpan {
    /// Counts once: later ends do nothing.
    fn end(&mut self) {
        let ended_at = self.began_at.checked_add(self.began.elapsed());
        self.span.end_with_timestamp(ended_at.unwrap_or(self.began_at));
    }
}

/// Of a call that went without an end.
impl Drop for OwnSpan {
    fn drop(&mut self) {
        self.end();
    }
}

/// Samples calls that begin a trace by their share, others as their callers have decided. Runs are
/// asked for only if a rider is recorded.
#[derive(Debug, Clone)]
struct Share(Sampler);

impl ShouldSample for Share {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let above = parent.filter(|parent| parent.span().span_context().is_valid());
        let decided = match (above, kind) {
            (Some(above), _) => above.span().span_context().is_sampled(),
            (None, SpanKind::Internal) => true,
            (None, _) => {
                return self.0.should_sample(None, trace_id, name, kind, attributes, links);
            }
        };
        let state = above.map(|above| above.span().span_context().trace_state().clone());
        SamplingResult {
            decision: if decided {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: state.unwrap_or_default(),
        }
    }
}

/// Headers of a call, as the library reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(parent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());
        headers
    }

    #[test]
    fn where_nothing_is_sent_a_recorded_context_is_known_and_no_other() {
        let traces = Traces::default();
        let of = |parent: &str| traces.of_call(&headers(parent), || false, || panic!("no span"));
        let known = of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(known.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for other in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "nonsense",
        ] {
            assert!(of(other).is_none(), "{other}");
        }
        assert!(traces.of_call(&HeaderMap::new(), || false, || panic!("no span")).is_none());
    }
}
