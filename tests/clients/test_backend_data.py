"""The ONNX project's own back-end test data, through the server: about two thousand small models.

Each case gives its recorded answer, or is refused for a reason that is listed here. The cases come
out of the installed `onnx` package; `tests/data/extract_onnx_backend.py` says how.
"""

import json
import re
import subprocess
import sys
import urllib.request
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import harness

EXTRACT = harness.ROOT / "tests" / "data" / "extract_onnx_backend.py"

# So many models are served at once.
SHARE = 700

# Of 2,033 cases; fewer would mean that something turned cases away that it should not.
LEAST_EQUAL = 1500

# Why the server itself refuses a model: the protocol has no word for its values.
BY_PROTOCOL = {
    "only tensors can be served": "sequence, map or optional",
    "which the protocol lacks": "element type that the protocol lacks",
}

# Why ONNX Runtime refuses a model.
BY_RUNTIME = {
    "Could not find an implementation for": "operator not implemented for the type or version",
    "Failed to find kernel for": "operator not implemented for the type or version",
    "Unsupported model IR version": "model newer than ONNX Runtime",
    "Current official support for domain ai.onnx is till opset": "model newer than ONNX Runtime",
    "is not a registered function/op": "operator of a preview domain",
    "Error Unrecognized attribute: left_window_size": "attribute of a newer operator version",
    "bound to different types (tensor(bfloat16) and tensor(float)": "function that does not type",
    "Batchwise recurrent operations (layout == 1) are not supported": "recurrent layout 1",
    "Failed to construct locale": "locale that is not installed",
}

# What ONNX Runtime loads and does not run.
NOT_RUN = {
    "test_attention_4d_diff_heads_mask4d_padded_kv": "running Attention node",
    "test_convinteger_with_padding": "running ConvInteger node",
    "test_reduce_max_empty_set_bool": "running ReduceMax node",
}

# Where records are 0 or one step off and another order of sums is not: the absolute tolerance.
WIDER = {
    # Sums of numbers up to 1912 that cancel.
    r"test_dft(_axis|_inverse|_rfft|_irfft)?(_opset19)?": 1e-3,
    r"test_stft(_with_window)?": 1e-3,
    # One step of half precision near 0.4.
    r"test_attention_4d_causal_fp16": 5e-4,
}

# What ONNX Runtime answers differently, with and without a server before it.
OTHER_ANSWERS = {
    r"test_attention_4d_with_past_and_present_qk_matmul_bias_[34]d_mask_causal": (
        "the lowest number for minus infinity"
    ),
    r"test_training_dropout(_default)?(_mask)?": "another random generator",
    r"test_maxunpool_export_with_output_shape": "other places in a larger output",
    r"test_resize_downsample_scales_(linear|cubic)_align_corners": (
        "scales by the rounded size where corners are aligned"
    ),
}

DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}

# A record in bfloat16 may be off by two steps of its last bit.
BFLOAT16_RTOL = 2**-6


@dataclass
class Case:
    name: str
    kind: str
    rtol: float
    atol: float
    refused: str
    folder: Path

    def data_sets(self):
        return sorted(self.folder.glob("test_data_set_*"))


def tensors(data_set, stem):
    count = len(list(data_set.glob(f"{stem}_*.pb")))
    paths = [data_set / f"{stem}_{index}.pb" for index in range(count)]
    return [TensorProto.FromString(path.read_bytes()) for path in paths]


def raw_of(tensor):
    """Contents as the protocol has them; the extracted files have raw data but for strings."""
    if tensor.data_type != TensorProto.STRING:
        return tensor.raw_data
    return b"".join(len(each).to_bytes(4, "little") + each for each in tensor.string_data)


def request_of(case, data_set):
    message = pb.ModelInferRequest(model_name=case.name)
    for tensor in tensors(data_set, "input"):
        datatype = DATATYPES[tensor.data_type]
        message.inputs.add(name=tensor.name, datatype=datatype, shape=tensor.dims)
        message.raw_input_contents.append(raw_of(tensor))
    return message


def check(case, tensor, output, raw):
    """Compares an output with its record."""
    assert output.name == tensor.name
    assert output.datatype == DATATYPES[tensor.data_type], tensor.name
    assert list(output.shape) == list(tensor.dims), tensor.name
    if tensor.data_type == TensorProto.STRING:
        assert raw == raw_of(tensor), tensor.name
        return
    got = np.frombuffer(raw, helper.tensor_dtype_to_np_dtype(tensor.data_type))
    want = numpy_helper.to_array(tensor).reshape(-1)
    rtol, atol = case.rtol, max(case.atol, of_case(WIDER, case.name) or 0)
    if tensor.data_type == TensorProto.BFLOAT16:
        got, want = got.astype(np.float32), want.astype(np.float32)
        rtol = max(rtol, BFLOAT16_RTOL)
    if np.issubdtype(want.dtype, np.floating):
        np.testing.assert_allclose(got, want, rtol, atol, err_msg=tensor.name)
    else:
        np.testing.assert_array_equal(got, want, err_msg=tensor.name)


