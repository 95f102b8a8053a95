//! What the server says about itself: which metrics there are, that they are there before anything
//! happens, request ids, exemplars.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::certificates::{Authority, Files};
use crate::harness::{TestServer, request};
use crate::rest;
use crate::scripted::{POISON, ScriptedLoader};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

async fn scrape(address: SocketAddr, accept: &str) -> (String, String) {
    let request = http::Request::get("/metrics").header("host", "test").header("accept", accept);
    let answer = rest::send(address, request.body(axum::body::Body::empty()).unwrap()).await;
    let content = answer.headers["content-type"].to_str().unwrap().to_owned();
    (content, String::from_utf8(answer.body.to_vec()).unwrap())
}

/// Name of a sample and the keys of its labels.
fn parts(sample: &str) -> (&str, Vec<&str>) {
    let Some((name, rest)) = sample.split_once('{') else {
        return (sample.split(' ').next().unwrap(), Vec::new());
    };
    let labels = rest.rsplit_once('}').unwrap().0.split("\",");
    (
        name,
        labels
            .filter(|label| !label.is_empty())
            .map(|label| label.split_once('=').unwrap().0)
            .collect(),
    )
}

/// A line of name, type and labels for each family.
fn families(text: &str) -> String {
    let mut types = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "{name} is there twice");
        } else if !line.starts_with('#') {
            let (sample, keys) = parts(line);
            let family = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| sample.strip_suffix(suffix))
                .find(|name| types.contains_key(name))
                .unwrap_or(sample);
            let keys = keys.into_iter().filter(|key| *key != "le");
            labels.entry(family).or_default().extend(keys);
        }
    }
    let mut all = String::new();
    for (name, kind) in types {
        let labels: Vec<&str> = labels.get(name).into_iter().flatten().copied().collect();
        let labels = labels.join(" ");
        writeln!(all, "{}", format!("{name} {kind} {labels}").trim_end()).unwrap();
    }
    all
}

#[tokio::test]
async fn the_list_of_metrics_is_this_one() {
    // With everything switched on that has metrics of its own.
    let authority = Authority::new("authority");
    let files = Files::new(&authority.pair(), &authority.pem);
    let digits = "0".repeat(64);
    files.put("access.toml", &format!("[[token]]\nname = 'ci'\nsha256 = '{digits}'\n"));
    let access = files.path("access.toml");
    let settings = [
        ("metrics_compat", "triton"),
        ("response_cache_bytes", "1000000"),
        ("access_file", access.as_str()),
    ];
    let server = files.server(&settings).await;
    let (content, text) = scrape(server.admin, OPEN_METRICS).await;
    assert!(content.starts_with("application/openmetrics-text; version=1.0.0"), "{content}");
    let found = families(&text);
    assert_eq!(found, include_str!("metrics.txt"), "tests/it/metrics.txt is the list:\n{found}");
    server.finish().await;
}

#[tokio::test]
async fn a_scraper_gets_the_format_that_it_reads() {
    let server = TestServer::start(&[("metrics_compat", "triton")]).await;
    let (content, older) = scrape(server.admin, "text/plain").await;
    assert_eq!(content, "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE onnxd_requests_total counter",
        "# TYPE process_cpu_seconds_total counter",
        "# TYPE nv_inference_request_success counter",
        "# TYPE nv_inference_pending_request_count gauge",
        "# TYPE onnxd_queue_seconds histogram",
    ] {
        assert!(older.lines().any(|other| other == line), "{line}");
    }
    assert!(!older.contains("# EOF") && !older.contains("unknown"));
    let (_, newer) = scrape(server.admin, OPEN_METRICS).await;
    assert!(newer.ends_with("# EOF\n"));
    let names = |text: &str| {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&older), names(&newer));
    server.finish().await;
}

