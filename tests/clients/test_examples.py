"""The example clients: each is built as its README says, and all of them get the same numbers."""

import re
import subprocess

import numpy as np
import pytest

import harness
import reference

EXAMPLES = harness.ROOT / "examples" / "clients"
# Folder, and the flag that chooses among the ways to call that one folder shows.
CLIENTS = [
    ("python-grpcio", None),
    ("python-grpcio", "--asyncio"),
    ("python-tritonclient", None),
    ("go", None),
    ("java", None),
    ("node", None),
    ("cpp", None),
    ("rust", None),
    ("browser", None),
    ("shell", None),
]
NAMES = ["".join(part for part in client if part) for client in CLIENTS]
FILES = [
    "README.md",
    "Cargo.toml",
    "Makefile",
    "src/lib.rs",
    "proto/inference.proto",
    "tests/clients/harness.py",
    "models/silero-vad/sample.wav",
    "models/silero-vad/1/model.onnx",
]
SPEECH = ["speech", str(harness.MODELS / "silero-vad" / "sample.wav")]
COMMANDS = [["classify", str(harness.ROOT / file)] for file in FILES] + [
    SPEECH,
    ["deadline"],
    ["cancel"],
    ["error"],
]
# First builds fetch and compile whole libraries.
BUILD_PATIENCE = 900.0


@pytest.fixture(scope="module")
def shipped():
    """The models as they are shipped; pages may call."""
    server = harness.Server(harness.MODELS, "--strict", "--cors-allow-origins", "*")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def built():
    """Builds a client the first time that it is asked for."""
    done = set()

    def build(folder):
        if folder not in done:
            made = harness.run(EXAMPLES / folder / "build", patience=BUILD_PATIENCE)
            assert made.returncode == 0, made.stdout + made.stderr
            assert made.stdout == "", "quiet unless something is wrong"
            done.add(folder)
        return EXAMPLES / folder / "client"

    return build


def output(client, flag, server, command):
    flags = ["--addr", server.grpc, "--models", harness.MODELS] + ([flag] if flag else [])
    done = harness.run(client, *flags, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def expected(shipped, built):
    """What the first client prints; whether that is right is tested below."""
    client = built(CLIENTS[0][0])
    return {tuple(each): output(client, CLIENTS[0][1], shipped, each) for each in COMMANDS}


def test_every_folder_is_here():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == {folder for folder, _ in CLIENTS}


def test_classify_is_what_the_model_says(expected):
    session = reference.session("magika")
    for file in FILES:
        printed = expected["classify", str(harness.ROOT / file)]
        label, score = re.fullmatch(r"classify: (\S+) ([01]\.\d{4})\n", printed).groups()
        scores = session.run(None, {"bytes": reference.features(harness.ROOT / file)[None]})[0][0]
        assert label == reference.labels()[scores.argmax()], file
        assert float(score) == pytest.approx(scores.max(), abs=1e-3), file


def test_speech_is_what_the_model_says(expected):
    first, *lines = expected[tuple(SPEECH)].splitlines()
    printed = np.array([float(each) for line in lines for each in line.split()])
    steps = reference.listen(reference.session("silero-vad"), reference.windows(reference.sample()))
    alone = np.array([probability.item() for probability, _ in steps])
    assert first == f"speech: {len(alone)} steps, {(alone >= 0.5).sum()} with speech"
    assert np.abs(printed - alone).max() <= 0.001


def test_ends_are_told_by_their_codes(expected):
    assert expected["deadline",] == "deadline: DEADLINE_EXCEEDED after 1 answer\n"
    assert expected["cancel",] == "cancel: CANCELLED after 3 answers\n"
    refusal = "input `bytes`: expected shape [-1, 2048], got [1, 3]"
    assert expected["error",] == f"error: INVALID_ARGUMENT: {refusal}\n"


@pytest.mark.parametrize(("folder", "flag"), CLIENTS[1:], ids=NAMES[1:])
def test_all_print_the_same(shipped, built, expected, folder, flag):
    client = built(folder)
    for command in COMMANDS:
        assert output(client, flag, shipped, command) == expected[tuple(command)], command


@pytest.mark.parametrize(("folder", "flag"), CLIENTS, ids=NAMES)
def test_failures_end_with_a_code_and_a_sentence(built, folder, flag):
    client = built(folder)
    unused = "127.0.0.1:1"
    flags = ["--addr", unused, "--models", harness.MODELS] + ([flag] if flag else [])
    failed = harness.run(client, *flags, "classify", harness.ROOT / "README.md")
    assert failed.returncode == 1 and failed.stdout == "" and failed.stderr, failed
    wrong = subprocess.run([client, "no-such-command"], capture_output=True, timeout=60)
    assert wrong.returncode == 2
