//! An answer's message as JSON, with binary tensors behind it where they were asked for.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use super::elements;
use super::request::Wanted;
use crate::error::InvalidRequest;
use crate::pb::ModelInferResponse;
use crate::pb::infer_parameter::ParameterChoice;
use crate::tensor::DataType;

/// Length of the JSON in front of binary tensors, in both directions.
pub(super) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// Puts the answer together. Its contents are raw.
///
/// # Errors
/// [`InvalidRequest`] (400) for an output that JSON cannot hold and that was not asked for as a
/// binary tensor.
pub(super) fn build(
    answer: ModelInferResponse,
    wanted: &Wanted,
) -> Result<Response, InvalidRequest> {
    let mut json = Vec::with_capacity(256);
    json.extend(b"{\"model_name\":");
    put(&mut json, &answer.model_name);
    json.extend(b",\"model_version\":");
    put(&mut json, &answer.model_version);
    if !answer.id.is_empty() {
        json.extend(b",\"id\":");
        put(&mut json, &answer.id);
    }
    let mut parameters: Vec<_> = answer.parameters.into_iter().collect();
    parameters.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    if !parameters.is_empty() {
        let object = parameters
            .into_iter()
            .filter_map(|(key, value)| Some((key, parameter(value.parameter_choice?))))
            .collect::<serde_json::Map<String, Value>>();
        json.extend(b",\"parameters\":");
        put(&mut json, &object);
    }
    json.extend(b",\"outputs\":[");
    let mut binary: Vec<Bytes> = Vec::new();
    let outputs = answer.outputs.into_iter().zip(answer.raw_output_contents);
    for (index, (output, raw)) in outputs.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend(b"{\"name\":");
        put(&mut json, &output.name);
        json.extend(b",\"datatype\":");
        put(&mut json, &output.datatype);
        json.extend(b",\"shape\":");
        put(&mut json, &output.shape);
        if wanted.is_binary(&output.name) {
            json.extend(b",\"parameters\":");
            put(&mut json, &json!({ "binary_data_size": raw.len() }));
            binary.push(raw);
        } else if let Some(dtype) = DataType::from_wire_name(&output.datatype) {
            json.extend(b",\"data\":");
            elements::write(&mut json, dtype, &raw).map_err(|problem| {
                let message = format!("output `{}` {problem}", output.name);
                InvalidRequest::new(format!("outputs.{}", output.name), message)
            })?;
        }
        json.push(b'}');
    }
    json.extend(b"]}");
    Ok(response(json, &binary))
}

fn response(json: Vec<u8>, binary: &[Bytes]) -> Response {
    let length = json.len();
    if binary.is_empty() {
        let mut response = Response::new(Body::from(json));
        let kind = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return response;
    }
    // One buffer, written once: the tensors are behind the JSON without a gap.
    let mut body = json;
    body.reserve_exact(binary.iter().map(Bytes::len).sum());
    for raw in binary {
        body.extend_from_slice(raw);
    }
    let mut response = Response::new(Body::from(body));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(JSON_LENGTH, HeaderValue::from(length));
    response
}

fn parameter(choice: ParameterChoice) -> Value {
    match choice {
        ParameterChoice::BoolParam(value) => value.into(),
        ParameterChoice::Int64Param(value) => value.into(),
        ParameterChoice::Uint64Param(value) => value.into(),
        ParameterChoice::DoubleParam(value) => value.into(),
        ParameterChoice::StringParam(value) => value.into(),
    }
}

fn put(json: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Texts and numbers are written into memory, which cannot fail.
    drop(serde_json::to_writer(json, value));
}
