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
    /// How long each instance has had batches, without the one under way.
    busy: Vec<Duration>,
}

#[derive(Debug)]
struct Run {
    /// All riders of the batch.
    riders: Vec<JobKey>,
    /// Those of them that have left.
    gone: Vec<JobKey>,
    /// Those that ride at the moment, where the batch is run in several runs.
    riding: Option<Vec<JobKey>>,
    stop: Arc<dyn Stop>,
    begun_at: Instant,
    /// When it is expected to end.
    until: Instant,
    /// Rows and length of what ran, once it has.
    ran: Option<(usize, usize)>,
}

/// What became of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) begun_at: Instant,
    /// Rows and length of what ran; `None` if it failed or was stopped.
    pub(super) ran: Option<(usize, usize)>,
}

impl Running {
    pub(super) fn new(instances: usize) -> Self {
        Self { runs: (0..instances).map(|_| None).collect(), busy: vec![Duration::ZERO; instances] }
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
        (begun_at, until): (Instant, Instant),
    ) {
        if let Some(run) = self.runs.get_mut(instance) {
            *run = Some(Run {
                riders,
                gone: Vec::new(),
                riding: None,
                stop,
                begun_at,
                until,
                ran: None,
            });
        }
    }

    /// The batch goes on with a run of some of its riders; whether one of them is still there.
    pub(super) fn ride(
        &mut self,
        instance: usize,
        riding: Vec<JobKey>,
        stop: Arc<dyn Stop>,
    ) -> bool {
        let Some(Some(run)) = self.runs.get_mut(instance) else { return true };
        let wanted = riding.iter().any(|rider| !run.gone.contains(rider));
        (run.riding, run.stop) = (Some(riding), stop);
        wanted
    }

    /// The run of `instance` did what it was for.
    pub(super) fn ran(&mut self, instance: usize, rows: usize, length: usize) {
        if let Some(Some(run)) = self.runs.get_mut(instance) {
            run.ran = Some((rows, length));
        }
    }

    /// Runs that have lasted longer than `limit`.
    pub(super) fn longer_than(&self, limit: Duration, now: Instant) -> usize {
        let lasts = |run: &&Run| now.saturating_duration_since(run.begun_at) > limit;
        self.runs.iter().flatten().filter(lasts).count()
    }

    /// How long each instance has had batches.
    pub(super) fn busy(&self, now: Instant) -> Vec<Duration> {
        let so_far = |(run, busy): (&Option<Run>, &Duration)| {
            let runs = run.as_ref().map(|run| now.saturating_duration_since(run.begun_at));
            *busy + runs.unwrap_or_default()
        };
        self.runs.iter().zip(&self.busy).map(so_far).collect()
    }

    /// Until the first instance is free, as far as expected.
    pub(super) fn free_in(&self, now: Instant) -> Duration {
        let left = |run: &Option<Run>| match run {
            None => Duration::ZERO,
            Some(run) => run.until.saturating_duration_since(now),
        };
        self.runs.iter().map(left).min().unwrap_or_default()
    }

    /// A run has ended, if there was one.
    pub(super) fn finish(&mut self, instance: usize, now: Instant) -> Option<Ended> {
        let Run { begun_at, ran, .. } = self.runs.get_mut(instance)?.take()?;
        self.busy[instance] += now.saturating_duration_since(begun_at);
        Some(Ended { begun_at, ran })
    }

    /// A rider leaves; whether it rode. The last one of a run stops it.
    pub(super) fn leave(&mut self, job: JobKey) -> bool {
        let run = self.runs.iter_mut().flatten().find(|run| run.riders.contains(&job));
        let Some(run) = run else { return false };
        run.gone.push(job);
        let riding = run.riding.as_ref().unwrap_or(&run.riders);
        if riding.iter().all(|rider| run.gone.contains(rider)) {
            run.stop.stop();
        }
        true
    }
}
