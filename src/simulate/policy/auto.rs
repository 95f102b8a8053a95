//! `auto`: the server's own queue and policy, driven by virtual time.
//!
//! The only file that knows the batcher: when the policy there changes, this follows and nothing
//! else does. The server measures its cut size at start; here the curve gives it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Admission, Instances, Next, Picked, Policy, Request};
use crate::batcher::pending::{Entry, Pending};
use crate::batcher::policy::{BatchPolicy, Decision};
use crate::deadline::Deadline;
use crate::simulate::curve::Curve;

/// Requests that may wait for an instance, as the server's settings have it.
const QUEUE: usize = 512;

/// The server's queue.
#[derive(Debug)]
pub struct Auto {
    /// What virtual time counts from. The queue speaks in instants, and there is no other way to
    /// make one than to ask the clock; only differences to it are ever looked at.
    begin: Instant,
    policy: BatchPolicy,
    pending: Pending<(), Request>,
    limit: usize,
}

impl Auto {
    /// An empty queue for a model with this curve.
    pub fn new(curve: &Curve, instances: usize) -> Self {
        let best = rows(curve.best_rows());
        let policy = BatchPolicy {
            max_rows: best,
            max_queue_delay: Duration::ZERO,
            deadline_margin: Duration::ZERO,
        };
        // Many instances take many requests at once, and whoever has them grants as long a queue.
        let limit = QUEUE.max(2 * instances * best);
        Self { begin: Instant::now(), policy, pending: Pending::default(), limit }
    }
}

fn rows(rows: u32) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

impl Policy for Auto {
    fn arrive(&mut self, now: Duration, request: &Request, _: &Instances<'_>) -> Admission {
        if self.pending.jobs() >= self.limit {
            return Admission::Refused;
        }
        let entry = Entry {
            rows: rows(request.rows),
            enqueued_at: self.begin + now,
            deadline: Deadline::after(self.begin, request.deadline),
            priority: 1,
            payload: *request,
        };
        self.pending.push(Some(&()), entry);
        Admission::Accepted
    }

    fn next(&mut self, now: Duration, _: &Instances<'_>, picked: &mut Picked) -> Next {
        let instant = self.begin + now;
        while let Some(cut) = self.pending.cut(instant, &self.policy, false) {
            picked.dropped.extend(cut.expired.into_iter().map(|entry| entry.payload));
            picked.riders.extend(cut.riders.into_iter().map(|(_, entry)| entry.payload));
            if !picked.riders.is_empty() {
                return Next::Run;
            }
        }
        match self.pending.decide(instant, &self.policy, false) {
            Decision::WaitUntil(until) => Next::Wait(until.saturating_duration_since(self.begin)),
            Decision::Idle | Decision::Cut(_) => Next::Idle,
        }
    }

    fn ran(&mut self, _: u32, _: Duration) {}
}
