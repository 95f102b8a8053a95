//! Other ways to the data port: browsers, Unix sockets, compressed messages, aging connections.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use onnxd::pb::{ModelInferRequest, ModelInferResponse};
use prost::Message;
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::transport::Endpoint;

use crate::harness::{TestServer, request, values};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// What a browser gets.
struct Page {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

async fn fetch(address: SocketAddr, request: http::Request<Body>) -> Page {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await.unwrap();
    Page { status: head.status.as_u16(), headers: head.headers, body }
}

fn post(content_type: &str, body: impl Into<axum::body::Body>) -> http::Request<Body> {
    http::Request::post(INFER)
        .header("host", "server")
        .header("content-type", content_type)
        .header("x-grpc-web", "1")
        .header("origin", "http://page.example")
        .body(Body::new(body.into()))
        .unwrap()
}

fn frame(message: &ModelInferRequest) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// The message, if there is one, and the trailers' text.
fn unframe(mut body: Bytes) -> (Option<ModelInferResponse>, String) {
    let (mut message, mut trailers) = (None, String::new());
    while !body.is_empty() {
        let head = body.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let part = body.split_to(usize::try_from(length).unwrap());
        if head[0] & 0x80 == 0 {
            message = Some(ModelInferResponse::decode(part).unwrap());
        } else {
            trailers = String::from_utf8(part.to_vec()).unwrap();
        }
    }
    (message, trailers)
}

#[tokio::test]
async fn a_browser_is_answered_over_http_1() {
    let server = TestServer::start(&[]).await;
    let body = frame(&request("echo", &[1.0, 2.0]));
    let page = fetch(server.grpc, post("application/grpc-web+proto", body)).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "application/grpc-web+proto");
    let (answer, trailers) = unframe(page.body);
    assert_eq!(values(&answer.unwrap()), [1.0, 2.0]);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");

    let page =
        fetch(server.grpc, post("application/grpc-web", frame(&request("absent", &[1.0])))).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["grpc-status"], "5", "NOT_FOUND");
    // Plain gRPC cannot be spoken over HTTP/1.1.
    let page = fetch(server.grpc, post("application/grpc", Bytes::new())).await;
    assert_eq!(page.status, 400);
    server.finish().await;
}

fn question(origin: &'static str) -> http::Request<Body> {
    http::Request::options(INFER)
        .header("host", "server")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,grpc-timeout,x-grpc-web")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn pages_may_call_only_if_they_are_named() {
    let allowed = "access-control-allow-origin";
    let closed = TestServer::start(&[]).await;
    let page = fetch(closed.grpc, question("http://page.example")).await;
    assert!(!page.headers.contains_key(allowed));
    closed.finish().await;

    let sites = "http://page.example,https://other.example:8443";
    let open = TestServer::start(&[("cors_allow_origins", sites)]).await;
    let page = fetch(open.grpc, question("http://page.example")).await;
    assert_eq!(
        (page.status, &page.headers[allowed]),
        (200, &"http://page.example".parse().unwrap())
    );
    assert!(
        page.headers["access-control-allow-headers"].to_str().unwrap().contains("grpc-timeout")
    );
    let page = fetch(open.grpc, question("http://stranger.example")).await;
    assert!(!page.headers.contains_key(allowed));
    let body = frame(&request("echo", &[3.0]));
    let page = fetch(open.grpc, post("application/grpc-web+proto", body)).await;
    assert_eq!(page.headers[allowed], "http://page.example");
    let shown = page.headers["access-control-expose-headers"].to_str().unwrap();
    assert!(shown.contains("grpc-status"), "{shown}");
    assert_eq!(values(&unframe(page.body).0.unwrap()), [3.0]);
    open.finish().await;
}

#[tokio::test]
async fn a_unix_socket_serves_the_same_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("onnxd.sock");
    // What a killed server left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = TestServer::start(&[("grpc_socket", path.to_str().unwrap())]).await;
    let socket = path.clone();
    let connect = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://local");
    let channel = endpoint.connect_with_connector(connect).await.unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel);
    let answer = client.model_infer(request("echo", &[4.0])).await.unwrap().into_inner();
    assert_eq!(values(&answer), [4.0]);
    // The TCP port is there as well.
    server.client().await.model_infer(request("echo", &[5.0])).await.unwrap();
    drop(client);
    server.finish().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_is_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("onnxd.sock");
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = TestServer::cannot_bind(&[("grpc_socket", path.to_str().unwrap())]).await;
    assert!(error.contains("in use"), "{error}");
    let file = folder.path().join("notes");
    std::fs::write(&file, "mine").unwrap();
    TestServer::cannot_bind(&[("grpc_socket", file.to_str().unwrap())]).await;
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

/// A request with one row of zeros, which compress well.
fn one_row(values: usize) -> ModelInferRequest {
    let mut request = request("echo", &vec![0.0; values]);
    request.inputs[0].shape.reverse();
    request
}

#[tokio::test]
async fn compressed_messages_are_read_where_switched_on() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await.send_compressed(CompressionEncoding::Gzip);
    let refused = client.model_infer(request("echo", &[1.0])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    drop(client);
    server.finish().await;

    let settings = [("compression", "gzip,zstd"), ("max_message_bytes", "65536")];
    let server = TestServer::start(&settings).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let client = server.client().await.send_compressed(encoding);
        let mut client = client.accept_compressed(encoding);
        let answer = client.model_infer(one_row(1000)).await.unwrap();
        assert_eq!(values(&answer.into_inner()), [0.0; 1000]);
        // Small on the wire, larger than allowed in memory.
        let large = client.model_infer(one_row(1 << 20)).await.unwrap_err();
        assert_eq!(large.code(), Code::ResourceExhausted, "{large}");
    }
    server.finish().await;
}

#[tokio::test]
async fn an_old_connection_ends_with_its_calls_answered() {
    let server = TestServer::start(&[("max_connection_age_ms", "100")]).await;
    let gate = server.loader.control("gate");
    let (mut client, closed) = server.watched_client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gate", &[6.0])).await });
    gate.runs(1).await;
    // The peer was told that the connection is old, and the call is still answered.
    let mut late = server.client().await;
    late.model_infer(request("echo", &[1.0])).await.unwrap();
    gate.open();
    assert_eq!(values(&call.await.unwrap().unwrap().into_inner()), [6.0]);
    closed.await.unwrap();
    server.finish().await;
}

#[tokio::test]
async fn calls_that_do_not_end_are_cut_with_their_old_connection() {
    let settings = [("max_connection_age_ms", "20"), ("max_connection_age_grace_ms", "20")];
    let server = TestServer::start(&settings).await;
    let gate = server.loader.control("gate");
    let (mut client, closed) = server.watched_client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gate", &[6.0])).await });
    gate.runs(1).await;
    closed.await.unwrap();
    call.await.unwrap().unwrap_err();
    gate.stopped().await;
    server.finish().await;
}
