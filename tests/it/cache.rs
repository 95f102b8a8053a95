//! Equal requests run once: those in flight together, and those that come again.

use std::fmt::Write;
use std::time::Duration;

use futures_util::FutureExt;
use onnxd::access::Caller;
use onnxd::config::{Config, Origin};
use onnxd::deadline::Deadline;
use onnxd::grpc::inference::{Call, Inference, Sender};
use onnxd::pb::infer_parameter::ParameterChoice;
use onnxd::pb::{InferParameter, InferTensorContents, ModelConfigRequest, ModelStatisticsRequest};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use crate::harness::{Client, TestServer, request, values};
use crate::rest;

const CACHE: (&str, &str) = ("response_cache_bytes", "1048576");
const COALESCE: (&str, &str) = ("coalesce", "true");
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that the inputs of a waiting request of one value take, and that a follower takes beside.
const JOB: usize = 4;
const FOLLOWER: usize = JOB + 1024;

type Called = JoinHandle<Result<Vec<f32>, Status>>;

/// Sends a request in the background.
fn call(mut client: Client, model: &'static str, value: f32) -> Called {
    tokio::spawn(async move {
        let answer = client.model_infer(request(model, &[value])).await?;
        Ok(values(&answer.into_inner()))
    })
}

/// Sends a request that must be answered with its own value.
async fn ask(client: &mut Client, model: &str, value: f32) {
    let answer = client.model_infer(request(model, &[value])).await.unwrap().into_inner();
    assert_eq!(values(&answer), [value]);
}

/// The number behind a metric, if it is there.
async fn metric(server: &TestServer, series: &str) -> Option<usize> {
    let text = rest::get(server.admin, "/metrics").await;
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|number| number.parse().unwrap())
}

async fn counts(server: &TestServer, model: &str) -> [Option<usize>; 3] {
    let mut counts = [None; 3];
    for (count, name) in counts.iter_mut().zip(["cache_hits", "coalesced", "cache_misses"]) {
        let series = format!("onnxd_{name}_total{{model=\"{model}\",version=\"1\"}}");
        *count = metric(server, &series).await;
    }
    counts
}

/// Waits until one request runs or waits to, and so many follow it.
async fn followed(server: &TestServer, followers: usize) {
    let bytes = JOB + followers * FOLLOWER;
    let so = async {
        while metric(server, "onnxd_request_memory_bytes").await != Some(bytes) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.unwrap();
}

fn runs(server: &TestServer, model: &str) -> usize {
    server.loader.control(model).runs_so_far().len()
}

#[tokio::test]
async fn a_hundred_equal_requests_run_once_and_later_ones_not_at_all() {
    let server = TestServer::start(&[CACHE, ("max_queue_jobs", "1")]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let callers: Vec<_> = (0..100).map(|_| call(client.clone(), "gate", 7.0)).collect();
    // All of them are there, one of them runs; a queue of one place refuses none of the others.
    gate.runs(1).await;
    followed(&server, 99).await;
    gate.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), [7.0]);
    }
    for _ in 0..10 {
        ask(&mut client, "gate", 7.0).await;
    }
    assert_eq!(gate.runs_so_far(), [1]);
    assert_eq!(counts(&server, "gate").await, [Some(10), Some(99), Some(1)]);
    let message = ModelStatisticsRequest { name: "gate".into(), version: String::new() };
    let statistics = client.model_statistics(message).await.unwrap().into_inner();
    let model = &statistics.model_stats[0];
    assert_eq!((model.inference_count, model.execution_count), (1, 1));
    let sums = model.inference_stats.unwrap();
    assert_eq!((sums.success.unwrap().count, sums.fail.unwrap().count), (110, 0));
    assert_eq!((sums.cache_hit.unwrap().count, sums.cache_miss.unwrap().count), (109, 1));
    assert_eq!((sums.queue.unwrap().count, sums.compute_infer.unwrap().count), (110, 1));
    assert!(sums.cache_hit.unwrap().ns > 0 && sums.cache_miss.unwrap().ns > 0);
    // Waiting for the run of another is waiting, not looking up.
    assert!(sums.cache_hit.unwrap().ns < sums.queue.unwrap().ns);
    server.finish().await;
}

