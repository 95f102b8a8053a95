//! What a caller is told, as a gRPC status: the one translation.
//!
//! Codes are those that clients of the protocol act on (`RESOURCE_EXHAUSTED` when full, so that no
//! client retries by itself at once; UNAVAILABLE when another server would do). Details carry the
//! field, a stable reason and the request id for programs; the text is for people.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::HashMap;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Denial, PredictError, Stage, rounded};

/// Domain of the reasons in `ErrorInfo`.
const DOMAIN: &str = "onnxd";

/// gRPC code and stable reason of an error.
pub fn code(error: &PredictError) -> (Code, &'static str) {
    match error {
        PredictError::Invalid(_) => (Code::InvalidArgument, "INVALID_REQUEST"),
        PredictError::ModelNotFound { .. } => (Code::NotFound, "MODEL_NOT_FOUND"),
        PredictError::VersionNotFound { .. } => (Code::NotFound, "VERSION_NOT_FOUND"),
        PredictError::ModelNotReady { .. } => (Code::Unavailable, "MODEL_NOT_READY"),
        PredictError::Full { .. } => (Code::ResourceExhausted, "FULL"),
        PredictError::Congested { .. } => (Code::ResourceExhausted, "CONGESTED"),
        PredictError::TooLittleTime { .. } => (Code::DeadlineExceeded, "TOO_LITTLE_TIME"),
        PredictError::DeadlineExceeded { stage: Stage::Arrival } => {
            (Code::DeadlineExceeded, "DEADLINE_AT_ARRIVAL")
        }
        PredictError::DeadlineExceeded { stage: Stage::Queue } => {
            (Code::DeadlineExceeded, "DEADLINE_IN_QUEUE")
        }
        PredictError::DeadlineExceeded { stage: Stage::Execution } => {
            (Code::DeadlineExceeded, "DEADLINE_IN_EXECUTION")
        }
        PredictError::Stalled { .. } => (Code::DeadlineExceeded, "MESSAGE_STALLED"),
        PredictError::ShuttingDown => (Code::Unavailable, "SHUTTING_DOWN"),
        PredictError::ExecutionFailed(_) => (Code::Internal, "EXECUTION_FAILED"),
        PredictError::WorkerLost => (Code::Internal, "INSTANCE_LOST"),
        PredictError::Unimplemented(_) => (Code::Unimplemented, "NOT_SERVED"),
    }
}

/// The status for somebody who is not served.
pub fn denied(denial: &Denial) -> Status {
    let (code, reason) = match denial {
        Denial::NoCredentials => (Code::Unauthenticated, "NO_CREDENTIALS"),
        Denial::BadCredentials => (Code::Unauthenticated, "BAD_CREDENTIALS"),
        Denial::NotAllowed { .. } => (Code::PermissionDenied, "NOT_ALLOWED"),
    };
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, denial.to_string(), details)
}

/// The status for `error` of the request with that id.
pub fn status(error: &PredictError, request_id: &str) -> Status {
    let (code, reason) = code(error);
    let mut info = HashMap::new();
    if !request_id.is_empty() {
        info.insert("request_id".to_owned(), crate::model::quoted(request_id));
    }
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, info);
    if let PredictError::Invalid(invalid) = error {
        details.add_bad_request_violation(&invalid.field, &invalid.message);
    }
    let retry_after = match error {
        PredictError::Full { retry_after, .. } => retry_after.map(rounded),
        PredictError::Congested { retry_after, .. } => Some(rounded(*retry_after)),
        PredictError::Invalid(_)
        | PredictError::ModelNotFound { .. }
        | PredictError::VersionNotFound { .. }
        | PredictError::ModelNotReady { .. }
        | PredictError::TooLittleTime { .. }
        | PredictError::DeadlineExceeded { .. }
        | PredictError::Stalled { .. }
        | PredictError::ShuttingDown
        | PredictError::ExecutionFailed(_)
        | PredictError::WorkerLost
        | PredictError::Unimplemented(_) => None,
    };
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    let mut status = Status::with_error_details(code, error.to_string(), details);
    if let Some(retry_after) = retry_after {
        push_back(&mut status, retry_after);
    }
    status
}

/// Tells retrying clients how long to wait. Source: gRFC A6.
fn push_back(status: &mut Status, retry_after: Duration) {
    let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).max(1);
    status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(millis));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::{ExecuteError, InvalidRequest};
    use crate::model::ModelVersion;

    #[test]
    fn every_error_has_its_code() {
        let invalid = InvalidRequest::new("inputs[0]", "wrong");
        let full = PredictError::Full {
            what: "queue",
            used: 8,
            limit: 8,
            unit: "requests",
            retry_after: Some(Duration::from_millis(20)),
        };
        let cause = Arc::new(ExecuteError::Runtime("secret path".into()));
        let version = ModelVersion::FIRST;
        let table = [
            (PredictError::Invalid(invalid), Code::InvalidArgument),
            (PredictError::ModelNotFound { model: "m".into() }, Code::NotFound),
            (
                PredictError::VersionNotFound { model: "m".into(), version, served: "2".into() },
                Code::NotFound,
            ),
            (
                PredictError::ModelNotReady { model: "m".into(), reason: "loading" },
                Code::Unavailable,
            ),
            (full.clone(), Code::ResourceExhausted),
            (PredictError::DeadlineExceeded { stage: Stage::Queue }, Code::DeadlineExceeded),
            (PredictError::ShuttingDown, Code::Unavailable),
            (PredictError::ExecutionFailed(cause), Code::Internal),
            (PredictError::WorkerLost, Code::Internal),
            (PredictError::Unimplemented("no"), Code::Unimplemented),
        ];
        for (error, code) in table {
            let status = status(&error, "id-1");
            assert_eq!(status.code(), code, "{error:?}");
            assert!(!status.message().contains("secret"), "{}", status.message());
            let info = status.get_error_details();
            assert_eq!(info.error_info().unwrap().metadata["request_id"], "id-1");
        }
        let status = status(&full, "");
        assert_eq!(status.message(), "queue is full: 8 of 8 requests taken");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "20");
        assert!(status.get_error_details().retry_info().is_some());
    }
}
