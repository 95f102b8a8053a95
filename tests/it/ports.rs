//! The REST and the operator's port, spoken to in plain HTTP/1.1.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{TestServer, request};
use crate::scripted::ScriptedLoader;

pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn metrics_exist_from_the_start_and_count() {
    let server = TestServer::start(&[]).await;
    let (status, before) = get(server.admin, "/metrics").await;
    assert_eq!(status, 200);
    let ok = r#"onnxd_requests_total{model="echo",version="1",outcome="ok"}"#;
    assert!(before.contains(&format!("{ok} 0")), "{before}");
    server.client().await.model_infer(request("echo", &[1.0, 2.0])).await.unwrap();
    let (_, after) = get(server.admin, "/metrics").await;
    for line in [
        &format!("{ok} 1"),
        r#"onnxd_rows_total{model="echo",version="1"} 2"#,
        r#"onnxd_batches_total{model="echo",version="1",reason="worker_free"} 1"#,
        r#"onnxd_queue_seconds_count{model="echo",version="1"} 1"#,
        r#"onnxd_queue_jobs{model="echo",version="1"} 0"#,
        "onnxd_request_memory_bytes 0",
    ] {
        assert!(after.contains(line), "{line} not in\n{after}");
    }
    server.finish().await;
}

#[tokio::test]
async fn names_from_outside_make_no_series() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let series = |text: &str| text.lines().count();
    let before = series(&get(server.admin, "/metrics").await.1);
    for number in 0..50 {
        client.model_infer(request(&format!("absent{number}"), &[1.0])).await.unwrap_err();
    }
    assert_eq!(series(&get(server.admin, "/metrics").await.1), before);
    server.finish().await;
}

#[tokio::test]
async fn probes_answer_their_own_questions() {
    let server = TestServer::start_with(&[], &["broken"], ScriptedLoader::default()).await;
    server.loaded().await;
    assert_eq!(get(server.admin, "/livez").await.0, 200);
    let (status, body) = get(server.admin, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("the file is empty"), "{body}");
    assert!(get(server.admin, "/version").await.1.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(get(server.http, "/v2/health/live").await.0, 200);
    assert_eq!(get(server.http, "/v2/health/ready").await.0, 503);
    server.finish().await;
}
