//! Bounds a message before it is decoded.
//!
//! Decoding allocates: an empty tensor is two bytes on the wire and a few hundred in memory, so a
//! legal message of some megabytes could take half a gigabyte. A walk over the tags counts what
//! the decoder would make and refuses what no honest request needs. The counts are bounds of the
//! wire, not limits of a model; validation has those. `build.rs` names the codec to the generated
//! service, which is the only place that uses it.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::pb;

/// Tensors, requested outputs and raw entries in one request: models with a cache per layer have
/// a few hundred.
pub const MAX_TENSORS: usize = 1024;
/// Parameters of a request or of one tensor.
pub const MAX_PARAMETERS: usize = 256;
/// Parameters of all tensors of one request: some for each.
pub const MAX_TENSOR_PARAMETERS: usize = 4 * MAX_TENSORS;
/// Dimensions of one tensor.
pub const MAX_DIMS: usize = 32;
/// BYTES elements in typed form in one request; in raw form they are bounded by the message.
pub const MAX_TYPED_STRINGS: usize = 1 << 20;
/// Memory for numbers in typed form in one request. On the wire a small one is a byte, in memory it
/// is up to eight; whoever has so many sends them raw.
pub const MAX_TYPED_BYTES: usize = 64 << 20;
/// Size of a message that is no prediction: none of them carries more than a few names and texts.
pub const MAX_OTHER_BYTES: usize = 1 << 20;

/// The protobuf codec with bounds on what one message may decode to.
#[derive(Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes messages of one type.
#[derive(Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use bytes::Buf as _;
        if TypeId::of::<U>() == TypeId::of::<pb::ModelInferRequest>() {
            check(buffer.chunk()).map_err(Status::invalid_argument)?;
        } else if buffer.remaining() > MAX_OTHER_BYTES {
            let got = buffer.remaining();
            return Err(Status::resource_exhausted(format!(
                "message has {got} bytes, the limit for this call is {MAX_OTHER_BYTES}"
            )));
        }
        Ok(Some(U::decode(buffer).map_err(|error| malformed(&error))?))
    }
}

fn malformed(error: &DecodeError) -> Status {
    Status::invalid_argument(format!("malformed message: {error}"))
}

/// A request for a prediction; raw contents are slices of `message`.
///
/// # Errors
/// `INVALID_ARGUMENT` for what [`check`] refuses, and for bytes that are no such message.
pub fn decode(message: Bytes) -> Result<pb::ModelInferRequest, Status> {
    check(&message).map_err(Status::invalid_argument)?;
    pb::ModelInferRequest::decode(message).map_err(|error| malformed(&error))
}

/// Counts of one message so far.
#[derive(Debug, Default)]
struct Counts {
    inputs: usize,
    outputs: usize,
    raw: usize,
    parameters: usize,
    tensors: TensorCounts,
}

/// Counts of what is inside its tensors, all together.
#[derive(Debug, Default)]
struct TensorCounts {
    parameters: usize,
    strings: usize,
    typed_bytes: usize,
}

/// Walks the tags of a `ModelInferRequest`.
///
/// # Errors
/// A sentence naming the count and its bound. Bytes that are no protobuf pass: decoding has the
/// better words for them.
pub fn check(message: &[u8]) -> Result<(), String> {
    let mut counts = Counts::default();
    walk(message, &mut |field, wire, body| {
        match field {
            4 => bound("parameters", &mut counts.parameters, MAX_PARAMETERS)?,
            5 => {
                bound("inputs", &mut counts.inputs, MAX_TENSORS)?;
                check_input(body, &mut counts.tensors)?;
            }
            6 => {
                bound("outputs", &mut counts.outputs, MAX_TENSORS)?;
                check_parameters(body, 2, &mut counts.tensors)?;
            }
            7 => bound("raw_input_contents", &mut counts.raw, MAX_TENSORS)?,
            _ => {}
        }
        let _ = wire;
        Ok(())
    })
}

