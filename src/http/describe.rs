//! What the server and its models say of themselves, and whether they are ready.
//!
//! The contents come from [`crate::grpc::model`]; here they get a path. Readiness is told by the
//! status, as clients read it, and in a word of JSON, as KServe's client does.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Json;
use serde_json::{Value, json};

use super::{Refusal, Rest, body};
use crate::error::PredictError;
use crate::grpc::model;
use crate::pb;

type Answer = Result<Json<Value>, Refusal>;

/// The model version that a path names; both empty where it names none.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) model: String,
    pub(super) version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let named = RawPathParams::from_request_parts(parts, state).await;
        let named = named.map_err(|error| Refusal::invalid(error.body_text()))?;
        let mut target = Self::default();
        for (part, value) in &named {
            match part {
                "model" => value.clone_into(&mut target.model),
                "version" => value.clone_into(&mut target.version),
                _ => {}
            }
        }
        Ok(target)
    }
}

pub(super) async fn server(State(rest): State<Arc<Rest>>) -> Answer {
    rest.messages.json("ServerMetadataResponse", &model::server()).map(Json)
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

pub(super) async fn ready(State(rest): State<Arc<Rest>>) -> (StatusCode, Json<Value>) {
    let ready = rest.repository.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready })))
}

pub(super) async fn model_ready(State(rest): State<Arc<Rest>>, target: Target) -> Answer {
    model::resolve(&rest.repository, &target.model, &target.version)?;
    if rest.repository.is_draining() {
        return Err(PredictError::ShuttingDown.into());
    }
    Ok(Json(json!({ "name": target.model, "ready": true })))
}

pub(super) async fn metadata(State(rest): State<Arc<Rest>>, target: Target) -> Answer {
    let served = model::resolve(&rest.repository, &target.model, &target.version)?;
    let versions = rest.repository.ready_versions(&target.model);
    let metadata = model::metadata(&served, &versions);
    rest.messages.json("ModelMetadataResponse", &metadata).map(Json)
}

pub(super) async fn config(State(rest): State<Arc<Rest>>, target: Target) -> Answer {
    let served = model::resolve(&rest.repository, &target.model, &target.version)?;
    rest.messages.json("ModelConfig", &model::config(&served)).map(Json)
}

pub(super) async fn statistics(State(rest): State<Arc<Rest>>, target: Target) -> Answer {
    let model_stats = model::all_statistics(&rest.repository, &target.model, &target.version)?;
    let statistics = pb::ModelStatisticsResponse { model_stats };
    rest.messages.json("ModelStatisticsResponse", &statistics).map(Json)
}

/// No client has shared memory with the server.
pub(super) async fn regions() -> Json<Value> {
    Json(json!([]))
}

/// Largest body of a question about the index: a few words.
const MAX_QUESTION_BYTES: usize = 64 << 10;

pub(super) async fn index(State(rest): State<Arc<Rest>>, request: Request) -> Answer {
    let mut limits = *rest.inference.limits();
    limits.max_message_bytes = limits.max_message_bytes.min(MAX_QUESTION_BYTES);
    let question = body::read(request, &limits).await?;
    let models = model::index(&rest.repository, ready_only(&question)?, false);
    let index = pb::RepositoryIndexResponse { models };
    let mut index = rest.messages.json("RepositoryIndexResponse", &index)?;
    // The list itself, where the RPC has a message round it.
    Ok(Json(index["models"].take()))
}

fn ready_only(question: &[u8]) -> Result<bool, Refusal> {
    if question.trim_ascii().is_empty() {
        return Ok(false);
    }
    let question: Value = serde_json::from_slice(question)
        .map_err(|error| Refusal::invalid(format!("malformed request: {error}")))?;
    match (&question, question.get("ready")) {
        (Value::Object(_), None) => Ok(false),
        (Value::Object(_), Some(Value::Bool(ready))) => Ok(*ready),
        _ => Err(Refusal::invalid("expected {\"ready\": true} or {\"ready\": false}")),
    }
}
