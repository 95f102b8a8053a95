//! Typed contents: lists of numbers inside a message instead of bytes.
//!
//! The protocol has one list per family of datatypes; narrow integers travel in wider ones and
//! must fit. Half precision exists only raw.

use bytemuck::Pod;
use bytes::Bytes;

use crate::pb::InferTensorContents;
use crate::tensor::{DataType, Shape, Tensor, TensorData};

/// Whether no list has an entry.
pub(super) fn is_empty(contents: &InferTensorContents) -> bool {
    lists(contents).iter().all(|(_, length)| *length == 0)
}

fn lists(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

/// The list that a datatype travels in.
fn list_of(dtype: DataType) -> Option<&'static str> {
    Some(match dtype {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => "uint_contents",
        DataType::UInt64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => return None,
    })
}

/// A tensor of typed contents. The error is a sentence without the tensor's name.
pub(super) fn decode(
    dtype: DataType,
    shape: Shape,
    contents: InferTensorContents,
) -> Result<Tensor, String> {
    let Some(list) = list_of(dtype) else {
        return Err(format!("{dtype} has no typed form; send raw_input_contents"));
    };
    let wrong = |(name, length): &(&str, usize)| *name != list && *length > 0;
    if let Some((other, _)) = lists(&contents).iter().find(|each| wrong(each)) {
        return Err(format!("{dtype} belongs in {list}, got {other}"));
    }
    let given = lists(&contents).iter().map(|(_, length)| length).sum::<usize>();
    if given != shape.elements() {
        let expected = shape.elements();
        return Err(format!("shape {shape} needs {expected} elements in {list}, got {given}"));
    }
    let bytes = match dtype {
        DataType::Bytes => {
            let strings = Tensor::strings(shape, contents.bytes_contents);
            return strings.map_err(|error| error.to_string());
        }
        DataType::Bool => contents.bool_contents.into_iter().map(u8::from).collect(),
        DataType::Int8 => narrow::<i8, i32>(&contents.int_contents, dtype)?,
        DataType::Int16 => narrow::<i16, i32>(&contents.int_contents, dtype)?,
        DataType::UInt8 => narrow::<u8, u32>(&contents.uint_contents, dtype)?,
        DataType::UInt16 => narrow::<u16, u32>(&contents.uint_contents, dtype)?,
        DataType::Int32 => shared(contents.int_contents),
        DataType::Int64 => shared(contents.int64_contents),
        DataType::UInt32 => shared(contents.uint_contents),
        DataType::UInt64 => shared(contents.uint64_contents),
        DataType::Fp32 => shared(contents.fp32_contents),
        DataType::Fp64 => shared(contents.fp64_contents),
        DataType::Fp16 | DataType::Bf16 => Bytes::new(),
    };
    Tensor::dense(dtype, shape, bytes).map_err(|error| error.to_string())
}

fn narrow<N, W>(values: &[W], dtype: DataType) -> Result<Bytes, String>
where
    N: TryFrom<W> + Pod + Send,
    W: Copy + std::fmt::Display,
{
    let mut narrowed = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        match N::try_from(*value) {
            Ok(fits) => narrowed.push(fits),
            Err(_) => return Err(format!("element {index} is {value}, which is no {dtype}")),
        }
    }
    Ok(shared(narrowed))
}

/// Numbers as bytes, without a copy.
fn shared<T: Pod + Send>(values: Vec<T>) -> Bytes {
    Bytes::from_owner(Numbers(values))
}

struct Numbers<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for Numbers<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Typed contents of a tensor; half precision is never asked for.
pub(super) fn encode(dtype: DataType, data: &TensorData) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    let bytes = match data {
        TensorData::Strings(elements) => {
            contents.bytes_contents.clone_from(elements);
            return contents;
        }
        TensorData::Dense(bytes) => bytes,
    };
    match dtype {
        DataType::Bool => contents.bool_contents = bytes.iter().map(|byte| *byte != 0).collect(),
        DataType::Int8 => contents.int_contents = widen::<i8, _>(bytes),
        DataType::Int16 => contents.int_contents = widen::<i16, _>(bytes),
        DataType::Int32 => contents.int_contents = widen::<i32, _>(bytes),
        DataType::Int64 => contents.int64_contents = widen::<i64, _>(bytes),
        DataType::UInt8 => contents.uint_contents = widen::<u8, _>(bytes),
        DataType::UInt16 => contents.uint_contents = widen::<u16, _>(bytes),
        DataType::UInt32 => contents.uint_contents = widen::<u32, _>(bytes),
        DataType::UInt64 => contents.uint64_contents = widen::<u64, _>(bytes),
        DataType::Fp32 => contents.fp32_contents = widen::<f32, _>(bytes),
        DataType::Fp64 => contents.fp64_contents = widen::<f64, _>(bytes),
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => {}
    }
    contents
}

/// Reads numbers that need not be aligned.
fn widen<N: Pod, W: From<N>>(bytes: &[u8]) -> Vec<W> {
    bytes
        .chunks_exact(size_of::<N>())
        .map(|chunk| bytemuck::pod_read_unaligned::<N>(chunk).into())
        .collect()
}
