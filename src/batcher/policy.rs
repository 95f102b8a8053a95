//! When to cut a batch: one value and one pure function of numbers and `now`.
//!
//! A worker asks when it is free, so "a worker is free" is given. Nothing here waits, counts or
//! touches a tensor; `batcher.rs` does the waiting, in one place.

use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::Deadline;

/// How a model's requests are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Most rows in a run. One request with more rows still runs, alone.
    pub max_rows: usize,
    /// Longest time that a free worker waits for company of the oldest request; zero takes what
    /// is there, so that batches grow only while all workers are busy.
    pub max_queue_delay: Duration,
    /// A batch is cut this long before the earliest deadline in it at the latest.
    pub deadline_margin: Duration,
}

/// One group of requests that may share a run, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueView {
    /// Rows of all requests in the group.
    pub rows: usize,
    /// When the oldest request came; `None` for an empty group.
    pub oldest_enqueued_at: Option<Instant>,
    /// Earliest deadline in the group.
    pub earliest_deadline: Option<Deadline>,
    /// No company will come any more.
    pub draining: bool,
}

/// What a free worker should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// There is nothing to run.
    Idle,
    /// Ask again then, or when a request comes.
    WaitUntil(Instant),
    /// Run now.
    Cut(CutReason),
}

/// Why a batch was cut when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CutReason {
    /// No rows fit any more.
    Full,
    /// A worker was free and waiting for company is switched off.
    WorkerFree,
    /// The oldest request has waited as long as it may.
    DelayElapsed,
    /// Waiting longer would miss a deadline.
    DeadlineNear,
    /// The server or the model is being drained.
    Draining,
}

impl CutReason {
    /// All reasons, for metrics that exist from the start.
    pub const ALL: [Self; 5] =
        [Self::Full, Self::WorkerFree, Self::DelayElapsed, Self::DeadlineNear, Self::Draining];

    /// Stable word for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::WorkerFree => "worker_free",
            Self::DelayElapsed => "delay_elapsed",
            Self::DeadlineNear => "deadline_near",
            Self::Draining => "draining",
        }
    }
}

impl BatchPolicy {
    /// Decides for one group.
    pub fn decide(&self, now: Instant, view: &QueueView) -> Decision {
        let Some(oldest) = view.oldest_enqueued_at else {
            return Decision::Idle;
        };
        if view.rows >= self.max_rows {
            return Decision::Cut(CutReason::Full);
        }
        if view.draining {
            return Decision::Cut(CutReason::Draining);
        }
        if self.max_queue_delay.is_zero() {
            return Decision::Cut(CutReason::WorkerFree);
        }
        let patience = oldest + self.max_queue_delay;
        if patience <= now {
            return Decision::Cut(CutReason::DelayElapsed);
        }
        let Some(deadline) = view.earliest_deadline else {
            return Decision::WaitUntil(patience);
        };
        if deadline.remaining(now) <= self.deadline_margin {
            return Decision::Cut(CutReason::DeadlineNear);
        }
        let latest = now + deadline.remaining(now).saturating_sub(self.deadline_margin);
        Decision::WaitUntil(patience.min(latest))
    }
}

#[cfg(test)]
mod tests;
