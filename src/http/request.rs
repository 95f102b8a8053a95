//! A JSON request, with the binary tensors behind it, as the message that gRPC callers send.
//!
//! Every tensor becomes raw contents: a binary one is a slice of the body, a list of numbers is
//! written out as it is read, without a tree of values in between. So both wires share everything
//! that follows.
//!
//! Source: Open Inference Protocol, REST; Triton, binary tensor data extension.

use std::collections::HashMap;

use bytes::Bytes;
use jiter::{Jiter, Peek};

use super::elements::{self, Problem};
use crate::error::InvalidRequest;
use crate::model::quoted;
use crate::pb::infer_parameter::ParameterChoice;
use crate::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::pb::{InferParameter, ModelInferRequest};
use crate::tensor::{DataType, Shape};

type Parameters = HashMap<String, InferParameter>;

/// Most inputs or outputs, as for gRPC.
const MAX_TENSORS: usize = 1024;
/// Most parameters of a request or a tensor, as for gRPC.
const MAX_PARAMETERS: usize = 256;
/// Most dimensions, as for gRPC.
const MAX_DIMS: usize = 32;

/// Which outputs the caller wants as binary tensors.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Those that it says nothing of.
    otherwise: bool,
    by_name: HashMap<String, bool>,
}

impl Wanted {
    /// Whether the output of that name is wanted as a binary tensor.
    pub(super) fn is_binary(&self, output: &str) -> bool {
        self.by_name.get(output).copied().unwrap_or(self.otherwise)
    }
}

/// Reads a request: `json`, and the `binary` tensors behind it.
///
/// # Errors
/// [`InvalidRequest`] (400) that names the field: text that is not JSON, a field of the wrong type,
/// data that does not match shape and datatype, bytes that no tensor claims.
pub(super) fn parse(
    json: &[u8],
    binary: Bytes,
) -> Result<(ModelInferRequest, Wanted), InvalidRequest> {
    let mut reader = Reader { json: Jiter::new(json).with_allow_inf_nan(), binary };
    let mut request = ModelInferRequest::default();
    let mut wanted = Wanted::default();
    reader.object("", |reader, key| match key {
        "id" => reader.text("id").map(|id| request.id = id),
        "parameters" => {
            request.parameters = reader.parameters("parameters")?;
            let binary = take_flag(&mut request.parameters, "binary_data_output")?;
            wanted.otherwise = binary.unwrap_or(wanted.otherwise);
            Ok(())
        }
        "inputs" => reader.list("inputs", |reader, position| {
            let (input, raw) = reader.input(position)?;
            request.inputs.push(input);
            request.raw_input_contents.push(raw);
            Ok(())
        }),
        "outputs" => reader.list("outputs", |reader, position| {
            let (output, binary) = reader.output(position)?;
            if let Some(binary) = binary {
                wanted.by_name.insert(output.name.clone(), binary);
            }
            request.outputs.push(output);
            Ok(())
        }),
        _ => reader.skip(key),
    })?;
    reader.json.finish().map_err(|error| not_json(&error))?;
    if !reader.binary.is_empty() {
        let message = format!("{} bytes follow the last binary tensor", reader.binary.len());
        return Err(InvalidRequest::new("body", message));
    }
    Ok((request, wanted))
}

fn not_json(error: &jiter::JiterError) -> InvalidRequest {
    InvalidRequest::new("body", format!("not the JSON that is expected: {error}"))
}

fn wrong(field: &str, expected: &str) -> InvalidRequest {
    InvalidRequest::new(field, format!("{field}: expected {expected}"))
}

/// Takes a boolean parameter that is about this wire only.
fn take_flag(parameters: &mut Parameters, key: &str) -> Result<Option<bool>, InvalidRequest> {
    match parameters.remove(key).and_then(|each| each.parameter_choice) {
        None => Ok(None),
        Some(ParameterChoice::BoolParam(flag)) => Ok(Some(flag)),
        Some(_) => Err(wrong(&format!("parameters.{key}"), "true or false")),
    }
}

