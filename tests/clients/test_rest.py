"""The REST form of the protocol, with NVIDIA's HTTP client and with nothing but an HTTP library."""

import asyncio
import gzip
import http.client
import json
import math
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import harness
import reference
from test_tritonclient import ARRAYS


@pytest.fixture
def rest(server):
    client = triton.InferenceServerClient(server.http)
    yield client
    client.close()


def given(name, array, **how):
    datatype = np_to_triton_dtype(array.dtype)
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array, **how)


def call(server, method, path, body=None, **headers):
    """Status, headers and parsed body."""
    connection = http.client.HTTPConnection(server.http, timeout=harness.PATIENCE)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, answer.headers, json.loads(text) if text else None


def post(server, path, **fields):
    return call(server, "POST", path, json.dumps(fields))


# --- descriptions --------------------------------------------------------------------------------


def test_every_description(rest, server):
    assert rest.is_server_live() and rest.is_server_ready()
    assert rest.is_model_ready("magika") and rest.is_model_ready("magika", "1")
    assert not rest.is_model_ready("magika", "2") and not rest.is_model_ready("nosuch")
    metadata = rest.get_server_metadata()
    assert metadata["name"] == "onnxd" and metadata["version"]
    assert {"binary_tensor_data", "statistics"} <= set(metadata["extensions"])
    metadata = rest.get_model_metadata("magika", "1")
    assert metadata["versions"] == ["1"] and metadata["platform"] == "onnxruntime_onnx"
    assert metadata["inputs"] == [{"name": "bytes", "datatype": "INT32", "shape": [-1, 2048]}]
    config = rest.get_model_config("magika")
    assert config["name"] == "magika" and config["backend"] == "onnxruntime"
    assert config["input"][0]["data_type"] == "TYPE_INT32" and config["input"][0]["dims"] == [2048]
    index = {each["name"]: each for each in rest.get_model_repository_index()}
    assert index["magika"]["state"] == "READY"
    assert rest.get_system_shared_memory_status() == []
    assert rest.get_cuda_shared_memory_status() == []


def test_statistics_count(rest):
    array = np.array([[1.0]], np.float32)
    rest.infer("identity_f32", [given("x", array)])
    before = rest.get_inference_statistics("identity_f32", "1")["model_stats"][0]
    rest.infer("identity_f32", [given("x", array)])
    after = rest.get_inference_statistics("identity_f32", "1")["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 1
    counted = after["inference_stats"]["success"]["count"]
    assert counted == before["inference_stats"]["success"]["count"] + 1
    names = [each["name"] for each in rest.get_inference_statistics()["model_stats"]]
    assert "magika" in names and "silero-vad" in names


def test_what_is_not_served_says_why(rest, server):
    for ask in (
        lambda: rest.load_model("magika"),
        lambda: rest.unload_model("magika"),
        lambda: rest.register_system_shared_memory("r", "/r", 8),
        lambda: rest.update_trace_settings("magika"),
        lambda: rest.update_log_settings({}),
    ):
        with pytest.raises(InferenceServerException) as refused:
            ask()
        assert refused.value.status() == "501", refused.value
        assert len(refused.value.message()) > 20
    assert call(server, "GET", "/v2/nonsense")[0] == 404
    assert call(server, "GET", "/v2/models/magika/infer")[0] == 405


# --- predictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [name for name in ARRAYS if name != "identity_bf16"])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_every_datatype_in_every_form(rest, model, binary_in, binary_out):
    array = ARRAYS[model]
    if array.dtype == np.float16 and not binary_in:
        pytest.skip("half precision has no JSON form in the protocol")
    outputs = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    answer = rest.infer(model, [given("x", array, binary_data=binary_in)], outputs=outputs)
    result = answer.as_numpy("y")
    if array.dtype == np.float16 and not binary_out:
        result = np.array(answer.get_output("y")["data"], np.float16).reshape(array.shape)
    assert result.dtype == array.dtype and result.shape == array.shape
    assert np.array_equal(result, array, equal_nan=array.dtype.kind == "f")


def test_texts(rest):
    texts = np.array([["a", "", "ä\u0000\n\""]], object)
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
        tensor = given("x", texts, binary_data=binary)
        answer = rest.infer("identity_string", [tensor], outputs=outputs).as_numpy("y")
        seen = [each.decode() if isinstance(each, bytes) else each for each in answer[0]]
        assert seen == list(texts[0])
    octets = np.array([[b"\xff"]], object)
    with pytest.raises(InferenceServerException, match="not UTF-8 text"):
        outputs = [triton.InferRequestedOutput("y", binary_data=False)]
        rest.infer("identity_string", [given("x", octets)], outputs=outputs)


def test_what_is_no_number_is_written_as_python_reads_it(server):
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[NaN,Infinity,-Infinity]}]}'
    status, _, answer = call(server, "POST", "/v2/models/identity_f32/infer", body)
    assert status == 200
    nan, plus, minus = answer["outputs"][0]["data"]
    assert math.isnan(nan) and (plus, minus) == (math.inf, -math.inf)


