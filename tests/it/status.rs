//! The operator's page and the sums that it shows.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{TestServer, request};
use crate::ports::get;
use crate::scripted::ScriptedLoader;

/// Longest wait for anything; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

async fn status(server: &TestServer) -> Value {
    let (status, body) = get(server.admin, "/status").await;
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

fn of<'a>(status: &'a Value, model: &str) -> &'a Value {
    let models = status["models"].as_array().unwrap();
    models.iter().find(|each| each["name"] == model).unwrap()
}

/// The status once nothing is under way: a run ends just after its answers went out.
async fn status_at_rest(server: &TestServer) -> Value {
    let asked = async {
        loop {
            let told = status(server).await;
            let echo = &of(&told, "echo")["served"];
            if echo["running"] == 0 && told["memory"]["held_bytes"] == 0 {
                return told;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap()
}

fn counted(pairs: &Value) -> u64 {
    pairs.as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn sums_tell_what_was_done() {
    let server =
        TestServer::start(&[("instances", "2"), ("request_memory_bytes", "1000000")]).await;
    let mut client = server.client().await;
    client.model_infer(request("echo", &[1.0])).await.unwrap();
    client.model_infer(request("echo", &[1.0, 2.0, 3.0])).await.unwrap();
    client.model_infer(request("echo", &[])).await.unwrap_err();
    let told = status_at_rest(&server).await;
    assert_eq!((&told["ready"], &told["draining"]), (&true.into(), &false.into()));
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert!(told["uptime_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(told["memory"]["limit_bytes"], 1_000_000);
    let (echo, gate) = (&of(&told, "echo")["served"], &of(&told, "gate")["served"]);
    assert_eq!((&echo["requests"]["ok"], &echo["requests"]["invalid"]), (&2.into(), &1.into()));
    assert_eq!((&echo["rows"], &echo["runs"]), (&4.into(), &2.into()));
    assert_eq!(echo["run_rows"], json!([[1, 1], [3, 1]]));
    assert_eq!(echo["instances"], 2);
    assert!(echo["busy_seconds"].as_f64().unwrap() > 0.0);
    for key in ["request_micros", "queue_micros", "execution_micros"] {
        assert_eq!(counted(&echo[key]), 2, "{key}: {echo}");
        assert_eq!(gate[key], json!([]), "each model has its own");
    }
    assert_eq!((&echo["waiting"], &echo["cache"]), (&0.into(), &Value::Null));
    server.finish().await;
}

#[tokio::test]
async fn what_is_not_served_is_told_with_its_reason() {
    let server = TestServer::start_with(&[], &["broken", "echo"], ScriptedLoader::default()).await;
    server.loaded().await;
    let told = status(&server).await;
    let broken = of(&told, "broken");
    assert_eq!((&broken["state"], &broken["served"]), (&"UNAVAILABLE".into(), &Value::Null));
    assert!(broken["reason"].as_str().unwrap().contains("the file is empty"), "{broken}");
    assert_eq!(of(&told, "echo")["state"], "READY");
    server.finish().await;
}

#[tokio::test]
async fn the_page_is_whole_and_may_load_nothing_from_elsewhere() {
    let server = TestServer::start(&[]).await;
    let (code, page) = get(server.admin, "/").await;
    assert_eq!(code, 200);
    for name in ["page/page.css", "page/page.js", "page/page.svg"] {
        assert!(page.contains(&format!("\"{name}\"")), "relative, so that proxies may shift it");
        assert_eq!(get(server.admin, &format!("/{name}")).await.0, 200);
    }
    assert!(!page.contains("://") && !page.contains("style="), "{page}");
    server.finish().await;
}
