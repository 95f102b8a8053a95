#!/usr/bin/env python3
"""Writes the ONNX project's own back-end test cases as a model repository.

    extract_onnx_backend.py FOLDER                    all kinds
    extract_onnx_backend.py FOLDER --kinds node,light some of them
    extract_onnx_backend.py FOLDER --check            then runs each case with ONNX Runtime

The cases come out of the installed `onnx` package (requirements.txt) and are never kept here.

    FOLDER/<case>/1/model.onnx
    FOLDER/<case>/test_data_set_<n>/input_<i>.pb    TensorProto, named like the i-th input
    FOLDER/<case>/test_data_set_<n>/output_<i>.pb   TensorProto, named like the i-th output
    FOLDER/cases.tsv                                one line a case

| kind | what | where in the package |
| --- | --- | --- |
| node | one operator each | made by code: `onnx.backend.test.case.node` |
| simple | small graphs | files |
| pytorch-operator, pytorch-converted | exported by PyTorch | files |
| light | image nets with made-up weights; inputs are made as the package's runner does | files |

Tensors are written with `raw_data` (strings with `string_data`), whatever form they had, so that a
reader needs no other. Values that are no tensors (sequences, optionals), and tensors of types that
the protocol lacks, are written as the package has them; column `refused` of cases.tsv says so.
Columns: name, kind, rtol, atol, number of data sets, refused (`-`, or why it cannot be served).
"""

import argparse
import os
import shutil
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
FILE_KINDS = ("simple", "pytorch-operator", "pytorch-converted")
KINDS = ("node", *FILE_KINDS, "light")
SEED = 0

# Element types that the protocol has.
SERVED = {
    getattr(TensorProto, name)
    for name in (
        "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 "
        "FLOAT16 BFLOAT16 FLOAT DOUBLE STRING"
    ).split()
}

# Usual tolerance of the package's runner.
RTOL, ATOL = 1e-3, 1e-7


class Case:
    """A model and its recorded values; `sets` is a list of (inputs, outputs)."""

    def __init__(self, name, kind, model, sets, rtol=RTOL, atol=ATOL):
        self.name, self.kind, self.model, self.sets = name, kind, model, sets
        self.rtol, self.atol = rtol, atol
        weights = {tensor.name for tensor in model.graph.initializer}
        # Old files list their weights among the inputs.
        self.inputs = [value for value in model.graph.input if value.name not in weights]
        self.outputs = list(model.graph.output)

    def refused(self):
        """Why a server of tensors cannot serve it, or `-`."""
        for value in (*self.inputs, *self.outputs):
            kind = value.type.WhichOneof("value")
            if kind != "tensor_type":
                return kind.removesuffix("_type")
            element = value.type.tensor_type.elem_type
            if element not in SERVED:
                return TensorProto.DataType.Name(element)
        return "-"


def serialized(value, declared):
    """Bytes of the .pb file of one recorded value."""
    name = declared.name
    kind = declared.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.from_list(value, name).SerializeToString()
    if kind == "optional_type":
        return numpy_helper.from_optional(value, name).SerializeToString()
    if isinstance(value, TensorProto) and value.data_type not in SERVED:
        return value.SerializeToString()
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    return numpy_helper.from_array(np.asarray(value), name).SerializeToString()


def node_cases():
    from onnx.backend.test.loader import load_model_tests

    # The values are random; the same seed makes the same files.
    np.random.seed(SEED)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    for case in found:
        yield Case(case.name, "node", case.model, case.data_sets, case.rtol, case.atol)


def read_value(path, declared):
    content = path.read_bytes()
    kind = declared.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return TensorProto.FromString(content)


def file_cases(kind):
    for folder in sorted(path for path in (DATA / kind).iterdir() if path.is_dir()):
        case = Case(folder.name, kind, onnx.load(folder / "model.onnx"), [])
        for data in sorted(folder.glob("test_data_set_*")):
            parts = []
            for stem, declared in (("input", case.inputs), ("output", case.outputs)):
                count = len(list(data.glob(f"{stem}_*.pb")))
                paths = [data / f"{stem}_{index}.pb" for index in range(count)]
                parts.append([read_value(*pair) for pair in zip(paths, declared)])
            case.sets.append(tuple(parts))
        yield case


