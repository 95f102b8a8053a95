//! The operator's port.
//!
//! | path | answer |
//! | --- | --- |
//! | `/` | the operator's page: what follows, live and to be looked at |
//! | `/metrics` | OpenMetrics text, or Prometheus text for who does not accept that |
//! | `/livez` | 200 while the process runs; 503 if only a restart can help: every run of every model hangs, or a device is lost |
//! | `/readyz` | 200 when requests can be served, else 503; lists what is not ready and why |
//! | `/version` | version of the server |
//! | `/costs` | what runs of each model cost, as learned so far |
//! | `/status` | what every model version does, in sums since start |
//!
//! `/costs` is a list `models` of every version that serves. It changes with every run.
//!
//! | key | meaning |
//! | --- | --- |
//! | `name`, `version`, `batching`, `instances` | which model, and how it is set up |
//! | `begun_with` | `file` (costs beside the model), `first_runs` or `nothing` |
//! | `rows_per_run` | rows of a run now, if enough of them wait |
//! | `points` | time of a run: `length` of its rows, `rows`, `micros`, and `runs`, how many it was learned from; a careful measurement counts as twelve |
//! | `row_costs` | by `length`: `micros` for one row in a run of `rows`, where it costs the least |
//!
//! Lengths are told in classes, four to the octave; a class has the name of its smallest.
//!
//! `/status` has `version`, `runtime`, `uptime_seconds`, `ready`, `draining`, `memory` of requests
//! (`held_bytes`, `limit_bytes`) and `models`, every version in the repository with `name`, `version`,
//! `state` and `reason` as the repository index tells them, and `served`, null while it is not loaded:
//!
//! | key | meaning |
//! | --- | --- |
//! | `provider`, `batching`, `instances`, `has_rows`, `rows_per_run` | how it is set up |
//! | `waiting`, `running`, `hung` | now: requests that wait, runs under way, those that last too long |
//! | `requests` | how many ended in each way, by the words of `onnxd_requests_total` |
//! | `rows`, `runs`, `failed_runs`, `panics` | what was run, and how often that went wrong |
//! | `busy_seconds` | time in runs that ended well, all workers together |
//! | `run_rows` | pairs: rows of a run, and how many runs had as many |
//! | `request_micros`, `queue_micros`, `execution_micros` | what the metrics of these names count, in finer classes: pairs of the longest time of a class, at most an eighth above its shortest, and how many are in it |
//! | `cache` | null without one: `hits`, `misses`, `coalesced`, `bytes` |
//!
//! Sums begin anew when a version is loaded again.
//!
//! Beside these it has the protocol's descriptions and, where switched on, repository control over
//! gRPC, which whoever puts the server together hands in.
//!
//! Not for callers: it listens on its own address and answers no prediction. Metrics, probes and the
//! page itself need no credentials, because those who ask have none; what the page shows does.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use crate::access::{Access, Caller};
use crate::grpc::gate::admit;
use crate::job::ByteBudget;
use crate::repository::Repository;
use crate::telemetry::metrics::Format;

mod costs;
mod page;
mod status;

/// What the operator's port tells of.
#[derive(Debug)]
pub struct Operated {
    repository: Arc<Repository>,
    access: Access,
    memory: ByteBudget,
    runtime: String,
    started_at: Instant,
}

impl Operated {
    /// A server that starts now: its models, who may know of which, the memory that its requests hold,
    /// and the name and version of what runs them, for people.
    pub fn new(
        repository: &Arc<Repository>,
        access: &Access,
        memory: &ByteBudget,
        runtime: &str,
    ) -> Self {
        Self {
            repository: Arc::clone(repository),
            access: access.clone(),
            memory: memory.clone(),
            runtime: runtime.to_owned(),
            started_at: Instant::now(),
        }
    }
}

/// Serves `listener` until `stop` is done and open requests have ended. `control` is the part that
/// others hand in. Where callers need credentials, so does who asks for costs or the status.
pub async fn serve<E>(
    listener: TcpListener,
    operated: Operated,
    encode: E,
    control: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) where
    E: Fn(Format) -> Result<String, fmt::Error> + Clone + Send + Sync + 'static,
{
    let operated = Arc::new(operated);
    let [live, ready, learned, sums] = std::array::from_fn(|_| Arc::clone(&operated));
    let costs = move |caller: &Caller| costs::describe(&learned.repository, caller);
    let status = move |caller: &Caller| status::describe(&sums, caller);
    let router = Router::new()
        .route(
            "/metrics",
            get(move |headers: HeaderMap| async move { metrics(&headers, encode) })
                .layer(CompressionLayer::new().quality(CompressionLevel::Fastest)),
        )
        .route("/livez", get(move || async move { liveness(&live.repository) }))
        .route("/readyz", get(move || async move { readiness(&ready.repository) }))
        .route("/costs", told(&operated.access, costs))
        .route("/status", told(&operated.access, status))
        .route("/version", get(|| async { Json(json!({ "version": env!("CARGO_PKG_VERSION") })) }))
        .merge(page::routes())
        .merge(control);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the admin port could not be served");
    }
}

fn metrics(headers: &HeaderMap, encode: impl Fn(Format) -> Result<String, fmt::Error>) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    match encode(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Tells what `describe` has for a caller.
fn told(
    access: &Access,
    describe: impl Fn(&Caller) -> Value + Clone + Send + Sync + 'static,
) -> MethodRouter {
    let access = access.clone();
    get(move |request: Request| async move {
        match admit(&access, &request) {
            Ok(caller) => {
                ([(header::CACHE_CONTROL, "no-store")], Json(describe(&caller))).into_response()
            }
            Err(denial) => {
                let body = Json(json!({ "error": denial.to_string() }));
                let scheme = [(header::WWW_AUTHENTICATE, "Bearer")];
                (StatusCode::UNAUTHORIZED, scheme, body).into_response()
            }
        }
    })
}

fn liveness(repository: &Repository) -> (StatusCode, &'static str) {
    if repository.is_stuck() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "no model can run: every run hangs, or a device is lost\n",
        )
    } else {
        (StatusCode::OK, "ok\n")
    }
}

fn readiness(repository: &Repository) -> (StatusCode, Json<Value>) {
    let ready = repository.is_ready();
    let models: Vec<Value> = repository
        .index()
        .into_iter()
        .map(|entry| {
            let (state, reason) = entry.state.describe();
            json!({
                "name": entry.key.name.as_str(),
                "version": entry.key.version.number(),
                "state": state,
                "reason": reason,
            })
        })
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "models": models })))
}
