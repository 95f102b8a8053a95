"""Requests that are wrong: the code, both sides in the text, and the channel lives on."""

import struct
import time

import grpc
import numpy as np
import pytest

import harness
import messages
from messages import add, pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INFER = "/inference.GRPCInferenceService/ModelInfer"

A = np.zeros((1, 4), np.float32)
ROW = ("FP32", [1, 4], A.tobytes())


def two_inputs(*inputs, **fields):
    """Inputs are (name, datatype, shape, raw) or (name, array)."""
    message = pb.ModelInferRequest(model_name="two_inputs", **fields)
    for name, *rest in inputs:
        if len(rest) == 1:
            (array,) = rest
            rest = ("FP32", array.shape, array.tobytes())
        add(message, name, *rest)
    return message


def good(**fields):
    fields.setdefault("model_name", "two_inputs")
    message = pb.ModelInferRequest(**fields)
    return add(add(message, "a", *ROW), "b", *ROW)


def rows(count):
    return np.zeros((count, 4), np.float32)


def strings(shape, raw):
    return add(pb.ModelInferRequest(model_name="identity_string"), "x", "BYTES", shape, raw)


def changed(change, message=None):
    message = message or good()
    change(message)
    return message


def with_contents(message):
    message.inputs[1].contents.fp32_contents.extend([0.0] * 4)


def with_outputs(*names):
    return changed(lambda message: [message.outputs.add(name=name) for name in names])


def with_parameter(key, **choice):
    return changed(lambda message: message.parameters[key].MergeFrom(pb.InferParameter(**choice)))


def typed(model, datatype, shape, values):
    return messages.typed(model, "x", datatype, shape, values)


def typed_in_wrong_field():
    message = pb.ModelInferRequest(model_name="identity_f32")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.int_contents.extend([1, 2])
    return message


