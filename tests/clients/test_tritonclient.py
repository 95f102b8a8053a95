"""NVIDIA's Python client: what the server says of itself, and every form of a tensor."""

import asyncio
import threading

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import harness
import messages

ARRAYS = {
    "identity_bool": np.array([[True, False, True], [False, False, True]]),
    "identity_u8": np.array([[0, 1, 255]], np.uint8),
    "identity_u16": np.array([[0, 1, 65535]], np.uint16),
    "identity_u32": np.array([[0, 1, 2**32 - 1]], np.uint32),
    "identity_u64": np.array([[0, 1, 2**64 - 1]], np.uint64),
    "identity_i8": np.array([[-128, 0, 127]], np.int8),
    "identity_i16": np.array([[-(2**15), 0, 2**15 - 1]], np.int16),
    "identity_i32": np.array([[-(2**31), 0, 2**31 - 1]], np.int32),
    "identity_i64": np.array([[-(2**63), 0, 2**63 - 1]], np.int64),
    "identity_f16": np.array([[0.1, -65504, np.inf, np.nan]], np.float16),
    "identity_bf16": np.array([[0.1, -3e38, np.inf, np.nan]], ml_dtypes.bfloat16),
    "identity_f32": np.array([[0.1, -3.4e38, 1e-45, np.inf, np.nan, -0.0]], np.float32),
    "identity_f64": np.array([[0.1, -1.7e308, 5e-324, np.inf, np.nan, -0.0]], np.float64),
}


def given(name, array):
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array)


def same(one, two):
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


# --- descriptions --------------------------------------------------------------------------------


def test_live_ready_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("magika") and client.is_model_ready("magika", "1")
    assert not client.is_model_ready("magika", "2") and not client.is_model_ready("nosuch")
    server = client.get_server_metadata()
    assert server.name == "onnxd" and server.version
    assert "statistics" in server.extensions and "model_configuration" in server.extensions


def test_model_metadata(client):
    metadata = client.get_model_metadata("silero-vad")
    assert (metadata.name, metadata.platform) == ("silero-vad", "onnxruntime_onnx")
    assert list(metadata.versions) == ["1"]
    inputs = {each.name: (each.datatype, list(each.shape)) for each in metadata.inputs}
    assert inputs == {
        "input": ("FP32", [-1, -1]),
        "state": ("FP32", [2, -1, 128]),
        "sr": ("INT64", []),
    }
    assert [each.name for each in metadata.outputs] == ["output", "stateN"]


def test_model_config(client):
    config = client.get_model_config("two_inputs").config
    assert (config.name, config.backend) == ("two_inputs", "onnxruntime")
    assert config.max_batch_size == 64
    # Without the dimension of the rows, which max_batch_size stands for.
    assert [(each.name, list(each.dims)) for each in config.input] == [("a", [4]), ("b", [4])]
    assert [each.name for each in config.output] == ["sum", "diff"]
    assert config.instance_group[0].count == 1
    # Rows elsewhere than on axis 0: no tool may add a dimension of its own.
    assert client.get_model_config("axis1_state").config.max_batch_size == 0


def test_versions(client):
    assert sorted(client.get_model_metadata("two_versions").versions) == ["1", "2"]
    x = np.array([[3]], np.float32)
    for version, value, answered in [("1", 3, "1"), ("2", 6, "2"), ("", 6, "2")]:
        answer = client.infer("two_versions", [given("x", x)], model_version=version)
        assert answer.as_numpy("y").item() == value
        assert answer.get_response().model_version == answered


def test_statistics_count_rows_runs_and_requests(client):
    def counts():
        (stats,) = client.get_inference_statistics("mlp_tiny").model_stats
        kinds = stats.inference_stats
        return stats.inference_count, stats.execution_count, kinds.success.count, kinds.fail.count

    before = counts()
    rows = np.zeros((3, 64), np.float32)
    for _ in range(2):
        client.infer("mlp_tiny", [given("x", rows)])
    with pytest.raises(InferenceServerException):
        client.infer("mlp_tiny", [given("x", np.zeros((1, 63), np.float32))])
    harness.wait_until(lambda: counts()[2] - before[2] == 2, "both requests counted")
    after = counts()
    assert after[:3] == (before[0] + 6, before[1] + 2, before[2] + 2)
    stats = client.get_inference_statistics("mlp_tiny").model_stats[0]
    assert stats.last_inference > 0
    assert stats.inference_stats.compute_infer.ns > 0
    assert 3 in [each.batch_size for each in stats.batch_stats]
    everything = client.get_inference_statistics().model_stats
    assert {"magika", "mlp_tiny", "two_versions"} <= {each.name for each in everything}


# --- tensors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ARRAYS)
def test_every_type_comes_back(client, model):
    array = ARRAYS[model]
    answer = client.infer(model, [given("x", array)])
    assert same(answer.as_numpy("y"), array)
    several = np.repeat(array, 5, axis=0)
    assert same(client.infer(model, [given("x", several)]).as_numpy("y"), several)


