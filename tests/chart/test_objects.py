"""Every values file in ci/: linted, rendered by both Helms, and held strictly against what clusters take."""

import functools
import importlib.resources
import json

import jsonschema
import pytest
import referencing
import yaml
from referencing.jsonschema import DRAFT202012

import rendering

# The oldest that the chart is for, some on the way, the newest that is known.
VERSIONS = ["1.28", "1.31", "1.35", "1.37"]
# Cases that use what came later, and the first of the versions above that knows it.
FIRST = {
    "extras-values.yaml": "1.31",  # sleep of a preStop hook
    "models-image-values.yaml": "1.31",  # image volumes
    "network-values.yaml": "1.31",  # traffic distribution
}
SCHEMAS = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"


@functools.lru_cache(maxsize=None)
def registry(version):
    definitions = json.loads((SCHEMAS / f"v{version}.0-local-strict" / "_definitions.json").read_text())
    resource = referencing.Resource(definitions, DRAFT202012)
    return referencing.Registry().with_resource("_definitions.json", resource)


def closed(schema):
    """A schema that takes no field beside those that it names."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    open_by_will = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_by_will:
        schema["additionalProperties"] = False
    if schema.pop("x-kubernetes-int-or-string", False):
        schema = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    return schema


@functools.lru_cache(maxsize=None)
def foreign(api_version, kind):
    """Validator of an object that another project defines."""
    group, _, version = api_version.partition("/")
    for path in (rendering.TOOLS / "definitions").glob(f"{group}_*.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
        if definition["names"]["kind"] != kind:
            continue
        (found,) = [each for each in definition["versions"] if each["name"] == version]
        assert found["served"]
        schema = closed(found["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        return jsonschema.Draft202012Validator(schema)
    raise AssertionError(f"nobody defines {api_version} {kind}")


@functools.lru_cache(maxsize=None)
def native(version, api_version, kind):
    """Validator of an object that Kubernetes defines; `None` for one that it does not."""
    group, _, rest = api_version.rpartition("/")
    start = f"{group.split('.')[0]}-" if group else ""
    path = SCHEMAS / f"v{version}.0-local-strict" / f"{kind.lower()}-{start}{rest}.json"
    if not path.is_file():
        return None
    return jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=registry(version))


def faults(version, each):
    validator = native(version, each["apiVersion"], each["kind"])
    validator = validator or foreign(each["apiVersion"], each["kind"])
    name = f"{each['kind']} {each['metadata']['name']}"
    return [f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(each)]


@pytest.mark.parametrize("case", rendering.CASES)
def test_both_helms_lint_it_and_render_the_same(case):
    path = rendering.CHART / "ci" / case
    texts = []
    for binary in (rendering.HELM, rendering.HELM_3):
        words = ["lint", "--strict", rendering.CHART, "--values", path]
        rendering.helm(*words, "--kube-version", rendering.CLUSTER, binary=binary)
        texts.append(rendering.template(rendering.values(case), binary=binary))
    one, other = (sorted(map(json.dumps, rendering.objects(text))) for text in texts)
    assert one == other


@pytest.mark.parametrize("case", rendering.CASES)
def test_clusters_take_it(case):
    rendered = rendering.render(rendering.values(case))
    assert rendered
    for version in VERSIONS[VERSIONS.index(FIRST.get(case, VERSIONS[0])) :]:
        found = [fault for each in rendered for fault in faults(version, each)]
        assert not found, f"Kubernetes {version}: {found}"


@pytest.mark.parametrize("case, first", FIRST.items())
def test_older_clusters_would_not(case, first):
    """Else the case above need not be spared them."""
    rendered = rendering.render(rendering.values(case))
    before = VERSIONS[VERSIONS.index(first) - 1]
    assert [fault for each in rendered for fault in faults(before, each)]


def test_a_misspelt_field_is_found_at_every_depth():
    kserve = rendering.render(rendering.values("kserve-values.yaml"))
    keda = rendering.render(rendering.values("keda-values.yaml"))
    for each, path in [
        (rendering.only(rendering.render(), "Deployment"), ["spec", "template", "spec", "containers", 0, "livenessProbe"]),
        (rendering.only(kserve, "ServingRuntime"), ["spec", "containers", 0, "readinessProbe", "httpGet"]),
        (rendering.only(keda, "ScaledObject"), ["spec", "triggers", 0]),
    ]:
        each = json.loads(json.dumps(each))
        assert not faults("1.37", each)
        place = each
        for key in path:
            place = place[key]
        place["periodSecond"] = 1
        assert any("periodSecond" in fault for fault in faults("1.37", each)), each["kind"]


def test_names_are_never_too_long():
    """Release names have up to 53 letters, names of objects up to 63."""
    for values in (rendering.values("observed-values.yaml"), rendering.values("cert-manager-values.yaml")):
        text = rendering.helm("template", "r" * 53, rendering.CHART, "--values", "-", text=json.dumps(values))
        for each in rendering.objects(text):
            assert len(each["metadata"]["name"]) <= 63, each["metadata"]["name"]
            for label in each["metadata"]["labels"].values():
                assert len(label) <= 63, label


def test_selectors_are_made_of_nothing_that_users_set():
    """They can never be changed, so an upgrade with other values would fail."""
    more = {
        "commonLabels": {"app.kubernetes.io/name": "other", "team": "vision"},
        "podLabels": {"app.kubernetes.io/instance": "other", "part": "one"},
    }
    plain, labelled = (rendering.only(rendering.render(each), "Deployment") for each in ({}, more))
    assert plain["spec"]["selector"] == labelled["spec"]["selector"]
    selector = plain["spec"]["selector"]["matchLabels"]
    for each in rendering.render(more):
        if each["kind"] == "Deployment":
            assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
        elif each["kind"] == "Service":
            assert each["spec"]["selector"] == selector
        elif each["kind"] == "Pod":
            # The pod of `helm test` gets no calls.
            assert not selector.items() <= each["metadata"]["labels"].items()


def test_what_users_label_is_labelled():
    labels = {"team": "vision"}
    values = rendering.values("observed-values.yaml") | {"commonLabels": labels, "commonAnnotations": {"a": "b"}}
    for each in rendering.render(values):
        assert each["metadata"]["labels"]["team"] == "vision", each["kind"]
        assert each["metadata"]["annotations"]["a"] == "b", each["kind"]


def test_pods_start_anew_when_their_settings_change():
    def checksum(config):
        deployment = rendering.only(rendering.render({"config": config}), "Deployment")
        return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum("instances = 2") != checksum("instances = 3")
