"""The same models run directly with ONNX Runtime, and real input for them."""

import io
import os
import subprocess
import sys
import wave
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from magika import Magika
from magika.types import Seekable

import harness

WINDOW, CONTEXT = 512, 64


def session(model):
    """One thread, as the server has it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    path = harness.MODELS / model / "1" / "model.onnx"
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@cache
def labels():
    return (harness.MODELS / "magika" / "labels.txt").read_text().splitlines()


@cache
def package():
    """The Python package that magika's model comes from."""
    return Magika()


def features(path):
    """The row that the package makes of a file; None if it would not ask the model."""
    content = Path(path).read_bytes()
    result, features = package()._get_result_or_features_from_seekable(
        Seekable(io.BytesIO(content))
    )
    return None if features is None else np.array(features.beg + features.end, np.int32)


@cache
def real_files(count):
    """Files of this machine's Python and Go distributions, as mixed as they come."""
    goroot = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True)
    roots = [Path(sys.base_prefix) / "lib", Path(sys.prefix) / "lib", Path(goroot.stdout.strip())]
    by_suffix = {}
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                kept = by_suffix.setdefault(path.suffix, [])
                if len(kept) < 12 and path.is_file() and not path.is_symlink():
                    if features(path) is not None:
                        kept.append(path)
    mixed = []
    # One of each suffix, then another of each, until there are enough.
    for turn in range(12):
        mixed += [kept[turn] for _, kept in sorted(by_suffix.items()) if len(kept) > turn]
    assert len(mixed) >= count, f"{len(mixed)} files found"
    return tuple(mixed[:count])


@cache
def sample():
    """The sample recording: samples from -1 to 1."""
    with wave.open(str(harness.MODELS / "silero-vad" / "sample.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        raw = file.readframes(file.getnframes())
    return np.frombuffer(raw, np.int16).astype(np.float32) / 32768


def windows(samples):
    """Inputs of silero-vad, each with the context before it."""
    rest = -len(samples) % WINDOW
    padded = np.concatenate([np.zeros(CONTEXT), samples, np.zeros(rest)]).astype(np.float32)
    starts = range(0, len(padded) - CONTEXT, WINDOW)
    return [padded[start : start + CONTEXT + WINDOW][None] for start in starts]


def listen(session, windows):
    """(probability, state) after each window."""
    state = np.zeros((2, 1, 128), np.float32)
    rate = np.array(16000, np.int64)
    steps = []
    for window in windows:
        output, state = session.run(None, {"input": window, "state": state, "sr": rate})
        steps.append((output, state))
    return steps
