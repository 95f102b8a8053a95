//! `onnxd health` against a running server.

use std::net::SocketAddr;

use onnxd::cli::{self, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::TestServer;
use crate::scripted::ScriptedLoader;

/// What the command says of a server whose settings name `address`.
async fn health(address: SocketAddr, more: &[&str]) -> Outcome {
    let address = address.to_string();
    let line = ["onnxd", "health", "--admin-addr", &address];
    let line = line.iter().chain(more).map(|word| (*word).to_owned());
    let matches = cli::command().try_get_matches_from(line).unwrap();
    // It starts a runtime of its own, as in a process of its own.
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || tell.send(cli::run(&matches, |_| ())).unwrap());
    told.await.unwrap()
}

#[tokio::test]
async fn a_ready_server_is_well_also_where_it_listens_on_all_interfaces() {
    let open = [("admin_addr", "0.0.0.0:0"), ("clear_text", "anywhere")];
    let server = TestServer::start(&open).await;
    for flags in [&[][..], &["--live"]] {
        let told = health(server.admin, flags).await;
        assert_eq!((told.code, told.text.as_str()), (0, "ok"));
    }
    server.finish().await;
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_which_model_and_lives() {
    let server = TestServer::start_with(&[], &["broken"], ScriptedLoader::default()).await;
    server.loaded().await;
    let told = health(server.admin, &[]).await;
    assert_eq!(told.code, 1);
    assert!(told.text.contains("broken/1") && told.text.contains("the file is empty"), "{told:?}");
    assert_eq!(health(server.admin, &["--live"]).await.code, 0);
    server.finish().await;
}

#[tokio::test]
async fn no_server_no_health() {
    let server = TestServer::start(&[]).await;
    let address = server.admin;
    server.finish().await;
    let told = health(address, &[]).await;
    assert_eq!(told.code, 1);
    assert!(told.text.contains(&address.to_string()), "{told:?}");
}

#[tokio::test]
async fn who_takes_the_call_and_says_nothing_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let told = health(silent.local_addr().unwrap(), &["--within-ms", "50"]).await;
    assert_eq!(told.code, 1);
    assert!(told.text.contains("no answer within 50 ms"), "{told:?}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read() {
    let endless = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = endless.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = endless.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        let head = b"HTTP/1.1 503 Busy\r\ncontent-type: text/plain\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(&[b'x'; 1 << 14]).await.is_ok() {}
    });
    let told = health(address, &["--within-ms", "20000"]).await;
    assert_eq!(told.code, 1);
    assert!(told.text.contains("too long"), "{told:?}");
    serving.await.unwrap();
}

#[tokio::test]
async fn wrong_settings_are_told_from_bad_health() {
    let matches = cli::command().try_get_matches_from(["onnxd", "health", "--admin-addr", "x"]);
    let told = cli::run(&matches.unwrap(), |_| ());
    assert_eq!(told.code, 2);
    assert!(told.text.contains("admin_addr"), "{told:?}");
}