#[tokio::test]
async fn without_a_cache_every_request_runs_and_there_is_nothing_to_count() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        ask(&mut client, "echo", 1.0).await;
    }
    assert_eq!(runs(&server, "echo"), 3);
    assert_eq!(counts(&server, "echo").await, [None; 3]);
    assert_eq!(metric(&server, r#"onnxd_cache_bytes{model="echo",version="1"}"#).await, None);
    server.finish().await;
}

#[tokio::test]
async fn shared_runs_need_no_cache_and_keep_nothing() {
    let server = TestServer::start(&[COALESCE]).await;
    assert_eq!(counts(&server, "gate").await, [Some(0); 3]);
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let callers: Vec<_> = (0..10).map(|_| call(client.clone(), "gate", 7.0)).collect();
    followed(&server, 9).await;
    gate.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), [7.0]);
    }
    assert_eq!(gate.runs_so_far(), [1]);
    ask(&mut client, "gate", 7.0).await;
    assert_eq!(gate.runs_so_far(), [1, 1]);
    assert_eq!(counts(&server, "gate").await, [Some(0), Some(9), Some(2)]);
    assert_eq!(metric(&server, r#"onnxd_cache_bytes{model="gate",version="1"}"#).await, Some(0));
    server.finish().await;
}

#[tokio::test]
async fn what_differs_runs() {
    let server = TestServer::start(&[CACHE]).await;
    let mut client = server.client().await;
    for (runs_by_then, message) in [
        (1, request("echo", &[1.0, 2.0])),
        (1, request("echo", &[1.0, 2.0])),
        (2, request("echo", &[2.0, 1.0])),
        (3, {
            let mut turned = request("echo", &[1.0, 2.0]);
            turned.inputs[0].shape = vec![1, 2];
            turned
        }),
        (3, {
            let mut other = request("echo", &[1.0, 2.0]);
            other.id = "another".into();
            for (key, value) in [("priority", 3), ("timeout", 9_000_000)] {
                let choice = Some(ParameterChoice::Int64Param(value));
                let parameter = InferParameter { parameter_choice: choice };
                other.parameters.insert(key.into(), parameter);
            }
            other
        }),
    ] {
        let (id, shape) = (message.id.clone(), message.inputs[0].shape.clone());
        let raw = message.raw_input_contents.clone();
        let answer = client.model_infer(message).await.unwrap().into_inner();
        assert_eq!((answer.id, answer.outputs[0].shape.clone()), (id, shape));
        assert_eq!(answer.raw_output_contents, raw);
        assert_eq!(runs(&server, "echo"), runs_by_then);
    }
    // Another model has its own answers.
    ask(&mut client, "poison", 1.0).await;
    assert_eq!(runs(&server, "poison"), 1);
    server.finish().await;
}

#[tokio::test]
async fn streams_and_rest_and_other_forms_share_the_answers() {
    let server = TestServer::start(&[CACHE]).await;
    let mut client = server.client().await;
    ask(&mut client, "echo", 1.5).await;
    let mut typed = request("echo", &[1.5]);
    typed.raw_input_contents.clear();
    let fp32_contents = vec![1.5];
    let contents = InferTensorContents { fp32_contents, ..InferTensorContents::default() };
    typed.inputs[0].contents = Some(contents);
    let answer = client.model_infer(typed).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().fp32_contents, [1.5]);

    let messages = tokio_stream::iter([request("echo", &[1.5]), request("echo", &[1.5])]);
    let mut stream = client.model_stream_infer(messages).await.unwrap().into_inner();
    while let Some(answer) = stream.message().await.unwrap() {
        assert_eq!(values(&answer.infer_response.unwrap()), [1.5]);
    }
    let body = rest::rows(&[1.5]).to_string();
    let answer = rest::send(server.http, rest::post("/v2/models/echo/infer", body)).await;
    assert_eq!(answer.json()["outputs"][0]["data"], serde_json::json!([1.5]));
    assert_eq!(counts(&server, "echo").await, [Some(4), Some(0), Some(1)]);
    assert_eq!(runs(&server, "echo"), 1);

    let stats = rest::get(server.http, "/v2/models/echo/stats").await.json();
    let sums = &stats["model_stats"][0]["inference_stats"];
    let count = |name: &str| sums[name]["count"].as_u64();
    assert_eq!((count("cache_hit"), count("cache_miss")), (Some(4), Some(1)));
    let asked = ModelConfigRequest { name: "echo".into(), version: String::new() };
    let config = client.model_config(asked).await.unwrap().into_inner().config.unwrap();
    assert!(config.response_cache.unwrap().enable);
    server.finish().await;
}

