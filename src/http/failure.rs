//! What a caller is told instead of an answer: a status and one sentence, `{"error": "…"}`.
//!
//! | status | what |
//! | --- | --- |
//! | 400 | the request is wrong |
//! | 401, 403 | no valid credentials; no right to that model |
//! | 404, 405 | no such model, version or path; the path is asked in another way |
//! | 408 | the body did not come in time |
//! | 413 | the body, or what its lists of numbers amount to, is above `max_message_bytes` |
//! | 415 | a `Content-Encoding` that is not read |
//! | 429 | a queue or the memory for requests is full; `Retry-After` where a retry makes sense |
//! | 500 | the run failed; the log has the reason |
//! | 501 | a call that is not served |
//! | 503 | not ready, or stopping |
//! | 504 | the deadline passed |
//!
//! The status follows from the gRPC one, and the text is the same. Only a body above the limit
//! differs: gRPC has one code for "too large" and "full". HTTP clients retry a 429 by themselves,
//! and a body that is too large stays so: 413.
//!
//! Source: Triton's HTTP codes; `google.rpc.Code`, "HTTP Mapping"; RFC 9110.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;
use tonic::{Code, Status};

/// An error on its way to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    status: StatusCode,
    message: String,
    retry_after: Option<Duration>,
}

impl Failure {
    /// A sentence with a status.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    /// The request is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// More than a request may hold.
    pub(super) fn too_large(what: &str, limit: usize) -> Self {
        let message = format!("{what} is larger than the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// A fault of ours. The reason is for the log.
    pub(super) fn internal(reason: &dyn std::fmt::Display) -> Self {
        tracing::error!(%reason, "an answer could not be made");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made")
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (u16, &str) {
        (self.status.as_u16(), &self.message)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let hint = status.metadata().get("grpc-retry-pushback-ms");
        let millis = hint.and_then(|hint| hint.to_str().ok()?.parse().ok());
        Self {
            status: http_status(status.code()),
            message: status.message().to_owned(),
            retry_after: millis.map(Duration::from_millis),
        }
    }
}

/// Status of what a caller who left is told; nobody reads it. Source: nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.message }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            // Source: RFC 9110, section 11.6.1.
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(after) = self.retry_after {
            // Whole seconds are all that the header can say.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::try_from(seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{InvalidRequest, PredictError, Stage};
    use crate::grpc::status::status;

    #[test]
    fn a_retry_is_told_in_whole_seconds() {
        let full = |retry_after| PredictError::Full {
            what: "queue",
            used: 8,
            limit: 8,
            unit: "requests",
            retry_after,
        };
        let header = |retry_after| {
            let response = Failure::from(status(&full(retry_after), "")).into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            let value = response.headers().get(header::RETRY_AFTER);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header(None), None);
        assert_eq!(header(Some(Duration::from_millis(20))).as_deref(), Some("1"));
        assert_eq!(header(Some(Duration::from_millis(1001))).as_deref(), Some("2"));
    }

    #[test]
    fn statuses_are_those_that_clients_act_on() {
        let table = [
            (PredictError::ModelNotFound { model: "m".into() }, 404),
            (PredictError::ModelNotReady { model: "m".into(), reason: "loading" }, 503),
            (PredictError::ShuttingDown, 503),
            (PredictError::DeadlineExceeded { stage: Stage::Queue }, 504),
            (PredictError::WorkerLost, 500),
            (PredictError::Unimplemented("no"), 501),
            (InvalidRequest::new("inputs", "wrong").into(), 400),
        ];
        for (error, expected) in table {
            let failure = Failure::from(status(&error, ""));
            assert_eq!(failure.parts(), (expected, error.to_string().as_str()));
        }
    }
}
