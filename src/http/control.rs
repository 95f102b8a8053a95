//! Loading and unloading over REST, with the same rules as over gRPC.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Extensions, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;

use super::describe::ask;
use super::failure::Failure;
use super::gate;
use crate::access::Access;
use crate::grpc::service::InferenceService;
use crate::pb;
use crate::pb::server::grpc_inference_service_server::GrpcInferenceService;

/// The paths for the operator's port, which does what they ask for.
pub fn operator(service: Arc<InferenceService>, access: &Access) -> Router {
    gate::guarded(routes(), access).with_state(service)
}

/// The paths for whoever serves them. To callers they say where to ask.
pub(super) fn routes() -> Router<Arc<InferenceService>> {
    Router::new()
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
}

/// Body of both calls. Only the names of parameters matter: all but one are refused.
#[derive(Debug, Default, Deserialize)]
struct Order {
    #[serde(default)]
    parameters: HashMap<String, serde_json::Value>,
}

fn parameters(body: &Bytes) -> Result<HashMap<String, pb::ModelRepositoryParameter>, Failure> {
    if body.is_empty() {
        return Ok(HashMap::new());
    }
    let order: Order = serde_json::from_slice(body)
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let names = order.parameters.into_keys();
    Ok(names.map(|name| (name, pb::ModelRepositoryParameter::default())).collect())
}

async fn load(
    State(service): State<Arc<InferenceService>>,
    Path(model_name): Path<String>,
    extensions: Extensions,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let parameters = parameters(&body)?;
    let request = pb::RepositoryModelLoadRequest { model_name, parameters, ..Default::default() };
    service.repository_model_load(ask(request, extensions)).await?;
    Ok(StatusCode::OK)
}

async fn unload(
    State(service): State<Arc<InferenceService>>,
    Path(model_name): Path<String>,
    extensions: Extensions,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let parameters = parameters(&body)?;
    let request = pb::RepositoryModelUnloadRequest { model_name, parameters, ..Default::default() };
    service.repository_model_unload(ask(request, extensions)).await?;
    Ok(StatusCode::OK)
}
