//! Loading, swapping and unloading while callers call.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onnxd::pb::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
};
use onnxd::repository::Repository;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::harness::{Client, TestServer, queued, request, values};
use crate::scripted::{BROKEN, ScriptedLoader};

const EXPLICIT: (&str, &str) = ("model_control", "explicit");
const POLL: [(&str, &str); 2] = [("model_control", "poll"), ("poll_ms", "5")];

pub(crate) async fn load(operator: &mut Client, model: &str) -> Result<(), Status> {
    let request = RepositoryModelLoadRequest {
        model_name: model.into(),
        ..RepositoryModelLoadRequest::default()
    };
    operator.repository_model_load(request).await.map(drop)
}

pub(crate) async fn unload(operator: &mut Client, model: &str) -> Result<(), Status> {
    let request = RepositoryModelUnloadRequest {
        model_name: model.into(),
        ..RepositoryModelUnloadRequest::default()
    };
    operator.repository_model_unload(request).await.map(drop)
}

/// Name, version, state and reason of every line.
async fn index(client: &mut Client) -> Vec<String> {
    let answer = client.repository_index(RepositoryIndexRequest::default()).await.unwrap();
    let line = |model: &onnxd::pb::repository_index_response::ModelIndex| {
        format!("{} {} {} {}", model.name, model.version, model.state, model.reason)
    };
    answer.into_inner().models.iter().map(line).collect()
}

fn add_version(root: &Path, model: &str, version: u64, contents: &[u8]) {
    let folder = root.join(model).join(version.to_string());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.onnx"), contents).unwrap();
}

fn ready(repository: &Repository, model: &str) -> Vec<u64> {
    let versions = repository.ready_versions(model);
    versions.iter().map(|served| served.key.version.number()).collect()
}

#[tokio::test]
async fn explicit_loads_what_it_is_asked_for_by_name() {
    let settings = [EXPLICIT, ("load_models", "echo")];
    let server =
        TestServer::start_with(&settings, &["broken", "echo", "gate"], ScriptedLoader::default())
            .await;
    server.loaded().await;
    let (mut client, mut operator) = (server.client().await, server.operator().await);
    let expected =
        ["broken 1 UNAVAILABLE unloaded", "echo 1 READY ", "gate 1 UNAVAILABLE unloaded"];
    assert_eq!(index(&mut operator).await, expected);
    let refused = client.model_infer(request("gate", &[1.0])).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), {
        (Code::Unavailable, "model `gate` is not ready: not loaded")
    });

    load(&mut operator, "gate").await.unwrap();
    server.loader.control("gate").open();
    let answer = client.model_infer(request("gate", &[1.0])).await.unwrap().into_inner();
    assert_eq!((answer.model_version.as_str(), values(&answer)), ("1", vec![1.0]));

    let failed = load(&mut operator, "broken").await.unwrap_err();
    assert_eq!(failed.code(), Code::FailedPrecondition);
    assert!(failed.message().ends_with("not a model: the file is empty"), "{failed}");
    let told = "broken 1 UNAVAILABLE not a model: the file is empty";
    assert_eq!(index(&mut operator).await[0], told);
    assert_eq!(index(&mut client).await[0], "broken 1 UNAVAILABLE ", "callers get no reasons");

    for name in ["absent", "../echo", "/etc", ""] {
        assert_eq!(load(&mut operator, name).await.unwrap_err().code(), Code::NotFound, "{name}");
        assert_eq!(unload(&mut operator, name).await.unwrap_err().code(), Code::NotFound, "{name}");
    }
    unload(&mut operator, "gate").await.unwrap();
    server.until(|repository| ready(repository, "gate").is_empty()).await;
    assert_eq!(ready(&server.repository, "echo"), [1]);
    server.finish().await;
}

