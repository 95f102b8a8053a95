//! What a caller can be told.
//!
//! Variants follow what the caller can do about it, not where in the server it happened. The one
//! translation to a gRPC status is in `grpc/status.rs`, the one to a metric label in
//! `telemetry/metrics.rs`. Causes that are ours stay in the log; texts here are safe to send.

use std::sync::Arc;
use std::time::Duration;

use crate::model::ModelVersion;

/// Where a request was when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Already past when it was read.
    Arrival,
    /// Waiting for an instance.
    Queue,
    /// Running.
    Execution,
}

impl Stage {
    /// All stages, for metrics that exist from the start.
    pub const ALL: [Self; 3] = [Self::Arrival, Self::Queue, Self::Execution];

    /// Stable word for messages and labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Queue => "queue",
            Self::Execution => "execution",
        }
    }
}

/// A request that cannot be served as it is: INVALID_ARGUMENT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// The guilty part of the message: `inputs[0].shape` while it is taken apart, when a name need
    /// not be there yet; `inputs.x.shape` from then on.
    pub field: String,
    /// What is wrong, naming the thing and both sides.
    pub message: String,
}

impl InvalidRequest {
    /// An error on `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Why a run failed. Only logs show the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// The runtime refused the values of an input, such as an index beyond a table.
    #[error("{0}")]
    Input(String),
    /// The runtime failed; with its own words.
    #[error("{0}")]
    Runtime(String),
    /// Memory did not reach.
    #[error("{0}")]
    Memory(String),
    /// The device failed in a way that lasts until the process ends.
    #[error("{0}")]
    Device(String),
    /// The run was stopped because nobody waited for it any more.
    #[error("stopped: nobody waits for it any more")]
    Stopped,
    /// An output does not have the rows that went in.
    #[error("output `{output}`: {reason}")]
    Rows {
        /// Name of the output.
        output: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The executor panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

/// What a request can end with instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// The request is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// No such model.
    #[error("model `{model}` is not in the repository")]
    ModelNotFound {
        /// The name that was asked for, cut to a printable length.
        model: String,
    },
    /// The model exists, that version does not.
    #[error("model `{model}` has no version {version}; served: {served}")]
    VersionNotFound {
        /// Name of the model.
        model: String,
        /// Version that was asked for.
        version: ModelVersion,
        /// Versions that are there, as a list.
        served: String,
    },
    /// The model exists and is not ready.
    #[error("model `{model}` is not ready: {reason}")]
    ModelNotReady {
        /// Name of the model.
        model: String,
        /// Loading, failed, unloading.
        reason: &'static str,
    },
    /// The queue, or the memory for requests, is full.
    #[error("{what} is full: {used} of {limit} {unit} taken")]
    Full {
        /// Which limit.
        what: &'static str,
        /// What is taken.
        used: usize,
        /// The limit.
        limit: usize,
        /// Unit of both.
        unit: &'static str,
        /// When a retry makes sense; `None` if it never will.
        retry_after: Option<Duration>,
    },
    /// The queue is too long for the time that the request has: it would be late.
    #[error(
        "too busy: the wait is about {}, the deadline is in {}",
        about(*.wait), about(*.left)
    )]
    Congested {
        /// Estimated wait for an instance.
        wait: Duration,
        /// Time to the deadline.
        left: Duration,
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// The request takes longer than the time that it has, whether others wait or not.
    #[error(
        "not enough time: a run takes about {}, the deadline is in {}",
        about(*.needed), about(*.left)
    )]
    TooLittleTime {
        /// What it takes.
        needed: Duration,
        /// Time to the deadline.
        left: Duration,
    },
    /// The deadline passed.
    #[error("deadline passed ({})", .stage.label())]
    DeadlineExceeded {
        /// Where the request was.
        stage: Stage,
    },
    /// The message of the request did not come.
    #[error("the message did not come: {what} in {} ms", .limit.as_millis())]
    Stalled {
        /// What is missing.
        what: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The server is stopping and takes no new work.
    #[error("server is shutting down")]
    ShuttingDown,
    /// The run failed; the reason is in the log.
    #[error("execution failed; the server's log has the reason")]
    ExecutionFailed(Arc<ExecuteError>),
    /// The instance went away with the request.
    #[error("the model instance was lost while it had the request")]
    WorkerLost,
    /// Something that this server does not do.
    #[error("{0}")]
    Unimplemented(&'static str),
}

/// `time`, not shorter, with one digit that counts: an estimate has no more. So texts and hints of
/// refusals repeat, and a connection's header compression sends one that it has sent before as a byte
/// or two: in overload that is a good part of what a refusal costs.
pub fn rounded(time: Duration) -> Duration {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    let unit = 10_u64.pow(micros.ilog10());
    Duration::from_micros(micros.div_ceil(unit).saturating_mul(unit))
}

/// A duration as people read it in an error.
fn about(time: Duration) -> String {
    let micros = rounded(time).as_micros();
    match micros {
        1000.. => format!("{} ms", micros / 1000),
        _ => format!("0.{} ms", micros.div_ceil(100)),
    }
}

/// What a caller may do with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Ask what it is, whether it is ready, how it does.
    Describe,
    /// Ask for predictions.
    Infer,
    /// Load and unload it.
    Control,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Describe, Self::Infer, Self::Control];

    /// Its name in settings and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Infer => "infer",
            Self::Control => "control",
        }
    }

    /// Whether who has this right has the other: all others include describing.
    pub fn includes(self, other: Self) -> bool {
        self == other || other == Self::Describe
    }
}

/// Why a caller is not served. Tells nothing about which credentials would have been right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// UNAUTHENTICATED: none were sent.
    #[error("credentials are needed: a bearer token, or a certificate of TLS")]
    NoCredentials,
    /// UNAUTHENTICATED: not known, malformed, or past their time.
    #[error("the credentials are not valid")]
    BadCredentials,
    /// `PERMISSION_DENIED`: known, and without that right. Also where there is no such model.
    #[error("{caller:?} has no right to {} model {model:?}", .right.name())]
    NotAllowed {
        /// Name of the caller.
        caller: String,
        /// The right that it would need.
        right: Right,
        /// The model, as the caller wrote it.
        model: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_have_one_digit_and_are_never_too_short() {
        let rounded = |micros| rounded(Duration::from_micros(micros)).as_micros();
        let pairs = [(0, 1), (7, 7), (11, 20), (99, 100), (100, 100), (1_001, 2_000)];
        for (micros, wanted) in pairs.into_iter().chain([(46_300, 50_000), (950_001, 1_000_000)]) {
            assert_eq!(rounded(micros), wanted, "{micros}");
        }
        let texts = [(46_300, "50 ms"), (1_500_000, "2000 ms"), (60, "0.1 ms"), (940, "1 ms")];
        for (micros, wanted) in texts {
            assert_eq!(about(Duration::from_micros(micros)), wanted);
        }
    }
}
