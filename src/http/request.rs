//! The body of a prediction to the message that the gRPC port would have received.
//!
//! A body is JSON, or JSON and behind it the bytes of the tensors that have a `binary_data_size`,
//! in the order of the inputs. Those stay slices of the body. Lists of elements become bytes, see
//! `elements`, so the message is always in raw form and text and bytes can meet in one request.
//!
//! Fields may come in any order and unknown ones are passed over, as with protobuf; a known one
//! that comes twice is refused. Counts are bounded as on the gRPC port. Parameters keep their
//! types; those of the binary extension end here, all others go on in the message.

use bytes::Bytes;

use super::parameters::{self, Parameters, flag, size, take};
use super::reader::{Malformed, Reader};
use super::{Failure, elements};
use crate::grpc::wire::{MAX_DIMS, MAX_TENSORS};
use crate::model::quoted;
use crate::pb::ModelInferRequest;
use crate::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::tensor::{DataType, Shape};

/// A request, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The message, without the model.
    pub message: ModelInferRequest,
    /// Which outputs are wanted as bytes.
    pub binary: Binary,
}

/// Which outputs are wanted as bytes; the others are written as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binary {
    /// Those that do not say.
    pub(super) otherwise: bool,
    /// Each requested output, where it says.
    pub(super) each: Vec<Option<bool>>,
}

impl Binary {
    /// Whether the output at `position` of the answer is wanted as bytes.
    pub(super) fn at(&self, position: usize) -> bool {
        self.each.get(position).copied().flatten().unwrap_or(self.otherwise)
    }
}

/// An input as it was read.
#[derive(Default)]
struct Input<'j> {
    name: Option<String>,
    datatype: Option<String>,
    shape: Option<Vec<i64>>,
    parameters: Parameters,
    data: Option<Data<'j>>,
}

/// Elements of an input.
enum Data<'j> {
    /// Not read yet: what they are came later.
    Text(&'j [u8]),
    /// Read.
    Bytes(Vec<u8>),
}

/// Reads a body: `text` and, behind it, `bytes`. Lists may amount to `room` bytes together.
///
/// # Errors
/// 400, naming the tensor; 413 for lists that amount to more.
pub fn parse(text: &[u8], bytes: Bytes, room: usize) -> Result<Parsed, Failure> {
    let mut parser = Parser { bytes, room, limit: room, parsed: Parsed::empty() };
    let (mut inputs, mut outputs) = (false, false);
    let mut reader = Reader::new(text);
    let field = |key: &str| match key {
        "id" => Field::Id,
        "parameters" => Field::Parameters,
        "inputs" => Field::Inputs,
        "outputs" => Field::Outputs,
        _ => Field::Unknown,
    };
    reader.object(field, |reader, field| {
        match field {
            Field::Id => parser.parsed.message.id = reader.string(str::to_owned)?,
            Field::Parameters => parser.parsed.message.parameters = parameters::read(reader)?,
            Field::Inputs => {
                once("inputs", &mut inputs)?;
                reader.array(|reader| parser.input(reader))?;
            }
            Field::Outputs => {
                once("outputs", &mut outputs)?;
                reader.array(|reader| parser.output(reader))?;
            }
            Field::Unknown => drop(reader.skip()?),
        }
        Ok::<_, Failure>(())
    })?;
    reader.finish()?;
    parser.finish()
}

/// Fields of a request.
enum Field {
    Id,
    Parameters,
    Inputs,
    Outputs,
    Unknown,
}

fn once(field: &str, seen: &mut bool) -> Result<(), Failure> {
    if std::mem::replace(seen, true) {
        return Err(Failure::invalid(format!("malformed request: `{field}` comes twice")));
    }
    Ok(())
}

impl Parsed {
    fn empty() -> Self {
        Self { message: ModelInferRequest::default(), binary: Binary::default() }
    }
}

struct Parser {
    /// Bytes behind the JSON that no input has taken.
    bytes: Bytes,
    /// Bytes that lists may still amount to.
    room: usize,
    /// What that was at first.
    limit: usize,
    parsed: Parsed,
}

impl Parser {
    fn input(&mut self, reader: &mut Reader<'_>) -> Result<(), Failure> {
        let position = self.parsed.message.inputs.len();
        if position == MAX_TENSORS {
            return Err(Failure::invalid(format!("request has more than {MAX_TENSORS} inputs")));
        }
        let mut input = Input::default();
        let field = |key: &str| match key {
            "name" => InputField::Name,
            "datatype" => InputField::Datatype,
            "shape" => InputField::Shape,
            "parameters" => InputField::Parameters,
            "data" => InputField::Data,
            _ => InputField::Unknown,
        };
        reader.object(field, |reader, field| {
            match field {
                InputField::Name => input.name = Some(reader.string(str::to_owned)?),
                InputField::Datatype => input.datatype = Some(reader.string(str::to_owned)?),
                InputField::Shape => input.shape = Some(shape(reader)?),
                InputField::Parameters => input.parameters = parameters::read(reader)?,
                InputField::Data if input.data.is_some() => once("data", &mut true)?,
                InputField::Data => input.data = Some(self.data(reader, &input, position)?),
                InputField::Unknown => drop(reader.skip()?),
            }
            Ok::<_, Failure>(())
        })?;
        self.add(input, position)
    }