#[tokio::test]
async fn control_is_where_it_was_switched_on_and_nowhere_else() {
    let server = TestServer::start(&[]).await;
    let (mut client, mut operator) = (server.client().await, server.operator().await);
    let data_port = load(&mut client, "echo").await.unwrap_err();
    assert_eq!(data_port.code(), Code::Unimplemented);
    assert!(data_port.message().contains("the admin port has it"), "{data_port}");
    let off = unload(&mut operator, "echo").await.unwrap_err();
    assert_eq!(off.code(), Code::Unimplemented);
    assert!(off.message().contains("--model-control explicit"), "{off}");
    let prediction = operator.model_infer(request("echo", &[1.0])).await.unwrap_err();
    assert_eq!(prediction.code(), Code::Unimplemented);
    server.finish().await;
}

#[tokio::test]
async fn what_a_caller_brings_along_is_refused() {
    let server = TestServer::start(&[EXPLICIT, ("load_models", "*")]).await;
    let mut operator = server.operator().await;
    for key in ["config", "file:1/model.onnx"] {
        let request = RepositoryModelLoadRequest {
            model_name: "echo".into(),
            parameters: [(key.to_owned(), ModelRepositoryParameter::default())].into(),
            ..RepositoryModelLoadRequest::default()
        };
        let refused = operator.repository_model_load(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.message(), format!("parameter `{key}`: models are loaded by name only"));
    }
    let request = RepositoryModelUnloadRequest {
        model_name: "echo".into(),
        parameters: [("unload_dependents".into(), ModelRepositoryParameter::default())].into(),
        ..RepositoryModelUnloadRequest::default()
    };
    operator.repository_model_unload(request).await.unwrap();
    server.finish().await;
}

#[tokio::test]
async fn an_unloaded_model_answers_those_that_have_found_it() {
    let server = TestServer::start(&[EXPLICIT, ("load_models", "*")]).await;
    let (gate, mut operator) = (server.loader.control("gate"), server.operator().await);
    let mut callers = JoinSet::new();
    for value in [1.0, 2.0] {
        let mut client = server.client().await;
        callers.spawn(async move { client.model_infer(request("gate", &[value])).await });
    }
    gate.runs(1).await;
    let waiting = 2 - gate.runs_so_far()[0];
    queued(&server, "gate", waiting).await;
    unload(&mut operator, "gate").await.unwrap();
    assert!(index(&mut operator).await.contains(&"gate 1 UNLOADING ".to_owned()));
    gate.open();
    while let Some(answer) = callers.join_next().await {
        answer.unwrap().unwrap();
    }
    let unloaded = |repository: &Repository| {
        let mut index = repository.index().into_iter();
        index.any(|entry| entry.state.describe() == ("UNAVAILABLE", "unloaded"))
    };
    server.until(unloaded).await;
    let metrics = scrape(&server).await;
    let of_gate: Vec<&str> =
        metrics.lines().filter(|line| line.contains("model=\"gate\"")).collect();
    let state = "onnxd_model_state{model=\"gate\",version=\"1\",state=\"";
    assert!(of_gate.iter().all(|line| line.starts_with(state)), "its series are gone: {of_gate:?}");
    assert!(of_gate.contains(&format!("{state}unloaded\"}} 1").as_str()), "{of_gate:?}");
    assert!(metrics.contains("model=\"echo\""));
    // And it comes back.
    load(&mut operator, "gate").await.unwrap();
    server.client().await.model_infer(request("gate", &[1.0])).await.unwrap();
    server.finish().await;
}

async fn scrape(server: &TestServer) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.admin).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Callers that call without a pause until they are told to stop.
struct Callers {
    stop: Arc<AtomicBool>,
    calls: JoinSet<usize>,
}

