//! Messages to tensors and back.
//!
//! Raw contents are slices of the received message and are not copied here; typed contents become
//! raw once. Answers go out the way the request came in: raw for raw, typed for typed, so that a
//! person with grpcurl reads numbers. No model, no queue.
//!
//! Source: Open Inference Protocol, "Inference Request" and "Tensor Data".

use std::num::NonZeroUsize;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::classification::largest;
use super::typed;
use crate::error::InvalidRequest;
use crate::model::{ModelSpec, quoted};
use crate::pb::infer_parameter::ParameterChoice;
use crate::pb::{self, ModelInferRequest, ModelInferResponse};
use crate::request::{InferRequest, InferResponse, NamedTensor};
use crate::tensor::{DataType, Shape, Tensor, TensorData};

/// How the answer to a request must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerStyle {
    /// How contents are carried.
    pub form: Form,
    /// For each requested output, how many of its largest values stand for it; empty for none.
    pub classes: Vec<Option<NonZeroUsize>>,
}

/// How contents are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Contents as little-endian bytes beside the outputs.
    Raw,
    /// Contents as lists of numbers inside the outputs.
    Typed,
}

/// Takes a message apart.
///
/// # Errors
/// [`InvalidRequest`] (INVALID_ARGUMENT) naming the tensor: unknown datatype, bad dimension,
/// contents that do not match datatype and shape, raw and typed contents mixed, a surplus or
/// missing raw entry, malformed BYTES, a known parameter of the wrong type.
pub fn decode(request: ModelInferRequest) -> Result<(InferRequest, AnswerStyle), InvalidRequest> {
    let (timeout, priority) = super::parameters::read(&request.parameters)?;
    let raw = !request.raw_input_contents.is_empty();
    if raw && request.raw_input_contents.len() != request.inputs.len() {
        let (entries, inputs) = (request.raw_input_contents.len(), request.inputs.len());
        let message = format!("raw_input_contents has {entries} entries for {inputs} inputs");
        return Err(InvalidRequest::new("raw_input_contents", message));
    }
    let form = if raw || request.inputs.is_empty() { Form::Raw } else { Form::Typed };
    let mut contents = request.raw_input_contents.into_iter();
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for (position, input) in request.inputs.into_iter().enumerate() {
        inputs.push(decode_input(position, input, contents.next())?);
    }
    let mut classes = Vec::new();
    for (position, output) in request.outputs.iter().enumerate() {
        if let Some(count) = super::parameters::classes(output)? {
            classes.resize(request.outputs.len(), None);
            classes[position] = Some(count);
        }
    }
    let outputs = request.outputs.into_iter().map(|output| output.name).collect();
    Ok((
        InferRequest { inputs, outputs, timeout, priority, ..InferRequest::default() },
        AnswerStyle { form, classes },
    ))
}

fn decode_input(
    position: usize,
    input: pb::model_infer_request::InferInputTensor,
    raw: Option<Bytes>,
) -> Result<NamedTensor, InvalidRequest> {
    let name = input.name;
    let refuse = |part: &str, problem: String| {
        let message = format!("input `{}`: {problem}", quoted(&name));
        InvalidRequest::new(format!("inputs[{position}].{part}"), message)
    };
    let Some(dtype) = DataType::from_wire_name(&input.datatype) else {
        let known = DataType::ALL.map(DataType::wire_name).join(", ");
        let got = quoted(&input.datatype);
        return Err(refuse("datatype", format!("unknown datatype {got:?}; known: {known}")));
    };
    let shape = Shape::new(input.shape).map_err(|error| refuse("shape", error.to_string()))?;
    let has_contents = input.contents.as_ref().is_some_and(|each| !typed::is_empty(each));
    let tensor = match raw {
        Some(_) if has_contents => {
            let problem = "has contents although the request has raw_input_contents".to_owned();
            return Err(refuse("contents", problem));
        }
        Some(bytes) if dtype == DataType::Bytes => {
            let elements = split_strings(bytes, shape.elements());
            elements.and_then(|all| Tensor::strings(shape, all).map_err(|e| e.to_string()))
        }
        Some(bytes) => Tensor::dense(dtype, shape, bytes).map_err(|error| error.to_string()),
        None => typed::decode(dtype, shape, input.contents.unwrap_or_default()),
    };
    let tensor = tensor.map_err(|problem| refuse("contents", problem))?;
    Ok(NamedTensor { name, tensor })
}

