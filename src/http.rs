//! The REST port: the Open Inference Protocol as JSON, with tensors as text or as bytes.
//!
//! | path, below `/v2` | answer |
//! | --- | --- |
//! | `GET` (nothing) | what the server is and which extensions it serves |
//! | `GET /health/live`, `/health/ready` | 200, or 503 while not ready |
//! | `GET /models/{m}[/versions/{v}]` and below it `/ready`, `/config`, `/stats` | as the RPCs |
//! | `GET /models/stats` | statistics of every model |
//! | `POST /models/{m}[/versions/{v}]/infer` | a prediction |
//! | `POST /repository/index` | every model and its state; `{"ready": true}` for the ready ones |
//! | `GET …sharedmemory…/status` | no regions, which NVIDIA's clients want to hear |
//! | `POST /repository/models/{m}/load`, `/unload` | on the operator's port |
//! | shared memory, traces, logs | 501 with the sentence of the gRPC port |
//!
//! Nothing is decided here. `request` turns a body into the message that the gRPC port would have
//! received, [`crate::grpc::service`] answers it, `answer` turns the answer into a body: so checks,
//! batches, deadlines and errors are the same. `describe` and `control` ask the other calls.
//! Connections are accepted and bounded by [`crate::connection`].
//!
//! A caller that closes its connection is a caller that left: the call is dropped, and its request
//! with it. `Content-Type` of a request is not looked at, as in Triton: what a body is, its
//! headers and the path say.
//!
//! Source: Open Inference Protocol, REST; Triton's extensions `binary_tensor_data`, `statistics`,
//! `model_configuration`, `model_repository`.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};
use prost_reflect::DescriptorError;
use tokio::net::TcpListener;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::decompression::RequestDecompressionLayer;

use crate::access::Access;
use crate::config::CrossOrigin;
use crate::connection::{Connections, Routed};
use crate::grpc::service::InferenceService;
use crate::job::ByteBudget;

mod answer;
mod body;
mod control;
mod describe;
mod elements;
mod failure;
mod gate;
mod infer;
mod messages;
mod parameters;
mod reader;
pub mod request;

pub use control::operator;
pub use failure::Failure;
use messages::Messages;

/// What the REST port serves.
#[derive(Debug)]
pub struct HttpServer {
    /// The calls, as over gRPC.
    pub service: Arc<InferenceService>,
    /// Pages that may call from a browser; `None` for none.
    pub cross_origin: Option<CrossOrigin>,
    /// Limits on connections, and the connections that are open.
    pub connections: Connections,
    /// Memory that requests and answers may hold.
    pub memory: ByteBudget,
    /// Who may do what.
    pub access: Access,
}

/// What the calls share.
#[derive(Debug)]
struct Rest {
    service: Arc<InferenceService>,
    messages: Messages,
    memory: ByteBudget,
}

impl HttpServer {
    /// Serves `listener` until `stop` is done and every open call has ended. The second wait has
    /// no bound; drop the future to cut it short.
    ///
    /// # Errors
    /// Descriptors that cannot be read, which is a fault of the build.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DescriptorError> {
        let (service, memory) = (Arc::clone(&self.service), self.memory);
        let rest = Rest { service, messages: Messages::read()?, memory };
        let cross_origin = self.cross_origin.as_ref().map(crate::grpc::web::cross_origin);
        let router = gate::guarded(described().merge(refused()).merge(predictions()), &self.access)
            .method_not_allowed_fallback(|method: Method| async move {
                let message = format!("{method} is not how this path is asked");
                Failure::new(StatusCode::METHOD_NOT_ALLOWED, message)
            })
            .fallback(|uri: Uri| async move {
                let path = crate::model::quoted(uri.path());
                Failure::new(StatusCode::NOT_FOUND, format!("no such path: {path}"))
            })
            .with_state(Arc::new(rest))
            .merge(operator(self.service, &self.access))
            .layer(tower::util::option_layer(cross_origin));
        self.connections.serve(listener, Routed(router), stop).await;
        Ok(())
    }
}

fn described() -> Router<Arc<Rest>> {
    Router::new()
        .route("/v2", get(describe::server))
        .route("/v2/", get(describe::server))
        .route("/v2/health/live", get(describe::live))
        .route("/v2/health/ready", get(describe::ready))
        .route("/v2/models/stats", get(describe::statistics))
        .route("/v2/models/{model}", get(describe::metadata))
        .route("/v2/models/{model}/ready", get(describe::model_ready))
        .route("/v2/models/{model}/config", get(describe::config))
        .route("/v2/models/{model}/stats", get(describe::statistics))
        .route("/v2/models/{model}/versions/{version}", get(describe::metadata))
        .route("/v2/models/{model}/versions/{version}/ready", get(describe::model_ready))
        .route("/v2/models/{model}/versions/{version}/config", get(describe::config))
        .route("/v2/models/{model}/versions/{version}/stats", get(describe::statistics))
        .route("/v2/repository/index", post(describe::index))
        .route("/v2/systemsharedmemory/status", get(describe::regions))
        .route("/v2/systemsharedmemory/region/{region}/status", get(describe::regions))
        .route("/v2/cudasharedmemory/status", get(describe::regions))
        .route("/v2/cudasharedmemory/region/{region}/status", get(describe::regions))
}

/// Paths of calls that are not served. Each asks all the same, and passes the reason on.
fn refused() -> Router<Arc<Rest>> {
    let mut router = Router::new();
    for path in [
        "/v2/systemsharedmemory/unregister",
        "/v2/systemsharedmemory/region/{region}/register",
        "/v2/systemsharedmemory/region/{region}/unregister",
        "/v2/cudasharedmemory/unregister",
        "/v2/cudasharedmemory/region/{region}/register",
        "/v2/cudasharedmemory/region/{region}/unregister",
    ] {
        router = router.route(path, post(describe::register));
    }
    for path in ["/v2/logging", "/v2/trace/setting", "/v2/models/{model}/trace/setting"] {
        router = router.route(path, get(describe::settings).post(describe::settings));
    }
    router
}

/// Answers shorter than this are not made smaller: the work is worth more than the bytes.
const LEAST_COMPRESSED_BYTES: u16 = 1024;

/// Predictions, with bodies that may be compressed both ways.
fn predictions() -> Router<Arc<Rest>> {
    // Only answers: clients of the protocol read errors and descriptions as they come, even where
    // their library has offered an encoding in its own name.
    let is_answer =
        |status: StatusCode, _, _: &http::HeaderMap, _: &http::Extensions| status == StatusCode::OK;
    let compression = CompressionLayer::new()
        // Tensors hardly shrink with more effort, and the effort is ours.
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(LEAST_COMPRESSED_BYTES).and(is_answer));
    // What is in no known encoding is handed on as it is, and refused in the protocol's form.
    let decompression = RequestDecompressionLayer::new().pass_through_unaccepted(true);
    Router::new()
        .route("/v2/models/{model}/infer", post(infer::infer))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer::infer))
        .layer(compression)
        .layer(decompression)
}