impl Callers {
    async fn of(server: &TestServer, model: &'static str, count: usize) -> Self {
        let (stop, mut calls) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for _ in 0..count {
            let (mut client, stop) = (server.client().await, Arc::clone(&stop));
            calls.spawn(async move {
                let mut answered = 0;
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.model_infer(request(model, &[7.0])).await.unwrap();
                    assert_eq!(values(&answer.into_inner()), [7.0]);
                    answered += 1;
                }
                answered
            });
        }
        Self { stop, calls }
    }

    /// How many calls were answered; none failed.
    async fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut answered = 0;
        while let Some(calls) = self.calls.join_next().await {
            answered += calls.unwrap();
        }
        answered
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_swaps_on_request_fail_no_call() {
    let server = TestServer::start(&[EXPLICIT, ("load_models", "echo")]).await;
    let (callers, mut operator) = (Callers::of(&server, "echo", 4).await, server.operator().await);
    for version in 2..=31 {
        add_version(server.models.path(), "echo", version, b"");
        load(&mut operator, "echo").await.unwrap();
        assert!(ready(&server.repository, "echo").contains(&version));
    }
    assert!(callers.finish().await > 0);
    server.until(|repository| repository.ready_versions("echo").len() == 1).await;
    let mut client = server.client().await;
    let answer = client.model_infer(request("echo", &[1.0])).await.unwrap().into_inner();
    assert_eq!(answer.model_version, "31");
    drop(client);
    server.finish().await;
}

