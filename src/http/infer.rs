//! A prediction over REST: body to message, the gRPC port's path, message to body.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use opentelemetry::KeyValue;
use tokio::time::Instant;

use super::describe::Target;
use super::{Failure, Rest, answer, body, request};
use crate::deadline::Deadline;
use crate::grpc::inference::Call;
use crate::grpc::request_id;
use crate::model::quoted;
use crate::telemetry::traces::CallTrace;

/// Length of the JSON in a body that has bytes behind it; the same in answers.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";

/// Answers `POST …/infer`. Time counts from the last byte of the body, as on the gRPC port from
/// the last byte of the message. Its name is told back, whatever it ended with.
pub(super) async fn infer(
    State(rest): State<Arc<Rest>>,
    target: Target,
    request: Request,
) -> Response {
    let headers = request.headers();
    let trace = rest.service.traces().of_call(
        headers,
        || false,
        || {
            let attributes = vec![
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("http.route", ROUTE),
            ];
            (format!("POST {ROUTE}").into(), attributes)
        },
    );
    let mut named = Named { id: request_id::of(headers), trace };
    let answer = predict(rest, target, request, &mut named).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if let Some(told) = named.id.as_deref().and_then(request_id::told) {
        response.headers_mut().insert(&request_id::HEADER, told);
    }
    if let Some(trace) = named.trace {
        let status = response.status();
        let code = KeyValue::new("http.response.status_code", i64::from(status.as_u16()));
        trace.end(code, status.is_server_error());
    }
    response
}

/// What a call is called, and by whom.
struct Named {
    id: Option<String>,
    trace: Option<CallTrace>,
}

/// Path of predictions, as traces tell it.
const ROUTE: &str = "/v2/models/{model}/infer";

async fn predict(
    rest: Arc<Rest>,
    target: Target,
    request: Request,
    named: &mut Named,
) -> Result<Response, Failure> {
    let limits = *rest.service.limits();
    let json_length = json_length(request.headers())?;
    let sender = rest.service.sender(request.extensions())?;
    let (mut bytes, permit) = body::read(request, &limits, &rest.memory).await?;
    let arrived_at = Instant::now();
    let deadline = Deadline::after(arrived_at, limits.default_timeout.min(limits.max_timeout));
    let length = json_length.unwrap_or(bytes.len());
    if length > bytes.len() {
        let got = bytes.len();
        let message = format!("{JSON_LENGTH} is {length}, the body has {got} bytes");
        return Err(Failure::invalid(message));
    }
    if length == 0 && !bytes.is_empty() {
        // Triton reads these as the only input of a model, and guesses its shape.
        let message = "bytes without JSON in front are not served: name, shape and datatype of \
             the input belong there";
        return Err(Failure::invalid(message));
    }
    let text = bytes.split_to(length);
    let room = limits.max_message_bytes;
    let parsed = aside(length, move || request::parse(&text, bytes, room)).await?;
    let (mut message, binary) = (parsed.message, parsed.binary);
    // From here on it counts as a request.
    drop(permit);
    (message.model_name, message.model_version) = (target.model, target.version);
    if !message.id.is_empty() {
        named.id = Some(message.id.clone());
    }
    let (request_id, trace) = (named.id.clone(), named.trace.clone());
    let call = Call { arrived_at, deadline, sender, request_id, trace };
    let answer = rest.service.infer(message, call).await?;
    let written = answer::text_bytes(&answer, &binary);
    aside(written, move || answer::encode(answer, &binary)).await
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Failure> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let length = text.parse().map_err(|_| {
        Failure::invalid(format!("{JSON_LENGTH} is {:?}, expected a number", quoted(&text)))
    })?;
    Ok(Some(length))
}

/// Text of this size takes milliseconds; so long nobody else may wait for.
const MUCH_TEXT_BYTES: usize = 256 << 10;

/// Does work on so many bytes of text: here if they are few, else away from the threads that serve
/// all connections.
async fn aside<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if size < MUCH_TEXT_BYTES {
        return work();
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "long texts of JSON only, which no thread of ours is for"
    )]
    let done = tokio::task::spawn_blocking(work);
    done.await.unwrap_or_else(|error| Err(Failure::internal(&error)))
}
