//! The operator's port.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | OpenMetrics text, or Prometheus text for who does not accept that |
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
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use crate::access::Access;
use crate::grpc::gate::admit;
use crate::repository::Repository;
use crate::telemetry::metrics::Format;

mod costs;

/// Serves `listener` until `stop` is done and open requests have ended. `control` is the part that
/// others hand in. Where callers need credentials, so does who asks for costs.
pub async fn serve<E>(
    listener: TcpListener,
    (repository, access): (Arc<Repository>, Access),
    encode: E,
    control: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) where
    E: Fn(Format) -> Result<String, fmt::Error> + Clone + Send + Sync + 'static,
{
    let (learned, watched) = (Arc::clone(&repository), Arc::clone(&repository));
    let router = Router::new()
        .route(
            "/metrics",
            get(move |headers: HeaderMap| async move { metrics(&headers, encode) })
                .layer(CompressionLayer::new().quality(CompressionLevel::Fastest)),
        )
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

fn metrics(headers: &HeaderMap, encode: impl Fn(Format) -> Result<String, fmt::Error>) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    match encode(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
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