/// Swaps `echo` for another folder as Kubernetes does it: a new folder, a link to it beside, and
/// the link renamed over the old one.
fn swap(root: &Path, number: usize, contents: &[u8]) {
    let data = root.join(format!("..data_{number}"));
    fs::create_dir_all(data.join("1")).unwrap();
    fs::write(data.join("1/model.onnx"), contents).unwrap();
    symlink(data.file_name().unwrap(), root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_swaps_on_disk_fail_no_call() {
    let server = TestServer::start_with(&POLL, &["gate"], ScriptedLoader::default()).await;
    server.loaded().await;
    let root = server.models.path().to_owned();
    swap(&root, 0, b"");
    symlink("..data", root.join("echo")).unwrap();
    server.until(|repository| !repository.ready_versions("echo").is_empty()).await;
    let callers = Callers::of(&server, "echo", 4).await;
    for number in 1..=30 {
        let before = Arc::downgrade(&server.repository.ready_versions("echo")[0]);
        swap(&root, number, b"");
        // The one before has ended when the last request that found it was answered.
        server
            .until(|repository| {
                let now = repository.ready_versions("echo");
                !std::sync::Weak::ptr_eq(&before, &Arc::downgrade(&now[0]))
            })
            .await;
    }
    assert!(callers.finish().await > 0);
    server.finish().await;
}

#[tokio::test]
async fn a_bad_version_replaces_nothing() {
    let server = TestServer::start(&[EXPLICIT, ("load_models", "echo")]).await;
    let (mut client, mut operator) = (server.client().await, server.operator().await);
    add_version(server.models.path(), "echo", 2, BROKEN);
    let failed = load(&mut operator, "echo").await.unwrap_err();
    assert_eq!(failed.code(), Code::FailedPrecondition);
    let answer = client.model_infer(request("echo", &[1.0])).await.unwrap().into_inner();
    assert_eq!(answer.model_version, "1");
    // Nor does bad content under the same number, nor bad settings.
    add_version(server.models.path(), "echo", 1, BROKEN);
    load(&mut operator, "echo").await.unwrap_err();
    fs::write(server.models.path().join("echo/model.toml"), "no_such_key = 1").unwrap();
    let failed = load(&mut operator, "echo").await.unwrap_err();
    assert!(failed.message().contains("no_such_key"), "{failed}");
    client.model_infer(request("echo", &[1.0])).await.unwrap();
    // Mended, it serves, and the old one goes.
    fs::remove_file(server.models.path().join("echo/model.toml")).unwrap();
    add_version(server.models.path(), "echo", 2, b"");
    load(&mut operator, "echo").await.unwrap();
    server.until(|repository| ready(repository, "echo") == [2]).await;
    server.finish().await;
}

#[tokio::test]
async fn polling_follows_the_disk() {
    let server = TestServer::start_with(&POLL, &[], ScriptedLoader::default()).await;
    server.loaded().await;
    assert!(server.repository.is_ready(), "nothing was to be loaded");
    let root = server.models.path();
    add_version(root, "echo", 1, b"");
    server.until(|repository| ready(repository, "echo") == [1]).await;
    add_version(root, "echo", 3, BROKEN);
    server.until(|repository| repository.index().len() == 2).await;
    assert_eq!(ready(&server.repository, "echo"), [1]);
    add_version(root, "echo", 3, b"\x32\x06mended");
    server.until(|repository| ready(repository, "echo") == [3]).await;
    fs::write(root.join("echo/model.toml"), "version_policy = \"all\"").unwrap();
    server.until(|repository| ready(repository, "echo") == [1, 3]).await;
    fs::remove_dir_all(root.join("echo/3")).unwrap();
    server.until(|repository| ready(repository, "echo") == [1]).await;
    fs::remove_dir_all(root.join("echo")).unwrap();
    server.until(|repository| !repository.contains("echo")).await;
    server.finish().await;
}

#[tokio::test]
async fn versions_are_pinned_by_their_number() {
    let server = TestServer::start(&[EXPLICIT]).await;
    let root = server.models.path();
    fs::write(root.join("echo/model.toml"), "version_policy = { specific = [1, 3] }").unwrap();
    for version in 2..=4 {
        add_version(root, "echo", version, b"");
    }
    load(&mut server.operator().await, "echo").await.unwrap();
    assert_eq!(ready(&server.repository, "echo"), [1, 3]);
    let mut client = server.client().await;
    for (asked, ran) in [("", "3"), ("1", "1"), ("3", "3")] {
        let request =
            onnxd::pb::ModelInferRequest { model_version: asked.into(), ..request("echo", &[1.0]) };
        let answer = client.model_infer(request).await.unwrap().into_inner();
        assert_eq!(answer.model_version, ran);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_and_unloads_from_all_sides_end_as_the_last_one_said() {
    const OPERATORS: usize = 32;
    let settings = [EXPLICIT, ("load_models", "echo")];
    let server =
        TestServer::start_with(&settings, &["echo", "gate"], ScriptedLoader::default()).await;
    server.loaded().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (mut client, stop) = (server.client().await, Arc::clone(&stop));
        callers.spawn(async move {
            let (mut answered, mut refused) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                match client.model_infer(request("echo", &[2.0])).await {
                    Ok(answer) => {
                        assert_eq!(values(answer.get_ref()), [2.0]);
                        answered += 1;
                    }
                    Err(status) => {
                        assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
                        refused += 1;
                    }
                }
            }
            (answered, refused)
        });
    }
    let mut operators = JoinSet::new();
    for number in 0..OPERATORS {
        let mut operator = server.operator().await;
        operators.spawn(async move {
            for round in 0..20 {
                // More orders than may wait are refused, and given again.
                while let Err(status) = match (number + round) % 2 {
                    0 => load(&mut operator, "echo").await,
                    _ => unload(&mut operator, "echo").await,
                } {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{}", status.message());
                }
            }
        });
    }
    while let Some(operator) = operators.join_next().await {
        operator.unwrap();
    }
    let mut operator = server.operator().await;
    unload(&mut operator, "echo").await.unwrap();
    assert_eq!(ready(&server.repository, "echo"), Vec::<u64>::new());
    load(&mut operator, "echo").await.unwrap();
    assert_eq!(ready(&server.repository, "echo"), [1]);
    stop.store(true, Ordering::Relaxed);
    let (mut answered, mut refused) = (0, 0);
    while let Some(caller) = callers.join_next().await {
        let (one, other) = caller.unwrap();
        (answered, refused) = (answered + one, refused + other);
    }
    assert!(answered > 0 && refused > 0, "{answered} and {refused}");
    assert_eq!(server.loader.most_at_a_time(), 1, "one model is loaded at a time");
    drop(operator);
    server.finish().await;
}
