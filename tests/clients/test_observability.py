"""What the server says about itself, read by those who read it elsewhere: Prometheus and its promtool,
the reference parser of OpenMetrics, a collector of traces, a reader of JSON lines."""

import json
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from concurrent import futures

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client.openmetrics import parser

import harness

PROMETHEUS = harness.TOOLS / "prometheus" / "usr" / "bin"
MODEL = "identity_f32"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


def tensor(rows=1):
    tensor = triton.InferInput("x", [rows, 2], "FP32")
    return tensor.set_data_from_numpy(np.ones((rows, 2), np.float32))


def traceparent(trace=TRACE, span=PARENT, flags="01"):
    return {"traceparent": f"00-{trace}-{span}-{flags}"}


def scrape(server, accept):
    request = urllib.request.Request(f"http://{server.admin}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=harness.PATIENCE) as answer:
        return answer.read().decode()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that come."""

    def __init__(self):
        self.spans, self.resources = [], []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{port}"
        self._server.start()

    def Export(self, request, context):
        for resource in request.resource_spans:
            self.resources.append({each.key: each.value for each in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name):
        return [span for span in list(self.spans) if span.name == name]

    def stop(self):
        self._server.stop(None).wait()


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture
def repository(tmp_path):
    harness.copy_models(tmp_path, MODEL)
    return tmp_path


def attributes(span):
    values = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        values[each.key] = getattr(each.value, kind)
    return values


INFER = "inference.GRPCInferenceService/ModelInfer"


def test_a_call_is_a_span_below_its_caller_s_and_a_run_is_linked_to_its_riders(
    repository, collector
):
    server = harness.Server(repository, "--otlp-endpoint", collector.endpoint)
    try:
        with triton.InferenceServerClient(server.grpc) as client:
            client.infer(MODEL, [tensor(3)], request_id="order-7", headers=traceparent())
            # Of a caller who does not record, nothing is recorded.
            other = traceparent(trace="1" * 32, flags="00")
            client.infer(MODEL, [tensor()], headers=other)
            # A call without a trace begins one, a probe does not.
            assert client.is_server_live()
            with pytest.raises(triton.InferenceServerException):
                client.infer("absent", [tensor()])
        with triton_http.InferenceServerClient(server.http) as client:
            rest = triton_http.InferInput("x", [1, 2], "FP32")
            rest.set_data_from_numpy(np.ones((1, 2), np.float32))
            client.infer(MODEL, [rest], headers=traceparent(trace="2" * 32))
    finally:
        # What waits is sent before the end.
        server.stop()
    assert collector.resources[0]["service.name"].string_value == "onnxd"

    calls = collector.named(INFER)
    assert len(calls) == 2
    (call,) = [span for span in calls if span.trace_id.hex() == TRACE]
    (absent,) = [span for span in calls if span.trace_id.hex() != TRACE]
    assert call.parent_span_id.hex() == PARENT and call.kind == call.SPAN_KIND_SERVER
    told = attributes(call)
    assert told["rpc.system.name"] == "grpc" and told["rpc.method"] == INFER
    assert told["rpc.response.status_code"] == "OK"
    assert told["onnxd.model.name"] == MODEL and told["onnxd.model.version"] == 1
    assert told["onnxd.request.id"] == "order-7" and told["onnxd.run.rows"] == 3
    assert absent.parent_span_id == b"" and absent.trace_id.hex() != "1" * 32
    assert attributes(absent)["rpc.response.status_code"] == "NOT_FOUND"

    (rest,) = collector.named("POST /v2/models/{model}/infer")
    assert rest.trace_id.hex() == "2" * 32 and attributes(rest)["http.response.status_code"] == 200

    runs = collector.named("run")
    assert len(runs) == 2
    linked = {link.span_id: link.trace_id for run in runs for link in run.links}
    assert linked == {span.span_id: span.trace_id for span in (call, rest)}
    for run in runs:
        assert run.parent_span_id == b"" and run.trace_id not in linked.values()
    (first,) = [run for run in runs if run.links[0].span_id == call.span_id]
    told = attributes(first)
    assert told["onnxd.run.rows"] == 3 and told["onnxd.run.requests"] == 1
    assert call.start_time_unix_nano <= first.start_time_unix_nano + 1_000_000
    assert first.end_time_unix_nano <= call.end_time_unix_nano + 1_000_000
    assert len(collector.spans) == 5, [span.name for span in collector.spans]


def test_a_share_of_calls_begins_a_trace(repository, collector):
    flags = ["--otlp-endpoint", collector.endpoint, "--trace-sample-ratio", "0.5"]
    server = harness.Server(repository, *flags)
    try:
        with triton.InferenceServerClient(server.grpc) as client:
            for _ in range(200):
                client.infer(MODEL, [tensor()])
    finally:
        server.stop()
    # 200 throws of a coin, and 7 times their deviation.
    assert 50 < len(collector.named(INFER)) < 150
    assert len(collector.named("run")) == len(collector.named(INFER))


def test_a_collector_that_is_away_holds_nobody_up(repository):
    server = harness.Server(repository, "--otlp-endpoint", f"http://127.0.0.1:{free_port()}")
    with triton.InferenceServerClient(server.grpc) as client:
        for _ in range(50):
            client.infer(MODEL, [tensor()])
    server.stop()


def test_both_formats_are_as_their_readers_want_them(repository):
    server = harness.Server(repository, "--metrics-compat", "triton")
    try:
        with triton.InferenceServerClient(server.grpc) as client:
            client.infer(MODEL, [tensor()], headers=traceparent())

        def newer():
            text = scrape(server, OPEN_METRICS)
            return text if text.count(f'# {{trace_id="{TRACE}"}}') == 4 else None

        text = harness.wait_until(newer, "exemplars")
        families = {family.name: family for family in parser.text_string_to_metric_families(text)}
        assert families["onnxd_requests"].type == "counter"
        (exemplar,) = [
            sample.exemplar for sample in families["onnxd_request_seconds"].samples if sample.exemplar
        ]
        assert exemplar.labels == {"trace_id": TRACE} and 0 < exemplar.value < 60

        older = scrape(server, "text/plain")
        checked = subprocess.run(
            [PROMETHEUS / "promtool", "check", "metrics"], input=older, capture_output=True, text=True
        )
        # What promtool has against Triton's names is Triton's.
        ours = [line for line in checked.stderr.splitlines() if not line.startswith("nv_")]
        assert ours == [] and checked.stdout == "", checked
    finally:
        server.stop()


def test_prometheus_scrapes_it_with_exemplars(repository, tmp_path):
    server = harness.Server(repository)
    settings = tmp_path / "prometheus.yml"
    settings.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: onnxd, static_configs: [{{targets: ['{server.admin}']}}]}}]\n"
    )
    port = free_port()
    command = [
        PROMETHEUS / "prometheus",
        f"--config.file={settings}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    prometheus = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log = []
    reader = threading.Thread(target=lambda: log.extend(prometheus.stderr))
    reader.start()

    def ask(path, **question):
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(question)}"
        try:
            with urllib.request.urlopen(url, timeout=harness.PATIENCE) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    try:
        with triton.InferenceServerClient(server.grpc) as client:
            client.infer(MODEL, [tensor()], headers=traceparent())

        def exemplars():
            question = {"query": "onnxd_request_seconds_bucket", "start": 0, "end": 2**33}
            return ask("query_exemplars", **question)

        found = harness.wait_until(exemplars, f"exemplars in Prometheus: {log}")
        assert found[0]["exemplars"][0]["labels"] == {"trace_id": TRACE}
        assert found[0]["seriesLabels"]["model"] == MODEL
        (target,) = ask("targets")["activeTargets"]
        assert target["health"] == "up" and target["lastError"] == "", target
        (sum_,) = ask("query", query="sum(onnxd_requests_total)")["result"]
        assert sum_["value"][1] == "1"
    finally:
        prometheus.terminate()
        prometheus.wait(timeout=harness.PATIENCE)
        reader.join(timeout=harness.PATIENCE)
        server.stop()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_log_lines_are_objects_and_say_whom_they_are_about(tmp_path):
    harness.copy_models(tmp_path, MODEL)
    secret = "4711.125"
    server = harness.Server(tmp_path, log="debug", log_format="json")
    try:
        with triton.InferenceServerClient(server.grpc) as client:
            for request_id in ("order-7", "line\nfeed\x1b[31m", "x" * 100_000):
                wrong = triton.InferInput("y", [1, 2], "FP32")
                wrong.set_data_from_numpy(np.full((1, 2), float(secret), np.float32))
                with pytest.raises(triton.InferenceServerException):
                    client.infer(MODEL, [wrong], request_id=request_id, headers=traceparent())
    finally:
        server.stop()
    lines = [json.loads(line) for line in server.log if line is not None]
    assert lines and secret not in str(lines)
    for line in lines:
        assert list(line)[:4] == ["ts", "level", "target", "msg"], line
        assert line["ts"].endswith("Z") and line["level"] in ("ERROR", "WARN", "INFO", "DEBUG")
    (serving,) = [line for line in lines if line["msg"] == "serving"]
    assert serving["model"] == MODEL and serving["version"] == 1
    refused = [line for line in lines if line["msg"] == "request refused"]
    assert [line["request_id"] for line in refused][:2] == ["order-7", "line\nfeed\x1b[31m"]
    assert len(refused[2]["request_id"]) < 128
    for line in refused:
        assert line["trace_id"] == TRACE and line["span_id"] == PARENT
        assert line["model"] == MODEL and line["version"] == 1 and "y" in line["error"]
