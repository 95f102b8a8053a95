//! Lists of numbers, flags and texts in JSON to raw contents and back.
//!
//! JSON has no word for what is not a number; Python's `json`, which clients of the protocol use,
//! writes and reads `NaN`, `Infinity` and `-Infinity`, and so does this. Numbers are read from
//! their digits as what they are to become, so none is rounded twice and none is wrapped. Half
//! precision is read from binary tensors only, as on the gRPC wire, and written as numbers.

use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};
use jiter::{Jiter, Peek};

use super::request::kind;
use crate::error::InvalidRequest;
use crate::model::quoted;
use crate::pb::model_infer_request::InferInputTensor;
use crate::tensor::DataType;

/// A sentence without the tensor's name.
pub(super) type Problem = String;

/// Deepest nesting of lists: as many as a shape can have dimensions.
const MAX_DEPTH: usize = 32;
/// Bytes of the length in front of each BYTES element.
const LENGTH_BYTES: usize = 4;

/// Reads the data of `input`, flat or nested, as raw contents.
///
/// # Errors
/// [`InvalidRequest`] (400): more or fewer elements than the shape says, an element that does not
/// fit the datatype.
pub(super) fn read(
    json: &mut Jiter<'_>,
    input: &InferInputTensor,
) -> Result<Bytes, InvalidRequest> {
    let refuse = |problem: Problem| {
        let name = quoted(&input.name);
        let message = format!("input `{name}`: {problem}");
        InvalidRequest::new(format!("inputs.{name}.data"), message)
    };
    let (dtype, shape) = kind(input).map_err(refuse)?;
    let mut sink = Sink { dtype, raw: BytesMut::new(), count: 0, expected: shape.elements() };
    let peek = json.peek().map_err(|error| refuse(error.to_string()))?;
    sink.take(json, peek, 0).map_err(refuse)?;
    if sink.count < sink.expected {
        let (count, expected) = (sink.count, sink.expected);
        return Err(refuse(format!("shape {shape} has {expected} elements, data has {count}")));
    }
    Ok(sink.raw.freeze())
}

/// Takes elements one after the other.
struct Sink {
    dtype: DataType,
    raw: BytesMut,
    count: usize,
    expected: usize,
}

