//! The queue of one model version: requests come in from the async side, batches go out to workers.
//!
//! A free worker takes its batch here itself, under a short lock, so that a request crosses one
//! queue and wakes one thread on its way in and one task on its way out. (A task between handler
//! and worker would cost a second hop and a second wake-up per request.) Decisions are pure:
//! [`admission`] says whether a request is taken, [`pending`] who goes first, [`policy`] how many
//! run together, [`overload`] whether more comes than can be done; what runs cost is known by
//! [`crate::cost`]. Waiting happens in one place, [`Batcher::next_batch`].
//!
//! The lock is held for the time of a push or a cut, never across a run, a wait or a reply. The
//! room copies no tensor and knows no runtime. `grpc` submits, `worker` takes.

use std::sync::{Arc, PoisonError};
#[cfg(not(all(test, onnxd_loom)))]
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

// A model of threads in every order: `tests::interleavings`.
#[cfg(all(test, onnxd_loom))]
use loom::sync::{Condvar, Mutex, MutexGuard};
use tokio::time::Instant;

use crate::cost::CostModel;
use crate::deadline::Deadline;
use crate::error::{PredictError, Stage};
use crate::job::{ByteBudget, Job, Stop};
use crate::request::ValidRequest;

pub mod admission;
mod arrival;
pub mod overload;
pub mod pending;
pub mod policy;
mod running;
mod state;
mod suspects;
mod ticket;
mod wake;

use arrival::Arrival;
use pending::{Cut, JobKey};
use policy::{BatchPolicy, CutReason, Decision};
use state::{Phase, RETRY_FLOOR, State, Wake};
pub use ticket::Ticket;

/// Handle to the queue of one model version. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Batcher {
    shared: Arc<Shared>,
}

/// How much may wait.
#[derive(Debug, Clone)]
pub struct QueueLimits {
    /// Most requests that wait for this model.
    pub max_jobs: usize,
    /// Memory for requests, shared by all models.
    pub bytes: ByteBudget,
    /// Priority of requests that state none; 1 is the most urgent.
    pub default_priority: u64,
}

/// Requests that run together, handed to one worker.
#[derive(Debug)]
pub struct Batch {
    /// The riders, the most urgent first, the oldest first among equals.
    pub jobs: Vec<Job>,
    /// Rows of all riders.
    pub rows: usize,
    /// Why it was cut when it was.
    pub reason: CutReason,
    /// Who runs it.
    pub instance: usize,
    /// Place among all batches of the model, by when they were cut, from 0.
    pub sequence: u64,
    /// When it was cut.
    pub cut_at: Instant,
}

/// How full the queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Requests that wait.
    pub jobs: usize,
    /// Rows that wait.
    pub rows: usize,
    /// Runs under way.
    pub running: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when a request comes or the phase changes, if a worker waits.
    work: Condvar,
    /// Signalled when the queue is drained. Apart from `work`, so that whoever waits for this
    /// takes no wake-up from a worker that waits for a request.
    drained: Condvar,
    limits: QueueLimits,
}

