//! The order in which a server stops, and its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{DrainReport, Ports};
use crate::config::Config;
use crate::job::ByteBudget;
use crate::repository::Repository;
use crate::telemetry::traces::Traces;

/// Stops in this order: not ready; a pause so that load balancers notice; no new connections,
/// streams read no further, open calls end; queues drain, workers end; the operator's port closes.
/// All but the pause within one grace period; what is left of it is for spans that wait to be sent.
pub(super) async fn drain(
    repository: &Arc<Repository>,
    mut ports: Ports,
    stop: &watch::Sender<bool>,
    config: &Config,
    (budget, traces): (&ByteBudget, &Traces),
) -> DrainReport {
    let began = Instant::now();
    tracing::info!(grace_ms = config.drain_grace.as_millis(), "draining");
    repository.announce_drain();
    tokio::time::sleep(config.drain_pause).await;
    stop.send_replace(true);
    let orderly = async {
        while ports.data.join_next().await.is_some() {}
        repository.drain().await;
    };
    let complete = tokio::time::timeout(config.drain_grace, orderly).await.is_ok();
    let abandoned = if complete { 0 } else { ports.open_calls.count() };
    ports.stop_operator.send_replace(true);
    let closing = async { while ports.operator.join_next().await.is_some() {} };
    // Scrapers keep connections open; they get a moment, no more.
    drop(tokio::time::timeout(OPERATOR_PATIENCE, closing).await);
    tracing::info!(complete, abandoned, bytes_held = budget.taken(), "drained");
    let bound = config.drain_pause + config.drain_grace;
    traces.finish(bound.saturating_sub(began.elapsed()).max(LEAST_FLUSH)).await;
    DrainReport { abandoned, complete }
}

/// How long spans that wait may take to be sent, even where the grace period is over.
const LEAST_FLUSH: Duration = Duration::from_millis(200);

/// How long open connections on the operator's port are waited for.
const OPERATOR_PATIENCE: Duration = Duration::from_millis(200);
