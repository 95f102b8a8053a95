"""KServe's own Python clients, gRPC and REST, in the environment that they need."""

import json

import pytest

import harness

PYTHON = harness.ROOT / ".venv" / "kserve" / "bin" / "python"
CALLS = harness.ROOT / "tests" / "clients" / "kserve_calls.py"
ANSWER = {"id": "seven", "name": "y", "values": [[1.5, -2.0, 3.25]]}


@pytest.fixture(scope="module")
def seen(server):
    done = harness.run(PYTHON, CALLS, server.grpc, server.http)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("wire", ["grpc", "rest"])
def test_descriptions(seen, wire):
    told = seen[wire]
    assert told["live"] and told["ready"] and told["model"]
    assert not told["absent"]


@pytest.mark.parametrize("wire", ["grpc", "rest"])
@pytest.mark.parametrize("form", ["raw", "typed"])
def test_predictions(seen, wire, form):
    assert seen[wire][form] == ANSWER


@pytest.mark.parametrize("wire", ["grpc", "rest"])
def test_errors_reach_the_caller(seen, wire):
    assert "model `nosuch` is not in the repository" in seen[wire]["error"]
