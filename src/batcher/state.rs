//! What the lock of a queue guards, and the questions that are answered under it.
//!
//! Puts numbers together for the pure decisions: who is running until when, what waits, what it will
//! cost, how long nothing has run. Waits for nothing and answers nobody.

use std::time::Duration;

use tokio::time::Instant;

use super::QueueLimits;
use super::admission::{Newcomer, Prospect, Verdict};
use super::arrival::Arrival;
use super::overload::Overload;
use super::pending::{Cut, Pending};
use super::policy::{BatchPolicy, Decision, Moment};
use super::running::Running;
use super::suspects::Suspects;
use crate::cost::CostModel;
use crate::error::PredictError;
use crate::job::Job;
use crate::request::BatchKey;

#[derive(Debug)]
pub(super) struct State {
    pub(super) pending: Pending<BatchKey, Job>,
    pub(super) policy: BatchPolicy,
    pub(super) running: Running,
    pub(super) waiting_workers: usize,
    /// A wake-up is on its way and has not come yet.
    pub(super) wake_scheduled: bool,
    pub(super) phase: Phase,
    /// Batches that were handed out.
    pub(super) batches: u64,
    pub(super) costs: CostModel,
    pub(super) suspects: Suspects,
    /// When a run ended last.
    pub(super) ran_at: Instant,
    /// Requests that were refused or given up, for want of time.
    overload: Overload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes and hands out requests.
    Open,
    /// Hands out what it has, takes no more.
    Draining,
}

/// Shortest retry hint: below it, a client's timer costs more than the attempt.
pub(super) const RETRY_FLOOR: Duration = Duration::from_millis(1);

/// After this long without a run, a request is tried even if it seems to come too late.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// What a new request should do about the workers.
pub(super) enum Wake {
    /// They are busy, or one will wake anyway.
    None,
    /// There is a full batch for one.
    Now,
    /// One should come when the requests that arrive together are all queued.
    AfterOthers,
}

impl State {
    pub(super) fn new(policy: BatchPolicy, instances: usize, costs: CostModel) -> Self {
        Self {
            pending: Pending::default(),
            policy,
            running: Running::new(instances),
            waiting_workers: 0,
            wake_scheduled: false,
            phase: Phase::Open,
            batches: 0,
            costs,
            suspects: Suspects::default(),
            ran_at: Instant::now(),
            overload: Overload::default(),
        }
    }

    /// Decides for a request that was just queued, and remembers what it decided.
    pub(super) fn wake(&mut self) -> Wake {
        if self.waiting_workers == 0 {
            return Wake::None;
        }
        if self.pending.rows() >= self.policy.max_rows {
            return Wake::Now;
        }
        if std::mem::replace(&mut self.wake_scheduled, true) {
            return Wake::None;
        }
        Wake::AfterOthers
    }

    /// An instance asks for its next batch: what it ran before is over.
    pub(super) fn finish(&mut self, instance: usize, now: Instant) {
        let Some(ended) = self.running.finish(instance, now) else { return };
        self.ran_at = now;
        if let Some((rows, length)) = ended.ran {
            let took = now.saturating_duration_since(ended.begun_at);
            self.costs.observe(rows, length, took);
        }
    }

    pub(super) fn decide(&mut self, now: Instant) -> Decision {
        self.at(now, Pending::decide)
    }

    pub(super) fn cut(&mut self, now: Instant) -> Option<Cut<Job>> {
        let cut = self.at(now, Pending::cut)?;
        if !cut.expired.is_empty() || !cut.hopeless.is_empty() {
            self.overload.lost(now, &self.costs);
        }
        Some(cut)
    }

    /// Asks what waits, in the circumstances of this moment.
    fn at<T>(
        &mut self,
        now: Instant,
        ask: impl FnOnce(&mut Pending<BatchKey, Job>, &Moment<'_>) -> T,
    ) -> T {
        let moment = Moment {
            now,
            policy: &self.policy,
            costs: &self.costs,
            free: self.running.instances() - self.running.count(),
            draining: self.phase == Phase::Draining,
            overloaded: self.overload.lasts(now, &self.costs),
            probe: now.saturating_duration_since(self.ran_at) >= PROBE_AFTER,
        };
        ask(&mut self.pending, &moment)
    }

    /// Time of an instance that `rows` of `length` take at best.
    pub(super) fn work(&self, rows: usize, length: usize) -> Duration {
        self.costs.per_row(length).saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX))
    }

    /// Whether a request that has just come is taken, and who gives up its place for it.
    pub(super) fn admit(
        &mut self,
        arrival: &Arrival,
        limits: &QueueLimits,
    ) -> Result<Option<Job>, PredictError> {
        if self.phase == Phase::Draining {
            return Err(PredictError::ShuttingDown);
        }
        let now = arrival.now;
        let Newcomer { parts, priority, tenant, .. } = arrival.newcomer;
        let (instances, free_in) = (self.running.instances(), self.running.free_in(now));
        let workers = (instances, free_in, self.overload.age(now, &self.costs));
        let prospect = Prospect::of(&arrival.newcomer, now, &self.pending, &self.costs, workers);
        let left = prospect.left;
        // Estimates that nothing corrects would refuse for ever.
        let trusted = now.saturating_duration_since(self.ran_at) < PROBE_AFTER;
        match prospect.verdict() {
            Verdict::TooLittleTime { needed } if trusted => {
                return Err(PredictError::TooLittleTime { needed, left });
            }
            Verdict::Congested { wait, retry_after } if trusted => {
                self.overload.lost(now, &self.costs);
                let retry_after = retry_after.max(RETRY_FLOOR);
                return Err(PredictError::Congested { wait, left, retry_after });
            }
            _ => {}
        }
        // A request in many parts may find an empty queue too short, and still has to run.
        if self.pending.jobs() + parts <= limits.max_jobs || self.pending.jobs() == 0 {
            return Ok(None);
        }
        if parts > 1 {
            return Err(self.full(limits.max_jobs));
        }
        let displaced = self.pending.displace(priority, tenant);
        displaced.map(Some).ok_or_else(|| self.full(limits.max_jobs))
    }

    pub(super) fn full(&self, limit: usize) -> PredictError {
        let instances = u32::try_from(self.running.instances()).unwrap_or(1).max(1);
        let all = self.pending.work();
        PredictError::Full {
            what: "queue",
            used: self.pending.jobs(),
            limit,
            unit: "requests",
            retry_after: Some((all / instances).max(RETRY_FLOOR)),
        }
    }
}
