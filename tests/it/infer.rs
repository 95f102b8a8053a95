//! Unary predictions: values, forms, ids, and every refusal; the next request always works.

use onnxd::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use onnxd::pb::{InferTensorContents, ModelInferRequest};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{TestServer, request, values};

#[tokio::test]
async fn an_answer_names_what_ran_and_echoes_the_id() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let mut message = request("echo", &[1.5, 2.5]);
    message.id = "id-7".into();
    let answer = client.model_infer(message).await.unwrap().into_inner();
    assert_eq!((answer.model_name.as_str(), answer.model_version.as_str()), ("echo", "1"));
    assert_eq!(answer.id, "id-7");
    assert_eq!(answer.outputs[0].name, "y");
    assert_eq!(answer.outputs[0].datatype, "FP32");
    assert_eq!(answer.outputs[0].shape, [2, 1]);
    assert_eq!(values(&answer), [1.5, 2.5]);
    server.finish().await;
}

#[tokio::test]
async fn typed_requests_are_answered_typed() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let mut message = request("echo", &[0.0]);
    message.raw_input_contents.clear();
    message.inputs[0].contents =
        Some(InferTensorContents { fp32_contents: vec![3.25], ..Default::default() });
    let answer = client.model_infer(message).await.unwrap().into_inner();
    assert!(answer.raw_output_contents.is_empty());
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().fp32_contents, [3.25]);
    server.finish().await;
}

#[tokio::test]
async fn bit_patterns_pass_unchanged() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let odd = [f32::from_bits(0x7fc0_1234), f32::INFINITY, -0.0, f32::from_bits(1)];
    let answer = client.model_infer(request("echo", &odd)).await.unwrap().into_inner();
    let bits: Vec<u32> = values(&answer).into_iter().map(f32::to_bits).collect();
    assert_eq!(bits, odd.map(f32::to_bits));
    server.finish().await;
}

/// A change that makes a good request bad, the code, and a part of the message.
type Case = (fn(&mut ModelInferRequest), Code, &'static str);

const CASES: &[Case] = &[
    (|m| m.model_name = "zz".into(), Code::NotFound, "model `zz` is not in the repository"),
    (|m| m.model_name = "../echo".into(), Code::NotFound, "`../echo`"),
    (|m| m.model_version = "7".into(), Code::NotFound, "has no version 7; served: 1"),
    (|m| m.model_version = "one".into(), Code::InvalidArgument, "\"one\" is not a model version"),
    (|m| m.inputs[0].name = "z".into(), Code::InvalidArgument, "unknown input `z`"),
    (|m| m.inputs.clear(), Code::InvalidArgument, "1 entries for 0 inputs"),
    (|m| m.inputs[0].datatype = "FP64".into(), Code::InvalidArgument, "FP64 of shape [1, 1]"),
    (|m| m.inputs[0].datatype = "INT32".into(), Code::InvalidArgument, "expected datatype FP32"),
    (|m| m.inputs[0].shape = vec![1], Code::InvalidArgument, "expected shape [-1, -1], got [1]"),
    (|m| m.inputs[0].shape = vec![1, 2], Code::InvalidArgument, "needs 8 bytes, got 4"),
    (|m| m.inputs[0].shape = vec![-1, 1], Code::InvalidArgument, "dimension 0 is -1"),
    (|m| m.inputs[0].shape = vec![1 << 62, 4], Code::InvalidArgument, "overflows"),
    (|m| m.inputs.push(m.inputs[0].clone()), Code::InvalidArgument, "1 entries for 2 inputs"),
    (
        |m| {
            m.inputs.push(m.inputs[0].clone());
            m.raw_input_contents.push(m.raw_input_contents[0].clone());
        },
        Code::InvalidArgument,
        "input `x` is given twice",
    ),
    (
        |m| {
            let contents = InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
            m.inputs[0].contents = Some(contents);
        },
        Code::InvalidArgument,
        "has contents although the request has raw_input_contents",
    ),
    (
        |m| {
            let output = InferRequestedOutputTensor { name: "q".into(), ..Default::default() };
            m.outputs.push(output);
        },
        Code::InvalidArgument,
        "unknown output `q`; the model has `y`",
    ),
    (
        |m| {
            m.inputs[0].shape = vec![9, 1];
            m.raw_input_contents[0] = vec![0; 36].into();
        },
        Code::InvalidArgument,
        "request has 9 rows, max_request_rows is 8",
    ),
    (
        |m| {
            m.inputs[0].shape = vec![0, 1];
            m.raw_input_contents[0] = vec![].into();
        },
        Code::InvalidArgument,
        "has 0 rows, expected at least 1",
    ),
    (
        |m| m.inputs = vec![InferInputTensor::default(); 1025],
        Code::InvalidArgument,
        "more than 1024 inputs",
    ),
];

#[tokio::test]
async fn every_bad_request_is_refused_by_name_and_the_next_one_works() {
    let server = TestServer::start(&[("max_batch_size", "8"), ("max_request_rows", "8")]).await;
    let mut client = server.client().await;
    for (spoil, code, part) in CASES {
        let mut message = request("echo", &[1.0]);
        spoil(&mut message);
        let status = client.model_infer(message).await.unwrap_err();
        assert_eq!(status.code(), *code, "{status:?}");
        assert!(status.message().contains(part), "{part:?} not in {:?}", status.message());
        let answer = client.model_infer(request("echo", &[4.0])).await.unwrap().into_inner();
        assert_eq!(values(&answer), [4.0]);
    }
    assert_eq!(server.loader.control("echo").runs_so_far().len(), CASES.len());
    server.finish().await;
}

#[tokio::test]
async fn errors_have_details_for_programs() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let mut message = request("echo", &[1.0]);
    message.id = "id-9".into();
    message.inputs[0].shape = vec![1];
    let status = client.model_infer(message).await.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_REQUEST", "onnxd"));
    assert_eq!(info.metadata["request_id"], "id-9");
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "inputs.x.shape");
    server.finish().await;
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_with_both_numbers() {
    let server = TestServer::start(&[("max_message_bytes", "4096")]).await;
    let mut client = server.client().await;
    let status = client.model_infer(request("echo", &[0.0; 2000])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("4096"), "{}", status.message());
    assert!(status.message().contains("80"), "{}", status.message());
    assert!(client.model_infer(request("echo", &[1.0])).await.is_ok());
    server.finish().await;
}