def first_of(table, text):
    """What a table says to the first of its keys that the text has, or nothing."""
    return next((word for key, word in table.items() if key in text), None)


def of_case(table, name):
    """What a table says to the names that fit, or nothing."""
    return next((value for names, value in table.items() if re.fullmatch(names, name)), None)


def ask(case, stub):
    """How the server took a case: `equal`, or what is to be explained."""
    if not stub.ModelReady(pb.ModelReadyRequest(name=case.name)).ready:
        return "not loaded"
    if case.refused != "-":
        return f"served, although it has {case.refused}"
    for data_set in case.data_sets():
        try:
            answer = stub.ModelInfer(request_of(case, data_set), timeout=harness.PATIENCE)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        records = tensors(data_set, "output")
        try:
            assert len(answer.outputs) == len(answer.raw_output_contents) == len(records)
            for each in zip(records, answer.outputs, answer.raw_output_contents):
                check(case, *each)
        except AssertionError as error:
            return f"differs: {' '.join(str(error).split())}"
    return "equal"


def explain(case, word, reason, log):
    """What a case counts as, and whether that is all right. `reason` is why it was not loaded."""
    if word == "not loaded":
        by_protocol = first_of(BY_PROTOCOL, reason)
        if by_protocol:
            return f"refused: {by_protocol}", case.refused != "-"
        by_runtime = first_of(BY_RUNTIME, reason)
        return f"not loaded: {by_runtime or reason}", by_runtime is not None
    if word.startswith("INTERNAL") and case.name in NOT_RUN:
        said = any(NOT_RUN[case.name] in line for line in log)
        return "not run: value or attribute that ONNX Runtime refuses", said
    if word.startswith("differs") and (why := of_case(OTHER_ANSWERS, case.name)):
        return f"other answer: {why}", True
    return word, word == "equal"


def reasons(server):
    """Model -> why it cannot be served, as its operator reads it."""
    url = f"http://{server.admin}/readyz"
    with urllib.request.urlopen(url, timeout=harness.PATIENCE) as answer:
        models = json.load(answer)["models"]
    return {model["name"]: model["reason"] for model in models if model.get("reason")}


def extract(folder):
    subprocess.run([sys.executable, str(EXTRACT), str(folder)], check=True, capture_output=True)
    lines = (folder / "cases.tsv").read_text().splitlines()[1:]
    for line in lines:
        name, kind, rtol, atol, _, refused = line.split("\t")
        yield Case(name, kind, float(rtol), float(atol), refused, folder / name)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """(case, word, whether that is all right) of all cases."""
    folder = tmp_path_factory.mktemp("backend")
    cases, ends = list(extract(folder)), []
    for start in range(0, len(cases), SHARE):
        share = cases[start : start + SHARE]
        repository = tmp_path_factory.mktemp("share")
        for case in share:
            case.folder = case.folder.rename(repository / case.name)
        # Cases come alone, and many are no prediction at all, so nothing is tried or batched.
        flags = ("--batching", "off", "--warmup-ms", "0", "--intra-op-threads", "1")
        server = harness.Server(repository, *flags)
        try:
            with grpc.insecure_channel(server.grpc) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                words = [ask(case, stub) for case in share]
            unserved = reasons(server)
        except BaseException:
            server.kill()
            raise
        # Only now is the log complete.
        server.stop()
        log = [line for line in server.log if line]
        for case, word in zip(share, words):
            reason = unserved.get(case.name, "nobody says why")
            ends.append((case, *explain(case, word, reason, log)))
    return ends


def test_every_case_equals_its_record_or_is_refused_for_a_known_reason(outcomes, capsys):
    table = defaultdict(Counter)
    for case, word, good in outcomes:
        table[word if good else "WRONG"][case.kind] += 1
    kinds = list(dict.fromkeys(case.kind for case, _, _ in outcomes))
    with capsys.disabled():
        print("\n" + " ".join(f"{kind:>17}" for kind in kinds))
        for word, counts in sorted(table.items(), key=lambda row: -row[1].total()):
            print(" ".join(f"{counts[kind]:17}" for kind in kinds), "", word)
    wrong = [f"{case.name}: {word[:300]}" for case, word, good in outcomes if not good]
    assert not wrong, "\n".join(wrong)
    assert table["equal"].total() >= LEAST_EQUAL


def test_every_listed_reason_is_met(outcomes):
    """So that the lists do not outlive what they are about."""
    words = {word for _, word, _ in outcomes}
    for why in {*BY_PROTOCOL.values()}:
        assert f"refused: {why}" in words
    for why in {*BY_RUNTIME.values()} - {"locale that is not installed"}:
        assert f"not loaded: {why}" in words
    for why in {*OTHER_ANSWERS.values()}:
        assert f"other answer: {why}" in words
