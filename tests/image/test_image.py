"""The image: what is in it, and that it serves with nothing but what a locked-down pod has."""

import hashlib
import os
import re
import stat
import subprocess
import sys

import pytest

from container import BUILT, FILES, MEMORY_BYTES, PATIENCE, ROOT, Container
from container import network_of, settings, wait_until, written_files

# Unpacked and as stored in a registry.
MOST_BYTES = 100 << 20
LIBRARY = "usr/local/lib/onnxd"


@pytest.fixture
def container(tmp_path):
    container = Container(tmp_path)
    yield container
    container.remove()


def regular_files():
    return [path for path in FILES.rglob("*") if path.is_file() and not path.is_symlink()]


# --- what is in it -------------------------------------------------------------------------------


def test_settings_are_those_that_the_chart_counts_on():
    image = settings()
    assert image["User"] == "65532:65532"
    assert image["Entrypoint"] == ["/usr/local/bin/onnxd"]
    assert image["Cmd"] == ["serve", "/models"]
    assert set(image["ExposedPorts"]) == {"8001/tcp", "8000/tcp", "8002/tcp"}
    assert image["StopSignal"] == "SIGTERM"
    environment = dict(each.split("=", 1) for each in image["Env"])
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["ONNXD_CLEAR_TEXT"] == "anywhere"


def test_it_is_small():
    unpacked = sum(path.stat().st_size for path in regular_files())
    stored = (BUILT / "layers.tar.gz").stat().st_size
    print(f"unpacked {unpacked / 1e6:.1f} MB, stored {stored / 1e6:.1f} MB")
    assert unpacked < MOST_BYTES


def test_the_server_is_the_only_program():
    programs = [
        str(path.relative_to(FILES))
        for path in regular_files()
        if path.stat().st_mode & 0o111 and not re.search(r"\.so(\.|$)", path.name)
    ]
    assert programs == ["usr/local/bin/onnxd"]


def test_nobody_but_root_can_write_and_nothing_raises_rights():
    for path in [FILES, *FILES.rglob("*")]:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            continue
        assert (status.st_uid, status.st_gid) == (0, 0), path
        assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID), path
        if path != FILES / "tmp":
            assert not status.st_mode & 0o022, path
            assert status.st_mode & 0o004, f"{path} cannot be read by the server"


def test_licences_of_everything_are_inside():
    ours = FILES / "usr/share/licenses/onnxd/LICENSE"
    assert ours.read_bytes() == (ROOT / "LICENSE").read_bytes()
    for model in (FILES / "models").glob("*/model.toml"):
        licence = model.parent / "LICENSE"
        assert licence.read_bytes() == (ROOT / "models" / model.parent.name / "LICENSE").read_bytes()
    assert "MIT License" in (FILES / LIBRARY / "LICENSE").read_text()
    notices = (FILES / LIBRARY / "ThirdPartyNotices.txt").read_text(errors="replace")
    assert len(notices.splitlines()) > 1000
    for package in ("libc6", "libgcc-s1", "libstdc++6"):
        assert (FILES / "usr/share/doc" / package / "copyright").stat().st_size > 0, package


def test_every_crate_in_the_server_is_listed_with_its_licence():
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none",
         "--format", "{p}"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )
    wanted = {tuple(line.split()[:2]) for line in tree.stdout.splitlines() if line}
    wanted = {(name, version.removeprefix("v")) for name, version in wanted if name != "onnxd"}
    text = (FILES / "usr/share/licenses/onnxd/rust-crates.yaml").read_text()
    listed = re.findall(
        r"^- package_name: (\S+)\n  package_version: (\S+)\n.*\n  license: (.+)$", text, re.MULTILINE
    )
    assert len(wanted) > 100
    assert not wanted - {(name, version) for name, version, _ in listed}


def test_scanners_can_tell_the_versions_of_the_libraries():
    for package in ("libc6", "libgcc-s1", "libstdc++6"):
        status = (FILES / "var/lib/dpkg/status.d" / package).read_text()
        assert f"Package: {package}" in status and re.search(r"^Version: \S+", status, re.MULTILINE)


