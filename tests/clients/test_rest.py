"""NVIDIA's HTTP clients, plain and asyncio: every path, tensors as bytes and as text, encodings."""

import asyncio
import http.client
import json

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import harness
import reference
from test_tritonclient import ARRAYS, same

# What has a form in JSON on the way in.
TEXT = [name for name in ARRAYS if name not in ("identity_f16", "identity_bf16")]


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(
        server.http, concurrency=4, network_timeout=harness.PATIENCE
    ) as client:
        yield client


def given(name, array, binary=True):
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array, binary_data=binary)


def wanted(name, binary=True):
    return [triton.InferRequestedOutput(name, binary_data=binary)]


def refused(status, call, *arguments, **options):
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    assert caught.value.status() == str(status), caught.value
    return caught.value.message()


# --- descriptions --------------------------------------------------------------------------------


def test_live_ready_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("magika") and client.is_model_ready("magika", "1")
    assert not client.is_model_ready("magika", "2") and not client.is_model_ready("nosuch")
    metadata = client.get_server_metadata()
    assert metadata["name"] == "onnxd" and metadata["version"]
    assert {"statistics", "binary_tensor_data"} <= set(metadata["extensions"])


def test_models_describe_themselves(client):
    metadata = client.get_model_metadata("two_inputs")
    assert (metadata["name"], metadata["platform"]) == ("two_inputs", "onnxruntime_onnx")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": [-1, 4]}
    config = client.get_model_config("two_inputs", "1")
    assert (config["name"], config["backend"]) == ("two_inputs", "onnxruntime")
    assert (config["input"][0]["data_type"], config["input"][0]["dims"]) == ("TYPE_FP32", [4])
    index = client.get_model_repository_index()
    assert {"name": "magika", "version": "1", "state": "READY", "reason": ""} in index


def test_statistics_count_what_came_over_rest(client):
    def counts():
        (stats,) = client.get_inference_statistics("mlp_tiny", "1")["model_stats"]
        return np.array(
            [
                stats["inference_count"],
                stats["inference_stats"]["success"]["count"],
                stats["inference_stats"]["fail"]["count"],
            ]
        )

    before = counts()
    client.infer("mlp_tiny", [given("x", np.zeros((3, 64), np.float32))])
    refused(400, client.infer, "mlp_tiny", [given("x", np.zeros((1, 63), np.float32))])
    harness.wait_until(lambda: (counts() - before).tolist() == [3, 1, 1], "both are counted")
    names = {each["name"] for each in client.get_inference_statistics()["model_stats"]}
    assert {"magika", "mlp_tiny"} <= names


def test_what_is_not_served_says_why(client):
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status() == []
    x = np.zeros((1, 1), np.float32)
    for sentence, call, *arguments in [
        ("admin port", client.load_model, "magika"),
        ("admin port", client.unload_model, "magika"),
        ("Unix socket", client.register_system_shared_memory, "r", "/r", 4),
        ("Unix socket", client.unregister_system_shared_memory),
        ("Unix socket", client.register_cuda_shared_memory, "r", b"handle", 0, 4),
        ("Unix socket", client.unregister_cuda_shared_memory, "r"),
        ("operator", client.get_trace_settings),
        ("operator", client.update_trace_settings, "magika", {}),
        ("operator", client.get_log_settings),
        ("operator", client.update_log_settings, {}),
    ]:
        assert sentence in refused(501, call, *arguments), call
    region = triton.InferInput("x", x.shape, "FP32")
    region.set_shared_memory("r", 4)
    assert "shared_memory_region" in refused(400, client.infer, "identity_f32", [region])


# --- tensors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ARRAYS)
def test_every_type_comes_back_as_bytes(client, model):
    array = np.repeat(ARRAYS[model], 3, axis=0)
    answer = client.infer(model, [given("x", array)], request_id="the-17th")
    assert same(answer.as_numpy("y"), array)
    assert answer.get_output("y")["parameters"] == {"binary_data_size": array.nbytes}
    response = answer.get_response()
    assert (response["id"], response["model_name"]) == ("the-17th", model)


@pytest.mark.parametrize("model", ARRAYS)
def test_every_type_comes_back_as_text(client, model):
    array = ARRAYS[model]
    answer = client.infer(model, [given("x", array)], outputs=wanted("y", binary=False))
    assert "parameters" not in answer.get_output("y")
    assert np.array_equal(answer.as_numpy("y"), array, equal_nan=array.dtype.kind in "fV")


@pytest.mark.parametrize("model", TEXT)
@pytest.mark.parametrize("binary", [True, False])
def test_every_type_goes_as_text(client, model, binary):
    array = np.repeat(ARRAYS[model], 3, axis=0)
    answer = client.infer(model, [given("x", array, False)], outputs=wanted("y", binary))
    got = answer.as_numpy("y")
    assert got.dtype == array.dtype
    assert np.array_equal(got, array, equal_nan=array.dtype.kind == "f")
    zeros = got == 0
    assert (np.signbit(got[zeros]) == np.signbit(array[zeros])).all()


