"""One server with every model for the tests that only ask, and the clients."""

import sys
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2_grpc

import harness

# What the endurance trials have, too.
sys.path.append(str(Path(__file__).resolve().parents[1] / "endurance"))

# Files that cannot be served, on purpose.
BROKEN = {"broken", "sequence_output"}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Every model, one thread inside a run, as in the sessions that answers are compared with."""
    repository = tmp_path_factory.mktemp("repository")
    names = {path.name for path in harness.TEST_MODELS.iterdir()} - BROKEN
    harness.copy_models(repository, *sorted(names))
    harness.copy_models(repository, "magika", "silero-vad", source=harness.MODELS)
    # Two versions of a model are served, not only the newest.
    (repository / "two_versions" / "model.toml").write_text('version_policy = "all"\n')
    server = harness.Server(repository, "--strict", "--intra-op-threads", "1")
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)
