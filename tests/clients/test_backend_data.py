"""The ONNX project's recorded back-end test data through the server: each case equal to its
record, or refused with a reason that is known."""

import collections
import csv
import json
import struct
import sys
import urllib.error
import urllib.request

import grpc
import numpy as np
import onnx
import onnx.helper
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import harness

# Cases that come as files in the package; the others are generated from its code.
KINDS = "simple,pytorch-operator,pytorch-converted,light"

WIRE = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.STRING: "BYTES",
}

# Why ONNX Runtime or the server does not load a model: parts of the reasons, and what they mean.
REFUSALS = {
    "only tensors can be served": "sequence, map or optional",
    "which the protocol lacks": "element type",
    "Could not find an implementation": "operator not implemented",
    "is not a registered function/op": "operator not known",
    "is not supported": "version or operator not supported",
    "Unsupported model IR version": "file version",
    "opset": "operator set",
    "Opset": "operator set",
    "locale": "locale not installed",
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    """The cases as a repository, and a server on it."""
    folder = tmp_path_factory.mktemp("backend")
    script = harness.ROOT / "tests" / "data" / "extract_onnx_backend.py"
    done = harness.run(sys.executable, script, folder, "--kinds", KINDS)
    assert done.returncode == 0, done.stderr
    server = harness.Server(folder, "--warmup-ms", "0", "--batching", "off")
    yield folder, server
    server.stop()


def tensor(path):
    value = onnx.TensorProto()
    value.ParseFromString(path.read_bytes())
    return value


def raw(value):
    if value.data_type != onnx.TensorProto.STRING:
        return value.raw_data
    return b"".join(struct.pack("<I", len(each)) + each for each in value.string_data)


def reason_of(server, name):
    """What an operator reads of a model that does not load."""
    try:
        with urllib.request.urlopen(f"http://{server.admin}/readyz", timeout=30) as answer:
            models = json.load(answer)["models"]
    except urllib.error.HTTPError as answer:
        models = json.load(answer)["models"]
    return next(model["reason"] for model in models if model["name"] == name)


def compare(got, expected, rtol, atol):
    dtype = onnx.helper.tensor_dtype_to_np_dtype(expected.data_type)
    if expected.data_type == onnx.TensorProto.STRING:
        assert got == raw(expected)
        return
    one, other = np.frombuffer(got, dtype), np.frombuffer(expected.raw_data, dtype)
    if np.issubdtype(dtype, np.floating):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)
    else:
        np.testing.assert_array_equal(one, other)


def test_every_recorded_case(backend):
    folder, server = backend
    with open(folder / "cases.tsv", newline="") as file:
        cases = list(csv.DictReader(file, delimiter="\t"))
    assert len(cases) > 100
    ends, wrong = collections.Counter(), []
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for case in cases:
            name = case["name"]
            for data in sorted((folder / name).glob("test_data_set_*")):
                inputs = [tensor(path) for path in sorted(data.glob("input_*.pb"), key=str)]
                inputs.sort(key=lambda value: value.name)
                message = pb.ModelInferRequest(model_name=name)
                for value in inputs:
                    message.inputs.add(
                        name=value.name, datatype=WIRE[value.data_type], shape=value.dims
                    )
                    message.raw_input_contents.append(raw(value))
                try:
                    answer = stub.ModelInfer(message, timeout=harness.PATIENCE)
                except grpc.RpcError as error:
                    reason = error.details()
                    if error.code() == grpc.StatusCode.UNAVAILABLE:
                        reason = reason_of(server, name)
                    known = [what for part, what in REFUSALS.items() if part in reason]
                    ends[known[0] if known else "unknown"] += 1
                    if not known:
                        wrong.append(f"{name}: {error.code().name} {reason}")
                    continue
                outputs = sorted(data.glob("output_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
                try:
                    for index, path in enumerate(outputs):
                        expected = tensor(path)
                        assert list(answer.outputs[index].shape) == list(expected.dims)
                        got = answer.raw_output_contents[index]
                        compare(got, expected, float(case["rtol"]), float(case["atol"]))
                    ends["equal"] += 1
                except AssertionError as error:
                    ends["differs"] += 1
                    wrong.append(f"{name}: {error}")
    print(dict(ends))
    assert wrong == []
    assert ends["equal"] >= 100