def test_strings_come_back(client):
    texts = [b"", b"a", "äöü €".encode(), b"\n\t", b"long " * 5000, "\u0000inside".encode()]
    array = np.array([texts, texts[::-1]], np.object_)
    answer = client.infer("identity_string", [given("x", array)])
    assert answer.as_numpy("y").tolist() == array.tolist()
    one = np.array([["x".encode()]], np.object_)
    two = np.array([["y".encode()]], np.object_)
    answer = client.infer("concat_strings", [given("a", one), given("b", two)])
    assert answer.as_numpy("y").tolist() == [[b"xy"]]


def test_scalar(client):
    value = np.array(2.5, np.float32)
    answer = client.infer("scalar_f32", [given("x", value)]).as_numpy("y")
    assert answer.shape == () and answer.item() == 2.5


def test_empty_dimension(client):
    empty = np.zeros((2, 0), np.float32)
    answer = client.infer("identity_f32", [given("x", empty)]).as_numpy("y")
    assert answer.shape == (2, 0)
    empty = np.zeros((3, 0), np.object_)
    answer = client.infer("identity_string", [given("x", empty)]).as_numpy("y")
    assert answer.shape == (3, 0)


def test_requested_outputs_and_their_order(client):
    a, b = np.ones((1, 4), np.float32), np.full((1, 4), 2, np.float32)
    inputs = [given("b", b), given("a", a)]

    def names(*wanted):
        outputs = [triton.InferRequestedOutput(name) for name in wanted] or None
        answer = client.infer("two_inputs", inputs, outputs=outputs)
        assert "sum" not in wanted or (answer.as_numpy("sum") == 3).all()
        assert "diff" not in wanted or (answer.as_numpy("diff") == -1).all()
        return [each.name for each in answer.get_response().outputs]

    assert names() == ["sum", "diff"]
    assert names("diff") == ["diff"]
    assert names("diff", "sum") == ["diff", "sum"]


def test_request_id_and_names_come_back(client):
    x = np.ones((1, 2), np.float32)
    answer = client.infer("identity_f32", [given("x", x)], request_id="the-17th").get_response()
    assert (answer.id, answer.model_name, answer.model_version) == ("the-17th", "identity_f32", "1")


def test_compressed_requests_are_refused(client):
    x = np.ones((4, 100), np.float32)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("identity_f32", [given("x", x)], compression_algorithm="gzip")
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert same(client.infer("identity_f32", [given("x", x)]).as_numpy("y"), x)


TYPED = {
    "identity_bool": ("BOOL", [True, False]),
    "identity_u8": ("UINT8", [0, 255]),
    "identity_u16": ("UINT16", [0, 65535]),
    "identity_u32": ("UINT32", [0, 2**32 - 1]),
    "identity_u64": ("UINT64", [0, 2**64 - 1]),
    "identity_i8": ("INT8", [-128, 127]),
    "identity_i16": ("INT16", [-(2**15), 2**15 - 1]),
    "identity_i32": ("INT32", [-(2**31), 2**31 - 1]),
    "identity_i64": ("INT64", [-(2**63), 2**63 - 1]),
    "identity_f32": ("FP32", [0.5, -1e30]),
    "identity_f64": ("FP64", [0.1, -1e300]),
    "identity_string": ("BYTES", [b"", b"\xff\xfe not text"]),
}


@pytest.mark.parametrize("model", TYPED)
def test_typed_contents_are_answered_typed(stub, model):
    datatype, values = TYPED[model]
    request = messages.typed(model, "x", datatype, [1, 2], values, id="t")
    answer = stub.ModelInfer(request, timeout=harness.PATIENCE)
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", datatype, [1, 2])
    assert not answer.raw_output_contents and answer.id == "t"
    contents = getattr(output.contents, messages.TYPED[datatype])
    assert list(contents) == list(np.float32(values) if datatype == "FP32" else values)


# --- asyncio -------------------------------------------------------------------------------------


def test_asyncio(server):
    async def everything():
        async with triton_aio.InferenceServerClient(server.grpc) as client:
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready("magika")
            assert (await client.get_server_metadata()).name == "onnxd"
            assert (await client.get_model_metadata("mlp_tiny")).name == "mlp_tiny"
            assert (await client.get_model_config("mlp_tiny")).config.name == "mlp_tiny"
            stats = await client.get_inference_statistics("mlp_tiny")
            assert stats.model_stats[0].name == "mlp_tiny"

            async def one(value):
                x = np.full((1, 3), value, np.float32)
                answer = await client.infer("identity_f32", [given("x", x)], request_id=str(value))
                assert same(answer.as_numpy("y"), x)
                assert answer.get_response().id == str(value)

            await asyncio.gather(*(one(value) for value in range(200)))
            with pytest.raises(InferenceServerException) as caught:
                await client.infer("nosuch", [given("x", np.ones((1, 1), np.float32))])
            assert caught.value.status() == "StatusCode.NOT_FOUND"

    asyncio.run(asyncio.wait_for(everything(), harness.PATIENCE))