impl Batcher {
    /// An empty queue served by `instances` workers, whose runs cost what `costs` says.
    pub fn new(
        policy: BatchPolicy,
        limits: QueueLimits,
        instances: usize,
        costs: CostModel,
    ) -> Self {
        let state = State::new(policy, instances, costs);
        let (work, drained) = (Condvar::new(), Condvar::new());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), work, drained, limits }) }
    }

    /// Queues a request and returns the ticket on which its caller waits.
    ///
    /// # Errors
    /// [`PredictError::DeadlineExceeded`] if the deadline has passed, [`PredictError::TooLittleTime`]
    /// if no run can end before it, [`PredictError::Congested`] if the wait would be too long,
    /// [`PredictError::Full`] if the queue or the memory budget is full,
    /// [`PredictError::ShuttingDown`] while draining. Nothing is kept of a refused request.
    pub fn submit(
        &self,
        request: ValidRequest,
        deadline: Deadline,
        now: Instant,
    ) -> Result<Ticket, PredictError> {
        if deadline.is_past(now) {
            return Err(PredictError::DeadlineExceeded { stage: Stage::Arrival });
        }
        let limits = &self.shared.limits;
        let bytes = request.byte_size();
        let Some(permit) = limits.bytes.take(bytes) else {
            return Err(PredictError::Full {
                what: "memory for requests",
                used: limits.bytes.taken(),
                limit: limits.bytes.limit(),
                unit: "bytes",
                retry_after: (bytes <= limits.bytes.limit()).then_some(RETRY_FLOOR),
            });
        };
        let mut state = self.shared.lock();
        let arrival = Arrival::new(&request, deadline, now, limits.default_priority, &state);
        let displaced = state.admit(&arrival, limits)?;
        let full = displaced.is_some().then(|| state.full(limits.max_jobs));
        let answer = Arc::new(limits.bytes.charge(0));
        let (jobs, receiver) = state.push(arrival, request, (permit, Arc::clone(&answer)));
        let wake = state.wake();
        drop(state);
        if let (Some(displaced), Some(full)) = (displaced, full) {
            displaced.reply.send(Err(full));
        }
        match wake {
            Wake::None => {}
            Wake::Now => self.shared.work.notify_one(),
            Wake::AfterOthers => wake::after_others(&self.shared),
        }
        Ok(Ticket::new(Arc::clone(&self.shared), (receiver, answer), jobs, deadline))
    }

    /// Waits for the next batch of `instance`, whose previous one is finished by this call.
    /// `None` when the queue is drained: the worker ends.
    ///
    /// Blocks; only a worker's own thread may call it. `stop` ends the run that follows if all its
    /// riders leave. Requests that expired while waiting are answered here and never run.
    pub fn next_batch(&self, instance: usize, stop: &Arc<dyn Stop>) -> Option<Batch> {
        let mut state = self.shared.lock();
        state.finish(instance, Instant::now());
        loop {
            let now = Instant::now();
            let draining = state.phase == Phase::Draining;
            if let Some(cut) = state.cut(now) {
                if !cut.riders.is_empty() {
                    let keys = cut.riders.iter().map(|(key, _)| *key).collect();
                    let until = now + state.costs.expect(cut.rows, cut.length);
                    state.running.start(instance, keys, Arc::clone(stop), (now, until));
                }
                let sequence = state.batches;
                state.batches += u64::from(!cut.riders.is_empty());
                let more = state.waiting_workers > 0 && state.pending.jobs() > 0;
                drop(state);
                if more {
                    self.shared.work.notify_one();
                }
                if let Some(batch) = into_batch(cut, now, (instance, sequence)) {
                    return Some(batch);
                }
                state = self.shared.lock();
                continue;
            }
            match state.decide(now) {
                Decision::Idle if draining => return None,
                Decision::Idle => state = self.shared.wait(state, None),
                Decision::WaitUntil(instant) => {
                    let patience = instant.saturating_duration_since(now);
                    state = self.shared.wait(state, Some(patience));
                }
                // Another look at the same state would cut.
                Decision::Cut(_) => {}
            }
        }
    }

    /// Tells that `instance` has run `rows` rows, the longest of `length`. When it asks for the next
    /// batch, the time since the last one is what such a run costs, with all that belongs to it.
    pub fn ran(&self, instance: usize, rows: usize, length: usize) {
        self.shared.lock().running.ran(instance, rows, length);
    }

    /// The batch of `instance` goes on with a run of these riders only, which `stop` ends. Whoever has
    /// left in the meantime does not ride; whether anybody does.
    pub fn rides(&self, instance: usize, riders: Vec<JobKey>, stop: Arc<dyn Stop>) -> bool {
        self.shared.lock().running.ride(instance, riders, stop)
    }

    /// A request of `tenant` alone made a run fail. Whether its requests run alone from now on, for
    /// a while.
    pub fn accuse(&self, tenant: u64, now: Instant) -> bool {
        self.shared.lock().suspects.accuse(tenant, now)
    }

    /// How many rows a run has where enough of them wait.
    pub fn rows_per_run(&self) -> usize {
        let state = self.shared.lock();
        let most = state.policy.max_rows;
        if state.policy.measured { state.costs.usual_rows().min(most) } else { most }
    }

    /// Most requests that wait.
    pub fn max_queue_jobs(&self) -> usize {
        self.shared.limits.max_jobs
    }

    /// What runs cost, as known now.
    pub fn costs(&self) -> CostModel {
        self.shared.lock().costs.clone()
    }

    /// Changes how batches are cut, from the next one on.
    pub fn set_policy(&self, policy: BatchPolicy) {
        self.shared.lock().policy = policy;
        self.shared.work.notify_all();
    }

    /// How batches are cut.
    pub fn policy(&self) -> BatchPolicy {
        self.shared.lock().policy.clone()
    }

    /// Stops taking requests; workers run what waits, without waiting for company, and end.
    pub fn drain(&self) {
        self.shared.lock().phase = Phase::Draining;
        self.shared.work.notify_all();
        self.shared.drained.notify_all();
    }

    /// Waits until the queue is being drained, at most for `limit`; whether it is. Blocks; only a
    /// worker's own thread may call it.
    pub fn wait_for_drain(&self, limit: Duration) -> bool {
        let begun_at = Instant::now();
        let mut state = self.shared.lock();
        while state.phase == Phase::Open {
            let left = limit.saturating_sub(begun_at.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.drained.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Answers everything that still waits with `error`: no worker is left to run it.
    pub fn fail_pending(&self, error: &PredictError) {
        let jobs = self.shared.lock().pending.clear();
        for job in jobs {
            job.reply.send(Err(error.clone()));
        }
    }

    /// Instances whose run has lasted longer than `limit`.
    pub fn hung(&self, now: Instant, limit: Duration) -> usize {
        self.shared.lock().running.longer_than(limit, now)
    }

    /// How many workers take from it.
    pub fn instances(&self) -> usize {
        self.shared.lock().running.instances()
    }

    /// How long each of them has had batches, up to `now`.
    pub fn busy(&self, now: Instant) -> Vec<Duration> {
        self.shared.lock().running.busy(now)
    }

    /// How full the queue is.
    pub fn depth(&self) -> QueueDepth {
        let state = self.shared.lock();
        QueueDepth {
            jobs: state.pending.jobs(),
            rows: state.pending.rows(),
            running: state.running.count(),
        }
    }
}

/// Answers those that will not run, and puts the others together; `None` if there are none.
fn into_batch(cut: Cut<Job>, now: Instant, (instance, sequence): (usize, u64)) -> Option<Batch> {
    for entry in cut.expired {
        entry.payload.reply.send(Err(PredictError::DeadlineExceeded { stage: Stage::Queue }));
    }
    for (entry, needed) in cut.hopeless {
        let left = entry.deadline.remaining(now);
        entry.payload.reply.send(Err(PredictError::TooLittleTime { needed, left }));
    }
    if cut.riders.is_empty() {
        return None;
    }
    let riders = cut.riders.into_iter();
    let jobs = riders.map(|(key, entry)| Job { place: Some(key), ..entry.payload }).collect();
    Some(Batch { jobs, rows: cut.rows, reason: cut.reason, instance, sequence, cut_at: now })
}

impl Shared {
    /// Takes the lock. A panic while it was held cannot leave the state half changed in a way
    /// that matters more than serving on, so poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A scheduled wake-up comes.
    fn wake_one(&self) {
        self.lock().wake_scheduled = false;
        self.work.notify_one();
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        patience: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        state.waiting_workers += 1;
        let mut state = match patience {
            None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = self.work.wait_timeout(state, patience);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.waiting_workers -= 1;
        state
    }

    /// A caller leaves before its answer. What waits of its request is dropped; the runs that it
    /// rides are stopped if nobody else rides them. Says where the request was.
    fn leave(&self, jobs: &[JobKey]) -> Stage {
        let mut state = self.lock();
        let mut runs = false;
        let mut removed = Vec::new();
        for job in jobs {
            let waited = state.pending.remove(*job);
            // One that neither waits nor runs was taken out as expired, by a worker that has not
            // answered it yet, or was a part that is done.
            runs |= waited.is_none() && state.running.leave(*job);
            removed.extend(waited);
        }
        drop(state);
        // The jobs, with their tensors and their permit, go only now, outside the lock.
        drop(removed);
        if runs { Stage::Execution } else { Stage::Queue }
    }
}

#[cfg(test)]
mod tests;
