//! How requests end, as metrics tell it.

use crate::error::{PredictError, Stage};

/// How a request ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// The request was wrong.
    Invalid,
    /// Refused because queue or memory was full.
    Full,
    /// Refused because the wait would have been longer than the deadline.
    Congested,
    /// Refused because no run could have ended before the deadline.
    TooLittleTime,
    /// Deadline past at arrival.
    LateAtArrival,
    /// Deadline past in the queue.
    LateInQueue,
    /// Deadline past while running.
    LateInExecution,
    /// The caller left.
    Cancelled,
    /// Model or server not serving.
    Unavailable,
    /// The run failed.
    Failed,
}

impl Outcome {
    /// Whether the request was refused for want of time or room before it cost anything.
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Full | Self::Congested | Self::TooLittleTime | Self::LateAtArrival)
    }

    /// All outcomes, in the order of their discriminants.
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::Invalid,
        Self::Full,
        Self::Congested,
        Self::TooLittleTime,
        Self::LateAtArrival,
        Self::LateInQueue,
        Self::LateInExecution,
        Self::Cancelled,
        Self::Unavailable,
        Self::Failed,
    ];

    /// Stable word for the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Full => "full",
            Self::Congested => "congested",
            Self::TooLittleTime => "too_little_time",
            Self::LateAtArrival => "late_at_arrival",
            Self::LateInQueue => "late_in_queue",
            Self::LateInExecution => "late_in_execution",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }

    /// The outcome that an error is.
    pub fn of(error: &PredictError) -> Self {
        match error {
            PredictError::Invalid(_) | PredictError::Unimplemented(_) => Self::Invalid,
            PredictError::Full { .. } => Self::Full,
            PredictError::Congested { .. } => Self::Congested,
            PredictError::TooLittleTime { .. } => Self::TooLittleTime,
            PredictError::DeadlineExceeded { stage: Stage::Arrival }
            | PredictError::Stalled { .. } => Self::LateAtArrival,
            PredictError::DeadlineExceeded { stage: Stage::Queue } => Self::LateInQueue,
            PredictError::DeadlineExceeded { stage: Stage::Execution } => Self::LateInExecution,
            PredictError::ModelNotFound { .. }
            | PredictError::VersionNotFound { .. }
            | PredictError::ModelNotReady { .. }
            | PredictError::ShuttingDown => Self::Unavailable,
            PredictError::ExecutionFailed(_) | PredictError::WorkerLost => Self::Failed,
        }
    }
}
