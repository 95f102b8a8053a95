//! What the REST port refuses: status, sentence, and that the next request works.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::harness::{TestServer, queued};
use crate::rest::{get, post, rows, send};
use crate::scripted::{Control, ScriptedLoader};

#[tokio::test]
async fn paths_that_are_not_there_and_calls_that_are_not_served() {
    let server = TestServer::start(&[]).await;
    let cases = [
        (Method::GET, "/", 404, "no such path: /"),
        (Method::GET, "/v3", 404, "no such path: /v3"),
        (Method::GET, "/v2/models/echo/infer", 405, "GET is not how this path is asked"),
        (Method::GET, "/v2/repository/index", 405, "GET is not how"),
        (Method::POST, "/v2", 405, "POST is not how"),
        (Method::GET, "/v2/models/zz", 404, "model `zz` is not in the repository"),
        (Method::GET, "/v2/models/..%2Fecho/config", 404, "model `../echo` is not"),
        (Method::GET, "/v2/models/%ff/config", 400, "Invalid UTF-8"),
        (Method::GET, "/v2/models/echo/versions/7/stats", 404, "has no version 7; served: 1"),
        (Method::GET, "/v2/models/echo/versions/one/stats", 400, "\"one\" is not a model version"),
        (Method::POST, "/v2/models/echo/versions/7/infer", 404, "has no version 7"),
        (Method::POST, "/v2/repository/models/echo/load", 501, "the admin port has it"),
        (Method::POST, "/v2/repository/models/echo/unload", 501, "the admin port has it"),
        (Method::POST, "/v2/systemsharedmemory/region/r/register", 501, "Unix socket"),
        (Method::POST, "/v2/systemsharedmemory/unregister", 501, "Unix socket"),
        (Method::POST, "/v2/cudasharedmemory/region/r/unregister", 501, "Unix socket"),
        (Method::GET, "/v2/logging", 501, "belong to the operator"),
        (Method::POST, "/v2/models/echo/trace/setting", 501, "belong to the operator"),
    ];
    for (method, path, status, sentence) in cases {
        let mut request = post(path, "{\"inputs\": []}");
        *request.method_mut() = method;
        let answer = send(server.http, request).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.error().contains(sentence), "{path}: {}", answer.error());
    }
    for path in ["/v2/systemsharedmemory/status", "/v2/cudasharedmemory/region/r/status"] {
        assert_eq!(get(server.http, path).await.json(), json!([]));
    }
    server.finish().await;
}

#[tokio::test]
async fn lengths_and_encodings_that_do_not_fit() {
    let server = TestServer::start(&[]).await;
    let cases = [
        ("inference-header-content-length", "x", 400, "is \"x\", expected a number"),
        ("inference-header-content-length", "-1", 400, "expected a number"),
        ("inference-header-content-length", "1000000", 400, "is 1000000, the body has"),
        ("inference-header-content-length", "0", 400, "bytes without JSON in front"),
        ("inference-header-content-length", "3", 400, "malformed request: EOF"),
        ("content-encoding", "br", 415, "Content-Encoding `br` is not read; gzip and deflate are"),
        ("content-encoding", "gzip", 400, "is not in its Content-Encoding"),
        ("content-encoding", "deflate", 400, "is not in its Content-Encoding"),
    ];
    for (name, value, status, sentence) in cases {
        let mut request = post("/v2/models/echo/infer", rows(&[1.0]).to_string());
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = send(server.http, request).await;
        assert_eq!(answer.status, status, "{name} {value}");
        assert!(answer.error().contains(sentence), "{}", answer.error());
    }
    let mut request = post("/v2/models/echo/infer", rows(&[1.0]).to_string());
    request.headers_mut().insert("content-encoding", "identity".parse().unwrap());
    assert_eq!(send(server.http, request).await.status, 200);
    server.finish().await;
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_however_it_comes() {
    let server = TestServer::start(&[("max_message_bytes", "1000")]).await;
    let sentence = "the body is larger than the limit of 1000 bytes";
    let told = post("/v2/models/echo/infer", vec![b' '; 1001]);
    let parts = (0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 100])));
    let untold = post("/v2/models/echo/infer", Body::from_stream(tokio_stream::iter(parts)));
    for request in [told, untold] {
        let answer = send(server.http, request).await;
        assert_eq!((answer.status, answer.error().as_str()), (413, sentence));
    }
    // Lists that amount to more than the text that they are written in.
    let body = json!({ "inputs": [
        { "name": "x", "shape": [1, 251], "datatype": "FP32", "data": vec![0; 251] },
    ] });
    let answer = send(server.http, post("/v2/models/echo/infer", body.to_string())).await;
    assert_eq!(answer.status, 413, "{}", answer.error());
    let answer = send(server.http, post("/v2/models/echo/infer", rows(&[1.0]).to_string())).await;
    assert_eq!(answer.status, 200);
    server.finish().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = TestServer::start(&[("body_read_ms", "100")]).await;
    let mut stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let head = "POST /v2/models/echo/infer HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(30), read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.ends_with(r#"{"error":"a byte of the body did not come within 100 ms"}"#),
        "{answer}"
    );
    server.finish().await;
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    let server = TestServer::start(&[("max_queue_jobs", "2")]).await;
    let gate = server.loader.control("gate");
    let call = || post("/v2/models/gate/infer", rows(&[1.0]).to_string());
    let mut callers = JoinSet::new();
    callers.spawn(send(server.http, call()));
    gate.runs(1).await;
    for _ in 0..2 {
        callers.spawn(send(server.http, call()));
    }
    queued(&server, "gate", 2).await;
    let answer = send(server.http, call()).await;
    assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(answer.error(), "queue is full: 2 of 2 requests taken");
    gate.open();
    while let Some(caller) = callers.join_next().await {
        assert_eq!(caller.unwrap().status, 200);
    }
    server.finish().await;
}

