"""From a file or a recording to a request, and from an answer to what it means. No calls here."""

import wave
from pathlib import Path

import numpy as np
from inference_pb2 import ModelInferRequest

BLOCK = 4096  # bytes that are looked at, at each end of a file
SIDE = 1024  # values of the row that come from each end
PADDING = 256  # stands for no byte
SPACES = b" \t\n\v\f\r"

CONTEXT, WINDOW = 64, 512  # samples: seen again, and new
SILENCE = np.zeros(WINDOW, np.float32)

DATATYPES = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}


def add(request, name, array):
    """Adds an input as raw bytes."""
    request.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
    request.raw_input_contents.append(array.tobytes())


def magika_request(row):
    request = ModelInferRequest(model_name="magika")
    add(request, "bytes", np.array([row], np.int32))
    return request


def magika_row(file):
    """Both ends of a file without the white space around it."""
    content = Path(file).read_bytes()
    head = content[:BLOCK].lstrip(SPACES)[:SIDE]
    tail = content[-BLOCK:].rstrip(SPACES)[-SIDE:]
    return [*head, *[PADDING] * (2 * SIDE - len(head) - len(tail)), *tail]


def best_label(answer, models):
    """The label with the largest score, the first one on a tie."""
    scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
    labels = (Path(models) / "magika" / "labels.txt").read_text().split()
    return labels[scores.argmax()], scores.max()


def read_wav(file):
    """Samples from -1 to 1, filled up to whole windows."""
    with wave.open(str(file)) as wav:
        if (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) != (16000, 1, 2):
            raise SystemExit(f"{file}: expected 16 kHz mono 16-bit WAV")
        samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2").astype(np.float32) / 32768
    return np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)


class Listener:
    """What a stream carries from one step to the next."""

    def __init__(self):
        self.context = np.zeros(CONTEXT, np.float32)
        self.state = np.zeros((2, 1, 128), np.float32)

    def request(self, window):
        """The next step: samples that were heard before, the new ones, and the state."""
        request = ModelInferRequest(model_name="silero-vad")
        add(request, "input", np.concatenate([self.context, window])[None])
        add(request, "state", self.state)
        add(request, "sr", np.array(16000, np.int64))
        self.context = window[-CONTEXT:]
        return request

    def hear(self, message):
        """The probability of speech; keeps the state for the next step."""
        if message.error_message:
            raise RuntimeError(message.error_message)
        answer = message.infer_response
        arrays = {
            output.name: np.frombuffer(raw, np.float32).reshape(output.shape)
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }
        self.state = arrays["stateN"]
        return float(arrays["output"][0, 0])


def print_speech(probabilities):
    voiced = sum(probability >= 0.5 for probability in probabilities)
    print(f"speech: {len(probabilities)} steps, {voiced} with speech")
    for start in range(0, len(probabilities), 10):
        print(*[f"{each:.3f}" for each in probabilities[start : start + 10]])
