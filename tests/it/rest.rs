//! The REST port: predictions as text and as bytes, and that they take the path of the gRPC port.

use std::net::SocketAddr;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use onnxd::pb::{ModelInferRequest, ServerMetadataRequest};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tonic::Code;

use crate::harness::{TestServer, queued, request};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn error(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/json");
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(address: SocketAddr, request: Request<Body>) -> Answer {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.unwrap();
    drop(sender);
    connection.await.unwrap().unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, Request::get(path).header("host", "test").body(Body::empty()).unwrap()).await
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("host", "test").body(body.into()).unwrap()
}

/// The body of a request to `echo` or its like, one row per value.
pub(crate) fn rows(values: &[f32]) -> Value {
    json!({ "inputs": [
        { "name": "x", "shape": [values.len(), 1], "datatype": "FP32", "data": values },
    ] })
}

#[tokio::test]
async fn text_is_answered_in_text() {
    let server = TestServer::start(&[]).await;
    let mut body = rows(&[1.5, -2.0]);
    body["id"] = json!("id-7");
    let request = post("/v2/models/echo/versions/1/infer", body.to_string());
    let answer = send(server.http, request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    let expected = json!({
        "model_name": "echo", "model_version": "1", "id": "id-7",
        "outputs": [{ "name": "y", "datatype": "FP32", "shape": [2, 1], "data": [1.5, -2.0] }],
    });
    assert_eq!(answer.json(), expected);
    server.finish().await;
}

#[tokio::test]
async fn bytes_pass_unchanged_in_both_directions() {
    let server = TestServer::start(&[]).await;
    let odd = [f32::from_bits(0x7fc0_1234), f32::INFINITY, -0.0, f32::from_bits(1)];
    let raw: Vec<u8> = odd.iter().flat_map(|value| value.to_le_bytes()).collect();
    let head = json!({
        "inputs": [{ "name": "x", "shape": [4, 1], "datatype": "FP32",
            "parameters": { "binary_data_size": 16 } }],
        "outputs": [{ "name": "y", "parameters": { "binary_data": true } }],
    });
    let head = head.to_string();
    let mut request = post("/v2/models/echo/infer", [head.as_bytes(), &raw].concat());
    request.headers_mut().insert("inference-header-content-length", head.len().into());
    let answer = send(server.http, request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    let length = answer.headers["inference-header-content-length"].to_str().unwrap();
    let (head, bytes) = answer.body.split_at(length.parse().unwrap());
    assert_eq!(bytes, raw);
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["outputs"][0]["parameters"], json!({ "binary_data_size": 16 }));
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string().as_str());
    server.finish().await;
}

#[tokio::test]
async fn what_is_no_number_travels_as_a_word() {
    let server = TestServer::start(&[]).await;
    let body = r#"{"inputs":[{"name":"x","shape":[3,1],"datatype":"FP32",
        "data":[[NaN],[Infinity],[-Infinity]]}]}"#;
    let answer = send(server.http, post("/v2/models/echo/infer", body)).await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(text.contains(r#""data":[NaN,Infinity,-Infinity]"#), "{text}");
    server.finish().await;
}

#[tokio::test]
async fn a_long_text_is_read_and_written() {
    let server = TestServer::start(&[]).await;
    let values: Vec<f32> = (0_u16..60_000).map(|each| f32::from(each) / 4.0).collect();
    let body = json!({ "inputs": [
        { "name": "x", "shape": [2, 30_000], "datatype": "FP32", "data": values },
    ] });
    let answer = send(server.http, post("/v2/models/echo/infer", body.to_string())).await;
    assert_eq!(answer.json()["outputs"][0]["data"], body["inputs"][0]["data"]);
    server.finish().await;
}

#[tokio::test]
async fn requests_of_both_ports_share_a_run_and_are_counted_alike() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let mut first = client.clone();
    let first = tokio::spawn(async move { first.model_infer(request("gate", &[1.0])).await });
    gate.runs(1).await;
    let second = tokio::spawn(async move { client.model_infer(request("gate", &[2.0])).await });
    queued(&server, "gate", 1).await;
    let body = rows(&[3.0, 4.0]).to_string();
    let third = tokio::spawn(send(server.http, post("/v2/models/gate/infer", body)));
    queued(&server, "gate", 2).await;
    gate.open();
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    assert_eq!(third.await.unwrap().json()["outputs"][0]["data"], json!([3.0, 4.0]));
    assert_eq!(gate.runs_so_far(), [1, 3]);
    let stats = get(server.http, "/v2/models/gate/versions/1/stats").await.json();
    let stats = &stats["model_stats"][0];
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(4), &json!(2)));
    server.finish().await;
}

