//! The REST port: the protocol's HTTP form under `/v2`.
//!
//! A transcoding, no more: JSON becomes the message that a gRPC caller would have sent and takes
//! that caller's path ([`crate::grpc::inference`]), so validation, batching, limits and texts are
//! the same. Connections have the data port's limits.
//!
//! | path below `/v2` | answer |
//! | --- | --- |
//! | (itself), `/health/live`, `/health/ready` | metadata of the server; 200 or 503 |
//! | `/models/{m}[/versions/{v}]` | metadata, and under it `/ready`, `/config`, `/stats` |
//! | `POST …/infer` | a prediction |
//! | `/models/stats` | statistics of all models |
//! | `POST /repository/index` | models and states |
//! | `POST /repository/models/{m}/load`, `/unload` | on the operator's port |
//!
//! Everything else that clients know answers 501 and says why.
//!
//! Source: Open Inference Protocol, REST; Triton, HTTP/REST extensions.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::Request;
use tower::ServiceExt;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

use crate::config::CrossOrigin;
use crate::connection::Connections;
use crate::deadline::Deadline;
use crate::grpc::service::InferenceService;
use crate::pb;
use crate::pb::server::grpc_inference_service_server::GrpcInferenceService;

mod answer;
mod control;
mod describe;
mod elements;
mod failure;
mod request;

pub use control::operator;
use failure::Failure;

/// What the REST port serves.
#[derive(Debug)]
pub struct HttpServer {
    /// The calls, as over gRPC.
    pub service: Arc<InferenceService>,
    /// Pages that may call from a browser; `None` for none.
    pub cross_origin: Option<CrossOrigin>,
    /// Limits on connections, and the connections that are open.
    pub connections: Connections,
}

impl HttpServer {
    /// Serves `listener` until `stop` is done and open requests have ended.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let limit = self.service.limits().max_message_bytes;
        let cross_origin = self.cross_origin.as_ref().map(crate::grpc::web::cross_origin);
        let router = router(self.service)
            .layer(DefaultBodyLimit::max(limit))
            .layer(RequestDecompressionLayer::new())
            .layer(CompressionLayer::new())
            .layer(tower::util::option_layer(cross_origin));
        let service = router
            .map_request(|request: http::Request<Incoming>| request.map(axum::body::Body::new));
        self.connections.serve(listener, service, stop).await;
    }
}

fn router(service: Arc<InferenceService>) -> Router {
    let models = Router::new()
        .route("/", get(metadata))
        .route("/ready", get(ready))
        .route("/config", get(config))
        .route("/stats", get(statistics))
        .route("/infer", post(infer));
    Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/", get(server_metadata))
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/models/stats", get(statistics))
        .nest("/v2/models/{model}", models.clone())
        .nest("/v2/models/{model}/versions/{version}", models)
        .route("/v2/repository/index", post(index))
        .route("/v2/systemsharedmemory/status", get(no_regions))
        .route("/v2/cudasharedmemory/status", get(no_regions))
        .merge(control::routes())
        .method_not_allowed_fallback(|| async {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
        })
        .fallback(unknown)
        .with_state(service)
}

type Service = State<Arc<InferenceService>>;

/// Which model a path names.
#[derive(Debug, Default, Deserialize)]
struct Model {
    #[serde(default)]
    model: String,
    #[serde(default)]
    version: String,
}

async fn server_metadata(State(service): Service) -> Result<Response, Failure> {
    let answer = service.server_metadata(Request::new(pb::ServerMetadataRequest {})).await?;
    let mut message = answer.into_inner();
    message.extensions.push("binary_tensor_data".to_owned());
    describe::response("inference.ServerMetadataResponse", &message)
}

async fn server_ready(State(service): Service) -> Result<StatusCode, Failure> {
    let answer = service.server_ready(Request::new(pb::ServerReadyRequest {})).await?;
    Ok(readiness(answer.into_inner().ready))
}

