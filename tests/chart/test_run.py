"""What is rendered, run: our binary with the pod's arguments, environment, files, user and limits."""

import copy
import hashlib
import json
import math
import time

import pytest

import pod
import rendering
from authority import Authority

TOKEN = "onnxd-of-the-chart"
ACCESS = f"""
[[token]]
name = "ci"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"

[[grant]]
to = ["token:ci"]
models = ["magika"]
rights = ["infer"]
"""


class Cluster:
    """Runs pods of one rendering and ends them."""

    def __init__(self, folder, secrets):
        self.folder, self.secrets, self.containers = folder, secrets, []

    def start(self, rendered, spec, folders=None, network_of=None):
        services = [each["metadata"]["name"] for each in rendered if each["kind"] == "Service"]
        volumes = pod.Volumes(self.folder, spec, rendered, self.secrets, folders)
        container = spec["containers"][0]
        started = pod.Container(spec, container, volumes, services, network_of)
        self.containers.append(started)
        return started

    def server(self, rendered, folders=None):
        return self.start(rendered, rendering.pod_specs(rendered)["deployment"], folders)

    def test(self, rendered, server, change=lambda container: None):
        """Runs the pod of `helm test` beside the server; its exit code and what it printed."""
        spec = copy.deepcopy(rendering.pod_specs(rendered)["test"])
        change(spec["containers"][0])
        started = self.start(rendered, spec, network_of=server.pid())
        return started.wait(), started.text()


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture
def cluster(tmp_path, authority):
    secrets = {
        "server": authority.secret(rendering.NAME, f"{rendering.NAME}.{rendering.NAMESPACE}.svc"),
        "callers": {"ca.crt": authority.pem},
        "caller": authority.secret("caller"),
        "token": {"token": TOKEN.encode()},
    }
    cluster = Cluster(tmp_path, secrets)
    yield cluster
    for container in reversed(cluster.containers):
        container.close()


def wait_for_start(server):
    """The start-up probe as the kubelet sends it, within its budget."""
    probe = server.container["startupProbe"]
    budget = probe["periodSeconds"] * probe["failureThreshold"]
    pod.wait_until(lambda: server.probe(probe)[0], "the start-up probe", budget)
    for each in ("readinessProbe", "livenessProbe"):
        good, words = server.probe(server.container[each])
        assert good, words


def end(server, spec):
    """SIGTERM; the exit code and how long it took, below the pod's grace period."""
    begun = time.monotonic()
    server.signal("TERM")
    code = server.wait(spec["terminationGracePeriodSeconds"])
    return code, time.monotonic() - begun


def test_a_pod_starts_answers_and_ends_in_time(cluster):
    # More than the default only so that a slow machine gets its questions asked within it.
    rendered = rendering.render({"server": {"drain": {"pauseSeconds": 10}}})
    spec = rendering.pod_specs(rendered)["deployment"]
    server = cluster.server(rendered)
    wait_for_start(server)
    code, words = cluster.test(rendered, server)
    assert code == 0 and "target_label FP32 [1, 214]" in words, words

    server.signal("TERM")
    begun = time.monotonic()
    readiness = server.container["readinessProbe"]
    pod.wait_until(lambda: not server.probe(readiness)[0], "not ready")
    # Balancers still send calls until they have noticed.
    code, words = cluster.test(rendered, server)
    assert code == 0, words
    assert server.probe(server.container["livenessProbe"])[0]
    assert server.wait(spec["terminationGracePeriodSeconds"]) == 0, server.text()
    assert time.monotonic() - begun < spec["terminationGracePeriodSeconds"]