#[tokio::test]
async fn deadlines_come_from_the_request_and_from_the_server() {
    for (settings, timeout) in
        [(&[][..], json!(20_000)), (&[("default_timeout_ms", "20")][..], json!(60_000_000))]
    {
        let server = TestServer::start(settings).await;
        let mut body = rows(&[1.0]);
        body["parameters"] = json!({ "timeout": timeout });
        let answer = send(server.http, post("/v2/models/gate/infer", body.to_string())).await;
        assert_eq!(answer.status, 504);
        assert_eq!(answer.error(), "deadline passed (execution)");
        body["parameters"] = json!({ "timeout": "soon" });
        let answer = send(server.http, post("/v2/models/gate/infer", body.to_string())).await;
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains("expected an integer, got a string"));
        server.loader.control("gate").open();
        server.finish().await;
    }
}

#[tokio::test]
async fn a_failed_run_is_ours_and_keeps_its_reason() {
    let server = TestServer::start(&[]).await;
    let body = rows(&[crate::scripted::POISON]).to_string();
    let answer = send(server.http, post("/v2/models/panics/infer", body)).await;
    assert_eq!(answer.status, 500);
    assert!(!answer.error().contains("told to"), "{}", answer.error());
    server.finish().await;
}

#[tokio::test]
async fn readiness_is_told_by_the_status() {
    let loading = Control::default();
    let loader = ScriptedLoader::held_by(loading.clone());
    let server = TestServer::start_with(&[], &["broken", "echo"], loader).await;
    let status = async |path: &str| get(server.http, path).await.status;
    assert_eq!(status("/v2/health/live").await, 200);
    assert_eq!(status("/v2/health/ready").await, 503);
    loading.open();
    server.loaded().await;
    assert_eq!(status("/v2/models/echo/ready").await, 200);
    assert_eq!(status("/v2/models/broken/ready").await, 503);
    assert_eq!(status("/v2/models/broken/config").await, 503);
    assert_eq!(status("/v2/models/zz/ready").await, 503);
    assert_eq!(status("/v2/models/echo/versions/7/ready").await, 503);
    let index = async |body: &'static str| {
        send(server.http, post("/v2/repository/index", body)).await.json()
    };
    let echo = json!({ "name": "echo", "version": "1", "state": "READY", "reason": "" });
    let broken = json!({ "name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "" });
    assert_eq!(index("").await, json!([broken, echo]));
    assert_eq!(index("{}").await, json!([broken, echo]));
    assert_eq!(index("{\"ready\": true}").await, json!([echo]));
    assert!(index("[]").await["error"].as_str().unwrap().contains("expected {\"ready\""));
    server.finish().await;
}
