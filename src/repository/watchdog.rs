//! Looks from time to time at every version that serves: do its runs end, does it keep panicking?
//!
//! What cannot be trusted leaves service and comes back by itself ([`crate::worker::fitness`]). The
//! only place that waits for this; a run pays nothing for being watched. A run that has lasted too
//! long cannot be ended from outside: its riders have their answer from their deadlines, what waits
//! behind it is refused here, and its thread is free again when the run ends after all.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::{Repository, ServedModel, State};
use crate::error::PredictError;
use crate::worker::fitness::Unfit;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Watches until the repository is gone. A run may last `usual` where a model's settings say
/// nothing else.
pub async fn watch(repository: Weak<Repository>, usual: Duration) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(repository) = repository.upgrade() else { return };
        repository.look(Instant::now(), usual);
    }
}

impl Repository {
    /// Decides for every version.
    fn look(&self, now: Instant, usual: Duration) {
        let mut changed = false;
        for entry in self.index() {
            let Some(served) = entry.state.served() else { continue };
            changed |= judge(served, now, usual);
        }
        if changed {
            // Whoever watches the health of a model looks again.
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Whether a restart could not make it worse: every instance of every model hangs, or a device
    /// is lost. A server without models is alive.
    pub fn is_stuck(&self) -> bool {
        let all = self.index();
        let served: Vec<&Arc<ServedModel>> =
            all.iter().filter_map(|entry| entry.state.served()).collect();
        let is = |unfit| move |model: &&Arc<ServedModel>| model.fitness.verdict() == Some(unfit);
        let hung = served.iter().copied().filter(is(Unfit::Hangs)).count();
        (hung > 0 && hung == served.len()) || served.iter().copied().any(|m| is(Unfit::Device)(&m))
    }
}

/// Decides for one version; whether anything changed.
fn judge(served: &ServedModel, now: Instant, usual: Duration) -> bool {
    let limit = served.config.hang_timeout.unwrap_or(usual);
    let hung = served.batcher.hung(now, limit);
    served.metrics.hung.set(i64::try_from(hung).unwrap_or(i64::MAX));
    let condition = served.fitness.condition(now, hung, served.instances());
    let verdict = condition.verdict();
    let before = served.fitness.decide(verdict);
    let model = &served.key;
    if let Some(unfit) = verdict {
        // Again at every look: a request may have found the version just before.
        served.batcher.fail_pending(&PredictError::ModelNotReady {
            model: model.name.to_string(),
            reason: unfit.reason(),
        });
    }
    if before == verdict {
        return false;
    }
    served.metrics.ready.set(i64::from(verdict.is_none()));
    if let Some(unfit) = verdict {
        let (reason, panics, limit_ms) = (unfit.reason(), condition.panics, limit.as_millis());
        tracing::error!(%model, reason, hung, panics, limit_ms, "does not serve any more");
    } else {
        tracing::info!(%model, "serves again");
    }
    true
}

impl State {
    /// The version, if it serves and can be trusted with requests.
    pub fn ready(&self) -> Option<&Arc<ServedModel>> {
        self.served().filter(|served| served.fitness.verdict().is_none())
    }
}
