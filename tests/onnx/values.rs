//! Every datatype, bit for bit; strings of any octets; scalars, empty tensors, versions, outputs.

use onnxd::pb::model_infer_request::InferRequestedOutputTensor;
use onnxd::tensor::DataType;

use crate::harness::{RealServer, floats, generated, output, repository, request};

/// Model, datatype on the wire.
const IDENTITIES: [(&str, DataType); 13] = [
    ("identity_bool", DataType::Bool),
    ("identity_u8", DataType::UInt8),
    ("identity_u16", DataType::UInt16),
    ("identity_u32", DataType::UInt32),
    ("identity_u64", DataType::UInt64),
    ("identity_i8", DataType::Int8),
    ("identity_i16", DataType::Int16),
    ("identity_i32", DataType::Int32),
    ("identity_i64", DataType::Int64),
    ("identity_f16", DataType::Fp16),
    ("identity_bf16", DataType::Bf16),
    ("identity_f32", DataType::Fp32),
    ("identity_f64", DataType::Fp64),
];

#[tokio::test]
async fn every_bit_pattern_of_every_type_passes_unchanged() {
    let mut server = RealServer::start(&generated(), &[]).await;
    for (model, dtype) in IDENTITIES {
        let size = dtype.size_bytes().unwrap();
        // All ones is a NaN with a payload in every float type; the rest runs through the bytes.
        let mut bytes: Vec<u8> = vec![0xff; size];
        bytes.extend((0..5 * size).map(|index| u8::try_from(index * 37 % 256).unwrap()));
        if dtype == DataType::Bool {
            for byte in &mut bytes {
                *byte &= 1;
            }
        }
        let inputs = vec![("x", dtype.wire_name(), &[2, 3][..], bytes.clone())];
        let answer = server.client.model_infer(request(model, inputs)).await;
        let answer = answer.unwrap_or_else(|status| unreachable!("{model}: {status}")).into_inner();
        assert_eq!(answer.outputs[0].datatype, dtype.wire_name());
        assert_eq!(answer.outputs[0].shape, [2, 3]);
        assert_eq!(answer.raw_output_contents[0], bytes, "{model}");
    }
    server.finish().await;
}

#[tokio::test]
async fn strings_hold_any_octets() {
    let mut server = RealServer::start(&generated(), &[]).await;
    let elements: [&[u8]; 4] = [b"", b"plain", b"nul\0inside", b"\xff\xfe not text"];
    let raw: Vec<u8> = elements
        .iter()
        .flat_map(|each| [&u32::try_from(each.len()).unwrap().to_le_bytes()[..], each].concat())
        .collect();
    let inputs = vec![("x", "BYTES", &[2, 2][..], raw.clone())];
    let answer = server.client.model_infer(request("identity_string", inputs)).await.unwrap();
    assert_eq!(answer.get_ref().raw_output_contents[0], raw);
    server.finish().await;
}

#[tokio::test]
async fn scalars_and_empty_tensors_keep_their_shapes() {
    let mut server = RealServer::start(&generated(), &[]).await;
    let scalar = request("scalar_f32", vec![("x", "FP32", &[], floats(&[2.5]))]);
    let answer = server.client.model_infer(scalar).await.unwrap().into_inner();
    assert_eq!((answer.outputs[0].shape.len(), output(&answer, 0)), (0, vec![2.5]));
    let empty = request("identity_f32", vec![("x", "FP32", &[3, 0], vec![])]);
    let answer = server.client.model_infer(empty).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].shape, [3, 0]);
    assert!(answer.raw_output_contents[0].is_empty());
    server.finish().await;
}

#[tokio::test]
async fn requested_outputs_come_in_the_requested_order() {
    let mut server = RealServer::start(&generated(), &[]).await;
    let inputs = || {
        vec![
            ("a", "FP32", &[1, 4][..], floats(&[1.0, 2.0, 3.0, 4.0])),
            ("b", "FP32", &[1, 4][..], floats(&[0.5; 4])),
        ]
    };
    let mut message = request("two_inputs", inputs());
    for name in ["diff", "sum"] {
        let output = InferRequestedOutputTensor { name: name.into(), ..Default::default() };
        message.outputs.push(output);
    }
    let answer = server.client.model_infer(message).await.unwrap().into_inner();
    let names: Vec<&str> = answer.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["diff", "sum"]);
    assert_eq!(output(&answer, 0), [0.5, 1.5, 2.5, 3.5]);
    assert_eq!(output(&answer, 1), [1.5, 2.5, 3.5, 4.5]);
    server.finish().await;
}

#[tokio::test]
async fn versions_are_told_apart() {
    let source = generated().join("two_versions");
    let models = repository(&[(source.as_path(), "version_policy = \"all\"")]);
    let mut server = RealServer::start(models.path(), &[]).await;
    let ask = |version: &str| {
        let mut message = request("two_versions", vec![("x", "FP32", &[1, 1], floats(&[3.0]))]);
        message.model_version = version.into();
        message
    };
    let mut answers = Vec::new();
    for version in ["1", "2", ""] {
        let answer = server.client.model_infer(ask(version)).await.unwrap().into_inner();
        answers.push((answer.model_version.clone(), output(&answer, 0)[0]));
    }
    assert_ne!(answers[0].1.to_bits(), answers[1].1.to_bits());
    assert_eq!(answers[2], answers[1]);
    assert_eq!((answers[0].0.as_str(), answers[1].0.as_str()), ("1", "2"));
    server.finish().await;
}