fn check_input(input: &[u8], counts: &mut TensorCounts) -> Result<(), String> {
    let mut dims = 0;
    check_parameters(input, 4, counts)?;
    walk(input, &mut |field, wire, body| match field {
        3 if wire == WireType::LengthDelimited => {
            // Packed: every byte without the continuation bit ends a number.
            for _ in body.iter().filter(|byte| **byte < 0x80) {
                bound("dimensions", &mut dims, MAX_DIMS)?;
            }
            Ok(())
        }
        3 => bound("dimensions", &mut dims, MAX_DIMS),
        5 => walk(body, &mut |field, wire, body| match (field, element_bytes(field)) {
            (8, _) => bound("bytes_contents", &mut counts.strings, MAX_TYPED_STRINGS),
            (_, Some(size)) => add_numbers((field, size), wire, body, &mut counts.typed_bytes),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

/// Memory that a number in this field of the typed contents takes.
fn element_bytes(field: u32) -> Option<usize> {
    match field {
        1 => Some(1),
        2 | 4 | FP32_CONTENTS => Some(4),
        3 | 5 | FP64_CONTENTS => Some(8),
        _ => None,
    }
}

/// Fields whose numbers are as large on the wire as in memory.
const FP32_CONTENTS: u32 = 6;
const FP64_CONTENTS: u32 = 7;

/// Adds the memory for the numbers of one field.
fn add_numbers(
    (field, size): (u32, usize),
    wire: WireType,
    body: &[u8],
    total: &mut usize,
) -> Result<(), String> {
    let bytes = match (wire, field) {
        (WireType::LengthDelimited, FP32_CONTENTS | FP64_CONTENTS) => body.len(),
        // Packed: every byte without the continuation bit ends a number.
        (WireType::LengthDelimited, _) => {
            body.iter().filter(|byte| **byte < 0x80).count().saturating_mul(size)
        }
        _ => size,
    };
    *total = total.saturating_add(bytes);
    if *total > MAX_TYPED_BYTES {
        return Err(format!(
            "request has more than {MAX_TYPED_BYTES} bytes of typed contents; \
             raw_input_contents carries more"
        ));
    }
    Ok(())
}

fn check_parameters(message: &[u8], number: u32, counts: &mut TensorCounts) -> Result<(), String> {
    let mut parameters = 0;
    walk(message, &mut |field, _, _| match field {
        _ if field == number => {
            bound("parameters", &mut parameters, MAX_PARAMETERS)?;
            bound("parameters of tensors", &mut counts.parameters, MAX_TENSOR_PARAMETERS)
        }
        _ => Ok(()),
    })
}

fn bound(what: &str, count: &mut usize, limit: usize) -> Result<(), String> {
    *count += 1;
    if *count > limit {
        return Err(format!("request has more than {limit} {what}"));
    }
    Ok(())
}

type Visit<'a> = dyn FnMut(u32, WireType, &[u8]) -> Result<(), String> + 'a;

/// Calls `visit` with each field's number, wire type and, if it has a length, its body.
fn walk(mut message: &[u8], visit: &mut Visit<'_>) -> Result<(), String> {
    while !message.is_empty() {
        let Ok((field, wire)) = decode_key(&mut message) else { return Ok(()) };
        if wire == WireType::LengthDelimited {
            let Ok(length) = decode_varint(&mut message) else { return Ok(()) };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some((body, rest)) = message.split_at_checked(length) else { return Ok(()) };
            visit(field, wire, body)?;
            message = rest;
        } else {
            visit(field, wire, &[])?;
            let context = prost::encoding::DecodeContext::default();
            if skip_field(wire, field, &mut message, context).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::model_infer_request::InferInputTensor;

    fn refusal(request: &pb::ModelInferRequest) -> String {
        check(&request.encode_to_vec()).unwrap_err()
    }

    #[test]
    fn counts_are_bounded_before_decoding() {
        let empty = InferInputTensor::default();
        let many = |count| pb::ModelInferRequest {
            inputs: vec![empty.clone(); count],
            ..Default::default()
        };
        assert_eq!(check(&many(MAX_TENSORS).encode_to_vec()), Ok(()));
        assert_eq!(refusal(&many(MAX_TENSORS + 1)), "request has more than 1024 inputs");

        let mut deep = many(1);
        deep.inputs[0].shape = vec![300; MAX_DIMS + 1];
        assert_eq!(refusal(&deep), "request has more than 32 dimensions");

        let mut strings = many(1);
        strings.inputs[0].contents = Some(pb::InferTensorContents {
            bytes_contents: vec![Bytes::new(); MAX_TYPED_STRINGS + 1],
            ..Default::default()
        });
        assert_eq!(refusal(&strings), "request has more than 1048576 bytes_contents");
    }

    #[test]
    fn numbers_are_bounded_by_the_memory_that_they_take() {
        let typed = |contents| {
            let input = InferInputTensor { contents: Some(contents), ..Default::default() };
            pb::ModelInferRequest { inputs: vec![input], ..Default::default() }
        };
        let wide = MAX_TYPED_BYTES / 8;
        let numbers = |count| pb::InferTensorContents {
            int64_contents: vec![1; count],
            ..Default::default()
        };
        assert_eq!(check(&typed(numbers(wide)).encode_to_vec()), Ok(()));
        let refused = refusal(&typed(numbers(wide + 1)));
        assert!(refused.contains("67108864 bytes of typed contents"), "{refused}");
        // A float is no larger in memory than on the wire, whatever its bytes look like.
        let floats = pb::InferTensorContents {
            fp32_contents: vec![f32::from_bits(0x0101_0101); MAX_TYPED_BYTES / 4],
            ..Default::default()
        };
        assert_eq!(check(&typed(floats).encode_to_vec()), Ok(()));
    }

    #[test]
    fn parameters_of_tensors_are_bounded_together() {
        let parameter = |index: usize| (index.to_string(), pb::InferParameter::default());
        let input = |parameters| InferInputTensor {
            parameters: (0..parameters).map(parameter).collect(),
            ..Default::default()
        };
        let request = |tensors, parameters| pb::ModelInferRequest {
            inputs: vec![input(parameters); tensors],
            ..Default::default()
        };
        let each = MAX_TENSOR_PARAMETERS / 64;
        assert_eq!(check(&request(64, each).encode_to_vec()), Ok(()));
        assert_eq!(refusal(&request(65, each)), "request has more than 4096 parameters of tensors");
        assert_eq!(refusal(&request(1, 257)), "request has more than 256 parameters");
    }

    #[test]
    fn an_honest_request_passes() {
        let request = pb::ModelInferRequest {
            model_name: "m".into(),
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: "FP32".into(),
                shape: vec![1 << 40, 2, 3],
                ..Default::default()
            }],
            raw_input_contents: vec![vec![0xff; 64].into()],
            ..Default::default()
        };
        assert_eq!(check(&request.encode_to_vec()), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(check(&bytes));
        }
    }
}
