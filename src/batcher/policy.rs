//! When to cut a batch and how large: values and pure functions of numbers, costs and `now`.
//!
//! A worker asks when it is free, so "a worker is free" is given. Nothing here waits, counts or
//! touches a tensor; `batcher.rs` does the waiting, in one place.
//!
//! With measured sizes a free worker never waits. While it waited, nothing would be done; a run
//! that is cut now ends no later than one that is cut later, and what comes meanwhile is the next
//! batch, which is larger the busier the workers are. `onnxd simulate` compares this with waiting.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cost::CostModel;
use crate::deadline::Deadline;

/// How a model's requests are put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Most rows in a run. One request with more rows still runs, alone.
    pub max_rows: usize,
    /// Whether the size follows from what runs cost; else it is as large as it can be.
    pub measured: bool,
    /// Whether a request with more rows than a run takes is run in parts.
    pub splits: bool,
    /// Sizes to cut as soon as that many rows wait, rising; empty for none (Triton's
    /// `preferred_batch_size`).
    pub preferred: Arc<[usize]>,
    /// Longest time that a free worker waits for company of the oldest request; zero takes what
    /// is there, so that batches grow only while all workers are busy.
    pub max_queue_delay: Duration,
    /// A batch is cut this long before the earliest deadline in it at the latest.
    pub deadline_margin: Duration,
    /// Time between the end of a run and its answers' way out, roughly.
    pub answering: Duration,
}

/// What a decision looks at beside the queue.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The time.
    pub now: Instant,
    /// How requests are put together.
    pub policy: &'a BatchPolicy,
    /// What runs cost.
    pub costs: &'a CostModel,
    /// Instances that are free, with the one that asks.
    pub free: usize,
    /// No company will come any more.
    pub draining: bool,
    /// Requests were lost a moment ago: more come than can be done.
    pub overloaded: bool,
    /// Nothing has run for so long that a request is tried even if it seems to come too late:
    /// estimates that nothing corrects would refuse for ever.
    pub probe: bool,
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
    /// A preferred number of rows is there.
    Preferred,
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
    pub const ALL: [Self; 6] = [
        Self::Full,
        Self::Preferred,
        Self::WorkerFree,
        Self::DelayElapsed,
        Self::DeadlineNear,
        Self::Draining,
    ];

    /// Stable word for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Preferred => "preferred",
            Self::WorkerFree => "worker_free",
            Self::DelayElapsed => "delay_elapsed",
            Self::DeadlineNear => "deadline_near",
            Self::Draining => "draining",
        }
    }
}

/// A share of the batch is left to another free instance if that ends this much sooner.
const WORTH_SPLITTING: f64 = 0.8;

impl BatchPolicy {
    /// Takes what is there, up to `max_rows`, and waits for nothing.
    pub fn eager(max_rows: usize) -> Self {
        Self {
            max_rows,
            measured: false,
            splits: false,
            preferred: Arc::default(),
            max_queue_delay: Duration::ZERO,
            deadline_margin: Duration::ZERO,
            answering: Duration::ZERO,
        }
    }