/// Takes the length of a binary tensor.
fn take_size(parameters: &mut Parameters, field: &str) -> Result<Option<usize>, InvalidRequest> {
    match parameters.remove("binary_data_size").and_then(|each| each.parameter_choice) {
        None => Ok(None),
        Some(ParameterChoice::Int64Param(size)) if size >= 0 => Ok(usize::try_from(size).ok()),
        Some(_) => Err(wrong(&format!("{field}.parameters.binary_data_size"), "a number of bytes")),
    }
}

struct Reader<'a> {
    json: Jiter<'a>,
    /// Binary tensors that were not taken yet.
    binary: Bytes,
}

impl Reader<'_> {
    fn object(
        &mut self,
        field: &str,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), InvalidRequest>,
    ) -> Result<(), InvalidRequest> {
        self.expect(field, Peek::Object, "an object")?;
        let mut key =
            self.json.known_object().map_err(|error| not_json(&error))?.map(str::to_owned);
        while let Some(name) = key {
            each(self, &name)?;
            key = self.json.next_key().map_err(|error| not_json(&error))?.map(str::to_owned);
        }
        Ok(())
    }

    fn list(
        &mut self,
        field: &str,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), InvalidRequest>,
    ) -> Result<(), InvalidRequest> {
        self.expect(field, Peek::Array, "a list")?;
        let mut next = self.json.known_array().map_err(|error| not_json(&error))?;
        let mut position = 0;
        while next.is_some() {
            if position == MAX_TENSORS {
                return Err(wrong(field, &format!("at most {MAX_TENSORS} entries")));
            }
            each(self, position)?;
            position += 1;
            next = self.json.array_step().map_err(|error| not_json(&error))?;
        }
        Ok(())
    }

    fn expect(&mut self, field: &str, kind: Peek, name: &str) -> Result<(), InvalidRequest> {
        let found = self.json.peek().map_err(|error| not_json(&error))?;
        let field = if field.is_empty() { "body" } else { field };
        if found == kind { Ok(()) } else { Err(wrong(field, name)) }
    }

    fn text(&mut self, field: &str) -> Result<String, InvalidRequest> {
        self.expect(field, Peek::String, "a text")?;
        self.json.known_str().map(str::to_owned).map_err(|error| not_json(&error))
    }

    fn skip(&mut self, _key: &str) -> Result<(), InvalidRequest> {
        self.json.next_skip().map_err(|error| not_json(&error))
    }

    fn parameters(&mut self, field: &str) -> Result<Parameters, InvalidRequest> {
        let mut parameters = Parameters::new();
        self.object(field, |reader, key| {
            if parameters.len() == MAX_PARAMETERS {
                return Err(wrong(field, &format!("at most {MAX_PARAMETERS} parameters")));
            }
            let choice = reader.parameter(&format!("{field}.{}", quoted(key)))?;
            let parameter = InferParameter { parameter_choice: Some(choice) };
            parameters.insert(key.to_owned(), parameter);
            Ok(())
        })?;
        Ok(parameters)
    }

    fn parameter(&mut self, field: &str) -> Result<ParameterChoice, InvalidRequest> {
        let peek = self.json.peek().map_err(|error| not_json(&error))?;
        match peek {
            Peek::True | Peek::False => {
                let flag = self.json.known_bool(peek).map_err(|error| not_json(&error))?;
                Ok(ParameterChoice::BoolParam(flag))
            }
            Peek::String => self.text(field).map(ParameterChoice::StringParam),
            _ if peek.is_num() => {
                let digits =
                    self.json.known_number_bytes(peek).map_err(|error| not_json(&error))?;
                let text = std::str::from_utf8(digits).unwrap_or_default();
                let whole = text.parse().map(ParameterChoice::Int64Param).ok();
                let whole = whole.or_else(|| text.parse().map(ParameterChoice::Uint64Param).ok());
                let number = whole.or_else(|| text.parse().map(ParameterChoice::DoubleParam).ok());
                number.ok_or_else(|| wrong(field, "a number"))
            }
            _ => Err(wrong(field, "true, false, a number or a text")),
        }
    }

    /// An input and its raw contents.
    fn input(&mut self, position: usize) -> Result<(InferInputTensor, Bytes), InvalidRequest> {
        let field = format!("inputs[{position}]");
        let mut input = InferInputTensor::default();
        // Where the data begins, if it came before what it depends on.
        let (mut data, mut has_shape) = (None, false);
        self.object(&field, |reader, key| match key {
            "name" => reader.text(&format!("{field}.name")).map(|name| input.name = name),
            "datatype" => {
                reader.text(&format!("{field}.datatype")).map(|datatype| input.datatype = datatype)
            }
            "shape" => {
                has_shape = true;
                reader.shape(&format!("{field}.shape")).map(|shape| input.shape = shape)
            }
            "parameters" => {
                input.parameters = reader.parameters(&format!("{field}.parameters"))?;
                Ok(())
            }
            "data" if has_shape && !input.datatype.is_empty() => {
                data = Some(Data::Read(elements::read(&mut reader.json, &input)?));
                Ok(())
            }
            "data" => {
                let start = reader.json.current_index();
                reader.skip(key)?;
                data = Some(Data::Later(reader.json.slice_to_current(start)));
                Ok(())
            }
            _ => reader.skip(key),
        })?;
        let size = take_size(&mut input.parameters, &field)?;
        let name = quoted(&input.name);
        let refuse = |problem: String| {
            Err(InvalidRequest::new(format!("{field}.data"), format!("input `{name}`: {problem}")))
        };
        if input.parameters.contains_key("shared_memory_region") {
            return refuse("parameter `shared_memory_region` is not served".to_owned());
        }
        let raw = match (data, size) {
            (Some(_), Some(_)) => return refuse("has data and binary_data_size".to_owned()),
            (None, None) => return refuse("has neither data nor binary_data_size".to_owned()),
            (Some(Data::Read(raw)), None) => raw,
            (Some(Data::Later(slice)), None) => {
                elements::read(&mut Jiter::new(slice).with_allow_inf_nan(), &input)?
            }
            (None, Some(size)) if size > self.binary.len() => {
                let left = self.binary.len();
                return refuse(format!("binary_data_size is {size}, {left} bytes are left"));
            }
            (None, Some(size)) => self.binary.split_to(size),
        };
        Ok((input, raw))
    }

    fn shape(&mut self, field: &str) -> Result<Vec<i64>, InvalidRequest> {
        let mut dims = Vec::new();
        self.list(field, |reader, _| {
            if dims.len() == MAX_DIMS {
                return Err(wrong(field, &format!("at most {MAX_DIMS} dimensions")));
            }
            let peek = reader.json.peek().map_err(|error| not_json(&error))?;
            let digits =
                if peek.is_num() { reader.json.known_number_bytes(peek).ok() } else { None };
            let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
            match text.and_then(|text| text.parse().ok()) {
                Some(dim) => dims.push(dim),
                None => return Err(wrong(field, "whole numbers")),
            }
            Ok(())
        })?;
        Ok(dims)
    }

    /// A requested output and whether it is wanted as a binary tensor.
    fn output(
        &mut self,
        position: usize,
    ) -> Result<(InferRequestedOutputTensor, Option<bool>), InvalidRequest> {
        let field = format!("outputs[{position}]");
        let mut output = InferRequestedOutputTensor::default();
        self.object(&field, |reader, key| match key {
            "name" => reader.text(&format!("{field}.name")).map(|name| output.name = name),
            "parameters" => {
                output.parameters = reader.parameters(&format!("{field}.parameters"))?;
                Ok(())
            }
            _ => reader.skip(key),
        })?;
        let binary = take_flag(&mut output.parameters, "binary_data")?;
        Ok((output, binary))
    }
}

/// Data of an input: read, or still to be read.
enum Data<'a> {
    Read(Bytes),
    Later(&'a [u8]),
}

/// Shape and datatype that data is read by.
///
/// # Errors
/// [`Problem`] for an unknown datatype or a shape that no tensor has.
pub(super) fn kind(input: &InferInputTensor) -> Result<(DataType, Shape), Problem> {
    let dtype = DataType::from_wire_name(&input.datatype)
        .ok_or_else(|| format!("unknown datatype {:?}", quoted(&input.datatype)))?;
    let shape = Shape::new(input.shape.clone()).map_err(|error| error.to_string())?;
    Ok((dtype, shape))
}

#[cfg(test)]
mod tests;
