"""Calls an onnxd server in five ways with NVIDIA's client: only the address is ours."""

import argparse
import queue
import sys
import wave
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

BLOCK = 4096  # bytes that are looked at, at each end of a file
SIDE = 1024  # values of the row that come from each end
PADDING = 256  # stands for no byte
SPACES = b" \t\n\v\f\r"

CONTEXT, WINDOW = 64, 512  # samples: seen again, and new
SILENCE = np.zeros(WINDOW, np.float32)


def tensor(name, array):
    datatype = np_to_triton_dtype(array.dtype)
    return triton.InferInput(name, array.shape, datatype).set_data_from_numpy(array)


def code(error):
    """`StatusCode.NOT_FOUND` without the first word."""
    return (error.status() or "UNKNOWN").removeprefix("StatusCode.")


def magika_row(file):
    """Both ends of a file without the white space around it."""
    content = Path(file).read_bytes()
    head = content[:BLOCK].lstrip(SPACES)[:SIDE]
    tail = content[-BLOCK:].rstrip(SPACES)[-SIDE:]
    return [*head, *[PADDING] * (2 * SIDE - len(head) - len(tail)), *tail]


def ask_magika(client, row):
    inputs = [tensor("bytes", np.array([row], np.int32))]
    return client.infer("magika", inputs, client_timeout=5).as_numpy("target_label")[0]


class Stream:
    """One stream, whose answers come to a callback on another thread."""

    def __init__(self, client, timeout=None):
        self.client, self.answers = client, queue.Queue()
        self.context = np.zeros(CONTEXT, np.float32)
        self.state = np.zeros((2, 1, 128), np.float32)
        client.start_stream(
            lambda result, error: self.answers.put((result, error)), stream_timeout=timeout
        )

    def answer(self):
        result, error = self.answers.get()
        if error:
            raise error
        return result

    def step(self, window):
        """The probability of speech in the new samples."""
        inputs = [
            tensor("input", np.concatenate([self.context, window])[None]),
            tensor("state", self.state),
            tensor("sr", np.array(16000, np.int64)),
        ]
        self.client.async_stream_infer("silero-vad", inputs)
        answer = self.answer()
        self.context, self.state = window[-CONTEXT:], answer.as_numpy("stateN")
        return float(answer.as_numpy("output")[0, 0])


def classify(client, given):
    scores = ask_magika(client, magika_row(given.file))
    labels = (Path(given.models) / "magika" / "labels.txt").read_text().split()
    print(f"classify: {labels[scores.argmax()]} {scores.max():.4f}")


def speech(client, given):
    with wave.open(given.file) as wav:
        if (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) != (16000, 1, 2):
            sys.exit(f"{given.file}: expected 16 kHz mono 16-bit WAV")
        samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2").astype(np.float32) / 32768
    windows = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
    stream = Stream(client)
    probabilities = [stream.step(window) for window in windows]
    client.stop_stream()
    voiced = sum(probability >= 0.5 for probability in probabilities)
    print(f"speech: {len(probabilities)} steps, {voiced} with speech")
    for start in range(0, len(probabilities), 10):
        print(*[f"{each:.3f}" for each in probabilities[start : start + 10]])


def deadline(client, _given):
    stream = Stream(client, timeout=0.3)
    stream.step(SILENCE)
    try:
        stream.answer()
    except InferenceServerException as error:
        print(f"deadline: {code(error)} after 1 answer")


def cancel(client, _given):
    stream = Stream(client)
    for _ in range(3):
        stream.step(SILENCE)
    client.stop_stream(cancel_requests=True)
    try:
        stream.answer()
    except InferenceServerException as error:
        print(f"cancel: {code(error)} after 3 answers")


def error(client, _given):
    try:
        ask_magika(client, [1, 2, 3])
    except InferenceServerException as refused:
        if code(refused) != "INVALID_ARGUMENT":
            raise
        print(f"error: {code(refused)}: {refused.message()}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addr", default="127.0.0.1:8001", help="gRPC address of the server")
    parser.add_argument("--models", default="models", help="folder of the models, for labels")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, takes_file, text in (
        (classify, True, "tell the type of a file"),
        (speech, True, "tell where a WAV file has speech"),
        (deadline, False, "let the deadline of a stream pass"),
        (cancel, False, "cancel a stream"),
        (error, False, "send a request that the server refuses"),
    ):
        subparser = commands.add_parser(command.__name__, help=text)
        subparser.set_defaults(run=command)
        if takes_file:
            subparser.add_argument("file")
    return parser.parse_args()


def main():
    given = arguments()
    try:
        with triton.InferenceServerClient(given.addr) as client:
            given.run(client, given)
    except InferenceServerException as refused:
        sys.exit(f"{code(refused)}: {refused.message()}")
    except OSError as failed:
        sys.exit(str(failed))


if __name__ == "__main__":
    main()
