//! BYTES: any octets, any length, none at all, raw and typed, alone and in a batch.

use bytes::Bytes;
use onnxd::pb::{InferTensorContents, ModelInferRequest, ModelInferResponse};

use crate::harness::{RealServer, request};

/// The raw form: each element behind its length.
fn raw(elements: &[&[u8]]) -> Vec<u8> {
    let length = |element: &[u8]| u32::try_from(element.len()).unwrap().to_le_bytes();
    elements.iter().flat_map(|each| [&length(each)[..], each].concat()).collect()
}

fn ask(shape: &[i64], elements: &[&[u8]]) -> ModelInferRequest {
    request("identity_string", vec![("x", "BYTES", shape, raw(elements))])
}

fn check(answer: &ModelInferResponse, shape: &[i64], elements: &[&[u8]]) {
    assert_eq!(answer.outputs[0].datatype, "BYTES");
    assert_eq!(answer.outputs[0].shape, shape);
    assert_eq!(answer.raw_output_contents[0], raw(elements));
}

const ODD: [&[u8]; 6] = [b"", b"plain", b"nul\0inside\0", b"\xff\xfe\x80 no text", b"\0", b""];

#[tokio::test]
async fn any_octets_pass_raw_and_typed() {
    let server = RealServer::of("identity_string", "").await;
    check(&server.infer(ask(&[2, 3], &ODD)).await, &[2, 3], &ODD);

    let mut typed = ask(&[2, 3], &[]);
    typed.raw_input_contents.clear();
    let elements: Vec<Bytes> = ODD.into_iter().map(Bytes::from_static).collect();
    let contents =
        InferTensorContents { bytes_contents: elements.clone(), ..InferTensorContents::default() };
    typed.inputs[0].contents = Some(contents);
    let answer = server.infer(typed).await;
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().bytes_contents, elements);
    server.finish().await;
}

#[tokio::test]
async fn only_empty_elements_no_elements_and_a_long_one() {
    let server = RealServer::of("identity_string", "").await;
    let empty: [&[u8]; 4] = [b""; 4];
    check(&server.infer(ask(&[2, 2], &empty)).await, &[2, 2], &empty);
    check(&server.infer(ask(&[1, 1], &empty[..1])).await, &[1, 1], &empty[..1]);
    check(&server.infer(ask(&[3, 0], &[])).await, &[3, 0], &[]);
    let long = vec![0xA5; 3 << 20];
    check(&server.infer(ask(&[1, 2], &[&long, b"end"])).await, &[1, 2], &[&long, b"end"]);
    server.finish().await;
}

#[tokio::test]
async fn elements_of_one_run_go_back_to_their_callers() {
    let config = "batching = \"fixed\"\nmax_batch_size = 6\nmax_queue_delay_us = 10000000";
    let mut server = RealServer::of("identity_string", config).await;
    let riders: [&[&[u8]]; 3] = [&ODD[..2], &[b"a", b"", b"\0", b"dd"], &ODD];
    let shape = |rider: &[&[u8]]| [i64::try_from(rider.len() / 2).unwrap(), 2];
    let messages = riders.iter().map(|rider| ask(&shape(rider), rider)).collect();
    for (end, rider) in server.together(messages).await.iter().zip(riders) {
        check(end.as_ref().unwrap(), &shape(rider), rider);
    }
    assert_eq!(server.statistics("identity_string").await.execution_count, 1);
    server.finish().await;
}

#[tokio::test]
async fn an_operator_on_strings_sees_them_whole() {
    let server = RealServer::of("concat_strings", "").await;
    let inputs = vec![
        ("a", "BYTES", &[1, 3][..], raw(&[b"a", b"", "\u{fc}".as_bytes()])),
        ("b", "BYTES", &[1, 3][..], raw(&[b"1", b"2", b""])),
    ];
    let answer = server.infer(request("concat_strings", inputs)).await;
    check(&answer, &[1, 3], &[b"a1", b"2", "\u{fc}".as_bytes()]);
    server.finish().await;
}
