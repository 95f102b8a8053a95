//! The operator's port.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | OpenMetrics text |
//! | `/livez` | 200 while the process runs; 503 if only a restart can help: every run of every model hangs, or a device is lost |
//! | `/readyz` | 200 when requests can be served, else 503; lists what is not ready and why |
//! | `/version` | version of the server |
//! | `/costs` | what runs of each model cost, as learned so far |
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
//! Beside these it has the protocol's descriptions and, where switched on, repository control over
//! gRPC, which whoever puts the server together hands in.
//!
//! Not for callers: it listens on its own address and answers no prediction. Metrics and probes need no
//! credentials, because those who ask have none.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::access::Access;
use crate::grpc::gate::admit;
use crate::repository::Repository;

mod costs;

/// Content type of the metrics. Source: OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `listener` until `stop` is done and open requests have ended. `control` is the part that
/// others hand in. Where callers need credentials, so does who asks for costs.
pub async fn serve<E>(
    listener: TcpListener,
    (repository, access): (Arc<Repository>, Access),
    encode: E,
    control: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) where
    E: Fn() -> Result<String, fmt::Error> + Clone + Send + Sync + 'static,
{
    let (learned, watched) = (Arc::clone(&repository), Arc::clone(&repository));
    let router = Router::new()
        .route("/metrics", get(move || async move { metrics(encode()) }))
        .route("/livez", get(move || async move { liveness(&watched) }))
        .route("/readyz", get(move || async move { readiness(&repository) }))
        .route(
            "/costs",
            get(move |request| async move { known_costs(&access, &learned, &request) }),
        )
        .route("/version", get(|| async { Json(json!({ "version": env!("CARGO_PKG_VERSION") })) }))
        .merge(control);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the admin port could not be served");
    }
}

fn metrics(encoded: Result<String, fmt::Error>) -> Response {
    match encoded {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn known_costs(access: &Access, repository: &Repository, request: &Request) -> Response {
    match admit(access, request) {
        Ok(caller) => Json(costs::describe(repository, &caller)).into_response(),
        Err(denial) => {
            let body = Json(json!({ "error": denial.to_string() }));
            let scheme = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, scheme, body).into_response()
        }
    }
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
