//! What a caller of the REST port is told: a gRPC status as an HTTP one, with the same text.
//!
//! | gRPC | HTTP |
//! | --- | --- |
//! | `INVALID_ARGUMENT`, `FAILED_PRECONDITION`, `OUT_OF_RANGE` | 400 |
//! | UNAUTHENTICATED, `PERMISSION_DENIED` | 401, 403 |
//! | `NOT_FOUND` | 404 |
//! | `RESOURCE_EXHAUSTED` | 429, with `Retry-After` where a retry makes sense |
//! | CANCELLED | 499 |
//! | UNIMPLEMENTED | 501 |
//! | UNAVAILABLE | 503 |
//! | `DEADLINE_EXCEEDED` | 504 |
//! | all others | 500 |
//!
//! A body above the limit is 413.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;
use tonic::{Code, Status};

/// A refusal.
#[derive(Debug)]
pub(super) struct Failure {
    code: StatusCode,
    text: String,
    /// Seconds.
    retry_after: Option<u64>,
}

/// Sent when the caller has left, so that logs of proxies have the usual number.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Failure {
    pub(super) fn new(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), retry_after: None }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
                StatusCode::BAD_REQUEST
            }
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Cancelled => {
                StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST)
            }
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let hint = status.metadata().get("grpc-retry-pushback-ms");
        let millis = hint.and_then(|hint| hint.to_str().ok()?.parse::<u64>().ok());
        // The header has whole seconds; rounded up, so that nobody comes too early.
        let retry_after = millis.map(|millis| millis.div_ceil(1000));
        Self { code, text: status.message().to_owned(), retry_after }
    }
}

impl From<crate::error::InvalidRequest> for Failure {
    fn from(error: crate::error::InvalidRequest) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(json!({ "error": self.text }))).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