def light_cases():
    for path in sorted((DATA / "light").glob("*.onnx")):
        name = path.stem
        output = TensorProto.FromString(path.with_name(f"{name}_output_0.pb").read_bytes())
        # The package allows one of them more.
        rtol = 2e-3 if "densenet" in name else RTOL
        case = Case(f"test_{name}", "light", onnx.load(path), [], rtol)
        inputs = []
        for declared in case.inputs:
            shape = [dim.dim_value or 1 for dim in declared.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            inputs.append((np.arange(count).reshape(shape) / count).astype(np.float32))
        case.sets.append((inputs, [output]))
        yield case


def cases(kinds):
    if "node" in kinds:
        yield from node_cases()
    for kind in FILE_KINDS:
        if kind in kinds:
            yield from file_cases(kind)
    if "light" in kinds:
        yield from light_cases()


def write(case, folder):
    """Writes one case and returns its size in bytes."""
    files = {"1/model.onnx": case.model.SerializeToString()}
    for number, (inputs, outputs) in enumerate(case.sets):
        for stem, values, declared in (
            ("input", inputs, case.inputs),
            ("output", outputs, case.outputs),
        ):
            if len(values) != len(declared):
                raise ValueError(f"{case.name}: {len(values)} {stem}s, declared {len(declared)}")
            for index, pair in enumerate(zip(values, declared)):
                path = f"test_data_set_{number}/{stem}_{index}.pb"
                files[path] = serialized(*pair)
    for path, content in files.items():
        target = folder / case.name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return sum(map(len, files.values()))


# --- check ---------------------------------------------------------------------------------------


def value_of(ort, tensor):
    """A recorded tensor as a value of the runtime, which knows bfloat16 where numpy does not."""
    array = numpy_helper.to_array(tensor)
    if tensor.data_type == TensorProto.BFLOAT16:
        bits = array.view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def array_of(value):
    """A value of the runtime as an array; bfloat16 becomes float32."""
    if value.element_type() != TensorProto.BFLOAT16:
        return value.numpy()
    import ctypes

    count = int(np.prod(value.shape()))
    bits = np.frombuffer(ctypes.string_at(value.data_ptr(), count * 2), np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(value.shape())


def run(ort, session, recorded):
    """Arrays that a run on recorded tensors gives."""
    values = (*session.get_inputs(), *session.get_outputs())
    if any(value.type == "tensor(bfloat16)" for value in values):
        names = [value.name for value in session.get_outputs()]
        feed = {tensor.name: value_of(ort, tensor) for tensor in recorded}
        return [array_of(value) for value in session.run_with_ort_values(names, feed)]
    feed = {tensor.name: numpy_helper.to_array(tensor) for tensor in recorded}
    return [np.asarray(array) for array in session.run(None, feed)]


def compare(name, got, expected, rtol, atol):
    """Why two tensors differ, or nothing."""
    want = numpy_helper.to_array(expected)
    if expected.data_type == TensorProto.BFLOAT16:
        # Two steps of its last bit.
        want, rtol = want.astype(np.float32), max(rtol, 2**-6)
    if got.shape != want.shape:
        return f"{name}: shape {got.shape}, recorded {want.shape}"
    if want.dtype == object:
        return None if (got == want).all() else f"{name}: other strings"
    if got.dtype != want.dtype:
        return f"{name}: type {got.dtype}, recorded {want.dtype}"
    with np.errstate(all="ignore"):
        close = np.allclose(got, want, rtol, atol, equal_nan=True)
    return None if close else f"{name}: other values"


def tensors(folder, stem, count):
    paths = [folder / f"{stem}_{index}.pb" for index in range(count)]
    return [TensorProto.FromString(path.read_bytes()) for path in paths]


def run_case(ort, folder, rtol, atol):
    """Outcome of one written case: (word, detail)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        path = folder / "1" / "model.onnx"
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return "not loaded", str(error)
    inputs, outputs = len(session.get_inputs()), len(session.get_outputs())
    for data in sorted(folder.glob("test_data_set_*")):
        try:
            got = run(ort, session, tensors(data, "input", inputs))
        except Exception as error:
            return "not run", str(error)
        for array, expected in zip(got, tensors(data, "output", outputs)):
            problem = compare(expected.name, array, expected, rtol, atol)
            if problem:
                return "differs", problem
    return "equal", ""


def check(folder, lines):
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    outcomes = defaultdict(Counter)
    for name, kind, rtol, atol, _, refused in lines:
        if refused != "-":
            outcomes[kind]["refused"] += 1
            continue
        word, detail = run_case(ort, folder / name, float(rtol), float(atol))
        outcomes[kind][word] += 1
        if word != "equal":
            # The runtime's reason is at the end of its messages, behind places in its source.
            print(f"{word}: {name}: {' '.join(detail.split())[-160:]}")
    for kind, counts in outcomes.items():
        print(f"{kind}: " + ", ".join(f"{count} {word}" for word, count in counts.most_common()))


def main():
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("folder", type=Path)
    flags.add_argument("--kinds", default=",".join(KINDS), help="default: all")
    flags.add_argument("--check", action="store_true", help="run the cases with ONNX Runtime")
    given = flags.parse_args()
    kinds = given.kinds.split(",")
    unknown = set(kinds) - set(KINDS)
    if unknown:
        flags.error(f"unknown kind {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}")

    lines, sizes, counts = [], Counter(), Counter()
    for case in cases(kinds):
        folder = given.folder / case.name
        if any(case.name == line[0] for line in lines):
            raise ValueError(f"two cases are called {case.name}")
        shutil.rmtree(folder, ignore_errors=True)
        sizes[case.kind] += write(case, given.folder)
        counts[case.kind] += 1
        numbers = (f"{case.rtol:g}", f"{case.atol:g}", str(len(case.sets)))
        lines.append((case.name, case.kind, *numbers, case.refused()))
    table = [("name", "kind", "rtol", "atol", "sets", "refused"), *lines]
    (given.folder / "cases.tsv").write_text("".join("\t".join(line) + "\n" for line in table))
    for kind, count in counts.items():
        print(f"{kind}: {count} cases, {sizes[kind]:,} bytes")
    if given.check:
        check(given.folder, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