# What is wrong -> (request, code, parts of the text: what was expected and what came).
TABLE = {
    # --- names and versions
    "unknown model": (good(model_name="nosuch"), NOT_FOUND, ["`nosuch`"]),
    "no model": (good(model_name=""), NOT_FOUND, ["``"]),
    "unknown version": (good(model_version="7"), NOT_FOUND, ["two_inputs", "7", "served: 1"]),
    "version in words": (good(model_version="one"), INVALID, ["one", "number"]),
    "version zero": (good(model_version="0"), INVALID, ["0", "number"]),
    "negative version": (good(model_version="-1"), INVALID, ["-1", "number"]),
    "huge version": (good(model_version="9" * 30), INVALID, ["999", "number"]),
    "path upwards": (good(model_name="../two_inputs"), NOT_FOUND, ["../two_inputs"]),
    "path downwards": (good(model_name="two_inputs/1"), NOT_FOUND, ["two_inputs/1"]),
    "absolute path": (good(model_name="/etc/passwd"), NOT_FOUND, ["/etc/passwd"]),
    "the folder itself": (good(model_name="."), NOT_FOUND, ["`.`"]),
    "version as a path": (good(model_version="../1"), INVALID, ["../1", "number"]),
    # --- which inputs
    "no inputs": (two_inputs(), INVALID, ["`a`", "`b`"]),
    "input missing": (two_inputs(("a", A)), INVALID, ["`b` is missing", "`a`, `b`"]),
    "input unknown": (two_inputs(("a", A), ("c", A)), INVALID, ["`c`", "`a`, `b`"]),
    "input twice": (two_inputs(("a", A), ("a", A)), INVALID, ["`a`", "twice"]),
    "input surplus": (two_inputs(("a", A), ("b", A), ("c", A)), INVALID, ["`c`", "`a`, `b`"]),
    "input surplus and twice": (
        two_inputs(("a", A), ("b", A), ("b", A)),
        INVALID,
        ["`b`", "twice"],
    ),
    # --- type and shape
    "wrong datatype": (
        two_inputs(("a", A), ("b", "INT32", [1, 4], A.tobytes())),
        INVALID,
        ["`b`", "FP32", "INT32"],
    ),
    "unknown datatype": (
        two_inputs(("a", A), ("b", "FLOAT", [1, 4], A.tobytes())),
        INVALID,
        ["`b`", "FLOAT", "FP32"],
    ),
    "datatype in lower case": (
        two_inputs(("a", A), ("b", "fp32", [1, 4], A.tobytes())),
        INVALID,
        ["`b`", "fp32", "FP32"],
    ),
    "rank too low": (
        two_inputs(("a", A), ("b", np.zeros(4, np.float32))),
        INVALID,
        ["`b`", "[-1, 4]", "[4]"],
    ),
    "rank too high": (
        two_inputs(("a", A), ("b", np.zeros((1, 1, 4), np.float32))),
        INVALID,
        ["`b`", "[-1, 4]", "[1, 1, 4]"],
    ),
    "wrong dimension": (
        two_inputs(("a", A), ("b", np.zeros((1, 5), np.float32))),
        INVALID,
        ["`b`", "[-1, 4]", "[1, 5]"],
    ),
    "negative dimension": (
        two_inputs(("a", A), ("b", "FP32", [-1, 4], A.tobytes())),
        INVALID,
        ["`b`", "-1", "zero or more"],
    ),
    "overflowing product": (
        two_inputs(("a", A), ("b", "FP32", [2**62, 4], b"")),
        INVALID,
        ["`b`", str(2**62), "overflows"],
    ),
    # In 64 bits this product wraps around to 4 elements, and 16 bytes are there.
    "product that wraps around": (
        two_inputs(("a", A), ("b", "FP32", [2**62 + 1, 4], A.tobytes())),
        INVALID,
        ["`b`", str(2**62 + 1), "overflows"],
    ),
    "zero hides an overflow": (
        two_inputs(("a", A), ("b", "FP32", [0, 2**62, 2**62], b"")),
        INVALID,
        ["`b`", "overflows"],
    ),
    # --- contents
    "too few bytes": (
        two_inputs(("a", A), ("b", "FP32", [1, 4], bytes(12))),
        INVALID,
        ["`b`", "16", "12"],
    ),
    "too many bytes": (
        two_inputs(("a", A), ("b", "FP32", [1, 4], bytes(17))),
        INVALID,
        ["`b`", "16", "17"],
    ),
    "raw entry missing": (
        changed(lambda message: message.raw_input_contents.pop()),
        INVALID,
        ["1 entries", "2 inputs"],
    ),
    "raw entry surplus": (
        changed(lambda message: message.raw_input_contents.append(b"")),
        INVALID,
        ["3 entries", "2 inputs"],
    ),
    "raw and typed mixed": (
        changed(with_contents),
        INVALID,
        ["`b`", "contents", "raw_input_contents"],
    ),
    "neither raw nor typed": (
        changed(lambda message: message.ClearField("raw_input_contents")),
        INVALID,
        ["`a`", "4", "0"],
    ),
    "boolean that is 2": (
        add(pb.ModelInferRequest(model_name="identity_bool"), "x", "BOOL", [1, 1], b"\x02"),
        INVALID,
        ["`x`", "2"],
    ),
    "typed value too large": (
        typed("identity_i8", "INT8", [1, 2], [1, 300]),
        INVALID,
        ["`x`", "INT8", "300"],
    ),
    "typed value too small": (
        typed("identity_i16", "INT16", [1, 1], [-40000]),
        INVALID,
        ["`x`", "INT16", "-40000"],
    ),
    "typed values missing": (
        typed("identity_f32", "FP32", [1, 3], [1.0, 2.0]),
        INVALID,
        ["`x`", "3", "2"],
    ),
    "typed in the wrong field": (
        typed_in_wrong_field(),
        INVALID,
        ["`x`", "fp32_contents", "int_contents"],
    ),
    # --- strings
    "string without length": (strings([1, 1], b"\x01\x00"), INVALID, ["`x`", "2"]),
    "string cut short": (strings([1, 1], struct.pack("<I", 9) + b"abc"), INVALID, ["9", "3"]),
    "string of 4 GiB": (strings([1, 1], b"\xff\xff\xff\xff"), INVALID, ["4294967295", "0"]),
    "strings missing": (strings([1, 2], struct.pack("<I", 4) + b"abcd"), INVALID, ["2", "1"]),
    "strings surplus": (strings([1, 1], struct.pack("<II", 0, 0)), INVALID, ["1", "4"]),
    "a billion strings": (strings([1, 10**9], b""), INVALID, [str(10**9), "0"]),
    # --- rows
    "no rows": (two_inputs(("a", rows(0)), ("b", rows(0))), INVALID, ["0 rows", "1"]),
    "rows that differ": (
        two_inputs(("a", rows(2)), ("b", rows(3))),
        INVALID,
        ["`b` has 3 rows", "`a` has 2"],
    ),
    "more rows than the most": (
        two_inputs(("a", rows(4097)), ("b", rows(4097))),
        INVALID,
        ["4097 rows", "4096"],
    ),
    "dimensions that must agree": (
        messages.request(
            "add_i64", [("a", np.zeros((1, 2), np.int64)), ("b", np.zeros((1, 3), np.int64))]
        ),
        INVALID,
        ["`b`", "3", "`a`", "2"],
    ),
    # --- outputs and parameters
    "output unknown": (with_outputs("product"), INVALID, ["`product`", "`sum`, `diff`"]),
    "output twice": (with_outputs("sum", "sum"), INVALID, ["`sum`", "twice"]),
    "timeout in words": (
        with_parameter("timeout", string_param="soon"),
        INVALID,
        ["timeout", "integer", "string"],
    ),
    "priority in words": (
        with_parameter("priority", string_param="high"),
        INVALID,
        ["priority", "integer", "string"],
    ),
    # --- found out by the run
    "index beyond the table": (
        messages.request("gather_100", [("indices", np.array([[100]], np.int64))]),
        INVALID,
        ["refused the values"],
    ),
    "division by zero": (
        messages.request(
            "int_divide", [("a", np.ones((1, 1), np.int32)), ("b", np.zeros((1, 1), np.int32))]
        ),
        grpc.StatusCode.INTERNAL,
        ["execution failed"],
    ),
}


