"""What objects say of each other: names, ports and labels lead to something that is there."""

import pytest

import rendering

# Objects that the cases name and that others make.
GIVEN = {
    ("Secret", name)
    for name in ("onnxd-tls", "callers", "onnxd-ci", "onnxd-caller", "onnxd-access", "bucket")
} | {("PersistentVolumeClaim", "models")}


def labels_of_pods(rendered):
    """Of pods that are made, by who makes them."""
    labels = {}
    for each in rendered:
        if each["kind"] == "Deployment":
            labels["deployment"] = each["spec"]["template"]["metadata"]["labels"]
        elif each["kind"] == "Pod":
            labels["test"] = each["metadata"]["labels"]
    return labels


def selected(selector, rendered):
    return [name for name, labels in labels_of_pods(rendered).items() if selector.items() <= labels.items()]


def volumes(spec):
    for volume in spec.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        elif "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        elif "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]


@pytest.mark.parametrize("case", rendering.CASES)
def test_they_lead_somewhere(case):
    rendered = rendering.render(rendering.values(case))
    made = {(each["kind"], each["metadata"]["name"]) for each in rendered}
    # cert-manager makes it.
    made |= {("Secret", each["spec"]["secretName"]) for each in rendered if each["kind"] == "Certificate"}
    specs = rendering.pod_specs(rendered)
    ports = {port["name"] for port in specs["deployment"]["containers"][0]["ports"]} if "deployment" in specs else set()
    for spec in specs.values():
        assert set(volumes(spec)) <= made | GIVEN
        assert ("ServiceAccount", spec["serviceAccountName"]) in made or spec["serviceAccountName"] == "default"
        there = {volume["name"] for volume in spec.get("volumes", [])}
        for container in spec["containers"] + spec.get("initContainers", []):
            mounted = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= there
            assert len(mounted) == len(set(mounted))
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {}).get("httpGet", {}).get("port")
                assert asked is None or asked in ports
    for each in rendered:
        kind, spec = each["kind"], each.get("spec", {})
        if kind == "Service":
            assert selected(spec["selector"], rendered) == ["deployment"]
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif kind in ("PodDisruptionBudget", "Deployment"):
            assert selected(spec["selector"]["matchLabels"], rendered) == ["deployment"]
        elif kind == "NetworkPolicy":
            assert selected(spec["podSelector"]["matchLabels"], rendered) == ["deployment"]
            for rule in spec["ingress"]:
                assert {port["port"] for port in rule["ports"]} <= ports
                own = [peer["podSelector"]["matchLabels"] for peer in rule.get("from", []) if set(peer) == {"podSelector"}]
                if rule["ports"][0]["port"] == "grpc":
                    assert [selected(labels, rendered) for labels in own] == [["test"]]
        elif kind == "HorizontalPodAutoscaler":
            assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) in made
        elif kind == "ScaledObject":
            assert ("Deployment", spec["scaleTargetRef"]["name"]) in made
        elif kind == "GRPCRoute":
            (backend,) = spec["rules"][0]["backendRefs"]
            service = rendering.only(rendered, "Service", backend["name"])
            assert {"grpc": backend["port"]}.items() <= {
                port["name"]: port["port"] for port in service["spec"]["ports"]
            }.items()
        elif kind == "PodMonitor":
            assert selected(spec["selector"]["matchLabels"], rendered) == ["deployment"]
            assert {point["port"] for point in spec["podMetricsEndpoints"]} <= ports
        elif kind == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            (service,) = [
                other
                for other in rendered
                if other["kind"] == "Service" and wanted <= other["metadata"]["labels"].items()
            ]
            assert {point["port"] for point in spec["endpoints"]} <= {
                port["name"] for port in service["spec"]["ports"]
            }
        elif kind == "InferenceService":
            assert ("ServingRuntime", spec["predictor"]["model"]["runtime"]) in made


def test_rules_and_dashboard_find_what_the_monitors_scrape():
    """By the labels `namespace`, which Prometheus sets, and `job`, which the monitors set."""
    rendered = rendering.render(rendering.values("observed-values.yaml"))
    (point,) = rendering.only(rendered, "ServiceMonitor")["spec"]["endpoints"]
    assert {"targetLabel": "job", "replacement": rendering.NAME} in point["relabelings"]
    rule = rendering.only(rendered, "PrometheusRule")["spec"]["groups"][0]["rules"][0]
    assert f'namespace="{rendering.NAMESPACE}",job="{rendering.NAME}"' in rule["expr"]


def test_a_certificate_covers_the_names_that_the_notes_print():
    rendered = rendering.render(rendering.values("cert-manager-values.yaml"))
    names = set(rendering.only(rendered, "Certificate")["spec"]["dnsNames"])
    services = {each["metadata"]["name"] for each in rendered if each["kind"] == "Service"}
    for service in services:
        assert {service, f"{service}.{rendering.NAMESPACE}.svc"} <= names
    assert "onnxd.example.com" in names
    (argument,) = [
        each
        for each in rendering.pod_specs(rendered)["test"]["containers"][0]["args"]
        if each.startswith("--addr=")
    ]
    assert argument.removeprefix("--addr=").partition(":")[0] in names
