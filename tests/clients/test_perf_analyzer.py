"""NVIDIA's load generator gives its full report, in every mode, over both wires."""

import re

import pytest

import harness

# The binary is built for a newer C library than many machines have; tools.sh brings one along.
ROOT = harness.TOOLS / "perf-analyzer"
LIBRARIES = ROOT / "root" / "usr" / "lib" / harness.MULTIARCH
COMMAND = [
    next(LIBRARIES.glob("ld-linux-*.so.*")),
    "--library-path",
    LIBRARIES,
    ROOT / "perf_analyzer" / "bin" / "perf_analyzer",
]
# Short, and content with whatever it measures: it is asked whether it works, not how fast it is.
SHORT = ["--measurement-interval", "500", "--stability-percentage", "999"]
# It cannot send a scalar, which silero-vad wants.
TINY = ["-m", "mlp_tiny", "-b", "8", "--concurrency-range", "16"]


def report(server, wire, *words):
    address = server.grpc if wire == "grpc" else server.http
    done = harness.run(*COMMAND, "-i", wire, "-u", address, *SHORT, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("wire", ["grpc", "http"])
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "magika", "--concurrency-range", "2:4:2"],
        ["-m", "magika", "--concurrency-range", "4", "--async"],
        ["-m", "magika", "--request-rate-range", "40"],
        TINY,
    ],
    ids=["concurrency", "asynchronous", "rate", "rows"],
)
def test_unary(server, wire, words):
    text = report(server, wire, *words)
    # What the client counted and what the server counted are both there, and there was no failure.
    assert re.search(r"Client:\s+Request count: [1-9]", text), text
    assert re.search(r"Server:\s+Inference count: [1-9]", text), text
    assert re.search(r"queue [0-9]+ usec \+ compute input [0-9]+ usec", text), text


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "magika", "--concurrency-range", "2"],
        TINY,
        ["-m", "magika", "--request-rate-range", "40"],
    ],
    ids=["concurrency", "rows", "rate"],
)
def test_bidirectional_streams(server, words):
    text = report(server, "grpc", "--streaming", *words)
    assert re.search(r"Client:\s+Request count: [1-9]", text), text
    assert re.search(r"Successful request count: [1-9]", text), text
