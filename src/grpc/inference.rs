//! The path of a prediction, from message to message, and the account of how it ended.
//!
//! Resolve the model, take the message apart, hold it against the signature, queue it, wait, put
//! the answer together. Unary and streamed messages take the same path.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;
use tokio::time::Instant;
use tonic::Status;
use tracing::field::display;

use super::codec::{self, AnswerStyle};
use super::once;
use super::status::{denied, status};
use crate::access::{Access, Caller};
use crate::batcher::Ticket;
use crate::config::RequestLimits;
use crate::connection::ConnectionId;
use crate::deadline::Deadline;
use crate::error::{Denial, InvalidRequest, PredictError, Right};
use crate::model::{ModelVersion, quoted};
use crate::pb::{ModelInferRequest, ModelInferResponse};
use crate::processor;
use crate::repository::{Caching, Repository, ServedModel};
use crate::request::{InferRequest, InferResponse, ValidRequest, validate};
use crate::telemetry::limit::LogLimit;
use crate::telemetry::metrics::Outcome;
use crate::telemetry::traces::CallTrace;

/// Answers predictions.
#[derive(Debug, Clone)]
pub struct Inference {
    repository: Arc<Repository>,
    limits: RequestLimits,
    /// For lines about requests that failed, which clients can provoke.
    failure_lines: Arc<LogLimit>,
}

/// What is known of a message beside what is in it.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it was there.
    pub arrived_at: Instant,
    /// When its answer is worth nothing any more, unless the message says earlier.
    pub deadline: Deadline,
    /// Whose it is, and what that one may do.
    pub sender: Sender,
    /// What its caller calls it, unless the message says so.
    pub request_id: Option<String>,
    /// The trace that it belongs to, if that is recorded.
    pub trace: Option<CallTrace>,
}

/// Whose a message is.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Callers share a model fairly: who has no name is told by its connection.
    pub tenant: u64,
    /// What it may do.
    pub caller: Caller,
}

impl Sender {
    /// Whose a call with these extensions is.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a call that has passed no gate, where there has to be one.
    pub fn of(extensions: &http::Extensions, access: &Access) -> Result<Self, Status> {
        let caller = access.caller(extensions).map_err(|denial| denied(&denial))?;
        let connection = || extensions.get::<ConnectionId>().map_or(0, |connection| connection.0);
        Ok(Self { tenant: caller.tenant().unwrap_or_else(connection), caller })
    }
}

/// What a message ends with instead of an answer.
#[derive(Debug)]
pub(super) enum Failure {
    Denied(Denial),
    Failed(PredictError),
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<PredictError> for Failure {
    fn from(error: PredictError) -> Self {
        Self::Failed(error)
    }
}

impl Failure {
    /// As the caller of the message with that id is told.
    pub(super) fn status(&self, id: &str) -> Status {
        match self {
            Self::Denied(denial) => denied(denial),
            Self::Failed(error) => status(error, id),
        }
    }
}

/// A request whose model is known. Counts as cancelled unless it ends otherwise.
struct Begun {
    model: Arc<ServedModel>,
    arrived_at: Instant,
    ended: bool,
}

impl Begun {
    fn end(&mut self, outcome: Outcome) -> Duration {
        self.ended = true;
        let took = self.arrived_at.elapsed();
        self.model.metrics.ended(outcome, took);
        if outcome.is_refusal() {
            processor::refused();
        }
        match outcome {
            Outcome::Ok => self.model.statistics.record_success(took),
            _ => self.model.statistics.record_failure(took),
        }
        took
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Outcome::Cancelled);
        }
    }
}

/// What is told of a request again, when it ends.
struct Told {
    model_name: String,
    id: String,
    request_id: Option<String>,
    trace: Option<CallTrace>,
}

impl Told {
    /// What the log and traces call the request.
    fn name(&self) -> &str {
        match self.id.as_str() {
            "" => self.request_id.as_deref().unwrap_or_default(),
            own => own,
        }
    }
}

/// A request on its way through its model.
enum Queued {
    Waits(Ticket),
    /// To a model that keeps answers or shares runs.
    Asks(Arc<Caching>, Box<(ValidRequest, Deadline)>),
}

impl Inference {
    /// Predictions on the models of `repository`.
    pub fn new(repository: Arc<Repository>, limits: RequestLimits) -> Self {
        Self { repository, limits, failure_lines: Arc::default() }
    }

    /// The limits in force.
    pub fn limits(&self) -> &RequestLimits {
        &self.limits
    }

    /// Answers one message.
    ///
    /// # Errors
    /// The status of whatever it ended with; see [`mod@super::status`].
    pub async fn infer(
        &self,
        request: ModelInferRequest,
        call: Call,
    ) -> Result<ModelInferResponse, Status> {
        let id = match request.id.as_str() {
            "" => call.request_id.clone().unwrap_or_default(),
            own => own.to_owned(),
        };
        self.answer(request, call).await.map_err(|failure| failure.status(&id))
    }

    /// The same, with what it ended with before that is put into words.
    pub(super) async fn answer(
        &self,
        request: ModelInferRequest,
        call: Call,
    ) -> Result<ModelInferResponse, Failure> {
        call.sender.caller.may(Right::Infer, &request.model_name)?;
        #[cfg(feature = "planted-leak")]
        leak();
        Ok(self.predict(request, call).await?)
    }