def works(channel):
    """The next request on the same channel is answered."""
    answer = pb.ModelInferResponse.FromString(raw_call(channel, good().SerializeToString()))
    assert messages.array(answer).shape == (1, 4)


def raw_call(channel, message):
    """Sends bytes as they are."""
    return channel.unary_unary(INFER)(message, timeout=harness.PATIENCE)


def refusal(channel, message):
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(channel, message)
    return caught.value


@pytest.mark.parametrize("what", TABLE)
def test_unary(channel, what):
    request, code, parts = TABLE[what]
    error = refusal(channel, request.SerializeToString())
    assert error.code() == code, error.details()
    for part in parts:
        assert part in error.details(), error.details()
    works(channel)


def test_all_in_one_stream(stub):
    requests = [request for wrong, _, _ in TABLE.values() for request in (wrong, good())]
    answers = list(stub.ModelStreamInfer(iter(requests), timeout=harness.PATIENCE))
    assert len(answers) == len(requests)
    for what, wrong, fine in zip(TABLE, answers[::2], answers[1::2]):
        for part in TABLE[what][2]:
            assert part in wrong.error_message, (what, wrong.error_message)
        assert not fine.error_message, (what, fine.error_message)


def test_a_cause_inside_the_model_is_not_told(channel):
    for what, cause in [("index beyond the table", "Gather"), ("division by zero", "Div")]:
        error = refusal(channel, TABLE[what][0].SerializeToString())
        assert cause.lower() not in error.details().lower(), error.details()


def test_unknown_parameters_mean_nothing_and_do_not_come_back(stub):
    message = good(id="42")
    for key, choice in {
        "triton_final_response": {"bool_param": False},
        "triton_enable_empty_final_response": {"bool_param": True},
        "triton_internal": {"string_param": "x"},
        "binary_data_size": {"int64_param": -1},
        "Timeout": {"string_param": "not the one that is known"},
        "shape": {"string_param": "[1]"},
        "": {"double_param": float("nan")},
        "k" * 10_000: {"uint64_param": 2**64 - 1},
    }.items():
        message.parameters[key].MergeFrom(pb.InferParameter(**choice))
        message.inputs[0].parameters[key].MergeFrom(pb.InferParameter(**choice))
    answer = stub.ModelInfer(message, timeout=harness.PATIENCE)
    assert answer.id == "42" and not answer.parameters
    assert not any(output.parameters for output in answer.outputs)


