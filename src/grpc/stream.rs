//! The messages of one `ModelStreamInfer` call: a bounded window over the same path as unary calls.
//!
//! Many messages of a stream are in flight at once and ride in batches with everybody else's. When
//! the window is full, or the reader does not take answers, the inbound side is not polled, and
//! HTTP/2's flow control stops that one client. The error of a message stays in the stream as that
//! message's answer. Dropping the stream gives up everything in flight.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status, Streaming};

use super::codec::bool_parameter;
use super::inference::{Call, Inference, Sender};
use super::status::status;
use crate::config::StreamOrder;
use crate::deadline::Deadline;
use crate::error::{PredictError, Stage};
use crate::pb::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::telemetry::traces::CallTrace;

/// Answers of a stream.
pub(super) type Answers =
    Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

/// Marks the last, here the only, answer of a request; NVIDIA's tools look for it.
const FINAL_RESPONSE: &str = "triton_final_response";

/// What the messages of a stream have in common.
pub(super) struct Whole {
    /// When the stream ends.
    pub(super) deadline: Option<Deadline>,
    pub(super) sender: Sender,
    /// What its caller calls those that have no name of their own.
    pub(super) request_id: Option<String>,
    pub(super) trace: Option<CallTrace>,
}

/// Answers the messages of `requests`. With a deadline the whole stream ends then; when `stopping` is
/// raised it reads no further.
pub(super) fn answer(
    service: Inference,
    requests: Streaming<ModelInferRequest>,
    Whole { deadline, sender, request_id, trace }: Whole,
    mut stopping: watch::Receiver<bool>,
) -> Answers {
    let limits = *service.limits();
    let one = move |message: Result<ModelInferRequest, Status>| {
        let (service, sender) = (service.clone(), sender.clone());
        let (request_id, trace) = (request_id.clone(), trace.clone());
        async move {
            let request = message.map_err(super::adjust_status)?;
            let arrived_at = Instant::now();
            let own = Deadline::after(arrived_at, limits.default_timeout);
            let deadline = deadline.map_or(own, |whole| own.min(whole));
            let call = Call { arrived_at, deadline, sender, request_id, trace };
            Ok(answer_one(&service, request, call).await)
        }
    };
    // When the server stops, what was read is answered and the call ends with UNAVAILABLE, on
    // which a client turns to another server. Messages that were not read were not accepted.
    let stop = Box::pin(async move { stopping.wait_for(|stopping| *stopping).await.map(drop) });
    let mut requests = requests.take_until(stop);
    let requests = stream::poll_fn(move |context| match requests.poll_next_unpin(context) {
        Poll::Ready(None) if requests.take_result().is_some() => {
            Poll::Ready(Some(Err(status(&PredictError::ShuttingDown, ""))))
        }
        other => other,
    });
    let answers = requests.map(one);
    let answers: Answers = match limits.stream_order {
        StreamOrder::Request => Box::pin(answers.buffered(limits.stream_window)),
        StreamOrder::Completion => Box::pin(answers.buffer_unordered(limits.stream_window)),
    };
    match deadline {
        None => answers,
        Some(deadline) => {
            let timer = Box::pin(sleep_until(deadline.instant()));
            Box::pin(Bounded { answers, timer: Some(timer) })
        }
    }
}

async fn answer_one(
    service: &Inference,
    request: ModelInferRequest,
    call: Call,
) -> ModelStreamInferResponse {
    let (name, id) = (request.model_name.clone(), request.id.clone());
    match service.infer(request, call).await {
        Ok(mut response) => {
            response.parameters.insert(FINAL_RESPONSE.to_owned(), bool_parameter(true));
            ModelStreamInferResponse {
                error_message: String::new(),
                infer_response: Some(response),
            }
        }
        Err(status) => ModelStreamInferResponse {
            error_message: status.message().to_owned(),
            infer_response: Some(ModelInferResponse {
                model_name: name,
                id,
                parameters: [(FINAL_RESPONSE.to_owned(), bool_parameter(true))].into(),
                ..ModelInferResponse::default()
            }),
        },
    }
}

/// Answers until the call's deadline.
struct Bounded {
    answers: Answers,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream for Bounded {
    type Item = Result<ModelStreamInferResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(timer) = self.timer.as_mut() else { return Poll::Ready(None) };
        if timer.as_mut().poll(context).is_ready() {
            self.timer = None;
            let error = PredictError::DeadlineExceeded { stage: Stage::Execution };
            return Poll::Ready(Some(Err(Status::new(Code::DeadlineExceeded, error.to_string()))));
        }
        self.answers.as_mut().poll_next(context)
    }
}
