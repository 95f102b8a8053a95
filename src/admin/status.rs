//! What the server does, in sums since it started: the operator's page takes differences.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Operated;
use crate::access::Caller;
use crate::repository::{Caching, IndexEntry, ServedModel};
use crate::statistics::times::Times;

/// The server, and every model version that `caller` may know of.
pub(super) fn describe(operated: &Operated, caller: &Caller) -> Value {
    let Operated { repository, memory, runtime, started_at, .. } = operated;
    let index = repository.index();
    let seen = index.iter().filter(|entry| caller.sees(entry.key.name.as_str()));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "runtime": runtime,
        "uptime_seconds": started_at.elapsed().as_secs_f64(),
        "ready": repository.is_ready(),
        "draining": repository.is_draining(),
        "memory": { "held_bytes": memory.taken(), "limit_bytes": memory.limit() },
        "models": seen.map(of_model).collect::<Vec<_>>(),
    })
}

fn of_model(entry: &IndexEntry) -> Value {
    let (state, reason) = entry.state.describe();
    json!({
        "name": entry.key.name.as_str(),
        "version": entry.key.version.number(),
        "state": state,
        "reason": reason,
        "served": entry.state.served().map(|model| of_served(model)),
    })
}

fn of_served(model: &ServedModel) -> Value {
    let (sums, depth) = (model.statistics.snapshot(), model.batcher.depth());
    let endings =
        model.metrics.endings().map(|(ending, count)| (ending.label().into(), count.into()));
    let sizes = sums.batches.iter().map(|(rows, runs)| json!([rows, runs.compute_infer.count]));
    json!({
        "provider": model.provider,
        "batching": model.config.batching.name(),
        "instances": model.instances(),
        "rows_per_run": model.batcher.rows_per_run(),
        "has_rows": model.spec.has_rows(),
        "waiting": depth.jobs,
        "running": depth.running,
        "hung": model.metrics.hung.get(),
        "panics": model.metrics.panics.get(),
        "failed_runs": model.metrics.failed_runs.get(),
        "requests": endings.collect::<Map<String, Value>>(),
        "rows": sums.inferences,
        "runs": sums.executions,
        "busy_seconds": sums.busy().as_secs_f64(),
        "run_rows": sizes.collect::<Vec<_>>(),
        "request_micros": of_times(&model.statistics.request_times),
        "queue_micros": of_times(&model.statistics.queue_times),
        "execution_micros": of_times(&model.statistics.run_times),
        "cache": model.caching.as_ref().map(of_cache),
    })
}

fn of_times(times: &Times) -> Vec<[u64; 2]> {
    times.classes().map(|class| [class.at_most_micros, class.count]).collect()
}

fn of_cache(caching: &Arc<Caching>) -> Value {
    let Caching { cache, metrics } = &**caching;
    json!({
        "hits": metrics.hits.get(),
        "misses": metrics.misses.get(),
        "coalesced": metrics.coalesced.get(),
        "bytes": cache.bytes(),
    })
}
