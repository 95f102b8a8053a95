//! What a simulation saw: ends of requests, latencies, runs.
//!
//! Requests count that come in a window: after a warm-up, in which the queue comes to rest, and
//! before a cool-down, in which load goes on so that nobody in the window is answered sooner for
//! being last.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::count;

/// Counts and times of one simulation.
#[derive(Debug)]
pub struct Measured {
    /// Length of the window.
    pub window: Duration,
    /// Whether each request of the window ends while load goes on.
    pub settles: bool,
    /// Requests that came in the window.
    pub arrived: usize,
    /// Of those, answered before their deadline.
    pub in_time: usize,
    /// Of those, answered after it.
    pub late: usize,
    /// Of those, turned away at once.
    pub refused: usize,
    /// Of those, given up in the queue.
    pub dropped: usize,
    /// Of those, still waiting when nothing happens any more; not 0 only if the policy forgets.
    pub waiting: usize,
    /// Answers that were ready in the window and before their deadline, whenever their requests
    /// came.
    pub ready: usize,
    /// Runs that began in the window.
    pub runs: usize,
    /// Rows of those runs.
    pub rows: u64,
    /// Time of all instances in the window.
    pub available: Duration,
    /// Of that, spent in runs.
    pub busy: Duration,
    /// From arrival to answer, of those in time, in nanoseconds.
    latency: Histogram<u64>,
}

impl Measured {
    pub(super) fn new(window: Duration, settles: bool, instances: usize) -> Self {
        let available = window.saturating_mul(u32::try_from(instances).unwrap_or(u32::MAX));
        // Three digits at any magnitude: the histogram grows as it must.
        let latency = Histogram::new(3).unwrap_or_else(|_| unreachable!("3 is a valid precision"));
        Self {
            window,
            settles,
            arrived: 0,
            in_time: 0,
            late: 0,
            refused: 0,
            dropped: 0,
            waiting: 0,
            ready: 0,
            runs: 0,
            rows: 0,
            available,
            busy: Duration::ZERO,
            latency,
        }
    }

    /// An answer in time of a request that came in the window.
    pub(super) fn answered(&mut self, latency: Duration) {
        self.in_time += 1;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        // It grows with what it is given, so nothing is too large.
        self.latency.record(nanos).ok();
    }

    /// Answers in time a second.
    ///
    /// By when requests came, which has no noise at the window's edges. Where some may wait beyond
    /// the end of the load, by when answers were ready: a queue that is worked off afterwards is
    /// no goodput.
    pub fn goodput(&self) -> f64 {
        let good = if self.settles { self.in_time } else { self.ready };
        count(good) / self.window.as_secs_f64().max(1e-9)
    }

    /// Latency that this share of the answers in time stayed below; `None` without any.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let known = !self.latency.is_empty();
        known.then(|| Duration::from_nanos(self.latency.value_at_quantile(share)))
    }

    /// Mean latency of the answers in time.
    pub fn mean_latency(&self) -> Duration {
        Duration::from_secs_f64(self.latency.mean() * 1e-9)
    }

    /// Mean rows of a run.
    pub fn mean_rows(&self) -> f64 {
        let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
        count(rows) / count(self.runs.max(1))
    }

    /// Share of the instances' time that was spent in runs.
    pub fn utilisation(&self) -> f64 {
        self.busy.as_secs_f64() / self.available.as_secs_f64().max(1e-9)
    }
}