@pytest.mark.parametrize("value, code", [(-1, INVALID), (2**62, None), (0, None)])
def test_a_timeout_can_only_make_the_time_shorter(stub, value, code):
    message = with_parameter("timeout", int64_param=value)
    if code is None:
        assert stub.ModelInfer(message, timeout=harness.PATIENCE).outputs
        return
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message, timeout=harness.PATIENCE)
    assert caught.value.code() == code and "timeout" in caught.value.details()


def test_ten_thousand_parameters_are_refused(channel):
    message = good()
    for number in range(10_000):
        message.parameters[str(number)].int64_param = number
    error = refusal(channel, message.SerializeToString())
    assert error.code() == INVALID and "256 parameters" in error.details(), error.details()
    works(channel)


# --- whole messages ------------------------------------------------------------------------------


def test_a_message_above_the_limit(channel):
    limit = 64 << 20
    huge = np.zeros((1, limit // 4), np.float32)
    message = messages.request("identity_f32", [("x", huge)]).SerializeToString()
    error = refusal(channel, message)
    assert error.code() == EXHAUSTED, error.details()
    assert str(limit) in error.details() and str(len(message)) in error.details()
    works(channel)


def test_a_message_at_the_limit(channel):
    limit = 64 << 20
    rest = np.zeros((1, limit // 4 - 100), np.float32)
    message = messages.request("identity_f32", [("x", rest)])
    message.id = "i" * (limit - message.ByteSize() - 6)
    message = message.SerializeToString()
    assert limit - 10 <= len(message) <= limit
    options = {"timeout": harness.PATIENCE}
    with grpc.insecure_channel(
        channel_address(channel), options=[("grpc.max_receive_message_length", -1)]
    ) as wide:
        answer = wide.unary_unary(INFER)(message, **options)
    assert len(answer) > rest.nbytes


def channel_address(channel):
    return channel._channel.target().decode().split("/")[-1]


@pytest.mark.parametrize(
    "what, message",
    {
        "empty inputs": b"\x2a\x00" * 10**6,
        "empty outputs": b"\x32\x00" * 10**6,
        "empty raw entries": b"\x3a\x00" * 10**6,
        "empty parameters": b"\x22\x00" * 10**6,
        "dimensions": b"\x2a\xc4\x84\x3d\x1a\xc0\x84\x3d" + b"\x01" * 10**6,
    }.items(),
)
def test_a_million_of_anything_is_refused_fast(channel, what, message):
    start = good().SerializeToString()
    began = time.monotonic()
    error = refusal(channel, start + message)
    took = time.monotonic() - began
    assert error.code() == INVALID, error.details()
    assert "more than" in error.details(), error.details()
    assert took < 2.0, f"{what}: {took} s"
    works(channel)


def test_bytes_that_are_no_message(channel):
    error = refusal(channel, b"\xff" * 100)
    assert error.code() == INVALID, error.details()
    assert "malformed" in error.details()
    works(channel)


def test_unknown_methods(channel):
    for method in ("/inference.GRPCInferenceService/Nothing", "/no.Service/Nothing"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(b"", timeout=harness.PATIENCE)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    works(channel)


def test_what_is_not_served_is_told(stub):
    calls = {
        "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name="two_inputs"),
        "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="two_inputs"),
        "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterRequest(name="x", key="/x"),
        "CudaSharedMemoryRegister": pb.CudaSharedMemoryRegisterRequest(name="x"),
        "TraceSetting": pb.TraceSettingRequest(),
        "LogSettings": pb.LogSettingsRequest(),
    }
    for name, request in calls.items():
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, name)(request, timeout=harness.PATIENCE)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED, name
        assert len(caught.value.details()) > 20, name
    assert not stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest()).regions
