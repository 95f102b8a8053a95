//! The REST port: the protocol's HTTP form under `/v2`.
//!
//! Health and server metadata are served. Every other path answers 501 with one sentence, so that
//! a client learns that the address is right and the call is not there.
//!
//! Source: Open Inference Protocol, REST.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::repository::Repository;

/// Serves `listener` until `stop` is done and open requests have ended.
pub async fn serve(
    listener: TcpListener,
    repository: Arc<Repository>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let ready = move || async move {
        if repository.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    };
    let router = Router::new()
        .route("/v2", get(|| async { Json(metadata()) }))
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(ready))
        .fallback(|| async { (StatusCode::NOT_IMPLEMENTED, Json(not_served())) });
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the REST port could not be served");
    }
}

fn metadata() -> Value {
    json!({ "name": "onnxd", "version": env!("CARGO_PKG_VERSION"), "extensions": [] })
}

fn not_served() -> Value {
    json!({ "error": "this call is not served over REST; the gRPC port has it" })
}
