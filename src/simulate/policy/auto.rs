//! `auto`: the server's own decisions, driven by virtual time.
//!
//! The only file that knows the batcher: the queue, the policy, the admission and the cost model here
//! are those of the server. It begins with what the server's first runs would measure, sizes that
//! double, and learns from every run as the server does.

use std::time::Duration;

use tokio::time::Instant;

use super::{Admission, Instances, Next, Picked, Policy, Request};
use crate::batcher::admission::{Newcomer, Prospect, Verdict};
use crate::batcher::overload::Overload;
use crate::batcher::pending::{Entry, Pending};
use crate::batcher::policy::{BatchPolicy, Decision, Moment, queue_jobs};
use crate::cost::CostModel;
use crate::deadline::Deadline;
use crate::simulate::curve::Curve;

/// All requests are of one kind.
const LENGTH: usize = 1;

/// The server's queue.
#[derive(Debug)]
pub struct Auto {
    /// What virtual time counts from. The queue speaks in instants, and there is no other way to
    /// make one than to ask the clock; only differences to it are ever looked at.
    begin: Instant,
    policy: BatchPolicy,
    costs: CostModel,
    pending: Pending<(), Request>,
    limit: usize,
    overload: Overload,
}

impl Auto {
    /// An empty queue for a model with this curve.
    pub fn new(curve: &Curve, instances: usize) -> Self {
        let most = rows(curve.top());
        let policy = BatchPolicy { measured: true, splits: true, ..BatchPolicy::eager(most) };
        let mut costs = CostModel::new(most, Duration::ZERO);
        let doubled = std::iter::successors(Some(1_u32), |rows| rows.checked_mul(2));
        for size in doubled.take_while(|size| *size <= curve.top()) {
            costs.set(rows(size), LENGTH, curve.time(size));
        }
        let limit = queue_jobs(None, instances, most);
        Self {
            begin: Instant::now(),
            policy,
            costs,
            pending: Pending::default(),
            limit,
            overload: Overload::default(),
        }
    }
}

fn rows(rows: u32) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

impl Policy for Auto {
    fn arrive(&mut self, now: Duration, request: &Request, instances: &Instances<'_>) -> Admission {
        let deadline = Deadline::after(self.begin, request.deadline);
        let (rows, priority, tenant) = (rows(request.rows), 1, 0);
        let work = self.costs.per_row(LENGTH) * request.rows;
        let (length, parts) = (LENGTH, 1);
        let newcomer = Newcomer { rows, parts, length, priority, tenant, deadline, work };
        let free_in = match instances.first_free_at() {
            Some(at) if instances.free() == 0 => at.saturating_sub(now),
            _ => Duration::ZERO,
        };
        let now = self.begin + now;
        let workers = (instances.count(), free_in, self.overload.age(now, &self.costs));
        let prospect = Prospect::of(&newcomer, now, &self.pending, &self.costs, workers);
        if prospect.verdict() != Verdict::Admitted || self.pending.jobs() >= self.limit {
            self.overload.lost(now, &self.costs);
            return Admission::Refused;
        }
        let (enqueued_at, payload) = (now, *request);
        let entry = Entry { rows, length, enqueued_at, deadline, priority, tenant, work, payload };
        self.pending.push(Some(()), entry);
        Admission::Accepted
    }

    fn next(&mut self, now: Duration, instances: &Instances<'_>, picked: &mut Picked) -> Next {
        let begin = self.begin;
        let now = begin + now;
        let overloaded = self.overload.lasts(now, &self.costs);
        let (policy, costs, free) = (&self.policy, &self.costs, instances.free());
        let moment = Moment { now, policy, costs, free, draining: false, overloaded, probe: false };
        while let Some(cut) = self.pending.cut(&moment) {
            if !cut.expired.is_empty() || !cut.hopeless.is_empty() {
                self.overload.lost(now, costs);
            }
            let given_up =
                cut.expired.into_iter().chain(cut.hopeless.into_iter().map(|(entry, _)| entry));
            picked.dropped.extend(given_up.map(|entry| entry.payload));
            picked.riders.extend(cut.riders.into_iter().map(|(_, entry)| entry.payload));
            if !picked.riders.is_empty() {
                return Next::Run;
            }
        }
        match self.pending.decide(&moment) {
            Decision::WaitUntil(until) => Next::Wait(until.saturating_duration_since(begin)),
            Decision::Idle | Decision::Cut(_) => Next::Idle,
        }
    }

    fn ran(&mut self, count: u32, took: Duration) {
        self.costs.observe(rows(count), LENGTH, took);
    }
}