impl Sink {
    fn take(&mut self, json: &mut Jiter<'_>, peek: Peek, depth: usize) -> Result<(), Problem> {
        if peek != Peek::Array {
            return self.element(json, peek);
        }
        if depth == MAX_DEPTH {
            return Err(format!("lists are nested deeper than {MAX_DEPTH}"));
        }
        let mut next = json.known_array().map_err(|error| error.to_string())?;
        while let Some(peek) = next {
            self.take(json, peek, depth + 1)?;
            next = json.array_step().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn element(&mut self, json: &mut Jiter<'_>, peek: Peek) -> Result<(), Problem> {
        let index = self.count;
        if index == self.expected {
            return Err(format!("data has more than the {index} elements of the shape"));
        }
        self.count += 1;
        let dtype = self.dtype;
        let unfit = |found: &str| format!("element {index}: {} is no {dtype}", quoted(found));
        match dtype {
            DataType::Fp16 | DataType::Bf16 => {
                return Err(format!("{dtype} is not read from JSON; send a binary tensor"));
            }
            DataType::Bool => match peek {
                Peek::True | Peek::False => {
                    let flag = json.known_bool(peek).map_err(|error| error.to_string())?;
                    self.raw.put_u8(u8::from(flag));
                }
                _ => return Err(format!("element {index}: expected true or false")),
            },
            DataType::Bytes => {
                if peek != Peek::String {
                    return Err(format!("element {index}: expected a text"));
                }
                let text = json.known_str().map_err(|error| error.to_string())?;
                let length = u32::try_from(text.len()).map_err(|_| unfit("a text so long"))?;
                self.raw.put_u32_le(length);
                self.raw.extend_from_slice(text.as_bytes());
            }
            _ => {
                if !peek.is_num() {
                    return Err(format!("element {index}: expected a number"));
                }
                let digits = json.known_number_bytes(peek).map_err(|error| error.to_string())?;
                let text = std::str::from_utf8(digits).unwrap_or_default();
                put_number(&mut self.raw, dtype, text).ok_or_else(|| unfit(text))?;
            }
        }
        Ok(())
    }
}

/// `None` for digits that the datatype does not hold.
fn put_number(raw: &mut BytesMut, dtype: DataType, text: &str) -> Option<()> {
    macro_rules! put {
        ($number:ty) => {
            raw.extend_from_slice(&text.parse::<$number>().ok()?.to_le_bytes())
        };
    }
    match dtype {
        DataType::Fp32 => put!(f32),
        DataType::Fp64 => put!(f64),
        DataType::Int8 => put!(i8),
        DataType::Int16 => put!(i16),
        DataType::Int32 => put!(i32),
        DataType::Int64 => put!(i64),
        DataType::UInt8 => put!(u8),
        DataType::UInt16 => put!(u16),
        DataType::UInt32 => put!(u32),
        DataType::UInt64 => put!(u64),
        DataType::Bool | DataType::Bytes | DataType::Fp16 | DataType::Bf16 => return None,
    }
    Some(())
}

/// Writes raw contents as one flat list.
///
/// # Errors
/// [`Problem`] for BYTES that are not text.
pub(super) fn write(json: &mut Vec<u8>, dtype: DataType, raw: &Bytes) -> Result<(), Problem> {
    macro_rules! each {
        ($number:ty, $write:expr) => {{
            let chunks = raw.chunks_exact(size_of::<$number>());
            list(json, chunks.filter_map(|chunk| chunk.try_into().ok()), |json, bytes| {
                $write(json, <$number>::from_le_bytes(bytes))
            })
        }};
    }
    match dtype {
        DataType::Bool => {
            list(json, raw.iter(), |json, flag| {
                json.extend(if *flag == 0 { "false" } else { "true" }.bytes());
            });
        }
        DataType::Fp32 => each!(f32, |json, value: f32| float(json, value, value.is_finite())),
        DataType::Fp64 => each!(f64, |json, value: f64| float(json, value, value.is_finite())),
        DataType::Fp16 => {
            each!(f16, |json, value: f16| float(json, value.to_f32(), value.is_finite()));
        }
        DataType::Bf16 => {
            each!(bf16, |json, value: bf16| float(json, value.to_f32(), value.is_finite()));
        }
        DataType::Int8 => each!(i8, whole),
        DataType::Int16 => each!(i16, whole),
        DataType::Int32 => each!(i32, whole),
        DataType::Int64 => each!(i64, whole),
        DataType::UInt8 => each!(u8, whole),
        DataType::UInt16 => each!(u16, whole),
        DataType::UInt32 => each!(u32, whole),
        DataType::UInt64 => each!(u64, whole),
        DataType::Bytes => return texts(json, raw),
    }
    Ok(())
}

fn list<T>(
    json: &mut Vec<u8>,
    elements: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    json.push(b'[');
    for (index, element) in elements.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write(json, element);
    }
    json.push(b']');
}

fn whole(json: &mut Vec<u8>, value: impl std::fmt::Display) {
    json.extend(value.to_string().bytes());
}

/// The shortest digits that read back as the same number.
fn float(json: &mut Vec<u8>, value: impl serde::Serialize + Into<f64> + Copy, is_finite: bool) {
    if is_finite {
        // Writing a finite number into memory cannot fail.
        drop(serde_json::to_writer(json, &value));
        return;
    }
    let value: f64 = value.into();
    let word = match value {
        _ if value.is_nan() => "NaN",
        _ if value > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    json.extend(word.bytes());
}

fn texts(json: &mut Vec<u8>, raw: &Bytes) -> Result<(), Problem> {
    let mut rest = &raw[..];
    let mut texts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (element, after) = after.split_at_checked(length).unwrap_or((after, &[]));
        let text = std::str::from_utf8(element)
            .map_err(|_| "is not UTF-8 text; ask for a binary tensor".to_owned())?;
        texts.push(text);
        rest = after;
    }
    list(json, texts.iter(), |json, text| drop(serde_json::to_writer(json, text)));
    Ok(())
}