def test_half_precision_goes_as_bytes_only(client):
    x = ARRAYS["identity_f16"]
    message = refused(400, client.infer, "identity_f16", [given("x", x, False)])
    assert "FP16 has no form in JSON" in message and "`x`" in message


def test_strings_come_back(client):
    texts = [b"", b"a", "äöü €".encode(), b"\n\t", b"long " * 5000, "\u0000inside\"".encode()]
    array = np.array([texts, texts[::-1]], np.object_)
    for goes in (True, False):
        for comes in (True, False):
            outputs = wanted("y", comes)
            answer = client.infer("identity_string", [given("x", array, goes)], outputs=outputs)
            got = answer.as_numpy("y").tolist()
            expected = array.tolist()
            if not comes:
                expected = [[text.decode() for text in row] for row in expected]
            assert got == expected, (goes, comes)
    one, two = np.array([[b"x"]], np.object_), np.array([[b"y"]], np.object_)
    # Text and bytes in one request.
    answer = client.infer("concat_strings", [given("a", one, False), given("b", two)])
    assert answer.as_numpy("y").tolist() == [[b"xy"]]


def test_octets_that_are_no_text_come_as_bytes_only(client):
    array = np.array([[b"text", b"\xff\xfe"]], np.object_)
    inputs = [given("x", array)]
    assert client.infer("identity_string", inputs).as_numpy("y").tolist() == array.tolist()
    outputs = wanted("y", False)
    message = refused(400, client.infer, "identity_string", inputs, outputs=outputs)
    assert "element 1 is not UTF-8" in message


def test_scalars_and_empty_dimensions(client):
    value = np.array(2.5, np.float32)
    empty = np.zeros((2, 0), np.float32)
    for binary in (True, False):
        outputs = wanted("y", binary)
        answer = client.infer("scalar_f32", [given("x", value, binary)], outputs=outputs)
        assert answer.as_numpy("y").shape == () and answer.as_numpy("y").item() == 2.5
        answer = client.infer("identity_f32", [given("x", empty, binary)], outputs=outputs)
        assert answer.as_numpy("y").shape == (2, 0)


def test_requested_outputs_and_their_order(client):
    a, b = np.ones((1, 4), np.float32), np.full((1, 4), 2, np.float32)
    inputs = [given("b", b), given("a", a, False)]
    outputs = wanted("diff", False) + wanted("sum", True)
    answer = client.infer("two_inputs", inputs, outputs=outputs)
    assert [each["name"] for each in answer.get_response()["outputs"]] == ["diff", "sum"]
    assert (answer.as_numpy("sum") == 3).all() and (answer.as_numpy("diff") == -1).all()
    assert "data" in answer.get_output("diff") and "data" not in answer.get_output("sum")
    outputs = wanted("sum") + wanted("sum")
    assert "sum" in refused(400, client.infer, "two_inputs", inputs, outputs=outputs)


def test_the_largest_values_have_labels(client):
    row = reference.features(harness.MODELS / "README.md")[None]
    alone = reference.session("magika").run(None, {"bytes": row})[0][0]
    expected = f"{alone.max():.6f}:{alone.argmax()}:markdown"
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("target_label", binary, class_count=1)]
        answer = client.infer("magika", [given("bytes", row)], outputs=outputs)
        best = answer.as_numpy("target_label").item()
        assert (best.decode() if binary else best) == expected


def test_versions(client):
    x = np.array([[3]], np.float32)
    for version, value, answered in [("1", 3, "1"), ("2", 6, "2"), ("", 6, "2")]:
        answer = client.infer("two_versions", [given("x", x)], model_version=version)
        assert answer.as_numpy("y").item() == value
        assert answer.get_response()["model_version"] == answered


def test_a_real_model_answers_as_over_grpc(client, server):
    import tritonclient.grpc as triton_grpc

    row = np.full((2, 2048), 256, np.int32)
    row[0, :4] = list(b"%PDF")
    over_rest = client.infer("magika", [given("bytes", row)]).as_numpy("target_label")
    tensor = triton_grpc.InferInput("bytes", row.shape, "INT32").set_data_from_numpy(row)
    with triton_grpc.InferenceServerClient(server.grpc) as other:
        assert same(over_rest, other.infer("magika", [tensor]).as_numpy("target_label"))
    # Shortest text of a number is that number.
    inputs, outputs = [given("bytes", row, False)], wanted("target_label", False)
    assert same(client.infer("magika", inputs, outputs=outputs).as_numpy("target_label"), over_rest)


# --- control -------------------------------------------------------------------------------------