    /// Reads elements, or keeps their text until their type is known.
    fn data<'j>(
        &mut self,
        reader: &mut Reader<'j>,
        input: &Input<'_>,
        position: usize,
    ) -> Result<Data<'j>, Failure> {
        if input.datatype.is_none() || input.shape.is_none() {
            return Ok(Data::Text(reader.skip()?));
        }
        self.elements(reader, input, position).map(Data::Bytes)
    }

    fn elements(
        &mut self,
        reader: &mut Reader<'_>,
        input: &Input<'_>,
        position: usize,
    ) -> Result<Vec<u8>, Failure> {
        let name = input.label(position);
        let refuse = |problem: String| Failure::invalid(format!("{name}: {problem}"));
        let datatype = input.datatype.as_deref().unwrap_or_default();
        let Some(dtype) = DataType::from_wire_name(datatype) else {
            let known = DataType::ALL.map(DataType::wire_name).join(", ");
            let got = quoted(datatype);
            return Err(refuse(format!("unknown datatype {got:?}; known: {known}")));
        };
        let dims = input.shape.clone().unwrap_or_default();
        let shape = Shape::new(dims).map_err(|error| refuse(error.to_string()))?;
        // Text can amount to more bytes than it has: "0" to eight.
        let size = shape.elements().checked_mul(dtype.size_bytes().unwrap_or(0));
        self.room = size.and_then(|size| self.room.checked_sub(size)).ok_or_else(|| {
            Failure::too_large(&format!("{name} with those before it"), self.limit)
        })?;
        elements::read(reader, dtype, &shape).map_err(refuse)
    }

    fn add(&mut self, mut input: Input<'_>, position: usize) -> Result<(), Failure> {
        let name = input.label(position);
        let refuse = |problem: String| Failure::invalid(format!("{name}: {problem}"));
        for (field, is_missing) in [
            ("name", input.name.is_none()),
            ("datatype", input.datatype.is_none()),
            ("shape", input.shape.is_none()),
        ] {
            if is_missing {
                return Err(refuse(format!("has no `{field}`")));
            }
        }
        let size = take(&mut input.parameters, "binary_data_size", &name, size)?;
        let contents = match (input.data.take(), size) {
            (Some(_), Some(_)) => {
                return Err(refuse("has both `data` and `binary_data_size`".to_owned()));
            }
            (None, None) if input.parameters.contains_key("shared_memory_region") => {
                return Err(refuse("parameter `shared_memory_region` is not served".to_owned()));
            }
            (None, None) => {
                return Err(refuse("has neither `data` nor `binary_data_size`".to_owned()));
            }
            (None, Some(size)) if size > self.bytes.len() => {
                let left = self.bytes.len();
                let problem = format!("binary_data_size is {size}, {left} bytes are left");
                return Err(refuse(problem));
            }
            (None, Some(size)) => self.bytes.split_to(size),
            (Some(Data::Bytes(bytes)), None) => bytes.into(),
            (Some(Data::Text(text)), None) => {
                self.elements(&mut Reader::new(text), &input, position)?.into()
            }
        };
        self.parsed.message.inputs.push(InferInputTensor {
            name: input.name.unwrap_or_default(),
            datatype: input.datatype.unwrap_or_default(),
            shape: input.shape.unwrap_or_default(),
            parameters: input.parameters,
            contents: None,
        });
        self.parsed.message.raw_input_contents.push(contents);
        Ok(())
    }

    fn output(&mut self, reader: &mut Reader<'_>) -> Result<(), Failure> {
        let position = self.parsed.message.outputs.len();
        if position == MAX_TENSORS {
            return Err(Failure::invalid(format!("request has more than {MAX_TENSORS} outputs")));
        }
        let (mut name, mut asked) = (None, Parameters::new());
        let field = |key: &str| match key {
            "name" => InputField::Name,
            "parameters" => InputField::Parameters,
            _ => InputField::Unknown,
        };
        reader.object(field, |reader, field| {
            match field {
                InputField::Name => name = Some(reader.string(str::to_owned)?),
                InputField::Parameters => asked = parameters::read(reader)?,
                _ => drop(reader.skip()?),
            }
            Ok::<_, Failure>(())
        })?;
        let label = label("output", "outputs", name.as_deref(), position);
        let name = name.ok_or_else(|| Failure::invalid(format!("{label}: has no `name`")))?;
        self.parsed.binary.each.push(take(&mut asked, "binary_data", &label, flag)?);
        let output = InferRequestedOutputTensor { name, parameters: asked };
        self.parsed.message.outputs.push(output);
        Ok(())
    }

    fn finish(mut self) -> Result<Parsed, Failure> {
        if !self.bytes.is_empty() {
            let surplus = self.bytes.len();
            let message = format!("{surplus} bytes follow the last input with binary_data_size");
            return Err(Failure::invalid(message));
        }
        let asked = &mut self.parsed.message.parameters;
        let otherwise = take(asked, "binary_data_output", "request", flag)?;
        self.parsed.binary.otherwise = otherwise.unwrap_or(false);
        Ok(self.parsed)
    }
}

/// Fields of a tensor.
enum InputField {
    Name,
    Datatype,
    Shape,
    Parameters,
    Data,
    Unknown,
}

impl Input<'_> {
    fn label(&self, position: usize) -> String {
        label("input", "inputs", self.name.as_deref(), position)
    }
}

/// What a tensor is called towards people.
fn label(kind: &str, list: &str, name: Option<&str>, position: usize) -> String {
    match name {
        Some(name) => format!("{kind} `{}`", quoted(name)),
        None => format!("{list}[{position}]"),
    }
}

fn shape(reader: &mut Reader<'_>) -> Result<Vec<i64>, Failure> {
    let mut dims = Vec::new();
    reader.array(|reader| {
        if dims.len() == MAX_DIMS {
            return Err(Failure::invalid(format!("request has more than {MAX_DIMS} dimensions")));
        }
        let dim = reader.number(|text| text.parse::<i64>().map_err(|_| quoted(text)))?;
        dims.push(dim.map_err(|text| Malformed(format!("{text} is no dimension")))?);
        Ok(())
    })?;
    Ok(dims)
}

#[cfg(test)]
mod tests;