#[tokio::test]
async fn a_new_version_has_no_answers_of_the_old_one() {
    let poll = [CACHE, ("model_control", "poll"), ("poll_ms", "5")];
    let server = TestServer::start(&poll).await;
    let mut client = server.client().await;
    for _ in 0..2 {
        ask(&mut client, "echo", 1.0).await;
    }
    let folder = server.models.path().join("echo/2");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.onnx"), "").unwrap();
    let second = onnxd::model::ModelVersion::new(2);
    server.until(|repository| repository.resolve("echo", second).is_ok()).await;
    let answer = client.model_infer(request("echo", &[1.0])).await.unwrap().into_inner();
    assert_eq!((answer.model_version.as_str(), runs(&server, "echo")), ("2", 2));
    ask(&mut client, "echo", 1.0).await;
    assert_eq!(runs(&server, "echo"), 2);
    server.finish().await;
}

#[tokio::test]
async fn callers_on_two_connections_share_nothing_where_tenants_do_not() {
    let server = TestServer::start(&[CACHE, ("cache_scope", "tenant")]).await;
    for runs_by_then in 1..=2 {
        let mut client = server.client().await;
        for _ in 0..3 {
            ask(&mut client, "echo", 1.0).await;
            assert_eq!(runs(&server, "echo"), runs_by_then);
        }
    }
    // So over REST, where each of these has a connection of its own.
    for runs_by_then in 3..=4 {
        let body = rest::rows(&[1.0]).to_string();
        let answer = rest::send(server.http, rest::post("/v2/models/echo/infer", body)).await;
        assert_eq!((answer.status, runs(&server, "echo")), (200, runs_by_then));
    }
    let sums = server.repository.resolve("echo", None).unwrap().statistics.snapshot();
    assert_eq!((sums.cache_hit.count, sums.cache_miss.count), (4, 4));
    assert_eq!(counts(&server, "echo").await, [Some(4), Some(0), Some(4)]);
    server.finish().await;
}

#[tokio::test]
async fn a_follower_takes_over_when_the_first_leaves() {
    let server = TestServer::start(&[CACHE]).await;
    let gate = server.loader.control("gate");
    let client = server.client().await;
    let first = call(client.clone(), "gate", 7.0);
    gate.runs(1).await;
    let mut followers: Vec<_> = (0..3).map(|_| call(client.clone(), "gate", 7.0)).collect();
    followed(&server, 3).await;
    first.abort();
    gate.stopped().await;
    gate.runs(2).await;
    // One that follows leaves, too; nobody notices.
    followed(&server, 2).await;
    let statistics = &server.repository.resolve("gate", None).unwrap().statistics;
    followers.pop().unwrap().abort();
    while statistics.snapshot().fail.count != 2 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for follower in followers {
        assert_eq!(follower.await.unwrap().unwrap(), [7.0]);
    }
    assert_eq!(statistics.snapshot().success.count, 2);
    server.finish().await;
}

#[tokio::test]
async fn a_caller_that_takes_no_answer_holds_nobody_up() {
    let server = TestServer::start(&[CACHE]).await;
    let gate = server.loader.control("gate");
    let limits = Config::resolve(|_| None::<(String, Origin)>).unwrap().requests;
    let inference = Inference::new(server.repository.clone(), limits);
    let now = Instant::now();
    // As a stream whose reader stands still: begun and never looked at again.
    let deadline = Deadline::after(now, PATIENCE);
    let sender = Sender { tenant: 1, caller: Caller::anyone() };
    let begun = inference.infer(
        request("gate", &[7.0]),
        Call { arrived_at: now, deadline, sender, request_id: None, trace: None },
    );
    let mut stalled = Box::pin(begun);
    assert!(stalled.as_mut().now_or_never().is_none());
    gate.runs(1).await;
    let follower = call(server.client().await, "gate", 7.0);
    followed(&server, 1).await;
    gate.allow(1);
    let answered = tokio::time::timeout(PATIENCE, follower).await;
    assert_eq!(answered.unwrap().unwrap().unwrap(), [7.0]);
    assert_eq!(values(&stalled.await.unwrap()), [7.0]);
    assert_eq!(gate.runs_so_far(), [1]);
    server.finish().await;
}

