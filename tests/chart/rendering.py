"""The chart, rendered by Helm."""

import functools
import json
import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "onnxd"
TOOLS = ROOT / ".tools"
HELM = TOOLS / "helm"
HELM_3 = TOOLS / "helm3"
PROMETHEUS = TOOLS / "prometheus" / "usr" / "bin"
CASES = sorted(path.name for path in (CHART / "ci").glob("*-values.yaml"))

# Longest wait for a tool, in seconds. Reached only when something is broken.
PATIENCE = 60.0

# What a Helm that knows no cluster is told; one that was compiled by `go install` thinks of an old one.
CLUSTER = "1.37.0"
RELEASE = "shop"
NAMESPACE = "inference"
NAME = f"{RELEASE}-onnxd"


class Refused(Exception):
    """Helm's own words for values that it does not take."""


def values(case):
    """The values of a file in ci/."""
    return yaml.safe_load((CHART / "ci" / case).read_text()) or {}


def helm(*words, binary=HELM, text=""):
    """What a Helm command prints; its folders are not those of whoever runs the tests."""
    home = {name: str(TOOLS / "helm-home") for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    done = subprocess.run(
        [str(binary), *map(str, words)],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        # No cluster, whatever the machine knows of.
        env={**os.environ, **home, "KUBECONFIG": os.devnull},
    )
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def template(values=None, *flags, binary=HELM):
    """The chart as text."""
    given = json.dumps(values or {})
    words = ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", "-"]
    words += ["--kube-version", CLUSTER, *flags]
    return helm(*words, binary=binary, text=given)


def notes(values=None):
    """What people read after `helm install`."""
    words = ["install", RELEASE, CHART, "--namespace", NAMESPACE, "--values", "-", "--dry-run=client"]
    text = helm(*words, text=json.dumps(values or {}))
    return text.partition("\nNOTES:\n")[2]


class Loader(yaml.CSafeLoader):
    """Refuses what YAML's readers disagree on: a key that is there twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        assert not twice, f"{twice} twice: {node.start_mark}"
        return super().construct_mapping(node, deep)


def objects(text):
    """Objects of a rendering."""
    return [each for each in yaml.load_all(text, Loader) if each]


@functools.lru_cache(maxsize=None)
def _rendered(given):
    return objects(template(json.loads(given)))


def render(values=None):
    """The chart's objects. Not to be changed: they are kept."""
    return _rendered(json.dumps(values or {}, sort_keys=True))


def only(rendered, kind, name=None):
    """The only object of a kind (and name)."""
    found = [
        each
        for each in rendered
        if each["kind"] == kind and name in (None, each["metadata"]["name"])
    ]
    assert len(found) == 1, (kind, name, [(each["kind"], each["metadata"]["name"]) for each in rendered])
    return found[0]


def pod_specs(rendered):
    """Every pod that the objects make, by who makes it."""
    specs = {}
    for each in rendered:
        if each["kind"] == "Pod":
            specs["test"] = each["spec"]
        elif each["kind"] == "Deployment":
            specs["deployment"] = each["spec"]["template"]["spec"]
    return specs
