//! Requests to a model that keeps answers or shares runs: from memory, with the run of an equal
//! request, or with a run of their own; and the account of which it was.
//!
//! A request that waits or runs does so in a task of its own, which ends with its caller. Others may
//! follow it, and a caller is not always polled: the messages of a stream stand still while its
//! reader takes no answers, and would hold up every equal request of everybody else.
//!
//! Below: `cache` decides, `batcher` runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cache::{Fingerprint, Found};
use crate::deadline::Deadline;
use crate::error::{PredictError, Stage};
use crate::job::Answer;
use crate::repository::{Caching, ServedModel};
use crate::request::ValidRequest;

/// A request on its way to an answer.
struct Asked {
    model: Arc<ServedModel>,
    caching: Arc<Caching>,
    request: ValidRequest,
    fingerprint: Fingerprint,
    arrived_at: Instant,
    deadline: Deadline,
    /// Time that looking it up has taken so far.
    looked: Duration,
}

/// Answers `request`, which arrived at `now`. Dropping the future is leaving.
///
/// # Errors
/// What the request ended with; never what another one ended with.
pub(super) async fn answer(
    model: &Arc<ServedModel>,
    caching: &Arc<Caching>,
    request: ValidRequest,
    deadline: Deadline,
    now: Instant,
) -> Answer {
    if deadline.is_past(now) {
        return Err(PredictError::DeadlineExceeded { stage: Stage::Arrival });
    }
    let looks_from = Instant::now();
    let Caching { cache, metrics } = &**caching;
    let Some(fingerprint) = cache.fingerprint(&request) else {
        metrics.misses.inc();
        model.statistics.record_cache_miss(looks_from.elapsed());
        return model.batcher.submit(request, deadline, now)?.answer().await;
    };
    if let Some(response) = cache.kept(fingerprint, &request) {
        metrics.hits.inc();
        model.statistics.record_cache_hit(looks_from.elapsed(), Duration::ZERO);
        return Ok(response);
    }
    let (model, caching) = (Arc::clone(model), Arc::clone(caching));
    let (arrived_at, looked) = (now, looks_from.elapsed());
    let asked = Asked { model, caching, request, fingerprint, arrived_at, deadline, looked };
    // The task goes with the set, and the set with this future.
    let mut task = JoinSet::new();
    task.spawn(asked.wait_or_run());
    let ended = task.join_next().await;
    ended.and_then(Result::ok).unwrap_or(Err(PredictError::WorkerLost))
}

impl Asked {
    async fn wait_or_run(self) -> Answer {
        let Self { model, caching, request, fingerprint, arrived_at, deadline, looked } = self;
        let Caching { cache, metrics } = &*caching;
        let looks_from = Instant::now();
        let looked = |waited| looked + looks_from.elapsed().saturating_sub(waited);
        let turn = match cache.find(fingerprint, &request, deadline).await? {
            Found::Shared(response, waited) => {
                metrics.coalesced.inc();
                model.statistics.record_cache_hit(looked(waited), waited);
                return Ok(response);
            }
            Found::Missing(turn) => turn,
        };
        metrics.misses.inc();
        model.statistics.record_cache_miss(looked(turn.waited));
        // For the queue it comes now; what it has waited is gone from the time that it has left.
        let now = arrived_at + turn.waited;
        let response = model.batcher.submit(request, deadline, now)?.answer().await?;
        let stores_from = Instant::now();
        turn.keep(&response);
        model.statistics.record_cache_insertion(stores_from.elapsed());
        Ok(response)
    }
}