def test_asyncio_stream(server):
    async def everything():
        async def requests():
            for value in range(50):
                x = np.full((1, 2), value, np.float32)
                yield {"model_name": "identity_f32", "inputs": [given("x", x)], "request_id": str(value)}

        async with triton_aio.InferenceServerClient(server.grpc) as client:
            answers = []
            async for result, error in client.stream_infer(requests()):
                assert error is None
                answers.append((result.get_response().id, result.as_numpy("y")[0, 0]))
            assert answers == [(str(value), value) for value in range(50)]

    asyncio.run(asyncio.wait_for(everything(), harness.PATIENCE))


# --- streams -------------------------------------------------------------------------------------


class Collected:
    """Answers of a stream, in the order in which they come."""

    def __init__(self, expected):
        self.answers, self._expected, self.done = [], expected, threading.Event()

    def __call__(self, result, error):
        self.answers.append((result, error))
        if len(self.answers) == self._expected:
            self.done.set()

    def wait(self):
        assert self.done.wait(harness.PATIENCE), f"{len(self.answers)} answers came"
        return self.answers


def test_a_stream_keeps_its_order_and_survives_a_bad_message(client):
    collected, bad = Collected(200), 100
    client.start_stream(collected)
    for value in range(200):
        model = "nosuch" if value == bad else "identity_f32"
        x = np.full((1 + value % 3, 2), value, np.float32)
        client.async_stream_infer(model, [given("x", x)], request_id=str(value))
    answers = collected.wait()
    client.stop_stream()
    for value, (result, error) in enumerate(answers):
        if value == bad:
            assert result is None and "nosuch" in error.message()
            continue
        assert error is None, (value, error)
        assert result.get_response().id == str(value)
        assert (result.as_numpy("y") == value).all()
        assert len(result.as_numpy("y")) == 1 + value % 3
        assert result.get_response().parameters["triton_final_response"].bool_param
    assert len(answers) == 200


def test_a_failed_stream_message_names_its_request(stub):
    good = messages.request("identity_f32", [("x", np.ones((1, 1), np.float32))], id="good")
    wrong = messages.request("identity_f32", [("z", np.ones((1, 1), np.float32))], id="wrong")
    answers = list(stub.ModelStreamInfer(iter([good, wrong, good]), timeout=harness.PATIENCE))
    assert [bool(each.error_message) for each in answers] == [False, True, False]
    assert [each.infer_response.id for each in answers] == ["good", "wrong", "good"]
    assert "`z`" in answers[1].error_message and "`x`" in answers[1].error_message
    assert answers[1].infer_response.model_name == "identity_f32"


def test_models_may_change_within_a_stream(stub):
    x = np.full((1, 1), 3, np.float32)
    requests = [
        messages.request("two_versions", [("x", x)], model_version=version)
        for version in ("1", "2", "1")
    ] + [messages.request("identity_f32", [("x", x)])]
    answers = list(stub.ModelStreamInfer(iter(requests), timeout=harness.PATIENCE))
    assert [messages.array(each.infer_response).item() for each in answers] == [3, 6, 3, 3]


def test_an_empty_stream_ends_well(stub):
    assert list(stub.ModelStreamInfer(iter([]), timeout=harness.PATIENCE)) == []


def test_an_abandoned_stream_harms_nobody(server, client, stub):
    x = np.ones((1, 1), np.float32)
    iterations = np.array(10**9, np.int64)
    slow = messages.request("loop_busy", [("x", x), ("iterations", iterations)])
    call = stub.ModelStreamInfer(iter([slow] * 20))
    running = lambda: server.metric("onnxd_running", model="loop_busy")
    harness.wait_until(lambda: running() == 1, "a run has begun")
    call.cancel()
    quick = [given("x", x), given("iterations", np.array(1, np.int64))]
    answer = client.infer("loop_busy", quick, client_timeout=harness.PATIENCE)
    assert answer.as_numpy("y").item() == 2
    harness.wait_until(lambda: running() == 0, "the run has ended")
    assert server.metric("onnxd_queue_jobs", model="loop_busy") == 0


# --- ways in -------------------------------------------------------------------------------------


def test_unix_socket_and_compressed_messages(tmp_path):
    repository = tmp_path / "models"
    harness.copy_models(repository, "identity_f32")
    socket = tmp_path / "onnxd.sock"
    server = harness.Server(repository, "--grpc-socket", socket, "--compression", "gzip")
    array = np.zeros((1, 5000), np.float32)
    # By itself the client sends the socket's path as the name of the host, which HTTP/2 forbids.
    local = [("grpc.default_authority", "localhost")]
    for address, options in ((f"unix:{socket}", local), (server.grpc, None)):
        with triton.InferenceServerClient(address, channel_args=options) as client:
            for algorithm in (None, "gzip"):
                answer = client.infer(
                    "identity_f32", [given("x", array)], compression_algorithm=algorithm
                )
                assert same(answer.as_numpy("y"), array)
    server.stop()
    assert not socket.exists()