/// Bytes of the length in front of each BYTES element.
const LENGTH_BYTES: usize = 4;

/// Cuts the raw form of a BYTES tensor into its elements, which stay slices of it.
fn split_strings(mut raw: Bytes, expected: usize) -> Result<Vec<Bytes>, String> {
    // Each element takes 4 bytes at least, so nothing is reserved by a number alone.
    if raw.len() / LENGTH_BYTES < expected {
        let got = raw.len();
        return Err(format!("{expected} BYTES elements need at least 4 bytes each, got {got}"));
    }
    let mut elements = Vec::with_capacity(expected);
    while raw.has_remaining() {
        let index = elements.len();
        if index == expected {
            let surplus = raw.remaining();
            return Err(format!("{surplus} bytes follow the last of {expected} BYTES elements"));
        }
        if raw.remaining() < LENGTH_BYTES {
            return Err(format!("BYTES element {index} ends inside its length"));
        }
        let length = usize::try_from(raw.get_u32_le()).unwrap_or(usize::MAX);
        if raw.remaining() < length {
            let left = raw.remaining();
            return Err(format!(
                "BYTES element {index} has length {length}, {left} bytes are left"
            ));
        }
        elements.push(raw.split_to(length));
    }
    if elements.len() != expected {
        let got = elements.len();
        return Err(format!("the shape asks for {expected} BYTES elements, got {got}"));
    }
    Ok(elements)
}

/// Puts an answer together. `spec` names the outputs, `labels` gives the labels of the one with
/// that name.
///
/// # Errors
/// [`InvalidRequest`] for largest values of an output that has no numbers.
pub fn encode<'a>(
    mut response: InferResponse,
    spec: &ModelSpec,
    answer: &AnswerStyle,
    labels: impl Fn(&str) -> &'a [String],
) -> Result<ModelInferResponse, InvalidRequest> {
    let name = |index: usize| spec.outputs.get(index).map_or("", |each| &each.name);
    for ((index, tensor), count) in response.outputs.iter_mut().zip(&answer.classes) {
        let Some(count) = *count else { continue };
        let name = name(*index);
        let has_rows = spec.outputs.get(*index).is_some_and(|each| each.batch_axis == Some(0));
        *tensor = largest(tensor, has_rows, count, labels(name)).ok_or_else(|| {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            let message = format!(
                "output `{name}`: parameter `classification`: {dtype} of shape {shape} has no \
                 values to choose from"
            );
            InvalidRequest::new(format!("outputs.{name}.parameters"), message)
        })?;
    }
    // Half precision has no typed form, and clients look up raw contents by position: one such
    // output makes the whole answer raw.
    let halves =
        |(_, tensor): &(usize, Tensor)| matches!(tensor.dtype(), DataType::Fp16 | DataType::Bf16);
    let raw = answer.form == Form::Raw || response.outputs.iter().any(halves);
    let mut message = ModelInferResponse {
        outputs: Vec::with_capacity(response.outputs.len()),
        ..ModelInferResponse::default()
    };
    for (index, tensor) in response.outputs {
        let (dtype, shape, data) = tensor.into_parts();
        let contents = if raw {
            message.raw_output_contents.push(raw_contents(data));
            None
        } else {
            Some(typed::encode(dtype, &data))
        };
        message.outputs.push(pb::model_infer_response::InferOutputTensor {
            name: name(index).to_owned(),
            datatype: dtype.wire_name().to_owned(),
            shape: shape.into_dims(),
            contents,
            ..Default::default()
        });
    }
    Ok(message)
}

fn raw_contents(data: TensorData) -> Bytes {
    let elements = match data {
        TensorData::Dense(bytes) => return bytes,
        TensorData::Strings(elements) => elements,
    };
    let size = elements.iter().map(|element| LENGTH_BYTES + element.len()).sum();
    let mut raw = BytesMut::with_capacity(size);
    for element in elements {
        // An element came out of a tensor in memory; one beyond 4 GiB cannot be framed at all.
        raw.put_u32_le(u32::try_from(element.len()).unwrap_or(u32::MAX));
        raw.extend_from_slice(&element);
    }
    raw.freeze()
}

/// A boolean parameter.
pub fn bool_parameter(value: bool) -> pb::InferParameter {
    pb::InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) }
}

#[cfg(test)]
mod tests;
