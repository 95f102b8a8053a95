//! Streams: order, a window, errors that stay in the stream, half-close, callers that leave.

use onnxd::pb::ModelStreamInferResponse;
use onnxd::pb::infer_parameter::ParameterChoice;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::harness::{TestServer, queued, request, values};

fn numbered(model: &str, number: u16) -> onnxd::pb::ModelInferRequest {
    let mut message = request(model, &[f32::from(number)]);
    message.id = number.to_string();
    message
}

fn id(answer: &ModelStreamInferResponse) -> String {
    answer.infer_response.as_ref().unwrap().id.clone()
}

#[tokio::test]
async fn answers_keep_the_order_and_ride_in_batches() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let messages = tokio_stream::iter((0..64).map(|number| numbered("gate", number)));
    let mut answers = client.model_stream_infer(messages).await.unwrap().into_inner();
    gate.runs(1).await;
    let first = gate.runs_so_far()[0];
    queued(&server, "gate", 64 - first).await;
    gate.open();
    for number in 0_u16..64 {
        let answer = answers.message().await.unwrap().unwrap();
        let response = answer.infer_response.unwrap();
        assert_eq!(
            (response.id.as_str(), answer.error_message.as_str()),
            (&*number.to_string(), "")
        );
        assert_eq!(values(&response), [f32::from(number)]);
        let last = response.parameters["triton_final_response"].parameter_choice.as_ref().unwrap();
        assert_eq!(last, &ParameterChoice::BoolParam(true));
    }
    // The client has closed its side: what was accepted is answered, then the stream ends well.
    assert!(answers.message().await.unwrap().is_none());
    assert!(gate.runs_so_far().len() <= 3, "{:?}", gate.runs_so_far());
    server.finish().await;
}

#[tokio::test]
async fn a_failed_message_stays_in_the_stream() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let messages: Vec<_> = (0..5)
        .map(|number| numbered(if number == 2 { "absent" } else { "echo" }, number))
        .collect();
    let mut answers =
        client.model_stream_infer(tokio_stream::iter(messages)).await.unwrap().into_inner();
    for number in 0_u16..5 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(id(&answer), number.to_string());
        let expected = if number == 2 { "model `absent` is not in the repository" } else { "" };
        assert_eq!(answer.error_message, expected);
    }
    assert!(answers.message().await.unwrap().is_none());
    server.finish().await;
}

#[tokio::test]
async fn the_window_bounds_what_is_in_flight() {
    let server = TestServer::start(&[("stream_window", "4"), ("max_batch_size", "1")]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let messages = tokio_stream::iter((0..40).map(|number| numbered("gate", number)));
    let mut answers = client.model_stream_infer(messages).await.unwrap().into_inner();
    gate.runs(1).await;
    queued(&server, "gate", 3).await;
    // Another caller's request passes through the same connection meanwhile.
    assert!(client.model_infer(request("echo", &[1.0])).await.is_ok());
    queued(&server, "gate", 3).await;
    gate.open();
    let mut count = 0;
    while answers.message().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 40);
    server.finish().await;
}

#[tokio::test]
async fn in_order_of_completion_when_asked_for() {
    let server = TestServer::start(&[("stream_order", "completion")]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let (sender, receiver) = mpsc::channel(4);
    let stream = ReceiverStream::new(receiver);
    let mut answers = client.model_stream_infer(stream).await.unwrap().into_inner();
    sender.send(numbered("gate", 0)).await.unwrap();
    gate.runs(1).await;
    sender.send(numbered("echo", 1)).await.unwrap();
    assert_eq!(id(&answers.message().await.unwrap().unwrap()), "1");
    gate.open();
    assert_eq!(id(&answers.message().await.unwrap().unwrap()), "0");
    drop(sender);
    assert!(answers.message().await.unwrap().is_none());
    server.finish().await;
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_messages_along() {
    let server = TestServer::start(&[("max_batch_size", "1")]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let messages = tokio_stream::iter((0..10).map(|number| numbered("gate", number)));
    let answers = client.model_stream_infer(messages).await.unwrap().into_inner();
    gate.runs(1).await;
    queued(&server, "gate", 9).await;
    drop(answers);
    gate.stopped().await;
    queued(&server, "gate", 0).await;
    gate.open();
    assert_eq!(gate.runs_so_far(), [1]);
    server.finish().await;
}

#[tokio::test]
async fn the_deadline_of_a_stream_ends_it() {
    let server = TestServer::start(&[]).await;
    let mut client = server.patient_client().await;
    let (_sender, receiver) = mpsc::channel(1);
    let mut call = Request::new(ReceiverStream::new(receiver));
    call.metadata_mut().insert("grpc-timeout", "60m".parse().unwrap());
    let mut answers = client.model_stream_infer(call).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.finish().await;
}

#[tokio::test]
async fn a_message_above_the_limit_ends_its_stream_only() {
    let server = TestServer::start(&[("max_message_bytes", "4096")]).await;
    let mut client = server.client().await;
    let large = request("echo", &[0.0; 2000]);
    let mut answers =
        client.model_stream_infer(tokio_stream::iter([large])).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(client.model_infer(request("echo", &[1.0])).await.is_ok());
    server.finish().await;
}