    /// Decides for one group.
    pub fn decide(&self, now: Instant, view: &QueueView) -> Decision {
        let Some(oldest) = view.oldest_enqueued_at else {
            return Decision::Idle;
        };
        if view.rows >= self.max_rows {
            return Decision::Cut(CutReason::Full);
        }
        if self.preferred.iter().any(|rows| *rows <= view.rows) {
            return Decision::Cut(CutReason::Preferred);
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

/// Requests that may wait: as many as settings say, or enough to keep each instance busy for some
/// full runs. Time bounds the queue of those who have deadlines; this bounds it for the others.
pub fn queue_jobs(said: Option<NonZeroUsize>, instances: usize, max_rows: usize) -> usize {
    let enough = instances.saturating_mul(max_rows).saturating_mul(QUEUED_RUNS);
    said.map_or_else(|| enough.max(FEWEST_QUEUED), NonZeroUsize::get)
}

/// Full runs of each instance that find room in the queue.
const QUEUED_RUNS: usize = 8;
/// Requests that find room in any queue.
const FEWEST_QUEUED: usize = 4096;

pub(super) fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

impl Moment<'_> {
    /// Rows of a run if any number waits.
    pub fn full_rows(&self, length: usize) -> usize {
        let most = self.policy.max_rows;
        if self.policy.measured { self.costs.best_rows(length, most) } else { most }
    }

    /// Most rows of a run, for all that is known.
    pub fn reach(&self, length: usize) -> usize {
        let most = self.policy.max_rows;
        if self.policy.measured { self.costs.reach(length).min(most) } else { most }
    }

    /// How many rows a batch should have if `waiting` rows of `length` wait and the tightest rider's
    /// answer is due at `due`.
    pub fn target(&self, waiting: usize, length: usize, due: Deadline) -> usize {
        let policy = self.policy;
        if !policy.measured {
            let preferred = policy.preferred.iter().rev().find(|rows| **rows <= waiting);
            return preferred.copied().unwrap_or(policy.max_rows).min(policy.max_rows);
        }
        let target = self.costs.best_rows(length, waiting.min(policy.max_rows));
        let target = self.shared_out(target, waiting, length);
        if self.costs.is_empty() || self.in_time(target, length, due) {
            return target;
        }
        let reachable = self.reachable(target, length, due);
        self.costs.best_rows(length, reachable)
    }

    /// Whether a run that begins now and is as slow as runs hardly ever are is in time.
    pub fn in_time(&self, rows: usize, length: usize, due: Deadline) -> bool {
        due.remaining(self.now) >= self.slow_run(rows, length)
    }

    /// Time from now to the answers of a run that is as slow as runs hardly ever are.
    fn slow_run(&self, rows: usize, length: usize) -> Duration {
        self.costs.at_most(rows, length) + self.policy.answering
    }

    /// The same of a full one.
    pub fn full_run(&self, length: usize) -> Duration {
        self.slow_run(self.full_rows(length), length)
    }

    /// Time that a request has to have left, or it is given up: that of an ordinary run of it alone,
    /// or where others wait who would be in time for sure, of one that is as slow as runs hardly ever
    /// are.
    pub fn needed(&self, rows: usize, length: usize, others: bool) -> Duration {
        match others && !self.costs.is_empty() {
            _ if self.probe => Duration::ZERO,
            true => self.slow_run(rows, length),
            false => self.costs.expect(rows, length),
        }
    }

    /// Rows that could be done in the time that a run wastes if it has to end by `due` instead of
    /// having `full` rows.
    pub fn wasted_rows(&self, full: usize, length: usize, due: Deadline) -> f64 {
        if self.in_time(full, length, due) {
            return 0.0;
        }
        if !self.in_time(1, length, due) {
            return count(full);
        }
        let rows = self.costs.best_rows(length, self.reachable(full, length, due));
        let (took, whole) = (self.costs.expect(rows, length), self.costs.expect(full, length));
        let share = took.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
        (share * count(full) - count(rows)).max(0.0)
    }

    /// Most rows, below `rows`, of a run that is in time; at least 1.
    fn reachable(&self, rows: usize, length: usize, due: Deadline) -> usize {
        let (mut fits, mut fails) = (1, rows);
        while fails - fits > 1 {
            let middle = fits.midpoint(fails);
            if self.in_time(middle, length, due) { fits = middle } else { fails = middle }
        }
        fits
    }

    /// This instance's share of `waiting` rows if others are free, too, and sharing ends sooner.
    fn shared_out(&self, target: usize, waiting: usize, length: usize) -> usize {
        let share = waiting.div_ceil(self.free.max(1));
        if share >= target {
            return target;
        }
        let (whole, part) = (self.costs.expect(target, length), self.costs.expect(share, length));
        if part < whole.mul_f64(WORTH_SPLITTING) { share } else { target }
    }
}

#[cfg(test)]
mod tests;