fn readiness(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn ready(
    State(service): Service,
    Path(Model { model: name, version }): Path<Model>,
) -> Result<StatusCode, Failure> {
    let request = Request::new(pb::ModelReadyRequest { name, version });
    Ok(readiness(service.model_ready(request).await?.into_inner().ready))
}

async fn metadata(
    State(service): Service,
    Path(Model { model: name, version }): Path<Model>,
) -> Result<Response, Failure> {
    let request = Request::new(pb::ModelMetadataRequest { name, version });
    let answer = service.model_metadata(request).await?.into_inner();
    describe::response("inference.ModelMetadataResponse", &answer)
}

async fn config(
    State(service): Service,
    Path(Model { model: name, version }): Path<Model>,
) -> Result<Response, Failure> {
    let request = Request::new(pb::ModelConfigRequest { name, version });
    let answer = service.model_config(request).await?.into_inner();
    describe::response("inference.ModelConfig", &answer.config.unwrap_or_default())
}

async fn statistics(
    State(service): Service,
    path: Option<Path<Model>>,
) -> Result<Response, Failure> {
    let Model { model: name, version } = path.map(|Path(model)| model).unwrap_or_default();
    let request = Request::new(pb::ModelStatisticsRequest { name, version });
    let answer = service.model_statistics(request).await?.into_inner();
    describe::response("inference.ModelStatisticsResponse", &answer)
}

#[derive(Debug, Default, Deserialize)]
struct IndexQuestion {
    #[serde(default)]
    ready: bool,
}

async fn index(State(service): Service, body: Bytes) -> Result<Response, Failure> {
    let question: IndexQuestion = if body.is_empty() {
        IndexQuestion::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))?
    };
    let request = pb::RepositoryIndexRequest { ready: question.ready, ..Default::default() };
    let answer = service.repository_index(Request::new(request)).await?.into_inner();
    let line = |model: pb::repository_index_response::ModelIndex| {
        serde_json::json!({
            "name": model.name,
            "version": model.version,
            "state": model.state,
            "reason": model.reason,
        })
    };
    let lines: Vec<_> = answer.models.into_iter().map(line).collect();
    Ok(axum::Json(lines).into_response())
}

/// NVIDIA's tools ask for regions before they use any.
async fn no_regions() -> Response {
    axum::Json(serde_json::json!([])).into_response()
}

async fn unknown(uri: http::Uri) -> Failure {
    let path = crate::model::quoted(uri.path());
    let parts: Vec<&str> = uri.path().split('/').collect();
    let is_known = match parts[..] {
        ["", "v2", "systemsharedmemory" | "cudasharedmemory" | "trace" | "logging", ..] => true,
        ["", "v2", "models", _, "trace", ..] => true,
        _ => false,
    };
    if is_known {
        let text = format!("{path} is not served: shared memory, traces and logs are not callers'");
        return Failure::new(StatusCode::NOT_IMPLEMENTED, text);
    }
    Failure::new(StatusCode::NOT_FOUND, format!("no such path: {path}"))
}

async fn infer(
    State(service): Service,
    Path(Model { model, version }): Path<Model>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let now = Instant::now();
    let limits = *service.limits();
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let text = format!(
                "the body is larger than the {} bytes that are allowed",
                limits.max_message_bytes
            );
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        _ => Failure::new(StatusCode::BAD_REQUEST, rejection.body_text()),
    })?;
    let (json, binary) = cut(&headers, body)?;
    let (mut message, wanted) = request::parse(&json, binary)?;
    (message.model_name, message.model_version) = (model, version);
    let deadline = Deadline::after(now, limits.default_timeout.min(limits.max_timeout));
    let answer = service.infer(message, now, deadline).await?;
    Ok(answer::build(answer, &wanted)?)
}

/// The JSON and the binary tensors of a body.
fn cut(headers: &HeaderMap, mut body: Bytes) -> Result<(Bytes, Bytes), Failure> {
    let Some(length) = headers.get(answer::JSON_LENGTH) else { return Ok((body, Bytes::new())) };
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    match length {
        Some(length) if length <= body.len() => {
            let json = body.split_to(length);
            Ok((json, body))
        }
        _ => {
            let text = format!(
                "Inference-Header-Content-Length: expected a number of at most {}, the body's length",
                body.len()
            );
            Err(Failure::new(StatusCode::BAD_REQUEST, text))
        }
    }
}
