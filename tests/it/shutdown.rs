//! Stopping: accepted requests are answered, newcomers are sent away, the time is bounded.

use std::time::Duration;

use onnxd::app::{DrainReport, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::harness::{TestServer, queued, request};
use crate::scripted::ScriptedLoader;

#[tokio::test]
async fn what_was_accepted_is_answered() {
    let server = TestServer::start(&[("max_batch_size", "2")]).await;
    let gate = server.loader.control("gate");
    let mut callers = JoinSet::new();
    for _ in 0..7 {
        let mut client = server.client().await;
        callers.spawn(async move { client.model_infer(request("gate", &[1.0])).await });
    }
    gate.runs(1).await;
    let waiting = 7 - gate.runs_so_far()[0];
    queued(&server, "gate", waiting).await;
    let repository = server.repository.clone();
    let mut changes = repository.subscribe();
    let stopping = server.shut_down();
    while !repository.is_draining() {
        changes.changed().await.unwrap();
    }
    assert!(!repository.is_ready());
    gate.open();
    while let Some(caller) = callers.join_next().await {
        assert!(caller.unwrap().is_ok());
    }
    let report = stopping.await.unwrap().unwrap();
    assert!(report.complete);
    assert_eq!(report.abandoned, 0);
}

#[tokio::test]
async fn a_stream_is_answered_and_told_to_go_elsewhere() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let (sender, receiver) = mpsc::channel(4);
    let stream = ReceiverStream::new(receiver);
    let mut answers = client.model_stream_infer(stream).await.unwrap().into_inner();
    sender.send(request("gate", &[1.0])).await.unwrap();
    gate.runs(1).await;
    let stopping = server.shut_down();
    gate.open();
    assert_eq!(answers.message().await.unwrap().unwrap().error_message, "");
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(stopping.await.unwrap().unwrap().complete);
    drop(sender);
}

#[tokio::test]
async fn the_grace_period_bounds_a_run_that_does_not_end() {
    let server = TestServer::start(&[("drain_grace_ms", "50")]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gate", &[1.0])).await });
    gate.runs(1).await;
    let report = server.shut_down().await.unwrap().unwrap();
    assert!(!report.complete);
    assert_eq!(report.abandoned, 1);
    gate.open();
    // Answered or cut off, but ended.
    assert!(tokio::time::timeout(Duration::from_secs(10), call).await.is_ok());
}

#[tokio::test]
async fn a_silent_connection_does_not_hold_the_server() {
    let server = TestServer::start(&[]).await;
    // Connected, and never says a word of HTTP/2.
    let silent = tokio::net::TcpStream::connect(server.grpc).await.unwrap();
    // A call on another connection makes sure that the silent one was accepted before.
    assert!(server.client().await.model_infer(request("echo", &[1.0])).await.is_ok());
    let report = tokio::time::timeout(Duration::from_secs(10), server.shut_down()).await;
    let report = report.unwrap().unwrap().unwrap();
    assert_eq!(report, DrainReport { abandoned: 0, complete: true });
    drop(silent);
}

#[tokio::test]
async fn connections_without_a_call_are_closed() {
    let server = TestServer::start(&[("handshake_ms", "100"), ("http1_idle_ms", "100")]).await;
    // No words, wrong ones, half a preface, half a head, a head that asks for no call.
    let words = [
        "",
        "hello\r\n\r\n",
        "PRI * HT",
        "POST / HTTP/1.1\r\nhost:",
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    ];
    for words in words {
        let mut stream = tokio::net::TcpStream::connect(server.grpc).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
        // An end or a reset, with a refusal before it where there was something to refuse.
        assert!(closed.is_ok(), "{words:?} is still open");
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 40"), "{words:?}: {rest}");
    }
    assert!(server.client().await.model_infer(request("echo", &[1.0])).await.is_ok());
    server.finish().await;
}

#[tokio::test]
async fn strict_refuses_to_start_and_says_why() {
    let settings = [("strict", "true")];
    let loader = ScriptedLoader::default();
    let server = TestServer::start_with(&settings, &["echo", "broken"], loader).await;
    let error = server.ended().await.unwrap_err();
    assert!(matches!(error, StartError::Models(_)));
    assert!(error.to_string().contains("broken/1: not a model"), "{error}");
}

#[tokio::test]
async fn an_empty_repository_is_an_error() {
    let server = TestServer::start_with(&[], &[], ScriptedLoader::default()).await;
    let error = server.ended().await.unwrap_err().to_string();
    assert!(error.contains("<name>/<version>/model.onnx"), "{error}");
}