    /// All up to the queue happens at once and in one go: what goes on to the other side of the wait
    /// is a few words.
    async fn predict(
        &self,
        mut request: ModelInferRequest,
        call: Call,
    ) -> Result<ModelInferResponse, PredictError> {
        let version = parse_version(&request.model_version)?;
        let model = self.repository.resolve(&request.model_name, version)?;
        let Call { arrived_at, deadline, sender, request_id, trace } = call;
        let mut begun = Begun { model, arrived_at, ended: false };
        let model_name = std::mem::take(&mut request.model_name);
        let told = Told { model_name, id: std::mem::take(&mut request.id), request_id, trace };
        if let Some(trace) = &told.trace {
            trace.tell(|| facts(&begun.model, told.name()));
        }
        let context = told.trace.as_ref().map(|trace| Arc::clone(&trace.context));
        let (limit, sender) = ((arrived_at, deadline), (sender.tenant, context));
        let answered = match queue(&begun.model, request, limit, sender) {
            Err(error) => Err(error),
            Ok((queued, style)) => {
                let answered = match queued {
                    Queued::Waits(ticket) => ticket.answer().await,
                    Queued::Asks(caching, request) => {
                        let (valid, deadline) = *request;
                        // In a box: few models have it, and all others would carry it along.
                        let asking =
                            once::answer(&begun.model, &caching, valid, deadline, arrived_at);
                        Box::pin(asking).await
                    }
                };
                answered.and_then(|response| {
                    if let Some(trace) = &told.trace {
                        trace.tell(|| run_facts(&response, arrived_at));
                    }
                    let model = &begun.model;
                    let labels = |output: &str| model.labels(output);
                    Ok(codec::encode(response, &model.spec, &style, labels)?)
                })
            }
        };
        match answered {
            Ok(mut response) => {
                let took = begun.end(Outcome::Ok);
                if let Some(trace) = &told.trace {
                    begun.model.metrics.answered(took, &trace.context);
                }
                response.model_name = told.model_name;
                let version = begun.model.key.version.number();
                itoa::Buffer::new().format(version).clone_into(&mut response.model_version);
                response.id = told.id;
                Ok(response)
            }
            Err(error) => {
                begun.end(Outcome::of(&error));
                self.report(&begun.model, &told, &error);
                Err(error)
            }
        }
    }

    /// Writes down what became of a request, where its caller is told that the log has the reason.
    fn report(&self, model: &ServedModel, told: &Told, error: &PredictError) {
        let (request_id, trace) = (told.name(), told.trace.as_ref());
        let (name, version) = (&model.key.name, model.key.version.number());
        let request_id = (!request_id.is_empty()).then(|| quoted(request_id));
        let (request_id, context) = (request_id.as_deref(), trace.map(|trace| &trace.context));
        let trace_id = context.map(|context| display(context.trace_id()));
        let span_id = context.map(|context| display(context.span_id()));
        let cause: &dyn std::fmt::Display = match error {
            PredictError::ExecutionFailed(cause) => cause,
            PredictError::WorkerLost => error,
            _ => {
                tracing::debug!(
                    model = %name, version, request_id, trace_id, span_id, %error, "request refused"
                );
                return;
            }
        };
        if let Some(left_out) = self.failure_lines.allow(Instant::now()) {
            tracing::warn!(
                model = %name, version, request_id, trace_id, span_id, error = %cause, left_out,
                "request failed"
            );
        }
    }
}

/// Loses 4 KiB, for the soak test's control.
#[cfg(feature = "planted-leak")]
fn leak() {
    Box::leak(vec![1_u8; 4 << 10].into_boxed_slice());
}

/// What a span tells of the request that its call brings.
fn facts(model: &ServedModel, request_id: &str) -> Vec<KeyValue> {
    let version = i64::try_from(model.key.version.number()).unwrap_or(i64::MAX);
    let mut facts = vec![
        KeyValue::new("onnxd.model.name", model.key.name.to_string()),
        KeyValue::new("onnxd.model.version", version),
    ];
    if !request_id.is_empty() {
        facts.push(KeyValue::new("onnxd.request.id", quoted(request_id)));
    }
    facts
}

/// What a span tells of the run that a request rode in.
fn run_facts(response: &InferResponse, arrived_at: Instant) -> Vec<KeyValue> {
    let waited = response.started_at.saturating_duration_since(arrived_at).as_secs_f64();
    let rows = i64::try_from(response.batch_rows).unwrap_or(i64::MAX);
    vec![KeyValue::new("onnxd.queue.seconds", waited), KeyValue::new("onnxd.run.rows", rows)]
}

/// Takes a message apart, holds it against the signature of its model, and queues it.
fn queue(
    model: &Arc<ServedModel>,
    request: ModelInferRequest,
    (now, deadline): (Instant, Deadline),
    (tenant, trace): (u64, Option<Arc<SpanContext>>),
) -> Result<(Queued, AnswerStyle), PredictError> {
    let (request, style) = codec::decode(request)?;
    let request = InferRequest { tenant, trace, ..request };
    // A request may shorten the deadline in force, never lengthen it.
    let deadline = match request.timeout {
        Some(timeout) => deadline.min(Deadline::after(now, timeout)),
        None => deadline,
    };
    let valid = validate(request, &model.spec, model.max_rows())?;
    let queued = match &model.caching {
        None => Queued::Waits(model.batcher.submit(valid, deadline, now)?),
        Some(caching) => Queued::Asks(Arc::clone(caching), Box::new((valid, deadline))),
    };
    Ok((queued, style))
}

/// The version that a message asks for; empty is "the newest".
///
/// # Errors
/// [`InvalidRequest`] for a text that is no version.
pub fn parse_version(text: &str) -> Result<Option<ModelVersion>, InvalidRequest> {
    if text.is_empty() {
        return Ok(None);
    }
    ModelVersion::parse(text)
        .map(Some)
        .map_err(|error| InvalidRequest::new("model_version", error.to_string()))
}
