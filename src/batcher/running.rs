//! Which requests ride in which run, so that a run that nobody waits for can be stopped.
//!
//! Part of the queue's state and under its lock: a run is stopped only while it is listed, so a
//! late departure cannot end the run that follows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pending::JobKey;
use crate::job::Stop;

/// Runs under way, one per instance.
#[derive(Debug)]
pub(super) struct Running {
    runs: Vec<Option<Run>>,
}

#[derive(Debug)]
struct Run {
    riders: Vec<JobKey>,
    gone: usize,
    stop: Arc<dyn Stop>,
    /// When it is expected to end.
    until: Instant,
}

impl Running {
    pub(super) fn new(instances: usize) -> Self {
        Self { runs: (0..instances).map(|_| None).collect() }
    }

    pub(super) fn instances(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn count(&self) -> usize {
        self.runs.iter().flatten().count()
    }

    pub(super) fn start(
        &mut self,
        instance: usize,
        riders: Vec<JobKey>,
        stop: Arc<dyn Stop>,
        until: Instant,
    ) {
        if let Some(run) = self.runs.get_mut(instance) {
            *run = Some(Run { riders, gone: 0, stop, until });
        }
    }

    /// Until the first instance is free, as far as expected.
    pub(super) fn free_in(&self, now: Instant) -> Duration {
        let left = |run: &Option<Run>| match run {
            None => Duration::ZERO,
            Some(run) => run.until.saturating_duration_since(now),
        };
        self.runs.iter().map(left).min().unwrap_or_default()
    }

    /// A run has ended; whether there was one.
    pub(super) fn finish(&mut self, instance: usize) -> bool {
        self.runs.get_mut(instance).is_some_and(|run| run.take().is_some())
    }

    /// A rider leaves; whether it rode. The last one stops the run.
    pub(super) fn leave(&mut self, job: JobKey) -> bool {
        let run = self.runs.iter_mut().flatten().find(|run| run.riders.contains(&job));
        let Some(run) = run else { return false };
        run.gone += 1;
        if run.gone == run.riders.len() {
            run.stop.stop();
        }
        true
    }
}
