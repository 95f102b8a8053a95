"""Every value does something, is described and is held against the schema; what is wrong is refused."""

import copy
import json
import re

import pytest
import yaml

import rendering

TEXT = (rendering.CHART / "values.yaml").read_text()
DEFAULTS = yaml.safe_load(TEXT)
SCHEMA = json.loads((rendering.CHART / "values.schema.json").read_text())


def leaves(values, path=()):
    """Paths of all values that are not groups."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key))


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def merged(one, other):
    result = copy.deepcopy(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def together(**paths):
    result = {}
    for path, value in paths.items():
        result = merged(result, nested(path.replace("__", "."), value))
    return result


ENVIRONMENT = [{"name": "A", "value": "b"}]
SOURCE = [{"configMapRef": {"name": "more"}}]
PEERS = [{"podSelector": {"matchLabels": {"a": "b"}}}]
TOLERATIONS = [{"key": "k", "operator": "Exists"}]
RELABELINGS = [{"targetLabel": "cluster", "replacement": "test"}]

# For each value another one, by the values that must be there for it to matter.
CASES = [
    (
        {},
        {
            "nameOverride": "inference",
            "fullnameOverride": "inference",
            "commonLabels": {"a": "b"},
            "commonAnnotations": {"a": "b"},
            "image.repository": "other",
            "image.tag": "2.0.0",
            "image.digest": "sha256:" + "a" * 64,
            "image.pullPolicy": "Always",
            "image.pullSecrets": [{"name": "registry"}],
            "deployment.enabled": False,
            "deployment.annotations": {"a": "b"},
            "deployment.revisionHistoryLimit": 7,
            "deployment.maxSurge": "25%",
            "deployment.maxUnavailable": 1,
            "replicas": 0,
            "config": "instances = 2",
            "server.bindAddress": "[::]",
            "server.strict": True,
            "server.reflection": False,
            "server.log": "debug",
            "server.logFormat": "text",
            "server.connection.maxAgeSeconds": 0,
            "server.connection.maxAgeGraceSeconds": 7,
            "server.drain.pauseSeconds": 0,
            "server.drain.graceSeconds": 7,
            "server.drain.marginSeconds": 7,
            "models.path": "/srv/models",
            "models.subPath": "vision",
            "models.control": "poll",
            "models.source.type": "emptyDir",
            "gpu.enabled": True,
            "resources.requests.cpu": "2",
            "resources.requests.memory": "1Gi",
            "resources.limits.cpu": "4",
            "resources.limits.memory": "2Gi",
            "tmp.sizeLimit": "1Gi",
            "service.type": "NodePort",
            "service.grpcPort": 443,
            "service.httpPort": 80,
            "service.annotations": {"a": "b"},
            "service.trafficDistribution": "PreferSameZone",
            "service.ipFamilyPolicy": "PreferDualStack",
            "service.headless.enabled": False,
            "service.headless.annotations": {"a": "b"},
            "admin.service.enabled": True,
            "probes.mode": "grpc",
            "probes.startup.budgetSeconds": 60,
            "probes.startup.periodSeconds": 7,
            "probes.startup.timeoutSeconds": 7,
            "probes.readiness.periodSeconds": 7,
            "probes.readiness.timeoutSeconds": 7,
            "probes.readiness.failureThreshold": 7,
            "probes.liveness.periodSeconds": 7,
            "probes.liveness.timeoutSeconds": 7,
            "probes.liveness.failureThreshold": 7,
            "tls.secretName": "server",
            "access.files": {"access.toml": ""},
            "access.existingSecret": "access",
            "pdb.enabled": True,
            "topologySpread.enabled": False,
            "topologySpread.topologyKeys": ["rack"],
            "topologySpread.maxSkew": 2,
            "topologySpread.whenUnsatisfiable": "DoNotSchedule",
            "affinity": {"nodeAffinity": {}},
            "nodeSelector": {"a": "b"},
            "tolerations": TOLERATIONS,
            "priorityClassName": "high",
            "runtimeClassName": "gvisor",
            "schedulerName": "other",
            "networkPolicy.enabled": True,
            "metrics.scrapeAnnotations": True,
            "metrics.tritonNames": True,
            "metrics.serviceMonitor.enabled": True,
            "metrics.podMonitor.enabled": True,
            "metrics.prometheusRule.enabled": True,
            "metrics.dashboard.enabled": True,
            "tracing.otlpEndpoint": "http://collector:4317",
            "kserve.servingRuntime.enabled": True,
            "serviceAccount.create": False,
            "serviceAccount.name": "other",
            "serviceAccount.annotations": {"a": "b"},
            "podSecurityContext.runAsNonRoot": False,
            "podSecurityContext.runAsUser": 1000,
            "podSecurityContext.runAsGroup": 1000,
            "podSecurityContext.fsGroup": 1000,
            "podSecurityContext.fsGroupChangePolicy": "Always",
            "podSecurityContext.supplementalGroups": [7],
            "podSecurityContext.seccompProfile.type": "Unconfined",
            "securityContext.allowPrivilegeEscalation": True,
            "securityContext.readOnlyRootFilesystem": False,
            "securityContext.capabilities.drop": [],
            "podAnnotations": {"a": "b"},
            "podLabels": {"a": "b"},
            "extraEnv": ENVIRONMENT,
            "extraEnvFrom": SOURCE,
            "extraArgs": ["--max-streams=7"],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
            "initContainers": [{"name": "more", "image": "more"}],
            "sidecars": [{"name": "more", "image": "more"}],
            "lifecycle": {"preStop": {"sleep": {"seconds": 7}}},
            "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}}],
            "tests.enabled": False,
            "tests.model": "other",
            "tests.inputs": ["x=1"],
            "tests.timeoutMilliseconds": 7,
            "tests.tokenSecret": "token",
        },
    ),
    (together(models__control="poll"), {"models.pollSeconds": 7}),
    (together(models__control="explicit"), {"models.load": ["magika"]}),
    (
        together(models__source={"type": "pvc", "pvc": {"existingClaim": "one"}}),
        {"models.source.pvc.existingClaim": "other"},
    ),
    (
        together(models__source={"type": "image", "image": {"reference": "one"}}),
        {"models.source.image.reference": "other", "models.source.image.pullPolicy": "Always"},
    ),
    (
        together(models__source={"type": "initContainer", "initContainer": {"image": "one"}}),
        {
            "models.source.sizeLimit": "1Gi",
            "models.source.initContainer.image": "other",
            "models.source.initContainer.command": ["fetch"],
            "models.source.initContainer.args": ["all"],
            "models.source.initContainer.env": ENVIRONMENT,
            "models.source.initContainer.envFrom": SOURCE,
            "models.source.initContainer.resources": {"limits": {"memory": "1Gi"}},
        },
    ),
    (
        together(gpu__enabled=True),
        {
            "gpu.count": 2,
            "gpu.resourceName": "nvidia.com/mig-1g.10gb",
            "gpu.provider": "tensorrt",
            "gpu.runtimeClassName": "nvidia",
            "gpu.imageTagSuffix": "-cuda12",
            "gpu.tolerations": [],
        },
    ),
    (
        together(service__type="LoadBalancer"),
        {
            "service.loadBalancerClass": "other",
            "service.loadBalancerSourceRanges": ["10.0.0.0/8"],
            "service.externalTrafficPolicy": "Local",
        },
    ),
    (together(admin__service__enabled=True), {"admin.service.port": 80}),
    (
        together(tls__secretName="server"),
        {"tls.clientCaSecret": "callers", "tests.caSecret": "ca", "tests.serverName": "other"}
        | {"tests.clientSecret": "caller"},
    ),
    (
        together(tls__secretName="server", tls__clientCaSecret="callers"),
        {"tls.clientAuth": "optional"},
    ),
    (together(tls__certManager__issuerRef__name="one"), {"tls.certManager.enabled": True}),
    (
        together(tls__certManager={"enabled": True, "issuerRef": {"name": "one"}}),
        {
            "tls.certManager.issuerRef.name": "other",
            "tls.certManager.issuerRef.kind": "ClusterIssuer",
            "tls.certManager.issuerRef.group": "example.com",
            "tls.certManager.dnsNames": ["onnxd.example.com"],
            "tls.certManager.duration": "1h",
            "tls.certManager.renewBefore": "1m",
        },
    ),
    (together(autoscaling__targets__cpuPercent=80), {"autoscaling.type": "hpa"}),
    (
        together(autoscaling__type="hpa"),
        {
            "autoscaling.minReplicas": 3,
            "autoscaling.maxReplicas": 30,
            "autoscaling.behavior": {"scaleUp": {"stabilizationWindowSeconds": 7}},
            "autoscaling.targets.queueMilliseconds": 0,
            "autoscaling.targets.busyPercent": 0,
            "autoscaling.targets.cpuPercent": 80,
            "autoscaling.hpa.queueMetric": "other",
            "autoscaling.hpa.busyMetric": "other",
        },
    ),
    (
        together(autoscaling={"type": "keda", "keda": {"prometheusAddress": "http://one"}}),
        {
            "autoscaling.keda.prometheusAddress": "http://other",
            "autoscaling.keda.pollingIntervalSeconds": 7,
            "autoscaling.keda.cooldownSeconds": 7,
            "autoscaling.keda.fallbackReplicas": 7,
            "autoscaling.keda.authenticationRef": "prometheus",
            "metrics.selector": 'job="other"',
        },
    ),
    (together(tracing__otlpEndpoint="http://collector:4317"), {"tracing.sampleRatio": 0.5}),
    (together(pdb__enabled=True), {"pdb.minAvailable": "50%", "pdb.maxUnavailable": 2}),
    (
        together(networkPolicy__enabled=True),
        {
            "networkPolicy.ingressFrom": PEERS,
            "networkPolicy.metricsFrom": PEERS,
            "networkPolicy.dns": False,
            "networkPolicy.extraEgress": [{"to": PEERS}],
        },
    ),
    (
        together(gateway__grpcRoute__parentRefs=[{"name": "one"}]),
        {"gateway.grpcRoute.enabled": True},
    ),
    (
        together(gateway__grpcRoute={"enabled": True, "parentRefs": [{"name": "one"}]}),
        {
            "gateway.grpcRoute.annotations": {"a": "b"},
            "gateway.grpcRoute.parentRefs": [{"name": "other"}],
            "gateway.grpcRoute.hostnames": ["onnxd.example.com"],
        },
    ),
    *(
        (
            together(**{f"metrics__{monitor}__enabled": True}),
            {
                f"metrics.{monitor}.labels": {"a": "b"},
                f"metrics.{monitor}.interval": "7s",
                f"metrics.{monitor}.scrapeTimeout": "7s",
                f"metrics.{monitor}.relabelings": RELABELINGS,
                f"metrics.{monitor}.metricRelabelings": RELABELINGS,
            },
        )
        for monitor in ("serviceMonitor", "podMonitor")
    ),
    (
        together(metrics__prometheusRule__enabled=True),
        {
            "metrics.prometheusRule.labels": {"a": "b"},
            "metrics.prometheusRule.alertLabels": {"a": "b"},
            "metrics.prometheusRule.queueSeconds": 7,
            "metrics.prometheusRule.refusedRatio": 0.7,
            "metrics.prometheusRule.lateRatio": 0.7,
            "metrics.prometheusRule.failedRatio": 0.7,
            "metrics.prometheusRule.memoryRatio": 0.7,
            "metrics.prometheusRule.certificateDays": 14,
            "metrics.prometheusRule.extraRules": [{"record": "a:b", "expr": "1"}],
        },
    ),
    (
        together(metrics__dashboard__enabled=True),
        {
            "metrics.dashboard.namespace": "monitoring",
            "metrics.dashboard.labels.grafana_dashboard": "2",
            "metrics.dashboard.annotations": {"a": "b"},
        },
    ),
    (
        together(kserve__servingRuntime__enabled=True),
        {
            "kserve.servingRuntime.cluster": True,
            "kserve.servingRuntime.name": "other",
            "kserve.servingRuntime.priority": 7,
            "kserve.servingRuntime.autoSelect": False,
            "kserve.servingRuntime.port": "both",
            "kserve.servingRuntime.annotations": {"a": "b"},
        },
    ),
    (
        together(kserve__inferenceService__storageUri="pvc://one"),
        {"kserve.inferenceService.enabled": True},
    ),
    (
        together(kserve__inferenceService={"enabled": True, "storageUri": "pvc://one"}),
        {
            "kserve.inferenceService.name": "other",
            "kserve.inferenceService.storageUri": "pvc://other",
            "kserve.inferenceService.serviceAccountName": "other",
            "kserve.inferenceService.minReplicas": 0,
            "kserve.inferenceService.maxReplicas": 7,
            "kserve.inferenceService.annotations": {"a": "b"},
        },
    ),
]
TRIED = [(context, path, value) for context, changes in CASES for path, value in changes.items()]


def test_every_value_is_tried_once():
    assert sorted(path for _, path, _ in TRIED) == sorted(leaves(DEFAULTS))


@pytest.mark.parametrize("context, path, value", TRIED, ids=[path for _, path, _ in TRIED])
def test_it_changes_what_is_installed(context, path, value):
    assert rendering.render(context) != rendering.render(merged(context, nested(path, value)))


def test_every_value_is_described():
    described = dict(re.findall(r"## @param (\S+) (.+)", TEXT))
    # Of lists that are not empty, each entry is.
    paths = {re.sub(r"\[\d+\].*", "", path) for path in described}
    assert paths == set(leaves(DEFAULTS))


def open_groups(schema, path=""):
    """Objects of the schema that would take any key."""
    if isinstance(schema, list):
        for each in schema:
            yield from open_groups(each, path)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            yield path
        for key, value in schema.items():
            yield from open_groups(value, f"{path}/{key}")


def test_the_schema_is_closed_at_every_level():
    # What Helm adds, and parts of pods that the cluster checks.
    assert set(open_groups(SCHEMA)) == {"/properties/global", "/definitions/raw"}


def groups(values, path=()):
    yield path
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from groups(value, (*path, key))


OPEN = {("resources", "requests"), ("resources", "limits"), ("metrics", "dashboard", "labels")}


@pytest.mark.parametrize("path", sorted(set(groups(DEFAULTS)) - OPEN), ids=".".join)
def test_a_typo_is_refused_at_every_level(path):
    values = {"tpyo": 1}
    for key in reversed(path):
        values = {key: values}
    with pytest.raises(rendering.Refused, match="'tpyo' not allowed"):
        rendering.template(values)


REFUSED = [
    (together(tls__secretName="s", probes__mode="grpc"), "speak no TLS"),
    (together(config="max_streams = 7\ndrain_grace_ms = 7"), "config sets drain_grace_ms"),
    (together(config='providers = "cpu"', gpu__enabled=True), "config sets providers"),
    (together(tls__clientCaSecret="c"), "clientCaSecret has a meaning only with"),
    (together(tls__secretName="s", tls__clientAuth="optional"), "clientAuth has a meaning only with"),
    (together(tls__certManager__enabled=True), "needs tls.certManager.issuerRef.name"),
    (together(access={"files": {"access.toml": ""}, "existingSecret": "s"}), "exclude each other"),
    (together(access__files={"jwks.json": "{}"}), "needs a file access.toml"),
    (together(models__source__type="pvc"), "needs models.source.pvc.existingClaim"),
    (together(models__source__type="image"), "needs models.source.image.reference"),
    (together(models__source__type="initContainer"), "needs models.source.initContainer.image"),
    (together(autoscaling={"type": "hpa", "minReplicas": 9, "maxReplicas": 3}), "is above"),
    (
        together(autoscaling={"type": "hpa", "targets": {"queueMilliseconds": 0, "busyPercent": 0}}),
        "at least one of autoscaling.targets",
    ),
    (together(autoscaling__type="keda"), "needs autoscaling.keda.prometheusAddress"),
    (together(gateway__grpcRoute__enabled=True), "needs gateway.grpcRoute.parentRefs"),
    (together(kserve__inferenceService__enabled=True), "needs kserve.inferenceService.storageUri"),
    (
        together(metrics={"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}),
        "count everything twice",
    ),
    (together(server__drain__graceSeconds=0), "minimum"),
    (together(gpu__provider="rocm"), "must be one of"),
    (together(image__digest="sha256:short"), "does not match pattern"),
    (together(replicas="three"), "got string, want integer"),
]


@pytest.mark.parametrize("values, words", REFUSED, ids=[words for _, words in REFUSED])
def test_what_cannot_be_right_is_refused_with_the_reason(values, words):
    with pytest.raises(rendering.Refused, match=re.escape(words)):
        rendering.template(values)


def test_every_refusal_of_the_templates_is_tried():
    text = (rendering.CHART / "templates" / "_helpers.tpl").read_text()
    spoken = re.findall(r"fail (?:\(printf )?\"([^\"]+)\"", text)
    assert len(spoken) > 15
    for sentence in spoken:
        # "%s" stands for what the values say.
        parts = sentence.split("%s")
        tried = [words for _, words in REFUSED if words in sentence or words.startswith(parts[0])]
        assert tried, f"nothing tries: {sentence}"


# --- what one switch decides -----------------------------------------------------------------------


def container(values):
    deployment = rendering.only(rendering.render(values), "Deployment")
    return deployment["spec"]["template"]["spec"]["containers"][0]


def test_the_gpu_switch_sets_everything_together():
    rendered = rendering.render({"gpu": {"enabled": True, "count": 2, "runtimeClassName": "nvidia"}})
    spec = rendering.pod_specs(rendered)["deployment"]
    found = spec["containers"][0]
    assert found["image"].endswith("-cuda13")
    assert {"--providers=cuda", "--device-ids=0,1", "--strict=true"} <= set(found["args"])
    assert found["resources"]["requests"]["nvidia.com/gpu"] == "2"
    assert found["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert spec["runtimeClassName"] == "nvidia"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


def test_resources_win_over_the_gpu_switch():
    values = {"gpu": {"enabled": True}, "resources": {"limits": {"nvidia.com/gpu": "4"}}}
    assert container(values)["resources"]["limits"]["nvidia.com/gpu"] == "4"


def test_a_digest_wins_over_a_tag():
    values = {"image": {"tag": "1", "digest": "sha256:" + "a" * 64}}
    assert container(values)["image"] == "onnxd@sha256:" + "a" * 64


@pytest.mark.parametrize("kind", ["hpa", "keda"])
def test_who_scales_owns_the_number_of_pods(kind):
    values = {"autoscaling": {"type": kind, "keda": {"prometheusAddress": "http://p"}}}
    assert "replicas" not in rendering.only(rendering.render(values), "Deployment")["spec"]
    assert rendering.only(rendering.render(), "Deployment")["spec"]["replicas"] == 1


def test_nothing_optional_is_on():
    kinds = sorted(each["kind"] for each in rendering.render())
    assert kinds == ["Deployment", "Pod", "Service", "Service", "ServiceAccount"]


def test_the_admin_port_is_on_no_service_of_callers():
    for case in rendering.CASES:
        for each in rendering.render(rendering.values(case)):
            if each["kind"] == "Service":
                ports = {port["targetPort"] for port in each["spec"]["ports"]}
                assert ports == {"admin"} or "admin" not in ports, each["metadata"]["name"]
                assert "admin" not in ports or each["spec"]["type"] == "ClusterIP"


def test_the_collector_of_traces_can_be_reached_and_nothing_else():
    values = {"networkPolicy": {"enabled": True, "dns": False}}
    policy = rendering.only(rendering.render(values), "NetworkPolicy")["spec"]
    assert policy["egress"] == [] and "Egress" in policy["policyTypes"]
    values["tracing"] = {"otlpEndpoint": "http://collector.monitoring:4317"}
    policy = rendering.only(rendering.render(values), "NetworkPolicy")["spec"]
    assert policy["egress"] == [{"ports": [{"port": 4317, "protocol": "TCP"}]}]
