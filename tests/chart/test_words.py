"""What people read: README.md and the notes of an installation. Their lines work."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pod
import rendering
from test_objects import faults
from test_run import SECURED, TOKEN, authority, cluster, wait_for_start  # noqa: F401

README = rendering.CHART / "README.md"
GENERATOR = rendering.TOOLS / "readme-generator" / "node_modules" / ".bin" / "readme-generator"


def test_the_table_of_parameters_is_that_of_the_values(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text())
    values = rendering.CHART / "values.yaml"
    done = subprocess.run(
        [str(GENERATOR), "--values", str(values), "--readme", str(copy)],
        capture_output=True,
        text=True,
        timeout=rendering.PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert copy.read_text() == README.read_text(), "helm/onnxd/README.md: make chart-readme"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.S)


def commands():
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split(" && "):
                if shlex.split(command)[:2] in (["helm", "install"], ["helm", "upgrade"]):
                    yield command


def test_every_command_of_the_readme_renders(tmp_path):
    found = list(commands())
    assert len(found) == 4
    (tmp_path / "access.toml").write_text("")
    for command in found:
        _, _, *words = shlex.split(command)
        words = [word for word in words if word not in ("--wait", "--reset-then-reuse-values")]
        words[1] = str(rendering.CHART)
        words = [word.replace("=access.toml", f"={tmp_path}/access.toml") for word in words]
        assert rendering.objects(rendering.helm("template", *words)), command


def test_objects_of_the_readme_are_whole():
    services = [yaml.safe_load(block) for block in blocks("yaml") if "InferenceService" in block]
    assert len(services) == 1 and not faults("1.37", services[0])


def test_the_flags_that_helm_is_given_are_there():
    told = rendering.helm("upgrade", "--help")
    assert "--reset-then-reuse-values" in told and "--set-file" in told
    assert "--logs" in rendering.helm("test", "--help")


def lines(notes, *starts):
    found = [line.strip() for line in notes.splitlines() if line.strip().startswith(starts)]
    assert found, notes
    return found


MUTUAL = SECURED | {"tls": {"secretName": "server", "clientCaSecret": "callers"}}


@pytest.mark.parametrize("values", [{}, SECURED, MUTUAL], ids=["plain", "secured", "mutual"])
def test_the_lines_for_clients_work(cluster, tmp_path, values):  # noqa: F811
    """grpcurl and Python, as printed, at the end of a port-forward."""
    server = cluster.server(rendering.render(values))
    wait_for_start(server)
    (tmp_path / "ca.crt").write_bytes(cluster.secrets["server"]["ca.crt"])
    for end in ("crt", "key"):
        (tmp_path / f"caller.{end}").write_bytes(cluster.secrets["caller"][f"tls.{end}"])
    path = f"{rendering.TOOLS}:{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "TOKEN": TOKEN}
    (grpcurl,) = lines(rendering.notes(values), "grpcurl")
    (python,) = lines(rendering.notes(values), "python3 -c")
    for line, expected in [(grpcurl, '"name": "magika"'), (python, "True")]:
        # What root asks for in another's name loses its environment.
        words = ["env", *(f"{key}={value}" for key, value in environment.items()), "bash", "-c", line]
        done = server.beside(*words, cwd=tmp_path)
        assert done.returncode == 0 and expected in done.stdout, f"{line}: {done.stdout}{done.stderr}"


def test_the_notes_name_objects_that_are_there():
    for case in rendering.CASES:
        values = rendering.values(case)
        notes, rendered = rendering.notes(values), rendering.render(values)
        names = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in rendered}
        for kind, name in re.findall(r"\b(service|deployment)/([\w-]+)", notes):
            assert f"{kind}/{name}" in names, case
        for name in re.findall(rf"([\w-]+)\.{rendering.NAMESPACE}\.svc:", notes):
            assert f"service/{name}" in names, case
        assert "<no value>" not in notes and "%!" not in notes, case


WARNED = [
    ({}, "clear text"),
    ({"gpu": {"enabled": True}}, "gpu.enabled without gpu.runtimeClassName"),
    ({"autoscaling": {"type": "hpa"}}, "metrics adapter"),
    (
        {"autoscaling": {"type": "hpa", "targets": {"cpuPercent": 80}}, "resources": {"requests": {"cpu": None}}},
        "resources.requests.cpu, which is not set",
    ),
    ({"pdb": {"enabled": True}}, "nobody serves"),
    ({"models": {"source": {"type": "emptyDir"}}}, "set tests.model"),
    ({"access": {"existingSecret": "access"}}, "helm test has none"),
    ({"config": "telemetry = true"}, "ORT_DISABLE_TELEMETRY is set here"),
    ({"server": {"reflection": False}}, "-proto inference.proto"),
    ({"deployment": {"enabled": False}, "kserve": {"servingRuntime": {"enabled": True}}}, "the runtime shop-onnxd"),
]


@pytest.mark.parametrize("values, words", WARNED, ids=[words for _, words in WARNED])
def test_what_people_should_mind_is_said_where_it_holds(values, words):
    assert words in rendering.notes(values)
    quiet = {"tls": {"secretName": "server"}}
    assert words not in rendering.notes(quiet)


def test_the_chart_is_of_the_version_that_it_installs():
    chart = yaml.safe_load((rendering.CHART / "Chart.yaml").read_text())
    (version,) = re.findall(r'^version = "(.+)"', (rendering.ROOT / "Cargo.toml").read_text(), re.M)
    assert chart["appVersion"] == version