/// Samples without their values.
fn series(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// Has requests end in all ways that there are.
async fn provoke_every_end(server: &TestServer) {
    let (mut client, gate) = (server.client().await, server.loader.control("gate"));
    client.model_infer(request("echo", &[1.0])).await.unwrap();
    client.model_infer(request("absent-\"x\"\n", &[1.0])).await.unwrap_err();
    client.model_infer(request("poison", &[POISON])).await.unwrap_err();
    client.model_infer(request("panics", &[POISON])).await.unwrap_err();
    let mut wrong = request("echo", &[1.0]);
    wrong.inputs[0].name = "other".into();
    client.model_infer(wrong).await.unwrap_err();
    // One runs, one waits, one finds no room, one is too late, one leaves.
    let ask = |client: &crate::harness::Client| {
        let mut client = client.clone();
        tokio::spawn(async move { client.model_infer(request("gate", &[1.0])).await })
    };
    let running = ask(&client);
    gate.runs(1).await;
    let leaving = ask(&client);
    crate::harness::queued(server, "gate", 1).await;
    let full = client.model_infer(request("gate", &[1.0])).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    leaving.abort();
    crate::harness::queued(server, "gate", 0).await;
    let mut late = Request::new(request("gate", &[1.0]));
    late.set_timeout(Duration::from_millis(1));
    let late = server.patient_client().await.model_infer(late).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    gate.open();
    running.await.unwrap().unwrap();
    let mut other = tonic::client::Grpc::new(server.channel().await);
    other.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/inference.GRPCInferenceService/Nothing");
    let codec = tonic_prost::ProstCodec::<
        onnxd::pb::ServerLiveRequest,
        onnxd::pb::ServerLiveResponse,
    >::default();
    let unknown = other.unary(Request::new(onnxd::pb::ServerLiveRequest {}), path, codec).await;
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn every_series_is_there_before_anything_happens() {
    let settings = [("max_queue_jobs", "1"), ("metrics_compat", "triton")];
    let server = TestServer::start(&settings).await;
    let (_, before) = scrape(server.admin, "").await;
    for line in before.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let is_counter =
            ["_total", "_count", "_sum"].iter().any(|end| parts(series).0.ends_with(end));
        let is_fact = series.starts_with("process_") || series.contains("result=\"ok\"");
        assert!(!is_counter || is_fact || value.parse::<f64>().unwrap() == 0.0, "{line}");
    }

    provoke_every_end(&server).await;
    let counted = "rpc_server_call_duration_seconds_count";
    let method = "rpc_method=\"inference.GRPCInferenceService/ModelInfer\"";
    for (labels, least) in [
        (format!("{method},rpc_response_status_code=\"OK\""), 2),
        (format!("{method},rpc_response_status_code=\"NOT_FOUND\""), 1),
        (format!("{method},rpc_response_status_code=\"INVALID_ARGUMENT\""), 2),
        (format!("{method},rpc_response_status_code=\"INTERNAL\""), 1),
        (format!("{method},rpc_response_status_code=\"RESOURCE_EXHAUSTED\""), 1),
        (format!("{method},rpc_response_status_code=\"DEADLINE_EXCEEDED\""), 1),
        (format!("{method},rpc_response_status_code=\"CANCELLED\""), 1),
        ("rpc_method=\"_OTHER\",rpc_response_status_code=\"UNIMPLEMENTED\"".to_owned(), 1),
    ] {
        server.counted(&format!("{counted}{{{labels}}}"), |count| count >= least).await;
    }
    let active = format!("rpc_server_active_calls{{{method}}}");
    server.counted(&active, |count| count == 0).await;
    let reason = |reason: &str| {
        format!("nv_inference_request_failure{{model=\"gate\",version=\"1\",reason=\"{reason}\"}}")
    };
    server.counted(&reason("REJECTED"), |count| count == 2).await;
    server.counted(&reason("CANCELED"), |count| count == 1).await;

    let (_, after) = scrape(server.admin, "").await;
    let new: Vec<String> = series(&after).difference(&series(&before)).cloned().collect();
    assert!(new.is_empty(), "{new:#?}");
    assert!(!after.contains("absent"));
    server.finish().await;
}

#[tokio::test]
async fn sums_have_the_same_meaning_under_all_names() {
    let server = TestServer::start(&[("metrics_compat", "triton")]).await;
    let mut client = server.client().await;
    for rows in [1, 2, 3] {
        client.model_infer(request("echo", &vec![1.0; rows])).await.unwrap();
    }
    let echo = "{model=\"echo\",version=\"1\"}";
    for (name, wanted) in [
        ("nv_inference_request_success", 3),
        ("nv_inference_count", 6),
        ("nv_inference_exec_count", 3),
        ("nv_inference_pending_request_count", 0),
        ("onnxd_rows_total", 6),
        ("onnxd_instances", 1),
    ] {
        server.counted(&format!("{name}{echo}"), |value| value == wanted).await;
    }
    let statistics = server.statistics("echo").await.inference_stats.unwrap();
    let micros = statistics.success.unwrap().ns / 1000;
    server.counted(&format!("nv_inference_request_duration_us{echo}"), |sum| sum == micros).await;
    server.finish().await;
}

#[tokio::test]
async fn messages_are_counted_both_ways() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let messages = (0..5).map(|_| request("echo", &[1.0])).collect::<Vec<_>>();
    let stream = client.model_stream_infer(tokio_stream::iter(messages)).await.unwrap();
    let mut stream = stream.into_inner();
    while stream.message().await.unwrap().is_some() {}
    let labels = "{rpc_method=\"inference.GRPCInferenceService/ModelStreamInfer\"}";
    for name in ["rpc_server_received_messages_total", "rpc_server_sent_messages_total"] {
        server.counted(&format!("{name}{labels}"), |count| count == 5).await;
    }
    let size = u64::try_from(prost::Message::encoded_len(&request("echo", &[1.0]))).unwrap();
    let received = format!("rpc_server_received_bytes_total{labels}");
    server.counted(&received, |bytes| bytes == 5 * size).await;
    server.finish().await;
}