#[tokio::test]
async fn a_caller_that_closes_its_connection_leaves() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let running =
        tokio::spawn(send(server.http, post("/v2/models/gate/infer", rows(&[1.0]).to_string())));
    gate.runs(1).await;
    let body = rows(&[2.0]).to_string();
    let mut stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let head = format!(
        "POST /v2/models/gate/infer HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    queued(&server, "gate", 1).await;
    drop(stream);
    queued(&server, "gate", 0).await;
    gate.open();
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(gate.runs_so_far(), [1]);
    server.finish().await;
}

#[tokio::test]
async fn stopping_answers_what_was_accepted() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let call = send(server.http, post("/v2/models/gate/infer", rows(&[1.0]).to_string()));
    let call = tokio::spawn(call);
    gate.runs(1).await;
    let repository = server.repository.clone();
    let mut changes = repository.subscribe();
    let stopping = server.shut_down();
    while !repository.is_draining() {
        changes.changed().await.unwrap();
    }
    gate.open();
    assert_eq!(call.await.unwrap().status, 200);
    let report = stopping.await.unwrap().unwrap();
    assert!(report.complete && report.abandoned == 0, "{report:?}");
}

#[tokio::test]
async fn descriptions_are_those_of_the_other_port() {
    let server = TestServer::start(&[("max_batch_size", "16")]).await;
    let json = async |path: &str| get(server.http, path).await.json();
    let mut client = server.client().await;
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap();
    let metadata = metadata.into_inner();
    let mut extensions = metadata.extensions;
    extensions.push("binary_tensor_data".to_owned());
    let expected =
        json!({ "name": "onnxd", "version": metadata.version, "extensions": extensions });
    assert_eq!(json("/v2").await, expected);
    let tensor = |name| json!({ "name": name, "datatype": "FP32", "shape": [-1, -1] });
    let expected = json!({
        "name": "echo", "versions": ["1"], "platform": "onnxruntime_onnx",
        "inputs": [tensor("x")], "outputs": [tensor("y")],
    });
    assert_eq!(json("/v2/models/echo").await, expected);
    assert_eq!(json("/v2/models/echo/versions/1").await, expected);
    let config = json("/v2/models/echo/config").await;
    assert_eq!(
        (&config["max_batch_size"], &config["backend"]),
        (&json!(16), &json!("onnxruntime"))
    );
    let dims = json!([{ "name": "x", "data_type": "TYPE_FP32", "dims": [-1] }]);
    for key in ["name", "data_type", "dims"] {
        assert_eq!(config["input"][0][key], dims[0][key]);
    }
    assert_eq!(json("/v2/models/stats").await["model_stats"].as_array().unwrap().len(), 4);
    assert_eq!(json("/v2/models/echo/stats").await["model_stats"][0]["name"], "echo");
    assert_eq!(json("/v2/models/echo/ready").await, json!({ "name": "echo", "ready": true }));
    assert_eq!(json("/v2/health/live").await, json!({ "live": true }));
    assert_eq!(json("/v2/health/ready").await, json!({ "ready": true }));
    drop(client);
    server.finish().await;
}

/// A model, what makes a good request bad, and both codes.
type Case = (&'static str, fn(&mut ModelInferRequest), Code, u16);

#[tokio::test]
async fn refusals_are_the_same_on_both_ports() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let cases: [Case; 4] = [
        ("zz", |_| {}, Code::NotFound, 404),
        ("echo", |m| m.inputs[0].name = "z".into(), Code::InvalidArgument, 400),
        ("echo", |m| m.inputs[0].shape = vec![1], Code::InvalidArgument, 400),
        ("poison", |_| {}, Code::InvalidArgument, 400),
    ];
    for (model, change, code, http) in cases {
        let mut message = request(model, &[crate::scripted::POISON]);
        change(&mut message);
        let input = &message.inputs[0];
        let body = json!({ "inputs": [{ "name": input.name, "shape": input.shape,
            "datatype": "FP32", "data": [crate::scripted::POISON] }] });
        let path = format!("/v2/models/{model}/infer");
        let status = client.model_infer(message).await.unwrap_err();
        let answer = send(server.http, post(&path, body.to_string())).await;
        assert_eq!((status.code(), answer.status), (code, http), "{status:?}");
        assert_eq!(answer.error(), status.message());
    }
    drop(client);
    server.finish().await;
}