def test_the_process_has_no_rights_and_little_memory(cluster):
    rendered = rendering.render()
    server = cluster.server(rendered)
    wait_for_start(server)
    assert cluster.test(rendered, server)[0] == 0
    assert server.status("Uid") == server.status("Gid") == ["65532"] * 4
    assert server.status("Groups") == ["65532"]
    assert {server.status(key)[0] for key in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert server.status("NoNewPrivs") == ["1"]
    mounts = [line.split() for line in open(f"/proc/{server.pid()}/mountinfo")]
    writable = {mount[4] for mount in mounts if "rw" in mount[5].split(",")}
    assert not {path for path in writable if not path.startswith(("/proc", "/dev"))} - {"/tmp"}
    assert any(mount[4] == "/" and "ro" in mount[5].split(",") for mount in mounts)
    peak = int(server.status("VmHWM")[0]) * 1024
    request = pod.bytes_of(server.container["resources"]["requests"]["memory"])
    assert peak < request, f"{peak} bytes above the request of {request}"


def test_what_cannot_be_written_stays_so(cluster):
    """The runner itself: where the root can be written, the test above would see it."""
    rendered = rendering.render({"securityContext": {"readOnlyRootFilesystem": False}})
    server = cluster.server(rendered)
    wait_for_start(server)
    mounts = [line.split() for line in open(f"/proc/{server.pid()}/mountinfo")]
    assert any(mount[4] == "/" and "rw" in mount[5].split(",") for mount in mounts)


SECURED = {
    "tls": {"secretName": "server", "clientCaSecret": "callers", "clientAuth": "optional"},
    "access": {"files": {"access.toml": ACCESS}},
    "server": {"drain": {"pauseSeconds": 0}},
    "tests": {"tokenSecret": "token", "clientSecret": "caller"},
}


def without(*flags):
    def change(container):
        left = [each for each in container["args"] if not each.startswith(flags)]
        assert len(left) <= len(container["args"]) - len(flags)
        container["args"] = left

    return change


def test_tls_and_rights_hold_and_the_test_pod_passes_them(cluster):
    rendered = rendering.render(SECURED)
    spec = rendering.pod_specs(rendered)["deployment"]
    server = cluster.server(rendered)
    wait_for_start(server)
    code, words = cluster.test(rendered, server)
    assert code == 0 and "target_label" in words, words
    # The certificate alone says who calls, but has no rights; with neither nobody calls.
    code, words = cluster.test(rendered, server, without("--token-file"))
    assert code == 1 and "PERMISSION_DENIED" in words and "cert:caller" in words, words
    code, words = cluster.test(rendered, server, without("--token-file", "--tls-cert", "--tls-key"))
    assert code == 1 and "UNAUTHENTICATED" in words, words
    code, words = cluster.test(rendered, server, without("--tls"))
    assert code == 1 and "target_label" not in words, words
    assert end(server, spec)[0] == 0, server.text()


def test_a_caller_without_a_certificate_is_refused_where_one_is_required(cluster):
    values = copy.deepcopy(SECURED)
    values["tls"]["clientAuth"] = ""
    rendered = rendering.render(values)
    server = cluster.server(rendered)
    wait_for_start(server)
    assert cluster.test(rendered, server)[0] == 0
    code, words = cluster.test(rendered, server, without("--tls-cert", "--tls-key"))
    assert code == 1, words


def test_tls_alone_needs_no_leave_for_clear_text(cluster):
    rendered = rendering.render({"tls": {"secretName": "server"}})
    server = cluster.server(rendered)
    assert "--clear-text=loopback" in server.container["args"]
    wait_for_start(server)
    assert cluster.test(rendered, server)[0] == 0


def test_the_settings_file_the_environment_and_grpc_probes_are_taken(cluster):
    case = rendering.values("extras-values.yaml")
    case["tests"] = {"inputs": ["bytes=0"]}
    del case["image"], case["extraVolumes"], case["extraVolumeMounts"], case["extraEnv"][1]
    rendered = rendering.render(case)
    server = cluster.server(rendered)
    assert "grpc" in server.container["readinessProbe"]
    wait_for_start(server)
    code, words = cluster.test(rendered, server)
    assert code == 0, words
    server.signal("TERM")
    pod.wait_until(lambda: not server.probe(server.container["readinessProbe"])[0], "not ready")


def test_traces_and_the_names_of_triton_are_switched_on(cluster):
    values = {"tracing": {"otlpEndpoint": "http://127.0.0.1:4317"}, "metrics": {"tritonNames": True}}
    rendered = rendering.render(values)
    server = cluster.server(rendered)
    wait_for_start(server)
    assert cluster.test(rendered, server)[0] == 0
    probe = {"httpGet": {"path": "/metrics", "port": "admin"}, "timeoutSeconds": 30}
    assert "nv_inference_count{" in server.probe(probe)[1]


def test_a_wrong_settings_file_ends_the_server_with_the_reason(cluster):
    server = cluster.server(rendering.render({"config": "max_mesage_bytes = 1"}))
    assert server.wait() == 2
    assert "max_mesage_bytes" in server.text()


@pytest.mark.parametrize("control", ["poll", "explicit"])
def test_models_come_from_a_volume(cluster, control):
    values = {
        "models": {
            "control": control,
            "load": ["silero-vad"],
            "source": {"type": "pvc", "pvc": {"existingClaim": "claim"}},
        },
        "server": {"drain": {"pauseSeconds": 0}},
        "tests": {"model": "silero-vad", "inputs": ["input[1,512]=0", "state=0", "sr=16000"]},
    }
    rendered = rendering.render(values)
    server = cluster.server(rendered, {"models": rendering.ROOT / "models"})
    wait_for_start(server)
    good, words = server.probe(server.container["readinessProbe"])
    loaded = {each["name"] for each in json.loads(words.partition(" ")[2])["models"] if each["state"] == "READY"}
    assert good and ("magika" in loaded) == (control == "poll"), words
    code, words = cluster.test(rendered, server)
    assert code == 0, words
    assert end(server, rendering.pod_specs(rendered)["deployment"])[0] == 0


def test_a_gpu_that_is_not_there_is_an_error_and_not_the_cpu(cluster):
    rendered = rendering.render({"gpu": {"enabled": True, "count": 2}})
    server = cluster.server(rendered)
    assert {"--providers=cuda", "--device-ids=0,1", "--strict=true"} <= set(server.container["args"])
    assert server.wait() == 3
    assert "cuda" in server.text().lower()


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_the_runtime_of_kserve_serves_what_it_is_given(cluster, port):
    rendered = rendering.render(
        {"deployment": {"enabled": False}, "kserve": {"servingRuntime": {"enabled": True, "port": port}}}
    )
    runtime = rendering.only(rendered, "ServingRuntime")
    # What KServe adds: the pod around it, and the models where its initialiser has put them.
    spec = copy.deepcopy(runtime["spec"])
    spec["securityContext"] = {"fsGroup": 65532, "runAsGroup": 65532}
    spec["volumes"].append({"name": "kserve-provision-location", "emptyDir": {}})
    mount = {"name": "kserve-provision-location", "mountPath": "/mnt/models", "readOnly": True}
    spec["containers"][0]["volumeMounts"].append(mount)
    spec["volumes"][-1] = {"name": mount["name"], "persistentVolumeClaim": {}}
    server = cluster.start(rendered, spec, {mount["name"]: rendering.ROOT / "models"})
    wait_for_start(server)
    (declared,) = server.container["ports"]
    if port == "http":
        probe = {"httpGet": {"path": "/v2/models/magika/ready", "port": declared["containerPort"]}}
    else:
        probe = {"grpc": {"port": declared["containerPort"], "service": "magika"}}
    good, words = server.probe(probe | {"timeoutSeconds": 5})
    assert good, words
    server.signal("TERM")
    grace = rendering.pod_specs(rendering.render())["deployment"]["terminationGracePeriodSeconds"]
    assert server.wait(grace) == 0, server.text()


def test_the_times_of_a_pod_fit_together():
    values = {
        "server": {"drain": {"pauseSeconds": 7, "graceSeconds": 11, "marginSeconds": 13}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 17}}},
        "probes": {"startup": {"budgetSeconds": 61, "periodSeconds": 7}},
    }
    spec = rendering.pod_specs(rendering.render(values))["deployment"]
    assert spec["terminationGracePeriodSeconds"] == 7 + 11 + 13 + 17
    container = spec["containers"][0]
    assert container["startupProbe"]["failureThreshold"] == math.ceil(61 / 7)
    assert {"--drain-pause-ms=7000", "--drain-grace-ms=11000"} <= set(container["args"])