def test_id_version_and_parameters(rest):
    array = np.array([[1.0]], np.float32)
    answer = rest.infer(
        "identity_f32", [given("x", array)], model_version="1", request_id="seven", timeout=10**7
    ).get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (
        "identity_f32",
        "1",
        "seven",
    )


def test_the_same_answers_as_over_grpc_and_with_labels(rest):
    row = reference.features(harness.MODELS / "README.md")[None]
    outputs = [triton.InferRequestedOutput("target_label", class_count=1)]
    answer = rest.infer("magika", [given("bytes", row)], outputs=outputs)
    best = answer.as_numpy("target_label")[0][0].decode()
    alone = reference.session("magika").run(None, {"bytes": row})[0][0]
    assert best == f"{alone.max():.6f}:{alone.argmax()}:markdown"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(rest, server, algorithm):
    array = np.zeros((1, 5000), np.float32)
    answer = rest.infer(
        "identity_f32",
        [given("x", array)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.array_equal(answer.as_numpy("y"), array)
    body = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    ).encode()
    packed = gzip.compress(body) if algorithm == "gzip" else zlib.compress(body)
    path = "/v2/models/identity_f32/infer"
    status, _, answer = call(server, "POST", path, packed, **{"Content-Encoding": algorithm})
    assert (status, answer["outputs"][0]["data"]) == (200, [1.0, 2.0])


def test_asyncio(server):
    async def ask():
        client = triton_aio.InferenceServerClient(server.http)
        array = np.array([[1.0, 2.0]], np.float32)
        many = [client.infer("identity_f32", [given("x", array * n)]) for n in range(16)]
        answers = await asyncio.gather(*many)
        await client.close()
        return [answer.as_numpy("y")[0, 1] for answer in answers]

    assert asyncio.run(ask()) == [2.0 * n for n in range(16)]


# --- errors --------------------------------------------------------------------------------------


def test_errors_have_the_texts_of_grpc(server):
    one = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    table = [
        ("nosuch", [one], 404, "model `nosuch` is not in the repository"),
        ("identity_f32/versions/9", [one], 404, "no version 9"),
        ("identity_f32/versions/one", [one], 400, "not a model version"),
        ("identity_f32", [], 400, "input `x` is missing"),
        ("identity_f32", [one, one], 400, "twice"),
        ("identity_f32", [one | {"data": [1]}], 400, "has 2 elements, data has 1"),
        ("identity_f32", [one | {"datatype": "INT32"}], 400, "FP32"),
        ("identity_f32", [one | {"data": ["1", 2]}], 400, "element 0: expected a number"),
    ]
    for model, inputs, status, text in table:
        got, _, answer = post(server, f"/v2/models/{model}/infer", inputs=inputs)
        assert got == status and text in answer["error"], (model, got, answer)
    status, _, answer = call(server, "POST", "/v2/models/identity_f32/infer", b"{")
    assert status == 400 and "JSON" in answer["error"]
    late = {"parameters": {"timeout": 1}, "inputs": [one]}
    status, _, answer = post(server, "/v2/models/loop_busy/infer", **late)
    assert status in (400, 504)


def test_a_deadline_that_passes(server):
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]},
        {"name": "iterations", "datatype": "INT64", "shape": [], "data": [10**9]},
    ]
    status, _, answer = post(
        server, "/v2/models/loop_busy/infer", inputs=inputs, parameters={"timeout": 50_000}
    )
    assert status == 504 and "deadline" in answer["error"]


def test_a_large_body_is_refused_before_it_is_read(tmp_path):
    harness.copy_models(tmp_path, "identity_f32")
    server = harness.Server(tmp_path, "--max-message-bytes", "10000")
    path = "/v2/models/identity_f32/infer"
    for body, encoding in ((b" " * 20_000, {}), (gzip.compress(b" " * 10**7), "gzip")):
        headers = {"Content-Encoding": encoding} if encoding else {}
        status, _, answer = call(server, "POST", path, body, **headers)
        assert status == 413 and "10000 bytes" in answer["error"]
    server.stop()


def test_load_and_unload_on_the_admin_port(tmp_path):
    harness.copy_models(tmp_path, "identity_f32")
    server = harness.Server(tmp_path, "--model-control", "explicit")
    operator = triton.InferenceServerClient(server.admin)
    operator.load_model("identity_f32")
    client = triton.InferenceServerClient(server.http)
    assert client.is_model_ready("identity_f32")
    with pytest.raises(InferenceServerException, match="by name only"):
        operator.load_model("identity_f32", config="{}")
    with pytest.raises(InferenceServerException, match="not in the repository"):
        operator.load_model("nosuch")
    operator.unload_model("identity_f32")
    assert not client.is_model_ready("identity_f32")
    operator.close()
    client.close()
    server.stop()
