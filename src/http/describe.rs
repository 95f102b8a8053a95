//! What the server and its models say of themselves, and whether they are ready.
//!
//! Each path asks the RPC of the same name; its answer becomes JSON. Readiness is told by the
//! status, as NVIDIA's clients read it, and in a word of JSON, as KServe's do.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, StatusCode};
use axum::response::Json;
use serde_json::{Value, json};
use tonic::Request as Call;

use super::{Failure, Rest, body};
use crate::pb;
use crate::pb::server::grpc_inference_service_server::GrpcInferenceService;

/// A question to the calls of the gRPC port, by whoever makes the call with these extensions.
pub(super) fn ask<T>(message: T, extensions: Extensions) -> Call<T> {
    let mut question = Call::new(message);
    *question.extensions_mut() = extensions;
    question
}

type Answer = Result<Json<Value>, Failure>;

/// The model version that a path names; both empty where it names none.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) model: String,
    pub(super) version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let named = RawPathParams::from_request_parts(parts, state).await;
        let named = named.map_err(|error| Failure::invalid(error.body_text()))?;
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

pub(super) async fn server(State(rest): State<Arc<Rest>>, extensions: Extensions) -> Answer {
    let answer =
        rest.service.server_metadata(ask(pb::ServerMetadataRequest {}, extensions)).await?;
    let mut server = answer.into_inner();
    server.extensions.push("binary_tensor_data".to_owned());
    rest.messages.json("ServerMetadataResponse", &server).map(Json)
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

pub(super) async fn ready(
    State(rest): State<Arc<Rest>>,
    extensions: Extensions,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let answer = rest.service.server_ready(ask(pb::ServerReadyRequest {}, extensions)).await?;
    let ready = answer.into_inner().ready;
    Ok((readiness(ready), Json(json!({ "ready": ready }))))
}

fn readiness(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) async fn model_ready(
    State(rest): State<Arc<Rest>>,
    extensions: Extensions,
    Target { model: name, version }: Target,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let question = pb::ModelReadyRequest { name: name.clone(), version };
    let ready = rest.service.model_ready(ask(question, extensions)).await?.into_inner().ready;
    Ok((readiness(ready), Json(json!({ "name": name, "ready": ready }))))
}

pub(super) async fn metadata(
    State(rest): State<Arc<Rest>>,
    extensions: Extensions,
    Target { model: name, version }: Target,
) -> Answer {
    let question = ask(pb::ModelMetadataRequest { name, version }, extensions);
    let metadata = rest.service.model_metadata(question).await?.into_inner();
    rest.messages.json("ModelMetadataResponse", &metadata).map(Json)
}

pub(super) async fn config(
    State(rest): State<Arc<Rest>>,
    extensions: Extensions,
    Target { model: name, version }: Target,
) -> Answer {
    let question = ask(pb::ModelConfigRequest { name, version }, extensions);
    let config = rest.service.model_config(question).await?.into_inner().config;
    rest.messages.json("ModelConfig", &config.unwrap_or_default()).map(Json)
}

pub(super) async fn statistics(
    State(rest): State<Arc<Rest>>,
    extensions: Extensions,
    Target { model: name, version }: Target,
) -> Answer {
    let question = ask(pb::ModelStatisticsRequest { name, version }, extensions);
    let statistics = rest.service.model_statistics(question).await?.into_inner();
    rest.messages.json("ModelStatisticsResponse", &statistics).map(Json)
}

/// No client has shared memory with the server.
pub(super) async fn regions() -> Json<Value> {
    Json(json!([]))
}

/// What shared memory is asked for; the call says why not.
pub(super) async fn register(State(rest): State<Arc<Rest>>, extensions: Extensions) -> Answer {
    let question = pb::SystemSharedMemoryRegisterRequest::default();
    rest.service.system_shared_memory_register(ask(question, extensions)).await?;
    Ok(Json(json!({})))
}

/// What log and trace settings are asked for; the call says why not.
pub(super) async fn settings(State(rest): State<Arc<Rest>>, extensions: Extensions) -> Answer {
    rest.service.log_settings(ask(pb::LogSettingsRequest::default(), extensions)).await?;
    Ok(Json(json!({})))
}

/// Largest body of a question about the index: a few words.
const MAX_QUESTION_BYTES: usize = 64 << 10;

pub(super) async fn index(State(rest): State<Arc<Rest>>, request: Request) -> Answer {
    let mut limits = *rest.service.limits();
    limits.max_message_bytes = limits.max_message_bytes.min(MAX_QUESTION_BYTES);
    let extensions = request.extensions().clone();
    let ready = ready_only(&body::read(request, &limits, &rest.memory).await?.0)?;
    let question = pb::RepositoryIndexRequest { ready, ..Default::default() };
    let index = rest.service.repository_index(ask(question, extensions)).await?.into_inner();
    let mut index = rest.messages.json("RepositoryIndexResponse", &index)?;
    // The list itself, where the RPC has a message round it.
    Ok(Json(index["models"].take()))
}

fn ready_only(question: &[u8]) -> Result<bool, Failure> {
    if question.trim_ascii().is_empty() {
        return Ok(false);
    }
    let question: Value = serde_json::from_slice(question)
        .map_err(|error| Failure::invalid(format!("malformed request: {error}")))?;
    match (&question, question.get("ready")) {
        (Value::Object(_), None) => Ok(false),
        (Value::Object(_), Some(Value::Bool(ready))) => Ok(*ready),
        _ => Err(Failure::invalid("expected {\"ready\": true} or {\"ready\": false}")),
    }
}
