//! Typed contents: every datatype that has a list goes through the model and comes back in it.

use onnxd::pb::{InferTensorContents, ModelInferRequest};
use onnxd::tensor::DataType;
use tonic::Code;

use crate::harness::{RealServer, generated, request};
use crate::values::{IDENTITIES, edge_bytes};

/// Numbers of a type, out of their bytes.
macro_rules! numbers {
    ($T:ty, $bytes:expr) => {
        $bytes
            .chunks_exact(size_of::<$T>())
            .map(|chunk| <$T>::from_le_bytes(chunk.try_into().unwrap()).into())
            .collect()
    };
}

/// The list that the protocol has for a datatype, filled; `None` for half precision.
fn contents(dtype: DataType, bytes: &[u8]) -> Option<InferTensorContents> {
    let mut contents = InferTensorContents::default();
    match dtype {
        DataType::Bool => contents.bool_contents = bytes.iter().map(|byte| *byte == 1).collect(),
        DataType::Int8 => contents.int_contents = numbers!(i8, bytes),
        DataType::Int16 => contents.int_contents = numbers!(i16, bytes),
        DataType::Int32 => contents.int_contents = numbers!(i32, bytes),
        DataType::Int64 => contents.int64_contents = numbers!(i64, bytes),
        DataType::UInt8 => contents.uint_contents = numbers!(u8, bytes),
        DataType::UInt16 => contents.uint_contents = numbers!(u16, bytes),
        DataType::UInt32 => contents.uint_contents = numbers!(u32, bytes),
        DataType::UInt64 => contents.uint64_contents = numbers!(u64, bytes),
        DataType::Fp32 => contents.fp32_contents = numbers!(f32, bytes),
        DataType::Fp64 => contents.fp64_contents = numbers!(f64, bytes),
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => return None,
    }
    Some(contents)
}

/// A request of two rows of three in typed form.
fn typed(model: &str, dtype: DataType, contents: InferTensorContents) -> ModelInferRequest {
    let mut message = request(model, vec![("x", dtype.wire_name(), &[2, 3], vec![])]);
    message.raw_input_contents.clear();
    message.inputs[0].contents = Some(contents);
    message
}

/// Bits of every list, since a NaN is not equal to itself.
fn bits(contents: &InferTensorContents) -> (Vec<u32>, Vec<u64>, InferTensorContents) {
    let mut rest = contents.clone();
    let singles = rest.fp32_contents.drain(..).map(f32::to_bits).collect();
    let doubles = rest.fp64_contents.drain(..).map(f64::to_bits).collect();
    (singles, doubles, rest)
}

#[tokio::test]
async fn every_list_comes_back_as_it_went() {
    let server = RealServer::start(&generated(), &[]).await;
    for (model, dtype) in IDENTITIES {
        let bytes = edge_bytes(dtype);
        let Some(sent) = contents(dtype, &bytes) else {
            let empty = InferTensorContents { fp32_contents: vec![1.0; 6], ..Default::default() };
            let status = server.refusal(typed(model, dtype, empty)).await;
            assert_eq!(status.code(), Code::InvalidArgument);
            let words = format!("input `x`: {dtype} has no typed form; send raw_input_contents");
            assert_eq!(status.message(), words);
            continue;
        };
        let answer = server.infer(typed(model, dtype, sent.clone())).await;
        assert!(answer.raw_output_contents.is_empty(), "{model} answered raw");
        assert_eq!(answer.outputs[0].shape, [2, 3]);
        let got = answer.outputs[0].contents.as_ref().unwrap();
        assert_eq!(bits(got), bits(&sent), "{model}");

        // The same elements, raw, are the same bytes: the two forms mean the same.
        let raw = request(model, vec![("x", dtype.wire_name(), &[2, 3], bytes.clone())]);
        assert_eq!(server.infer(raw).await.raw_output_contents[0], bytes, "{model}");
    }
    server.finish().await;
}

#[tokio::test]
async fn narrow_numbers_must_fit() {
    let server = RealServer::start(&generated(), &[]).await;
    let signed = |value: i32| InferTensorContents {
        int_contents: vec![0, 0, value, 0, 0, 0],
        ..InferTensorContents::default()
    };
    let unsigned = |value: u32| InferTensorContents {
        uint_contents: vec![0, 0, value, 0, 0, 0],
        ..InferTensorContents::default()
    };
    for (model, dtype, contents, value) in [
        ("identity_i8", DataType::Int8, signed(128), "128"),
        ("identity_i8", DataType::Int8, signed(-129), "-129"),
        ("identity_i16", DataType::Int16, signed(-32_769), "-32769"),
        ("identity_u8", DataType::UInt8, unsigned(256), "256"),
        ("identity_u16", DataType::UInt16, unsigned(65_536), "65536"),
    ] {
        let status = server.refusal(typed(model, dtype, contents)).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        let words = format!("input `x`: element 2 is {value}, which is no {dtype}");
        assert_eq!(status.message(), words);
    }
    server.finish().await;
}
