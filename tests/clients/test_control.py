"""NVIDIA's Python client loads, unloads and asks for classes; callers call while models change."""

import os
import shutil
import threading

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import harness
import reference

SWAPS = 30


def row():
    return reference.features(harness.MODELS / "README.md")[None]


def ask(client, model="magika", **outputs):
    tensor = triton.InferInput("bytes", [1, 2048], "INT32").set_data_from_numpy(row())
    wanted = [triton.InferRequestedOutput("target_label", **outputs)]
    return client.infer(model, [tensor], outputs=wanted)


@pytest.fixture
def controlled(tmp_path):
    harness.copy_models(tmp_path, "magika", "ppocr-angle", source=harness.MODELS)
    server = harness.Server(
        tmp_path, "--model-control", "explicit", "--load-models", "ppocr-angle"
    )
    with triton.InferenceServerClient(server.admin) as operator:
        yield server, operator, tmp_path
    server.stop()


# --- classes -------------------------------------------------------------------------------------


def test_classes_have_labels_and_the_scores_of_the_output(client):
    scores = ask(client).as_numpy("target_label")[0]
    classes = ask(client, class_count=3).as_numpy("target_label")
    assert classes.shape == (1, 3)
    labels = (harness.MODELS / "magika" / "labels.txt").read_text().split()
    best = np.argsort(-scores, kind="stable")[:3]
    expected = [f"{scores[index]:.6f}:{index}:{labels[index]}" for index in best]
    assert [each.decode() for each in classes[0]] == expected
    assert expected[0].endswith(":markdown")


def test_classes_without_labels(client):
    values = np.array([[1.0, 3.0, 2.0]], np.float32)
    tensor = triton.InferInput("x", [1, 3], "FP32").set_data_from_numpy(values)
    wanted = [triton.InferRequestedOutput("y", class_count=2)]
    classes = client.infer("identity_f32", [tensor], outputs=wanted).as_numpy("y")
    assert classes.tolist() == [[b"3.000000:1", b"2.000000:2"]]


# --- loading by name -----------------------------------------------------------------------------


def test_load_and_unload(controlled):
    server, operator, _ = controlled
    index = {each.name: each for each in operator.get_model_repository_index().models}
    assert index["ppocr-angle"].state == "READY"
    assert (index["magika"].state, index["magika"].reason) == ("UNAVAILABLE", "unloaded")
    with triton.InferenceServerClient(server.grpc) as client:
        assert not client.is_model_ready("magika")
        with pytest.raises(InferenceServerException, match="not loaded"):
            ask(client)
        operator.load_model("magika")
        assert client.is_model_ready("magika")
        assert ask(client).as_numpy("target_label").shape == (1, 214)
        operator.unload_model("magika")
        assert not client.is_model_ready("magika")
        operator.load_model("magika")
        ask(client)


def test_what_is_refused_says_why(controlled):
    server, operator, _ = controlled
    with pytest.raises(InferenceServerException, match="not in the repository") as absent:
        operator.load_model("nosuch")
    assert absent.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="by name only"):
        operator.load_model("magika", config='{"max_batch_size": 1}')
    with pytest.raises(InferenceServerException, match="predictions are not served"):
        ask(operator)
    with triton.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException, match="the admin port has it") as refused:
            client.load_model("magika")
        assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_a_bad_version_replaces_nothing(controlled):
    server, operator, repository = controlled
    operator.load_model("magika")
    (repository / "magika" / "2").mkdir()
    (repository / "magika" / "2" / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InferenceServerException) as failed:
        operator.load_model("magika")
    assert failed.value.status() == "StatusCode.FAILED_PRECONDITION"
    with triton.InferenceServerClient(server.grpc) as client:
        assert ask(client).get_response().model_version == "1"


def test_what_is_not_served_says_why(client):
    calls = [
        ("Unix socket", client.register_system_shared_memory, "r", "/r", 4),
        ("Unix socket", client.unregister_system_shared_memory),
        ("Unix socket", client.register_cuda_shared_memory, "r", b"aGFuZGxl", 0, 4),
        ("Unix socket", client.unregister_cuda_shared_memory, "r"),
        ("operator", client.get_trace_settings),
        ("operator", client.update_trace_settings, "magika", {}),
        ("operator", client.get_log_settings),
        ("operator", client.update_log_settings, {}),
    ]
    for reason, call, *words in calls:
        with pytest.raises(InferenceServerException, match=reason) as refused:
            call(*words)
        assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions


# --- changes under load --------------------------------------------------------------------------


class Callers:
    """Threads that call without a pause; the first failure ends each."""

    def __init__(self, address, count=4):
        self.stop, self.answered, self.failures = threading.Event(), [], []
        self.threads = [threading.Thread(target=self._call, args=(address,)) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _call(self, address):
        answered = 0
        try:
            with triton.InferenceServerClient(address) as client:
                while not self.stop.is_set():
                    ask(client)
                    answered += 1
        except Exception as failure:  # whatever it is, it is told below
            self.failures.append(failure)
        self.answered.append(answered)

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(harness.PATIENCE)
        assert not self.failures
        assert min(self.answered) > 0


def test_thirty_swaps_on_request_fail_no_call(controlled):
    server, operator, repository = controlled
    operator.load_model("magika")
    callers = Callers(server.grpc)
    for version in range(2, SWAPS + 2):
        shutil.copytree(repository / "magika" / "1", repository / "magika" / str(version))
        operator.load_model("magika")
    callers.finish()
    with triton.InferenceServerClient(server.grpc) as client:
        assert ask(client).get_response().model_version == str(SWAPS + 1)


def swap(root, number):
    """A new folder behind the link, the way Kubernetes changes a mounted volume."""
    data = root / f"..data_{number}"
    harness.copy_models(data, "magika", source=harness.MODELS)
    # The version tells which folder is served.
    (data / "magika" / "1").rename(data / "magika" / str(number + 1))
    os.symlink(data.name, root / "..data_tmp")
    os.rename(root / "..data_tmp", root / "..data")


def test_polling_sees_swapped_links_and_fails_no_call(tmp_path):
    swap(tmp_path, 0)
    os.symlink("..data/magika", tmp_path / "magika")
    server = harness.Server(tmp_path, "--model-control", "poll", "--poll-ms", "20")
    with triton.InferenceServerClient(server.grpc) as client:
        callers = Callers(server.grpc, count=2)
        for number in range(1, 6):
            swap(tmp_path, number)
            version = str(number + 1)
            harness.wait_until(
                lambda: client.is_model_ready("magika", version), f"version {version}"
            )
        callers.finish()
        assert ask(client).get_response().model_version == "6"
        harness.wait_until(lambda: not client.is_model_ready("magika", "5"), "5 has gone")
    server.stop()
