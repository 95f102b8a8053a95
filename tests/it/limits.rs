//! Limits on connections and calls are those that are configured, and bind nobody else.

use std::time::Duration;

use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{TestServer, queued, request, values};

const PATIENCE: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test]
async fn connections_beyond_their_limit_are_closed_and_a_freed_place_serves() {
    let server = TestServer::start(&[("max_connections", "3")]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        client.model_infer(request("echo", &[1.0])).await.unwrap();
        clients.push(client);
    }
    for _ in 0..20 {
        let mut socket = TcpStream::connect(server.grpc).await.unwrap();
        let mut heard = [0];
        let closed = tokio::time::timeout(PATIENCE, socket.read(&mut heard)).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
    let refused = "onnxd_refused_connections_total{port=\"grpc\",reason=\"connections\"}";
    server.counted(refused, |count| count == 20).await;
    for client in &mut clients {
        client.model_infer(request("echo", &[1.0])).await.unwrap();
    }
    clients.pop();
    server.counted("onnxd_connections{port=\"grpc\"}", |count| count == 2).await;
    let mut client = server.client().await;
    client.model_infer(request("echo", &[1.0])).await.unwrap();
    drop((clients, client));
    server.counted("onnxd_connections{port=\"grpc\"}", |count| count == 0).await;
    server.finish().await;
}

fn call(path: &str) -> http::Request<()> {
    http::Request::post(format!("http://localhost/inference.GRPCInferenceService/{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn a_connection_has_as_many_calls_as_it_is_told() {
    let server = TestServer::start(&[("max_streams", "3")]).await;
    let socket = TcpStream::connect(server.grpc).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    let mut sender: SendRequest<bytes::Bytes> = sender;
    let running = tokio::spawn(connection);
    // One answer, and the server's settings are known.
    let (answer, _) = sender.send_request(call("ServerLive"), true).unwrap();
    drop(answer.await.unwrap());
    assert_eq!(sender.current_max_send_streams(), 3);

    // A peer that does not keep to it is refused its fourth call, and no other.
    let mut socket = TcpStream::connect(server.grpc).await.unwrap();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags][..], &stream.to_be_bytes()[..], payload].concat()
    };
    let mut words = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
    for stream in [1, 3, 5, 7] {
        // POST, http, "/" with END_HEADERS; the body is still to come.
        words.extend(frame(1, 4, stream, &[0x83, 0x86, 0x84]));
    }
    socket.write_all(&words).await.unwrap();
    let refused = async {
        let (mut heard, mut chunk) = (Vec::<u8>::new(), [0; 4096]);
        let reset = frame(3, 0, 7, &7_u32.to_be_bytes());
        while !heard.windows(reset.len()).any(|part| part == reset) {
            let count = socket.read(&mut chunk).await.unwrap();
            assert!(count > 0, "closed: {heard:?}");
            heard.extend(&chunk[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("REFUSED_STREAM on the fourth");
    drop((sender, socket));
    running.abort();
    server.finish().await;
}

#[tokio::test]
async fn all_connections_together_have_as_many_calls_as_they_are_told() {
    let server = TestServer::start(&[("max_calls", "40")]).await;
    let gate = server.loader.control("gate");
    let (mut callers, mut clients) = (JoinSet::new(), Vec::new());
    for _ in 0..20 {
        clients.push(server.client().await);
    }
    for client in &clients {
        for _ in 0..5 {
            let mut client = client.clone();
            callers.spawn(async move { client.model_infer(request("gate", &[1.0])).await });
        }
    }
    for _ in 0..60 {
        let refused = callers.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "the server is full: 40 of 40 calls taken");
        assert!(refused.metadata().get("grpc-retry-pushback-ms").is_some());
    }
    // The REST port has no places of its own.
    let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}"#;
    let ask = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let rest = async || {
        let mut socket = TcpStream::connect(server.http).await.unwrap();
        socket.write_all(ask.as_bytes()).await.unwrap();
        let mut heard = String::new();
        socket.read_to_string(&mut heard).await.unwrap();
        heard
    };
    let refused = rest().await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    server.counted("onnxd_calls{port=\"grpc\"}", |count| count == 40).await;
    server.counted("onnxd_refused_calls_total{port=\"grpc\"}", |count| count == 60).await;
    server.counted("onnxd_refused_calls_total{port=\"http\"}", |count| count == 1).await;
    gate.open();
    while let Some(answer) = callers.join_next().await {
        answer.unwrap().unwrap();
    }
    server.counted("onnxd_calls{port=\"grpc\"}", |count| count == 0).await;
    assert!(rest().await.starts_with("HTTP/1.1 200"));
    drop(clients);
    server.finish().await;
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let settings = [("max_connections", "20"), ("handshake_ms", "60000")];
    let server = TestServer::start(&settings).await;
    let mut kept = server.client().await;
    kept.model_infer(request("echo", &[1.0])).await.unwrap();
    let mut silent = Vec::new();
    for number in 0..40 {
        let mut socket = TcpStream::connect(server.grpc).await.unwrap();
        if number % 2 == 0 {
            socket.write_all(&PREFACE[..11]).await.unwrap();
        }
        silent.push(socket);
    }
    // No place is free and those who have one keep it for a minute; a newcomer is served all the same.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc));
    let endpoint = endpoint.unwrap();
    let served = async {
        loop {
            let Ok(channel) = endpoint.connect().await else { continue };
            let mut client = crate::harness::Client::new(channel);
            if client.model_infer(request("echo", &[2.0])).await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    let gave_way = "onnxd_refused_connections_total{port=\"grpc\",reason=\"handshakes\"}";
    server.counted(gave_way, |count| count >= 1).await;
    kept.model_infer(request("echo", &[3.0])).await.unwrap();
    drop((silent, kept));
    server.counted("onnxd_connections{port=\"grpc\"}", |count| count == 0).await;
    server.finish().await;
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_let_go_with_its_calls() {
    let settings = [("keepalive_ms", "50"), ("keepalive_timeout_ms", "50")];
    let server = TestServer::start(&settings).await;
    let gate = server.loader.control("gate");
    // The connection's task is where pings are answered: once it stands still, so does the peer.
    let socket = TcpStream::connect(server.grpc).await.unwrap();
    let (sender, mut connection) = h2::client::handshake(socket).await.unwrap();
    let mut sender: SendRequest<bytes::Bytes> = sender;
    let mut calls = Vec::new();
    for number in 0..2 {
        let (answer, mut body) = sender.send_request(call("ModelInfer"), false).unwrap();
        let message: Vec<u8> = prost::Message::encode_to_vec(&request("gate", &[1.0]));
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let framed = [&[0][..], &length[..], &message[..]].concat();
        body.send_data(framed.into(), true).unwrap();
        calls.push((answer, body));
        let there = async {
            match number {
                0 => drop(gate.runs(1).await),
                _ => queued(&server, "gate", 1).await,
            }
        };
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            () = there => {}
        }
    }
    // From here on nobody looks at the connection; it is open all the same.
    server.counted("onnxd_connections{port=\"grpc\"}", |count| count == 0).await;
    queued(&server, "gate", 0).await;
    let running = "onnxd_running{model=\"gate\",version=\"1\"}";
    server.counted(running, |count| count == 0).await;
    drop((calls, sender, connection));
    server.finish().await;
}

#[tokio::test]
async fn a_model_that_is_full_leaves_the_others_alone() {
    let server = TestServer::start(&[("max_queue_jobs", "4")]).await;
    let gate = server.loader.control("gate");
    let mut waiting = Vec::new();
    let start = |mut client: crate::harness::Client| {
        tokio::spawn(async move { client.model_infer(request("gate", &[1.0])).await })
    };
    let mut client = server.client().await;
    waiting.push(start(client.clone()));
    gate.runs(1).await;
    for _ in 0..4 {
        waiting.push(start(client.clone()));
    }
    queued(&server, "gate", 4).await;
    for number in 0..200_u16 {
        if number % 10 == 0 {
            let full = client.model_infer(request("gate", &[1.0])).await.unwrap_err();
            assert_eq!(full.code(), Code::ResourceExhausted);
        }
        let number = f32::from(number);
        let answer = client.model_infer(request("echo", &[number])).await.unwrap();
        assert_eq!(values(answer.get_ref()), [number]);
    }
    gate.open();
    for each in waiting {
        each.await.unwrap().unwrap();
    }
    drop(client);
    server.finish().await;
}