def test_models_are_loaded_and_unloaded_on_the_admin_port(tmp_path):
    harness.copy_models(tmp_path, "identity_f32")
    server = harness.Server(tmp_path, "--model-control", "explicit")
    with triton.InferenceServerClient(server.admin) as operator:
        operator.load_model("identity_f32")
        with triton.InferenceServerClient(server.http) as client:
            assert client.is_model_ready("identity_f32")
            refused(501, client.unload_model, "identity_f32")
            assert "by name only" in refused(400, operator.load_model, "identity_f32", config="{}")
            assert "not in the repository" in refused(404, operator.load_model, "nosuch")
            operator.unload_model("identity_f32")
            assert not client.is_model_ready("identity_f32")
    server.stop()


# --- refusals ------------------------------------------------------------------------------------


def test_mistakes_are_told_with_the_status_that_clients_act_on(client):
    x = np.ones((1, 2), np.float32)
    infer = client.infer
    assert "`nosuch`" in refused(404, infer, "nosuch", [given("x", x)])
    assert "version 9" in refused(404, infer, "identity_f32", [given("x", x)], model_version="9")
    assert "`z`" in refused(400, infer, "identity_f32", [given("z", x)])
    assert "INT32" in refused(400, infer, "identity_f32", [given("x", x.astype(np.int32))])
    assert "expected a bool" in refused(
        400, infer, "identity_f32", [given("x", x)], sequence_id=1, sequence_start=3
    )
    assert "timeout" in refused(400, infer, "identity_f32", [given("x", x)], timeout="soon")
    assert same(infer("identity_f32", [given("x", x)]).as_numpy("y"), x)


def test_the_timeout_parameter_ends_a_run(client, server):
    x = np.ones((1, 1), np.float32)
    inputs = [given("x", x), given("iterations", np.array(10**9, np.int64))]
    message = refused(504, client.infer, "loop_busy", inputs, timeout=200_000)
    assert message.startswith("deadline passed")
    running = lambda: server.metric("onnxd_running", model="loop_busy")
    harness.wait_until(lambda: running() == 0, "the run has ended")


def test_a_caller_that_hangs_up_stops_its_run(server):
    tensors = [
        {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]},
        {"name": "iterations", "shape": [], "datatype": "INT64", "data": [10**9]},
    ]
    connection = http.client.HTTPConnection(server.http, timeout=harness.PATIENCE)
    connection.request("POST", "/v2/models/loop_busy/infer", json.dumps({"inputs": tensors}))
    running = lambda: server.metric("onnxd_running", model="loop_busy")
    harness.wait_until(lambda: running() == 1, "the run has begun")
    connection.close()
    harness.wait_until(lambda: running() == 0, "the run has ended")


def test_parameters_of_every_type_are_taken(client):
    x = np.ones((1, 2), np.float32)
    extra = {"flag": True, "count": 2**40, "text": "é", "ratio": 0.5}
    answer = client.infer("identity_f32", [given("x", x)], priority=1, parameters=extra)
    assert same(answer.as_numpy("y"), x)


# --- many at a time ------------------------------------------------------------------------------


def test_async_calls_of_the_plain_client(client):
    arrays = [np.full((1, 3), value, np.float32) for value in range(100)]
    calls = [client.async_infer("identity_f32", [given("x", each)]) for each in arrays]
    for call, array in zip(calls, arrays):
        assert same(call.get_result(timeout=harness.PATIENCE).as_numpy("y"), array)


def test_asyncio(server):
    async def everything():
        # This client offers encodings in its library's name and reads only predictions in them.
        async with triton_aio.InferenceServerClient(server.http) as client:
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready("magika")
            assert not await client.is_model_ready("nosuch")
            assert (await client.get_server_metadata())["name"] == "onnxd"
            assert (await client.get_model_metadata("mlp_tiny"))["name"] == "mlp_tiny"
            assert (await client.get_model_config("mlp_tiny"))["name"] == "mlp_tiny"
            assert len(await client.get_model_repository_index()) > 20
            assert len((await client.get_inference_statistics())["model_stats"]) > 20
            assert await client.get_system_shared_memory_status() == []
            with pytest.raises(InferenceServerException) as caught:
                await client.get_log_settings()
            assert caught.value.status() == "501"

            async def one(value):
                x = np.full((1, 300), value, np.float32)
                inputs = [given("x", x, binary=value % 2 == 0)]
                encodings = (None, "gzip", "deflate")
                answer = await client.infer(
                    "identity_f32",
                    inputs,
                    outputs=wanted("y", value % 3 == 0),
                    request_id=str(value),
                    request_compression_algorithm=encodings[value % 3],
                    response_compression_algorithm=encodings[value // 3 % 3],
                )
                assert same(answer.as_numpy("y"), x)
                assert answer.get_response()["id"] == str(value)

            await asyncio.gather(*(one(value) for value in range(100)))
            with pytest.raises(InferenceServerException) as caught:
                await client.infer("nosuch" * 40, [given("x", np.ones((1, 1), np.float32))])
            assert caught.value.status() == "404"

    asyncio.run(asyncio.wait_for(everything(), harness.PATIENCE))
