//! The queue of one model version: requests come in from the async side, batches go out to workers.
//!
//! A free worker takes its batch here itself, under a short lock, so that a request crosses one
//! queue and wakes one thread on its way in and one task on its way out. (A task between handler
//! and worker would cost a second hop and a second wake-up per request.) The decision is the pure
//! [`policy`]; the requests lie in the pure [`pending`]; waiting happens in one place,
//! [`Batcher::next_batch`].
//!
//! The lock is held for the time of a push or a cut, never across a run, a wait or a reply. The
//! room copies no tensor and knows no runtime. `grpc` submits, `worker` takes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::error::{PredictError, Stage};
use crate::job::{ByteBudget, Job, Reply, Stop};
use crate::request::{BatchKey, ValidRequest};

pub mod pending;
pub mod policy;
mod running;
mod ticket;
mod wake;

use pending::{Entry, JobKey, Pending};
use policy::{BatchPolicy, CutReason, Decision};
use running::Running;
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

#[derive(Debug)]
struct State {
    pending: Pending<BatchKey, Job>,
    policy: BatchPolicy,
    running: Running,
    waiting_workers: usize,
    /// A wake-up is on its way and has not come yet.
    wake_scheduled: bool,
    phase: Phase,
    /// Smoothed time of a run per row, for the retry hint.
    row_time: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Takes and hands out requests.
    Open,
    /// Hands out what it has, takes no more.
    Draining,
}