#[tokio::test]
async fn an_error_is_told_to_its_own_caller_and_not_kept() {
    let server = TestServer::start(&[CACHE, ("batching", "off")]).await;
    let client = server.client().await;
    let mut callers = JoinSet::new();
    for _ in 0..10 {
        let mut client = client.clone();
        callers.spawn(async move {
            client.model_infer(request("poison", &[crate::scripted::POISON])).await
        });
    }
    for refused in callers.join_all().await {
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(runs(&server, "poison"), 10);
    assert_eq!(counts(&server, "poison").await, [Some(0), Some(0), Some(10)]);
    assert_eq!(metric(&server, r#"onnxd_cache_bytes{model="poison",version="1"}"#).await, Some(0));
    server.finish().await;
}

#[tokio::test]
async fn a_follower_keeps_its_own_deadline() {
    let server = TestServer::start(&[CACHE]).await;
    let gate = server.loader.control("gate");
    let mut client = server.patient_client().await;
    let first = call(server.client().await, "gate", 7.0);
    gate.runs(1).await;
    let hurried = |limit: &str| {
        let mut message = Request::new(request("gate", &[7.0]));
        message.metadata_mut().insert("grpc-timeout", limit.parse().unwrap());
        message
    };
    let sent_at = Instant::now();
    let status = client.model_infer(hurried("50m")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "deadline passed (queue)");
    assert!(sent_at.elapsed() >= Duration::from_millis(50));
    gate.allow(1);
    assert_eq!(first.await.unwrap().unwrap(), [7.0]);
    // Past is past, although the answer lies ready.
    let status = client.model_infer(hurried("0m")).await.unwrap_err();
    assert_eq!(status.message(), "deadline passed (arrival)");
    assert!(client.model_infer(request("gate", &[7.0])).await.is_ok());
    assert_eq!(gate.runs_so_far(), [1]);
    server.finish().await;
}

#[tokio::test]
async fn a_first_request_that_runs_out_of_time_leaves_the_others_theirs() {
    let server = TestServer::start(&[CACHE]).await;
    let gate = server.loader.control("gate");
    let mut hurried = server.patient_client().await;
    let first = tokio::spawn(async move {
        let mut message = Request::new(request("gate", &[7.0]));
        message.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
        hurried.model_infer(message).await
    });
    gate.runs(1).await;
    let follower = call(server.client().await, "gate", 7.0);
    assert_eq!(first.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    gate.runs(2).await;
    gate.open();
    assert_eq!(follower.await.unwrap().unwrap(), [7.0]);
    server.finish().await;
}

#[tokio::test]
async fn kept_answers_stay_below_the_limit() {
    const LIMIT: usize = 16 << 10;
    let limit = LIMIT.to_string();
    let server = TestServer::start(&[("response_cache_bytes", &limit)]).await;
    let mut client = server.client().await;
    let series = r#"onnxd_cache_bytes{model="echo",version="1"}"#;
    let mut seen = String::new();
    for value in 0..200_u8 {
        ask(&mut client, "echo", f32::from(value)).await;
        if value % 20 == 19 {
            let bytes = metric(&server, series).await.unwrap();
            assert!(0 < bytes && bytes <= LIMIT, "{bytes}");
            write!(seen, "{bytes} ").unwrap();
        }
    }
    let [Some(0), Some(0), Some(misses)] = counts(&server, "echo").await else { panic!("{seen}") };
    assert_eq!((misses, runs(&server, "echo")), (200, 200));
    // It is full, and more than the bound was put in.
    let bytes = metric(&server, series).await.unwrap();
    assert!(bytes > LIMIT * 3 / 4, "{seen}");
    server.finish().await;
}
