//! An answer as a body: JSON, and behind it the outputs that are wanted as bytes.
//!
//! The message is in raw form, so bytes go out as they are, and text is written from them. Lists
//! are flat. Numbers are as short as they can be and still mean the same value; what is no number
//! is `NaN`, `Infinity` or `-Infinity`, see [`super::reader`]. FP16 and BF16 are written exactly.
//! BYTES are strings, and octets that are not UTF-8 are refused in text: any replacement would be
//! another value. The caller can have them as bytes.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytemuck::Pod;
use bytes::{Buf, Bytes};
use half::{bf16, f16};
use http_body::{Frame, SizeHint};
use serde_json::Value;

use super::Failure;
use super::infer::JSON_LENGTH;
use super::request::Binary;
use crate::pb::infer_parameter::ParameterChoice;
use crate::pb::{InferParameter, ModelInferResponse};
use crate::tensor::DataType;

/// Bytes of the outputs that are wanted as text: what there is to write.
pub(super) fn text_bytes(answer: &ModelInferResponse, binary: &Binary) -> usize {
    let all = answer.raw_output_contents.iter().enumerate();
    all.filter(|(position, _)| !binary.at(*position)).map(|(_, raw)| raw.len()).sum()
}

/// Puts an answer together.
///
/// # Errors
/// 400 for BYTES that are wanted as text and are none.
pub(super) fn encode(answer: ModelInferResponse, binary: &Binary) -> Result<Response, Failure> {
    let mut json = Vec::with_capacity(256 + 4 * text_bytes(&answer, binary));
    put(&mut json, "{\"model_name\":");
    string(&mut json, &answer.model_name);
    put(&mut json, ",\"model_version\":");
    string(&mut json, &answer.model_version);
    if !answer.id.is_empty() {
        put(&mut json, ",\"id\":");
        string(&mut json, &answer.id);
    }
    if !answer.parameters.is_empty() {
        put(&mut json, ",\"parameters\":");
        put(&mut json, &parameters(answer.parameters).to_string());
    }
    put(&mut json, ",\"outputs\":[");
    let mut parts = VecDeque::new();
    let outputs = answer.outputs.into_iter().zip(answer.raw_output_contents);
    for (position, (output, raw)) in outputs.enumerate() {
        put(&mut json, if position == 0 { "{\"name\":" } else { ",{\"name\":" });
        string(&mut json, &output.name);
        put(&mut json, ",\"datatype\":");
        string(&mut json, &output.datatype);
        put(&mut json, ",\"shape\":[");
        list(&mut json, &output.shape, |json, dim| put(json, itoa::Buffer::new().format(*dim)));
        if binary.at(position) {
            put(&mut json, "],\"parameters\":{\"binary_data_size\":");
            put(&mut json, itoa::Buffer::new().format(raw.len()));
            put(&mut json, "}}");
            parts.push_back(raw);
        } else {
            put(&mut json, "],\"data\":[");
            elements(&mut json, &output.datatype, raw).map_err(|problem| {
                Failure::invalid(format!("output `{}`: {problem}", output.name))
            })?;
            put(&mut json, "]}");
        }
    }
    put(&mut json, "]}");
    Ok(respond(json.into(), parts))
}

fn parameters(all: HashMap<String, InferParameter>) -> Value {
    let value = |parameter: InferParameter| match parameter.parameter_choice {
        None => Value::Null,
        Some(ParameterChoice::BoolParam(value)) => value.into(),
        Some(ParameterChoice::Int64Param(value)) => value.into(),
        Some(ParameterChoice::Uint64Param(value)) => value.into(),
        Some(ParameterChoice::DoubleParam(value)) => value.into(),
        Some(ParameterChoice::StringParam(value)) => value.into(),
    };
    Value::Object(all.into_iter().map(|(key, each)| (key, value(each))).collect())
}

fn respond(json: Bytes, mut parts: VecDeque<Bytes>) -> Response {
    let json_length = json.len();
    let is_binary = !parts.is_empty();
    parts.push_front(json);
    let mut response = Response::new(Body::new(Parts(parts)));
    let headers = response.headers_mut();
    let kind = if is_binary { "application/octet-stream" } else { "application/json" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if is_binary {
        headers.insert(JSON_LENGTH, HeaderValue::from(json_length));
    }
    response
}

fn put(json: &mut Vec<u8>, text: &str) {
    json.extend_from_slice(text.as_bytes());
}

fn string(json: &mut Vec<u8>, text: &str) {
    put(json, &Value::from(text).to_string());
}

fn list<T>(json: &mut Vec<u8>, all: impl IntoIterator<Item = T>, one: impl Fn(&mut Vec<u8>, T)) {
    for (position, each) in all.into_iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        one(json, each);
    }
}

/// Writes elements of a raw tensor, with commas between them.
fn elements(json: &mut Vec<u8>, datatype: &str, raw: Bytes) -> Result<(), String> {
    let Some(dtype) = DataType::from_wire_name(datatype) else {
        return Err(format!("unknown datatype {datatype}"));
    };
    match dtype {
        DataType::Bool => {
            list(json, raw, |json, byte| put(json, if byte == 0 { "false" } else { "true" }));
        }
        DataType::UInt8 => integers::<u8>(json, &raw),
        DataType::UInt16 => integers::<u16>(json, &raw),
        DataType::UInt32 => integers::<u32>(json, &raw),
        DataType::UInt64 => integers::<u64>(json, &raw),
        DataType::Int8 => integers::<i8>(json, &raw),
        DataType::Int16 => integers::<i16>(json, &raw),
        DataType::Int32 => integers::<i32>(json, &raw),
        DataType::Int64 => integers::<i64>(json, &raw),
        DataType::Fp16 => list(json, numbers::<f16>(&raw), |json, each| float(json, each.to_f32())),
        DataType::Bf16 => {
            list(json, numbers::<bf16>(&raw), |json, each| float(json, each.to_f32()));
        }
        DataType::Fp32 => list(json, numbers::<f32>(&raw), float),
        DataType::Fp64 => list(json, numbers::<f64>(&raw), float),
        DataType::Bytes => strings(json, raw)?,
    }
    Ok(())
}

/// Reads numbers that need not be aligned.
fn numbers<N: Pod>(raw: &[u8]) -> impl Iterator<Item = N> {
    raw.chunks_exact(size_of::<N>()).map(bytemuck::pod_read_unaligned)
}

fn integers<N: Pod + itoa::Integer>(json: &mut Vec<u8>, raw: &[u8]) {
    list(json, numbers::<N>(raw), |json, each| put(json, itoa::Buffer::new().format(each)));
}

fn float<N: zmij::Float + Into<f64>>(json: &mut Vec<u8>, value: N) {
    let wide: f64 = value.into();
    if wide.is_nan() {
        put(json, "NaN");
    } else if wide.is_infinite() {
        put(json, if wide > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        put(json, zmij::Buffer::new().format_finite(value));
    }
}

/// Writes the elements of BYTES, each behind its length.
fn strings(json: &mut Vec<u8>, mut raw: Bytes) -> Result<(), String> {
    let mut index = 0;
    while let Ok(length) = raw.try_get_u32_le() {
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(raw.len());
        let Ok(text) = std::str::from_utf8(&raw[..length]) else {
            return Err(format!("element {index} is not UTF-8; ask for it with binary_data"));
        };
        if index > 0 {
            json.push(b',');
        }
        string(json, text);
        raw.advance(length);
        index += 1;
    }
    Ok(())
}

/// A body of a known length in pieces that are not copied together.
struct Parts(VecDeque<Bytes>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests;
