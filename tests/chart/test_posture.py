"""Pods meet the restricted profile of pod security, in every case of ci/ (promise P22)."""

import copy

import pytest

import rendering

# Volumes that the restricted profile lets through.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim"}
VOLUMES |= {"projected", "secret"}


def faults(spec):
    """What the restricted profile, and this project, have against a pod."""
    pod = spec.get("securityContext", {})
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "it is on the host's namespaces"
    if spec.get("automountServiceAccountToken") is not False:
        yield "it has the token of its account"
    for volume in spec.get("volumes", []):
        (kind,) = set(volume) - {"name"}
        if kind not in VOLUMES:
            yield f"volume {volume['name']} is {kind}"
        if kind == "secret" and volume[kind].get("defaultMode", 0o644) & 0o007:
            yield f"everybody reads {volume['name']}"
    own = [each for each in spec.get("initContainers", []) if each["name"] == "fetch-models"]
    for each in spec["containers"][:1] + own:
        both = pod | each.get("securityContext", {})
        if both.get("runAsNonRoot") is not True or not both.get("runAsUser"):
            yield "it may be root"
        if both.get("allowPrivilegeEscalation") is not False or both.get("privileged"):
            yield "it may get more rights"
        if both.get("capabilities") != {"drop": ["ALL"]}:
            yield "it has capabilities"
        if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield "it may make any system call"
        if both.get("readOnlyRootFilesystem") is not True:
            yield "its root can be written"
        if not {"cpu", "memory"} <= set(each["resources"].get("limits", {})):
            yield "it has no limits"
        if any("hostPort" in port for port in each.get("ports", [])):
            yield "it takes a port of the host"


@pytest.mark.parametrize("case", rendering.CASES)
def test_every_pod_is_restricted(case):
    values = rendering.values(case)
    for name, spec in rendering.pod_specs(rendering.render(values)).items():
        found = set(faults(spec))
        # That case gives its own resources to show that they win, or its own limits alone.
        assert found <= ({"it has no limits"} if case == "models-init-values.yaml" else set()), name


@pytest.mark.parametrize("case", ["kserve-values.yaml", "kserve-cluster-values.yaml"])
def test_the_container_of_a_runtime_is_restricted(case):
    """The pod round it is KServe's."""
    kinds = ("ServingRuntime", "ClusterServingRuntime")
    (runtime,) = [each for each in rendering.render(rendering.values(case)) if each["kind"] in kinds]
    spec = copy.deepcopy(runtime["spec"]) | {"automountServiceAccountToken": False}
    assert not set(faults(spec))


LOOSE = [
    ({"podSecurityContext": {"runAsNonRoot": False}}, "it may be root"),
    ({"podSecurityContext": {"runAsUser": 0}}, "it may be root"),
    ({"podSecurityContext": {"seccompProfile": {"type": "Unconfined"}}}, "it may make any system call"),
    ({"securityContext": {"allowPrivilegeEscalation": True}}, "it may get more rights"),
    ({"securityContext": {"privileged": True}}, "it may get more rights"),
    ({"securityContext": {"capabilities": {"drop": []}}}, "it has capabilities"),
    ({"securityContext": {"readOnlyRootFilesystem": False}}, "its root can be written"),
    ({"resources": {"limits": {"memory": None}}}, "it has no limits"),
    ({"extraVolumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "volume host is hostPath"),
]


@pytest.mark.parametrize("values, fault", LOOSE, ids=[fault for _, fault in LOOSE])
def test_each_fault_would_be_seen(values, fault):
    spec = rendering.pod_specs(rendering.render(values))["deployment"]
    assert set(faults(spec)) == {fault}


def test_telemetry_is_off_in_every_pod():
    """The image says so, too; a chart may run with another image."""
    for case in rendering.CASES:
        for each in rendering.render(rendering.values(case)):
            spec = each.get("spec", {}).get("template", {}).get("spec") or each.get("spec", {})
            for container in spec.get("containers", []) if each["kind"] != "Pod" else []:
                if container["name"] in ("onnxd", "kserve-container"):
                    assert {"name": "ORT_DISABLE_TELEMETRY", "value": "1"} in container["env"]
