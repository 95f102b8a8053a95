#!/usr/bin/env python3
"""Makes the tiny models that the tests serve.

    make_models.py                  writes models/<name>/<version>/model.onnx and SHA256SUMS
    make_models.py --check          makes them in memory, compares them with SHA256SUMS, and runs
                                    each with ONNX Runtime against values computed with numpy
    make_models.py --bench FOLDER   writes the models for load tests, which are too large to keep

Needs the packages of requirements.txt. The same packages write the same bytes.

Graphs are written in ONNX's text form. In it `float[batch,4] x` is a tensor with a dynamic first
dimension called `batch`, and `float x` is a scalar. Unless said otherwise the rows of a model lie
on axis 0 of every tensor and do not influence each other.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from image_classifier import image_classifier
from text_encoder import reference, text_encoder

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"
SUMS = HERE / "SHA256SUMS"
SEED = 20240607

# IR version that belongs to each operator set in use.
IR_OF_OPSET = {17: 8, 20: 9}

# Element types of the protocol: our name -> ONNX's name.
DTYPES = {
    "bool": "bool",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float",
    "f64": "double",
    "string": "string",
}


def model(name, graph, opset=17, weights=()):
    """A checked model from a graph in text form. `weights` are (name, array) pairs."""
    parsed = parser.parse_graph(f"{name} {graph}")
    parsed.initializer.extend(numpy_helper.from_array(array, key) for key, array in weights)
    made = onnx.helper.make_model(
        parsed,
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        ir_version=IR_OF_OPSET[opset],
        producer_name="onnxd-tests",
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def mlp(name, sizes):
    """Dense layers with Relu between them, input `x` and output `y`.

    Weights are multiples of 1/64 from -1/8 to 1/8. So every sum of the small model is exact in
    float32 for inputs that are multiples of 1/16 from -1 to 1: any order of summing, and so any
    batch size, gives the same bits.
    """
    rng = np.random.default_rng(SEED)
    weights, lines, value = [], [], "x"
    for layer, (rows, columns) in enumerate(zip(sizes, sizes[1:])):
        for kind, shape in (("w", (rows, columns)), ("b", (columns,))):
            array = rng.integers(-8, 9, shape).astype(np.float32) / 64
            weights.append((f"{kind}{layer}", array))
        is_last = layer == len(sizes) - 2
        out = "y" if is_last else f"h{layer}"
        lines.append(f"{out} = Gemm({value}, w{layer}, b{layer})")
        value = out
        if not is_last:
            lines.append(f"r{layer} = Relu({out})")
            value = f"r{layer}"
    body = "\n".join(lines)
    text = f"(float[batch,{sizes[0]}] x) => (float[batch,{sizes[-1]}] y) {{\n{body}\n}}"
    return model(name, text, weights=weights)


# Texts of at most 128 of 128 words; about 100 kB.
SMALL_TEXT = {
    "words": 128,
    "places": 128,
    "width": 32,
    "heads": 4,
    "hidden": 64,
    "layers": 2,
    "scores": 5,
}
# About half of a small sentence encoder, 37 MB: 65 texts of 8 to 128 words a second on one core.
BENCH_TEXT = {
    "words": 1000,
    "places": 128,
    "width": 384,
    "heads": 12,
    "hidden": 1536,
    "layers": 5,
    "scores": 5,
}


def encoder(name, sizes):
    """A text encoder, whose padded rows get the answers that they get alone."""
    graph, weights = text_encoder(SEED, **sizes)
    return model(name, graph, weights=weights)


def recurrent(name, words, width, hidden, scores):
    """A text classifier that reads token by token, so that one text alone waits for the memory.

    The number of tokens that are not padding tells the recurrent layer where each text ends, so that
    padded texts get the answers that they get alone.
    """
    rng = np.random.default_rng(SEED)

    def array(*shape):
        return rng.integers(-16, 17, shape).astype(np.float32) / 512

    ids = {"none": 0, "one": 1}
    weights = [(key, np.array([value], np.int64)) for key, value in ids.items()]
    weights += [
        ("words", array(words, width) * np.float32(16)),
        ("from_word", array(1, 3 * hidden, width)),
        ("from_state", array(1, 3 * hidden, hidden)),
        ("biases", array(1, 6 * hidden)),
        ("to_scores", array(hidden, scores)),
    ]
    text = f"""(int64[batch,sequence] input_ids, int64[batch,sequence] attention_mask)
        => (float[batch,{scores}] scores) {{
        tokens = Gather<axis = 0>(words, input_ids)
        in_order = Transpose<perm = [1, 0, 2]>(tokens)
        real = Greater(attention_mask, none)
        counted = Cast<to = 6>(real)
        lengths = ReduceSum<keepdims = 0>(counted, one)
        states, last = GRU<hidden_size = {hidden}>(in_order, from_word, from_state, biases, lengths)
        state = Squeeze(last, none)
        scores = MatMul(state, to_scores)
    }}"""
    return model(name, text, weights=weights)


def models():
    """All models that are kept: (name, version) -> bytes of model.onnx."""
    made = {}

    def add(name, graph, version=1, **options):
        made[name, version] = model(name, graph, **options)

    # --- values travel unchanged, for every element type -----------------------------------------
    for ours, theirs in DTYPES.items():
        add(
            f"identity_{ours}",
            f"({theirs}[batch,n] x) => ({theirs}[batch,n] y) {{ y = Identity(x) }}",
        )

    # No dimension at all, so no rows.
    add("scalar_f32", "(float x) => (float y) { y = Identity(x) }")

    # --- several inputs and outputs --------------------------------------------------------------
    add(
        "two_inputs",
        """(float[batch,4] a, float[batch,4] b) => (float[batch,4] sum, float[batch,4] diff) {
            sum = Add(a, b)
            diff = Sub(a, b)
        }""",
    )
    add("add_i64", "(int64[batch,n] a, int64[batch,n] b) => (int64[batch,n] y) { y = Add(a, b) }")
    # Three outputs of three element types.
    add(
        "multi_output",
        """(float[batch,4] x)
            => (float[batch,4] doubled, bool[batch,4] positive, int64[batch,1] count)
        <float zero = {0.0}, int64[1] columns = {1}>
        {
            doubled = Add(x, x)
            positive = Greater(x, zero)
            ones = Cast<to = 7>(positive)
            count = ReduceSum<keepdims = 1>(ones, columns)
        }""",
    )
    # Strings are concatenated, element by element. The operator came with operator set 20.
    add(
        "concat_strings",
        """(string[batch,n] a, string[batch,n] b) => (string[batch,n] y) {
            y = StringConcat(a, b)
        }""",
        opset=20,
    )

    # --- where the rows lie ----------------------------------------------------------------------
    # Nothing dynamic: a matrix product of fixed shape.
    add(
        "no_batch",
        """(float[3,4] x) => (float[3,2] y)
        <float[4,2] w = {1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, -1.0}>
        { y = MatMul(x, w) }""",
    )
    # The first dimension is fixed: it cannot hold the rows of several requests.
    add("fixed_one", "(float[1,4] x) => (float[1,4] y) { y = Add(x, x) }")
    add(
        "fixed_four",
        "(float[4,2] x) => (float[4,2] y) <float one = {1.0}> { y = Add(x, one) }",
    )
    # A second dynamic dimension: only requests with the same `seq` can share a run.
    add(
        "dynamic_inner",
        """(float[batch,seq,8] x) => (float[batch,8] y) {
            y = ReduceMean<axes = [1], keepdims = 0>(x)
        }""",
    )
    # Six dynamic dimensions, and only one size of them runs: what is made up for it must stay small.
    add(
        "dynamic_six",
        """(float[a,b,c,d,e,f] x) => (float[7] y) <int64[1] shape = {7}> { y = Reshape(x, shape) }""",
    )
    # State with its rows on axis 1, and a scalar that all rows share:
    #   stateN[d,i,c] = state[d,i,c] + k * x[i,d]
    #   y[i,d]        = x[i,d] + sum over c of stateN[d,i,c]
    add(
        "axis1_state",
        """(float[batch,2] x, float[2,batch,3] state, float k)
            => (float[batch,2] y, float[2,batch,3] stateN)
        <int64[1] last = {2}>
        {
            columns = Transpose<perm = [1, 0]>(x)
            cells = Unsqueeze(columns, last)
            scaled = Mul(cells, k)
            stateN = Add(state, scaled)
            sums = ReduceSum<keepdims = 0>(stateN, last)
            turned = Transpose<perm = [1, 0]>(sums)
            y = Add(x, turned)
        }""",
    )

    # --- rows that must not be batched -----------------------------------------------------------
    # One row comes out, however many go in.
    add(
        "batch_sum",
        """(float[batch,4] x) => (float[1,4] y)
        <int64[1] rows = {0}>
        { y = ReduceSum<keepdims = 1>(x, rows) }""",
    )
    # As many rows come out as go in, but each depends on the others: x minus the mean of all rows.
    add(
        "mixes_rows",
        """(float[batch,4] x) => (float[batch,4] y) {
            mean = ReduceMean<axes = [0], keepdims = 1>(x)
            y = Sub(x, mean)
        }""",
    )
    # The same a thousand times smaller: the influence is small, and so is everything else.
    add(
        "mixes_small",
        """(float[batch,4] x) => (float[batch,4] y)
        <float small = {0.001}>
        {
            mean = ReduceMean<axes = [0], keepdims = 1>(x)
            rest = Sub(x, mean)
            y = Mul(rest, small)
        }""",
    )
    # A step of a graph network: each node gets its own value and those of its neighbours. An edge
    # from node 1, which is easily made up, fails where there is a single node.
    add(
        "graph_step",
        """(float[nodes,4] x, int64[2,edges] edges) => (float[nodes,4] y)
        <int64 first = {0}, int64 second = {1}, int64[1] last = {1}>
        {
            from = Gather<axis = 0>(edges, first)
            to = Gather<axis = 0>(edges, second)
            sent = Gather<axis = 0>(x, from)
            places = Unsqueeze(to, last)
            y = ScatterND<reduction = "add">(x, places, sent)
        }""",
    )
    # Only rows whose first value is above -1 come out. Values from 0 to 1, which a test run would
    # make up, keep every row; others do not.
    add(
        "value_rows",
        """(float[batch,4] x) => (float[kept,4] y)
        <float limit = {-1.0}, int64 first = {0}>
        {
            head = Gather<axis = 1>(x, first)
            keep = Greater(head, limit)
            y = Compress<axis = 0>(x, keep)
        }""",
    )

    # --- values that make a run fail, grow or last -----------------------------------------------
    # Row i of the table is [10 i, 10 i + 1, 10 i + 2, 10 i + 3]. An index outside of -100..99 fails
    # the whole run.
    table = np.add.outer(np.arange(100) * 10, np.arange(4)).astype(np.float32)
    add(
        "gather_100",
        """(int64[batch,1] indices) => (float[batch,4] y)
        <int64[1] second = {1}>
        {
            rows = Gather<axis = 0>(table, indices)
            y = Squeeze(rows, second)
        }""",
        weights=[("table", table)],
    )
    # Whole-number division: a divisor of 0 fails the whole run. Never divide the smallest number by
    # -1 where other tests share the process: it ends in ONNX Runtime.
    add(
        "int_divide",
        "(int32[batch,1] a, int32[batch,1] b) => (int32[batch,1] y) { y = Div(a, b) }",
    )
    # As many ones per row as the largest value says: a small request, an answer of any size.
    add(
        "expand",
        """(int64[batch,1] size) => (float[batch,size] y)
        <float one = {1.0}, int64[1] flat = {-1}, int64[1] first = {0}, int64[1] second = {1}>
        {
            largest = ReduceMax<keepdims = 0>(size)
            width = Reshape(largest, flat)
            dims = Shape(size)
            rows = Slice(dims, first, second)
            shape = Concat<axis = 0>(rows, width)
            y = Expand(one, shape)
        }""",
    )
    # Adds 1 as often as `iterations` says, one turn of a loop each, so that a run lasts as long as
    # the caller wants and can be stopped between two turns. `iterations` is shared by all rows.
    add(
        "loop_busy",
        """(float[batch,1] x, int64 iterations) => (float[batch,1] y)
        <bool go = {1}>
        {
            y = Loop(iterations, go, x) <
                body = turn (int64 i, bool on, float[batch,1] before)
                    => (bool still, float[batch,1] after)
                <float one = {1.0}>
                {
                    still = Identity(on)
                    after = Add(before, one)
                }
            >
        }""",
    )

    # --- repository ------------------------------------------------------------------------------
    # Two versions with different answers: the version is the factor.
    for version in (1, 2):
        add(
            "two_versions",
            f"""(float[batch,1] x) => (float[batch,1] y)
            <float factor = {{{version}.0}}>
            {{ y = Mul(x, factor) }}""",
            version=version,
        )
    # An output that is no tensor.
    add(
        "sequence_output",
        "(float[batch,2] x) => (seq(float[batch,2]) y) { y = SequenceConstruct(x, x) }",
    )

    # --- a small workload ------------------------------------------------------------------------
    made["mlp_tiny", 1] = mlp("mlp_tiny", (64, 64, 10))
    made["text_encoder", 1] = encoder("text_encoder", SMALL_TEXT)

    files = {key: value.SerializeToString(deterministic=True) for key, value in made.items()}
    # A file that is no model.
    files["broken", 1] = b"This is not a model.\n"
    return dict(sorted(files.items()))


def bench_models():
    """Models for load tests."""
    # About the size of the last stage of a ranking model: 1.8 million weights, 7 MB.
    made = {("mlp_rank", 1): mlp("mlp_rank", (256, 1024, 1024, 512, 1))}
    graph, weights = image_classifier(SEED, 0.5)
    made["image", 1] = model("image", graph, weights=weights)
    made["text_mixed", 1] = encoder("text_mixed", BENCH_TEXT)
    made["text_recurrent", 1] = recurrent("text_recurrent", 4096, 128, 512, 8)
    return {key: value.SerializeToString(deterministic=True) for key, value in made.items()}


def path_of(key):
    name, version = key
    return f"{name}/{version}/model.onnx"


def write(files, folder):
    for key, content in files.items():
        path = folder / path_of(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def sums_of(files):
    """Text of SHA256SUMS, with paths as seen from this folder."""
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  models/{path_of(key)}\n"
        for key, content in files.items()
    ]
    return "".join(lines)


# --- check ---------------------------------------------------------------------------------------


def f32(*values):
    return np.array(values, np.float32)


def i64(*values):
    return np.array(values, np.int64)


class Check:
    """Runs models and counts what is not as expected."""

    def __init__(self, files):
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        # Only a check needs it.
        import onnxruntime

        self.ort = onnxruntime
        self.files = files
        self.faults = 0

    def judge(self, name, good, note=""):
        self.faults += not good
        print(f"{'ok  ' if good else 'FAIL'} {name} {note}".rstrip())

    def session(self, name, version=1):
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        content = self.files[name, version]
        return self.ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def expect(self, name, inputs, outputs, version=1):
        """A run gives arrays of the same type, shape and values."""
        got = self.session(name, version).run(None, inputs)
        good = len(got) == len(outputs) and all(
            one.dtype == two.dtype and one.shape == two.shape and np.array_equal(one, two)
            for one, two in zip(map(np.asarray, got), outputs)
        )
        self.judge(f"{name}/{version}", good, "" if good else f"got {got}, not {outputs}")

    def fails(self, name, inputs, note):
        """A run ends with an error."""
        session = self.session(name)
        try:
            session.run(None, inputs)
            self.judge(name, False, f"{note}: ran")
        except Exception as error:  # ONNX Runtime has one type for each of its codes.
            self.judge(name, True, f"{note}: {type(error).__name__}")

    def unloadable(self, name):
        """The model cannot be opened."""
        try:
            self.session(name)
            self.judge(name, False, "loaded")
        except Exception as error:
            self.judge(name, True, f"loading: {type(error).__name__}")


def check_files(check):
    same = SUMS.exists() and SUMS.read_text() == sums_of(check.files)
    check.judge("SHA256SUMS", same)
    for key, content in check.files.items():
        path = MODELS / path_of(key)
        if not path.exists() or path.read_bytes() != content:
            check.judge(path_of(key), False, "file differs or is missing")


def check_types(check):
    rng = np.random.default_rng(SEED)
    for ours, theirs in DTYPES.items():
        name = f"identity_{ours}"
        if ours == "bf16":
            check_bf16(check, name)
            continue
        kind = {"float": np.float32, "double": np.float64, "string": object}.get(theirs, theirs)
        kind = np.dtype(kind)
        if ours == "string":
            values = np.array([["", "a", "äöü"], ["\n", "long " * 50, "0"]], object)
        elif ours == "bool":
            values = np.array([[True, False, True], [False, False, True]])
        elif kind.kind == "f":
            values = (rng.integers(-100, 100, (2, 3)) / 8).astype(kind)
        else:
            # All bits of a whole number are at play.
            values = rng.integers(0, 256, 6 * kind.itemsize, np.uint8).view(kind).reshape(2, 3)
        check.expect(name, {"x": values}, [values])
    none = np.zeros((0, 3), np.float32)
    check.expect("identity_f32", {"x": none}, [none])
    scalar = np.array(2.5, np.float32)
    check.expect("scalar_f32", {"x": scalar}, [scalar])


def check_bf16(check, name):
    """numpy lacks the type: the bits go in and must come out."""
    import ctypes

    bits = np.array([[0x3FC0, 0xC000, 0x0000], [0x7F80, 0x7F61, 0x0DA2]], np.uint16)
    kind = onnx.TensorProto.BFLOAT16
    value = check.ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)
    (got,) = check.session(name).run_with_ort_values(None, {"x": value})
    found = ctypes.string_at(got.data_ptr(), bits.nbytes)
    same = got.element_type() == kind and got.shape() == [2, 3] and found == bits.tobytes()
    check.judge(f"{name}/1", same)


def check_several(check):
    a, b = f32([1, 2, 3, 4], [5, 6, 7, 8]), f32([8, 7, 6, 5], [0, 0, 0, 1])
    check.expect("two_inputs", {"a": a, "b": b}, [a + b, a - b])
    a, b = i64([1, 2**40, -3]), i64([2, 2**40, 3])
    check.expect("add_i64", {"a": a, "b": b}, [a + b])
    x = f32([1, -1, 0, 2], [-3, -4, 0, -5])
    check.expect("multi_output", {"x": x}, [x * 2, x > 0, (x > 0).sum(1, keepdims=True)])
    a = np.array([["a", ""], ["ü", "c"]], object)
    b = np.array([["1", "2"], ["3", ""]], object)
    check.expect("concat_strings", {"a": a, "b": b}, [a + b])


def check_axes(check):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    check.expect("no_batch", {"x": x}, [x @ f32([1, 0], [0, 1], [1, 1], [2, -1])])
    check.expect("fixed_one", {"x": x[:1]}, [x[:1] * 2])
    check.fails("fixed_one", {"x": x}, "three rows")
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    check.expect("fixed_four", {"x": x}, [x + 1])
    check.fails("fixed_four", {"x": x[:3]}, "three rows")
    x = np.arange(64, dtype=np.float32).reshape(2, 4, 8)
    check.expect("dynamic_inner", {"x": x}, [x.mean(1)])
    x = np.arange(7, dtype=np.float32)
    check.expect("dynamic_six", {"x": x.reshape(1, 1, 1, 1, 1, 7)}, [x])
    check.fails("dynamic_six", {"x": x[:6].reshape(1, 1, 1, 1, 2, 3)}, "six values")
    x, k = f32([1, 2], [3, 4], [5, 6], [7, 8]), np.array(2, np.float32)
    state = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    after = state + k * x.T[:, :, None]
    inputs = {"x": x, "state": state, "k": k}
    check.expect("axis1_state", inputs, [x + after.sum(2).T, after])


def check_dependent_rows(check):
    x = f32([1, 2, 3, 4], [10, 20, 30, 40])
    check.expect("batch_sum", {"x": x}, [x.sum(0, keepdims=True)])
    check.expect("mixes_rows", {"x": x}, [x - x.mean(0, keepdims=True)])
    check.expect("value_rows", {"x": x}, [x])
    small = (x - x.mean(0, keepdims=True)) * np.float32(0.001)
    check.expect("mixes_small", {"x": x}, [small])
    edges = i64([0, 1, 0], [1, 0, 0])
    check.expect("graph_step", {"x": x, "edges": edges}, [x + f32([11, 22, 33, 44], x[0])])
    check.fails("graph_step", {"x": x[:1], "edges": edges}, "no node 1")
    x = f32([1, 2, 3, 4], [-2, 0, 0, 0], [0, 1, 0, 1])
    check.expect("value_rows", {"x": x}, [x[[0, 2]]])
    check.expect("value_rows", {"x": x[1:2]}, [x[:0]])


def check_failing_values(check):
    rows = [[0, 1, 2, 3], [990, 991, 992, 993], [990, 991, 992, 993]]
    check.expect("gather_100", {"indices": i64([0], [99], [-1])}, [f32(*rows)])
    check.fails("gather_100", {"indices": i64([0], [100])}, "index 100")
    check.expect("expand", {"size": i64([3], [2])}, [np.ones((2, 3), np.float32)])
    check.expect("expand", {"size": i64([0])}, [np.ones((1, 0), np.float32)])
    check.fails("expand", {"size": i64([2**50])}, "petabytes")
    check.fails("expand", {"size": i64([2**62])}, "more bytes than 64 bits can count")
    check.fails("expand", {"size": i64([-1])}, "negative")

    a, b = np.array([[7], [-7]], np.int32), np.array([[2], [2]], np.int32)
    check.expect("int_divide", {"a": a, "b": b}, [np.array([[3], [-3]], np.int32)])
    # What ONNX Runtime does here is its own business: up to 1.32 the second division, whose result
    # does not fit, ends the process. So other processes try it, and nothing is judged.
    for a, b in ((1, 0), (-(2**31), -1)):
        code = (
            "import sys, numpy as np, onnxruntime as ort\n"
            "s = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
            f"print(s.run(None, {{'a': np.int32([[{a}]]), 'b': np.int32([[{b}]])}}))\n"
        )
        command = [sys.executable, "-c", code, str(MODELS / path_of(("int_divide", 1)))]
        done = subprocess.run(command, capture_output=True, text=True)
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        print(f"note int_divide {a} / {b}: exit code {done.returncode} {' '.join(last)}".rstrip())


def check_loop(check):
    x = f32([0], [5])
    few, many = np.array(1000), np.array(2_000_000)
    check.expect("loop_busy", {"x": x, "iterations": few}, [x + 1000])
    session = check.session("loop_busy")
    begun = time.monotonic()
    session.run(None, {"x": x, "iterations": many})
    took = time.monotonic() - begun
    print(f"note loop_busy: {many} turns take {took:.1f} s")
    # The same run, stopped from outside.
    options = check.ort.RunOptions()
    stopper = threading.Timer(took / 10, lambda: setattr(options, "terminate", True))
    stopper.start()
    begun = time.monotonic()
    try:
        session.run(None, {"x": x, "iterations": many}, options)
        check.judge("loop_busy", False, "was not stopped")
    except Exception:
        stopped = time.monotonic() - begun
        check.judge("loop_busy", stopped < took / 2, f"stopped after {stopped:.1f} s")
    stopper.join()


def check_repository(check):
    x = f32([1], [2.5])
    for version in (1, 2):
        check.expect("two_versions", {"x": x}, [x * version], version)
    check.unloadable("broken")
    session = check.session("sequence_output")
    (got,) = session.run(None, {"x": f32([1, 2])})
    note = session.get_outputs()[0].type
    check.judge("sequence_output/1", isinstance(got, list) and len(got) == 2, note)


def check_mlp(check):
    net = onnx.load_from_string(check.files["mlp_tiny", 1])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in net.graph.initializer}
    x = np.random.default_rng(SEED).integers(-16, 17, (32, 64)).astype(np.float32) / 16
    hidden = np.maximum(x @ weights["w0"] + weights["b0"], 0)
    y = hidden @ weights["w1"] + weights["b1"]
    check.expect("mlp_tiny", {"x": x}, [y])
    session = check.session("mlp_tiny")
    alone = [session.run(None, {"x": x[row : row + 1]})[0] for row in range(len(x))]
    same = np.array_equal(np.concatenate(alone), y)
    check.judge("mlp_tiny/1", same, "rows alone equal rows together")


def check_text(check):
    net = onnx.load_from_string(check.files["text_encoder", 1])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in net.graph.initializer}
    names = {"words", "places", "scores"}
    layered = ("query", "key", "value", "mixed", "up", "down", "before", "between")
    used = [name for name in weights if name in names or name.startswith(layered)]
    weights = {name: weights[name] for name in used}
    rng = np.random.default_rng(SEED)
    session = check.session("text_encoder")
    lengths = [1, 7, 128, 30]
    ids = rng.integers(0, SMALL_TEXT["words"], (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    pooled, scores = session.run(None, {"input_ids": ids * mask, "attention_mask": mask})
    expected = reference(weights, SMALL_TEXT["heads"], ids * mask, mask)
    off = max(abs(pooled - expected[0]).max(), abs(scores - expected[1]).max())
    check.judge("text_encoder/1", off < 1e-4, f"differs from numpy by {off:.1e}")
    off = 0
    for row, length in enumerate(lengths):
        own = slice(row, row + 1), slice(length)
        alone = session.run(None, {"input_ids": ids[own], "attention_mask": mask[own]})
        off = max(off, abs(alone[0] - pooled[row]).max())
        off = max(off, abs(alone[1] - scores[row, :length]).max())
    check.judge("text_encoder/1", off < 1e-4, f"padded differs from alone by {off:.1e}")
    apart = abs(pooled[0] - pooled[1]).max()
    check.judge("text_encoder/1", apart > 0.1, f"two texts differ by {apart:.1f}")
    ones = np.ones((1, 129), np.int64)
    check.fails("text_encoder", {"input_ids": ones, "attention_mask": ones}, "129 tokens")


def run_checks(files):
    """Compares with SHA256SUMS and runs every model. Returns the number of faults."""
    check = Check(files)
    for part in (
        check_files,
        check_types,
        check_several,
        check_axes,
        check_dependent_rows,
        check_failing_values,
        check_loop,
        check_repository,
        check_mlp,
        check_text,
    ):
        part(check)
    return check.faults


def main():
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--check", action="store_true", help="write nothing; compare and run")
    flags.add_argument(
        "--bench", type=Path, metavar="FOLDER", help="write the models for load tests there"
    )
    given = flags.parse_args()
    if given.bench:
        write(bench_models(), given.bench)
        return 0
    files = models()
    if given.check:
        faults = run_checks(files)
        print(f"{faults} faults")
        return 1 if faults else 0
    write(files, MODELS)
    SUMS.write_text(sums_of(files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