def test_models_are_the_shipped_ones():
    for line in (ROOT / "models" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((FILES / "models" / name).read_bytes()).hexdigest() == digest


# --- what it does --------------------------------------------------------------------------------


def test_it_serves_with_nothing_but_what_a_locked_down_pod_has(container):
    before = written_files()
    container.wait_for_health()
    status = dict(
        line.split(":\t", 1)
        for line in open(f"/proc/{container.pid()}/status").read().splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == ["65532"] * 4 and status["Gid"].split() == ["65532"] * 4
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"

    done = container.onnxd("infer", "silero-vad", "--file", "/models/silero-vad/sample.wav")
    assert done.returncode == 0, done.stderr
    assert "speech" in done.stdout
    done = container.onnxd("infer", "magika", "--file", "/models/magika/README.md")
    assert done.returncode == 0 and "markdown" in done.stdout, done

    resident = int(status["VmHWM"].split()[0]) << 10
    assert resident < MEMORY_BYTES
    container.signal("TERM")
    assert container.wait() == 0, container.text()
    assert "clear text on an address that others can reach" in container.text()
    assert written_files() == before


# Calls of a client of this machine inside the container's network, one after the other; SIGTERM
# comes while they run.
CALLER = """
import sys, numpy as np, tritonclient.grpc as triton
client = triton.InferenceServerClient("127.0.0.1:8001")
x = triton.InferInput("x", [8, 3, 48, 192], "FP32")
x.set_data_from_numpy(np.zeros((8, 3, 48, 192), np.float32))
answered = 0
while True:
    try:
        answer = client.infer("ppocr-angle", [x])
    except triton.InferenceServerException as error:
        print(answered, error.status(), flush=True)
        break
    assert answer.as_numpy("save_infer_model/scale_0.tmp_1").shape == (8, 2)
    answered += 1
    print(answered, flush=True)
"""


def test_stopping_answers_what_was_accepted(container):
    container.wait_for_health()
    caller = subprocess.Popen(
        network_of(container.pid(), sys.executable, "-c", CALLER),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for _ in range(3):
        assert caller.stdout.readline().strip().isdigit()
    container.signal("TERM")
    assert container.wait() == 0, container.text()
    out, errors = caller.communicate(timeout=PATIENCE)
    # What was accepted was answered; the next call found no server.
    assert out.split()[-1] == "StatusCode.UNAVAILABLE", (out, errors)
    assert '"abandoned":0' in container.text()


def test_the_health_check_tells_a_server_that_is_not_ready(tmp_path):
    repository = tmp_path / "models" / "broken" / "1"
    repository.mkdir(parents=True)
    (repository / "model.onnx").write_bytes(b"no model")
    for path in [tmp_path, tmp_path / "models", repository.parent, repository]:
        path.chmod(0o755)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    container = Container(bundle, mounts=[(tmp_path / "models", "/models")])
    try:
        wait_until(lambda: "broken" in container.onnxd("health").stderr, "the model was tried")
        assert container.health() == 1
        assert container.onnxd("health", "--live").returncode == 0
    finally:
        container.remove()


def test_a_second_signal_ends_it_at_once(container):
    container.wait_for_health()
    # A request that does not come to its end holds the drain up.
    caller = subprocess.Popen(
        network_of(
            container.pid(), sys.executable, "-c",
            "import socket, sys, time; s = socket.create_connection(('127.0.0.1', 8000));"
            "s.sendall(b'POST /v2/models/magika/infer HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 9\\r\\n\\r\\n');"
            "print('open', flush=True); s.recv(1 << 20); sys.exit(0)",
        ),
        stdout=subprocess.PIPE, text=True,
    )
    assert caller.stdout.readline().strip() == "open"
    container.signal("TERM")
    wait_until(lambda: "draining" in container.text(), "it drains")
    container.signal("TERM")
    assert container.wait() == 5, container.text()
    caller.wait(timeout=PATIENCE)
