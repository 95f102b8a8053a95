//! Counts and times of one model version, as the `ModelStatistics` call reports them.
//!
//! Workers record a run at a time, the request path records how each request ended, once; the wire
//! rooms read snapshots. One short lock each time, never across a run. Sums only grow.
//!
//! Source: Triton's statistics extension (meaning of each count and duration).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub mod times;

use times::Times;

/// A count of events and the time that they took together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Events.
    pub count: u64,
    /// Nanoseconds, summed over the events.
    pub nanos: u64,
}

impl Tally {
    fn add(&mut self, count: u64, took: Duration) {
        self.count += count;
        self.nanos = self.nanos.saturating_add(nanos(took));
    }
}

/// What one run took.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunTimes {
    /// Joining the requests' tensors.
    pub input: Duration,
    /// Running the model.
    pub infer: Duration,
    /// Cutting and handing out the answers.
    pub output: Duration,
}

impl RunTimes {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.input + self.infer + self.output
    }
}

/// What one run had in the inputs that are padded where requests differ in length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Padding {
    /// Their elements, padding included.
    pub elements: usize,
    /// Those of them that no request brought.
    pub padded: usize,
}

/// Sums over the life of one model version.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Milliseconds since 1970 of the last run; 0 before the first.
    pub last_inference_ms: u64,
    /// Rows that were run.
    pub inferences: u64,
    /// Runs.
    pub executions: u64,
    /// Requests that were answered, with the time from arrival to answer.
    pub success: Tally,
    /// Requests that ended in an error, with the time that they were in the server.
    pub fail: Tally,
    /// Waiting for a worker, per request that rode a run; for the run of an equal request, per
    /// request that it answered; nothing, per request that was answered from memory.
    pub queue: Tally,
    /// Joining, per request (each rider is charged the whole run, as clients expect).
    pub compute_input: Tally,
    /// Running, per request.
    pub compute_infer: Tally,
    /// Cutting, per request.
    pub compute_output: Tally,
    /// Looking up, per request that a response cache answered without a run of its own.
    pub cache_hit: Tally,
    /// Looking up and storing, per request that a response cache sent to run.
    pub cache_miss: Tally,
    /// Runs by their number of rows.
    pub batches: BTreeMap<usize, BatchTally>,
}

impl Snapshot {
    /// Time that workers spent in runs, all together.
    pub fn busy(&self) -> Duration {
        let nanos = self.batches.values().map(|runs| {
            runs.compute_input.nanos + runs.compute_infer.nanos + runs.compute_output.nanos
        });
        Duration::from_nanos(nanos.sum())
    }
}

/// Runs of one size.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchTally {
    /// Joining, per run.
    pub compute_input: Tally,
    /// Running, per run.
    pub compute_infer: Tally,
    /// Cutting, per run.
    pub compute_output: Tally,
}

/// Counts and times of one model version.
#[derive(Debug, Default)]
pub struct ModelStatistics {
    sums: Mutex<Snapshot>,
    /// Requests that were answered, from arrival to answer.
    pub request_times: Times,
    /// Waiting for a worker, per request that rode a run.
    pub queue_times: Times,
    /// Runs: joining, running and cutting.
    pub run_times: Times,
}

impl ModelStatistics {
    /// Records a run and the requests that rode it, for each its time in the queue. Whether they are
    /// answered is another matter: their callers may have left.
    pub fn record_run(&self, rows: usize, riders: &[Duration], times: &RunTimes) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = riders.len() as u64;
        let riding = u32::try_from(riders.len()).unwrap_or(u32::MAX);
        self.run_times.add(times.total());
        for queued in riders {
            self.queue_times.add(*queued);
        }
        let mut sums = self.lock();
        sums.last_inference_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        sums.inferences += rows as u64;
        sums.executions += 1;
        for queued in riders {
            sums.queue.add(1, *queued);
        }
        sums.compute_input.add(count, times.input * riding);
        sums.compute_infer.add(count, times.infer * riding);
        sums.compute_output.add(count, times.output * riding);
        let batch = sums.batches.entry(rows).or_default();
        batch.compute_input.add(1, times.input);
        batch.compute_infer.add(1, times.infer);
        batch.compute_output.add(1, times.output);
    }

    /// Records a request that needed no run of its own: how long it was looked up, and how long it
    /// waited for the run of an equal request. Such a request is in no sum of the runs, but among
    /// those that have waited, where Triton's clients look for it.
    pub fn record_cache_hit(&self, looked: Duration, waited: Duration) {
        let mut sums = self.lock();
        sums.cache_hit.add(1, looked);
        sums.queue.add(1, waited);
    }

    /// Records a request that was looked up for `looked` and had to run.
    pub fn record_cache_miss(&self, looked: Duration) {
        self.lock().cache_miss.add(1, looked);
    }

    /// Records how long it took to store the answer of such a request.
    pub fn record_cache_insertion(&self, took: Duration) {
        self.lock().cache_miss.add(0, took);
    }

    /// Records a request that was answered `took` after it arrived.
    pub fn record_success(&self, took: Duration) {
        self.request_times.add(took);
        self.lock().success.add(1, took);
    }

    /// Records a request that ended in an error after `took`.
    pub fn record_failure(&self, took: Duration) {
        self.lock().fail.add(1, took);
    }

    /// The sums so far.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