#[tokio::test]
async fn a_request_is_called_what_its_caller_calls_it() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let named = |model: &str, id: &str, header: Option<&str>| {
        let mut message = request(model, &[POISON]);
        message.id = id.into();
        let mut request = Request::new(message);
        if let Some(header) = header {
            request.metadata_mut().insert("x-request-id", header.parse().unwrap());
        }
        request
    };
    let told = |metadata: &tonic::metadata::MetadataMap| {
        metadata.get("x-request-id").map(|value| value.to_str().unwrap().to_owned())
    };
    for (id, header, wanted) in [
        ("", None, None),
        ("a-1", None, Some("a-1")),
        ("", Some("b-2"), Some("b-2")),
        ("a-1", Some("b-2"), Some("a-1")),
        ("line\nfeed", None, Some("line\\nfeed")),
    ] {
        let answer = client.model_infer(named("echo", id, header)).await.unwrap();
        assert_eq!(told(answer.metadata()).as_deref(), wanted);
        assert_eq!(answer.get_ref().id, id, "the message says what it said");
        let status = client.model_infer(named("absent", id, header)).await.unwrap_err();
        assert_eq!(told(status.metadata()).as_deref(), wanted);
        let details = status.get_error_details();
        let detail = details.error_info().unwrap().metadata.get("request_id").cloned();
        assert_eq!(detail.as_deref(), Some(id).filter(|id| !id.is_empty()).or(header));
    }
    let long = "x".repeat(1 << 20);
    let answer = client.model_infer(named("echo", &long, None)).await.unwrap();
    assert_eq!(told(answer.metadata()).unwrap().len(), 128);

    let ask = |path: &str, id: Option<&str>| {
        let mut body = rest::rows(&[1.0]);
        if let Some(id) = id {
            body["id"] = id.into();
        }
        let mut request = rest::post(path, body.to_string());
        request.headers_mut().insert("x-request-id", "c-3".parse().unwrap());
        rest::send(server.http, request)
    };
    for (id, wanted) in [(None, "c-3"), (Some("d-4"), "d-4")] {
        for path in ["/v2/models/echo/infer", "/v2/models/absent/infer"] {
            assert_eq!(ask(path, id).await.headers["x-request-id"], wanted, "{path}");
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn values_are_exemplified_by_recorded_traces_and_by_no_others() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let ids = ["4bf92f3577b34da6a3ce929d0e0e4736", "11112222333344445555666677778888"];
    for (id, flags) in ids.into_iter().zip(["01", "00"]) {
        let mut request = Request::new(request("echo", &[1.0]));
        let parent = format!("00-{id}-00f067aa0ba902b7-{flags}");
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        client.model_infer(request).await.unwrap();
    }
    let told = |text: &str| -> BTreeSet<String> {
        let recorded = format!(" # {{trace_id=\"{}\"}} ", ids[0]);
        let lines = text.lines().filter(|line| line.contains(&recorded));
        lines.map(|line| parts(line).0.to_owned()).collect()
    };
    let wanted: BTreeSet<String> = [
        "onnxd_execution_seconds_bucket",
        "onnxd_queue_seconds_bucket",
        "onnxd_request_seconds_bucket",
        "rpc_server_call_duration_seconds_bucket",
    ]
    .map(ToOwned::to_owned)
    .into();
    // The end of a call is counted when its answer is on its way.
    let all_told = async { while told(&scrape(server.admin, OPEN_METRICS).await.1) != wanted {} };
    tokio::time::timeout(Duration::from_secs(30), all_told).await.unwrap();
    let (_, newer) = scrape(server.admin, OPEN_METRICS).await;
    assert!(!newer.contains(ids[1]));
    assert!(!scrape(server.admin, "").await.1.contains(ids[0]), "the older format has none");
    server.finish().await;
}

/// Value of a series in a text.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn models_are_told_as_they_are_now() {
    let loader = ScriptedLoader::default();
    let server = TestServer::start_with(&[("instances", "2")], &["gate", "broken"], loader).await;
    server.loaded().await;
    let told = async || scrape(server.admin, "").await.1;
    let text = told().await;
    let one = |series: &str| (value(&text, series) - 1.0).abs() < f64::EPSILON;
    let gate = "model=\"gate\",version=\"1\"";
    for series in [
        &format!("onnxd_model_state{{{gate},state=\"ready\"}}"),
        "onnxd_model_state{model=\"broken\",version=\"1\",state=\"failed\"}",
        &format!(
            "onnxd_model_info{{{gate},provider=\"script\",runtime=\"script 1\",batching=\"fixed\"}}"
        ),
        "onnxd_model_loads_total{result=\"ok\"}",
        "onnxd_model_loads_total{result=\"failed\"}",
    ] {
        assert!(one(series), "{series}");
    }
    assert!(value(&text, &format!("onnxd_model_load_seconds{{{gate}}}")) > 0.0);
    assert!(value(&text, "process_cpu_seconds_total") > 0.0);
    assert!(value(&text, "onnxd_cpu_quota_cores") > 0.0);

    // One of two instances has a run, which is busy time while it lasts.
    let mut client = server.client().await;
    let asked = tokio::spawn(async move { client.model_infer(request("gate", &[1.0])).await });
    server.loader.control("gate").runs(1).await;
    let busy = async || {
        let text = told().await;
        let of = |instance| {
            value(&text, &format!("onnxd_busy_seconds_total{{{gate},instance=\"{instance}\"}}"))
        };
        [of(0), of(1)]
    };
    let (first, second) = (busy().await, busy().await);
    assert!(first.iter().filter(|busy| **busy > 0.0).count() == 1, "{first:?}");
    assert!(second[0] + second[1] > first[0] + first[1], "{first:?} {second:?}");
    server.loader.control("gate").open();
    asked.await.unwrap().unwrap();
    let wait = format!("onnxd_batch_wait_seconds_total{{{gate},reason=\"worker_free\"}}");
    let text = told().await;
    assert!(value(&text, &wait) > 0.0, "{text}");
    assert!(value(&text, &format!("onnxd_run_seconds_total{{{gate},phase=\"infer\"}}")) > 0.0);
    server.finish().await;
}