impl Batcher {
    /// An empty queue served by `instances` workers.
    pub fn new(policy: BatchPolicy, limits: QueueLimits, instances: usize) -> Self {
        let state = State {
            pending: Pending::default(),
            policy,
            running: Running::new(instances),
            waiting_workers: 0,
            wake_scheduled: false,
            phase: Phase::Open,
            row_time: Duration::ZERO,
        };
        let (work, drained) = (Condvar::new(), Condvar::new());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), work, drained, limits }) }
    }

    /// Queues a request and returns the ticket on which its caller waits.
    ///
    /// # Errors
    /// [`PredictError::DeadlineExceeded`] if the deadline has passed, [`PredictError::Full`] if the
    /// queue or the memory budget is full, [`PredictError::ShuttingDown`] while draining. Nothing
    /// is kept of a refused request.
    pub fn submit(
        &self,
        request: ValidRequest,
        deadline: Deadline,
        now: Instant,
    ) -> Result<Ticket, PredictError> {
        if deadline.is_past(now) {
            return Err(PredictError::DeadlineExceeded { stage: Stage::Arrival });
        }
        let key = request.batch_key().cloned();
        let (rows, bytes) = (request.rows(), request.byte_size());
        let priority = match request.priority() {
            0 => self.shared.limits.default_priority,
            stated => stated,
        };
        let (reply, receiver) = Reply::channel();
        let budget = &self.shared.limits.bytes;
        let Some(permit) = budget.take(bytes) else {
            return Err(PredictError::Full {
                what: "memory for requests",
                used: budget.taken(),
                limit: budget.limit(),
                unit: "bytes",
                retry_after: (bytes <= budget.limit()).then_some(RETRY_FLOOR),
            });
        };
        let job = Job { request, deadline, enqueued_at: now, reply, permit };
        let entry = Entry { rows, enqueued_at: now, deadline, priority, payload: job };
        let mut state = self.shared.lock();
        if state.phase == Phase::Draining {
            return Err(PredictError::ShuttingDown);
        }
        if state.pending.jobs() >= self.shared.limits.max_jobs {
            return Err(state.full(self.shared.limits.max_jobs));
        }
        let job = state.pending.push(key.as_ref(), entry);
        let wake = state.wake();
        drop(state);
        match wake {
            Wake::None => {}
            Wake::Now => self.shared.work.notify_one(),
            Wake::AfterOthers => wake::after_others(&self.shared),
        }
        Ok(Ticket::new(Arc::clone(&self.shared), receiver, key, job, deadline))
    }

    /// Waits for the next batch of `instance`, whose previous one is finished by this call.
    /// `None` when the queue is drained: the worker ends.
    ///
    /// Blocks; only a worker's own thread may call it. `stop` ends the run that follows if all its
    /// riders leave. Requests that expired while waiting are answered here and never run.
    pub fn next_batch(&self, instance: usize, stop: &Arc<dyn Stop>) -> Option<Batch> {
        let mut state = self.shared.lock();
        state.running.finish(instance);
        loop {
            let now = Instant::now();
            let draining = state.phase == Phase::Draining;
            let policy = state.policy;
            if let Some(cut) = state.pending.cut(now, &policy, draining) {
                let keys = cut.riders.iter().map(|(key, _)| *key).collect();
                if !cut.riders.is_empty() {
                    state.running.start(instance, keys, Arc::clone(stop));
                }
                let more = state.waiting_workers > 0 && state.pending.jobs() > 0;
                drop(state);
                if more {
                    self.shared.work.notify_one();
                }
                for entry in cut.expired {
                    let stage = Stage::Queue;
                    entry.payload.reply.send(Err(PredictError::DeadlineExceeded { stage }));
                }
                if !cut.riders.is_empty() {
                    let jobs = cut.riders.into_iter().map(|(_, entry)| entry.payload).collect();
                    return Some(Batch { jobs, rows: cut.rows, reason: cut.reason, cut_at: now });
                }
                state = self.shared.lock();
                continue;
            }
            match state.pending.decide(now, &policy, draining) {
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

    /// Tells how long a run of `rows` rows took, for the retry hint.
    pub fn record_run(&self, rows: usize, took: Duration) {
        let per_row = took / u32::try_from(rows.max(1)).unwrap_or(u32::MAX);
        let mut state = self.shared.lock();
        state.row_time = match state.row_time {
            Duration::ZERO => per_row,
            smoothed => (smoothed * 7 + per_row) / 8,
        };
    }

    /// Changes how batches are cut, from the next one on.
    pub fn set_policy(&self, policy: BatchPolicy) {
        self.shared.lock().policy = policy;
        self.shared.work.notify_all();
    }

    /// How batches are cut.
    pub fn policy(&self) -> BatchPolicy {
        self.shared.lock().policy
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
        let state = self.shared.lock();
        let open = |state: &mut State| state.phase == Phase::Open;
        let waited = self.shared.drained.wait_timeout_while(state, limit, open);
        waited.unwrap_or_else(PoisonError::into_inner).0.phase == Phase::Draining
    }

    /// Answers everything that still waits with `error`: no worker is left to run it.
    pub fn fail_pending(&self, error: &PredictError) {
        let jobs = self.shared.lock().pending.clear();
        for job in jobs {
            job.reply.send(Err(error.clone()));
        }
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

/// Shortest retry hint: below it, a client's timer costs more than the attempt.
const RETRY_FLOOR: Duration = Duration::from_millis(1);

/// What a new request should do about the workers.
enum Wake {
    /// They are busy, or one will wake anyway.
    None,
    /// There is a full batch for one.
    Now,
    /// One should come when the requests that arrive together are all queued.
    AfterOthers,
}

impl State {
    /// Decides for a request that was just queued, and remembers what it decided.
    fn wake(&mut self) -> Wake {
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

    fn full(&self, limit: usize) -> PredictError {
        let rows = u32::try_from(self.pending.rows()).unwrap_or(u32::MAX);
        let instances = u32::try_from(self.running.instances()).unwrap_or(1).max(1);
        let drained = self.row_time.saturating_mul(rows) / instances;
        PredictError::Full {
            what: "queue",
            used: self.pending.jobs(),
            limit,
            unit: "requests",
            retry_after: Some(drained.max(RETRY_FLOOR)),
        }
    }
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

    /// A caller leaves before its answer. Its request is dropped if it waits; the run that it
    /// rides is stopped if nobody else rides it. Says where the request was.
    fn leave(&self, key: Option<&BatchKey>, job: JobKey) -> Stage {
        let mut state = self.lock();
        let removed = state.pending.remove(key, job);
        // One that neither waits nor runs was taken out as expired, by a worker that has not
        // answered it yet.
        let runs = removed.is_none() && state.running.leave(job);
        let stage = if runs { Stage::Execution } else { Stage::Queue };
        drop(state);
        // The job, with its tensors and its permit, goes only now, outside the lock.
        drop(removed);
        stage
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
