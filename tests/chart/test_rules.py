"""Alert rules under promtool, and every series that the chart names, in the server's own /metrics."""

import json
import re
import subprocess

import pytest
import yaml

import pod
import rendering
from test_run import Cluster, cluster, authority, wait_for_start  # noqa: F401

OBSERVED = rendering.values("observed-values.yaml")
GPU = {"gpu": {"enabled": True}, "metrics": {"prometheusRule": {"enabled": True}}}
WHERE = f'namespace="{rendering.NAMESPACE}",job="{rendering.NAME}"'
MODEL = f'{WHERE},model="m",version="1"'


def rules(values=None):
    return rendering.only(rendering.render(values or OBSERVED), "PrometheusRule")["spec"]


def promtool(*words):
    return subprocess.run(
        [str(rendering.PROMETHEUS / "promtool"), *map(str, words)], capture_output=True, text=True, timeout=rendering.PATIENCE
    )


@pytest.fixture(params=[OBSERVED, GPU], ids=["cpu", "gpu"])
def file(request, tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules(request.param)))
    return path


def test_promtool_takes_the_rules(file):
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", file)
    assert done.returncode == 0, done.stdout + done.stderr


def counter(outcome, values):
    return {"series": f'onnxd_requests_total{{{MODEL},pod="a",outcome="{outcome}"}}', "values": values}


def gauge(name, values, labels=f'{MODEL},pod="a"'):
    return {"series": f"onnxd_{name}{{{labels}}}", "values": values}


IDLE = [counter(outcome, "0x60") for outcome in ("ok", "full", "congested", "late_in_queue", "failed")]

# For each alert: the first minute at which it is there, series that raise it, and some that do not quite.
TRIALS = {
    "OnnxdAbsent": (5, [gauge("other", "1x60")], [gauge("build_info", "1x60", WHERE)]),
    "OnnxdModelNotServed": (
        5,
        [gauge("model_ready", "0x60")],
        [gauge("model_ready", "0x60"), gauge("model_ready", "1x60", f'{MODEL},pod="b"')],
    ),
    "OnnxdModelNotReady": (
        15,
        [gauge("model_ready", "0x60"), gauge("model_ready", "1x60", f'{MODEL},pod="b"')],
        [gauge("model_ready", "0x10 1x50")],
    ),
    "OnnxdModelFailed": (
        1,
        [gauge("model_state", "1x60", f'{MODEL},pod="a",state="failed"')],
        [gauge("model_state", "1x60", f'{MODEL},pod="a",state="loading"')],
    ),
    "OnnxdHungRuns": (1, [gauge("hung_workers", "1x60")], [gauge("hung_workers", "0x60")]),
    "OnnxdExecutorPanics": (
        6,
        [gauge("executor_panics_total", "0x5 1x60")],
        [gauge("executor_panics_total", "7x60")],
    ),
    "OnnxdQueueSlow": (
        11,
        [
            gauge("queue_seconds_bucket", "0+60x60", f'{MODEL},le="1"'),
            gauge("queue_seconds_bucket", "0+120x60", f'{MODEL},le="2.5"'),
            gauge("queue_seconds_bucket", "0+120x60", f'{MODEL},le="+Inf"'),
        ],
        [
            gauge("queue_seconds_bucket", "0+120x60", f'{MODEL},le="1"'),
            gauge("queue_seconds_bucket", "0+120x60", f'{MODEL},le="+Inf"'),
        ],
    ),
    "OnnxdRefusesForLoad": (
        11,
        [counter("ok", "0+90x60"), counter("congested", "0+10x60")],
        [counter("ok", "0+98x60"), counter("congested", "0+2x60")],
    ),
    "OnnxdLate": (
        11,
        [counter("ok", "0+90x60"), counter("late_in_queue", "0+10x60")],
        [counter("ok", "0+98x60"), counter("late_in_queue", "0+2x60")],
    ),
    "OnnxdFailures": (
        6,
        [counter("ok", "0+90x60"), counter("failed", "0+10x60")],
        [counter("ok", "0+90x60"), counter("invalid", "0+10x60")],
    ),
    "OnnxdRequestMemory": (
        5,
        [gauge("request_memory_bytes", "95x60", WHERE), gauge("request_memory_limit_bytes", "100x60", WHERE)],
        [gauge("request_memory_bytes", "80x60", WHERE), gauge("request_memory_limit_bytes", "100x60", WHERE)],
    ),
    "OnnxdConnectionsRefused": (
        11,
        [gauge("refused_connections_total", "0+1x60", f'{WHERE},reason="connections"')],
        [gauge("refused_connections_total", "0+1x60", f'{WHERE},reason="gone"')],
    ),
    # Time starts at zero here.
    "OnnxdCertificateEnds": (
        0,
        [gauge("tls_certificate_expiry_timestamp_seconds", "518400x60", WHERE)],
        [gauge("tls_certificate_expiry_timestamp_seconds", "5184000x60", WHERE)],
    ),
    "OnnxdReloadFails": (
        6,
        [gauge("tls_reloads_total", "0x5 1x60", f'{WHERE},pod="a",result="failed"')],
        [gauge("tls_reloads_total", "0x5 1x60", f'{WHERE},pod="a",result="ok"')],
    ),
    "OnnxdProviderMismatch": (
        1,
        [gauge("model_info", "1x60", f'{MODEL},pod="a",provider="cpu"')],
        [gauge("model_info", "1x60", f'{MODEL},pod="a",provider="cuda"')],
    ),
}


def alerts(values=None):
    return {rule["alert"]: rule for group in rules(values)["groups"] for rule in group["rules"] if "alert" in rule}


def test_every_alert_is_tried():
    assert sorted(TRIALS) == sorted({**alerts(), **alerts(GPU)})


@pytest.mark.parametrize("name", TRIALS)
def test_an_alert_comes_when_it_should_and_not_before(name, tmp_path):
    values = GPU if name == "OnnxdProviderMismatch" else OBSERVED
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules(values)))
    minute, bad, good = TRIALS[name]

    def raised(series, minute=minute):
        """What promtool says about a test that expects no alert by then."""
        trial = {"interval": "1m", "input_series": series}
        trial["alert_rule_test"] = [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}]
        text = yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [trial]})
        (tmp_path / "trial.yaml").write_text(text)
        done = promtool("test", "rules", tmp_path / "trial.yaml")
        return done.stdout + done.stderr if done.returncode else ""

    words = raised(bad)
    rule = alerts(values)[name]
    assert f'alertname="{name}"' in words and f'severity="{rule["labels"]["severity"]}"' in words, words
    assert "<no value>" not in words and "error" not in words.lower().replace("errors", ""), words
    assert raised(good) == ""
    assert minute == 0 or raised(bad, minute - 1) == "", "it comes too soon"
    assert name == "OnnxdAbsent" or raised(IDLE + [gauge("build_info", "1x60", WHERE)]) == ""


def test_alerts_carry_what_a_person_needs():
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert rule["labels"]["team"] == "inference", name
        assert rule["annotations"]["summary"] and rule["annotations"]["description"].endswith("."), name


# --- series ----------------------------------------------------------------------------------------


def dashboard():
    config = rendering.only(rendering.render(OBSERVED), "ConfigMap", f"{rendering.NAME}-dashboard")
    (text,) = config["data"].values()
    return json.loads(text)


def dashboard_queries():
    board = dashboard()
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]


def keda_queries():
    scaled = rendering.only(rendering.render(rendering.values("keda-values.yaml")), "ScaledObject")
    for trigger in scaled["spec"]["triggers"]:
        if trigger["type"] == "prometheus":
            yield f"trigger {trigger['name']}", trigger["metadata"]["query"]


def adapter():
    """The rules for a metrics adapter in README.md."""
    text = (rendering.CHART / "README.md").read_text()
    (block,) = [each for each in re.findall(r"```yaml\n(.*?)```", text, re.S) if "seriesQuery" in each]
    return yaml.safe_load(block)["rules"]["custom"]


def adapter_queries():
    for rule in adapter():
        yield f"adapter {rule['name']['as']}", rule["seriesQuery"]
        yield f"adapter {rule['name']['as']}", rule["metricsQuery"].replace("<<.LabelMatchers>>", WHERE)


def alert_queries():
    for values in (OBSERVED, GPU):
        for name, rule in alerts(values).items():
            yield f"alert {name}", rule["expr"]


def queries():
    for source in (alert_queries, dashboard_queries, keda_queries, adapter_queries):
        yield from source()


def named(query):
    """Names of series in a query, with the labels that it asks of them."""
    query = re.sub(r"by \([^)]*\)", "", query)
    for name, labels in re.findall(r"\b((?:onnxd|rpc|process)_\w+)\s*(?:\{([^}]*)\})?", query):
        yield name, re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', labels)


def exposed(text):
    """Series of an exposition: by name, the values of each label."""
    series = {}
    for line in text.splitlines():
        found = re.match(r"([a-zA-Z_:]\w*)(?:\{(.*)\})? \S+", line)
        if found and not line.startswith("#"):
            labels = series.setdefault(found.group(1), {})
            for key, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found.group(2) or ""):
                labels.setdefault(key, set()).add(value)
    return series


# What Prometheus and its targets add, and the choices of the dashboard.
ADDED = {"namespace", "job", "pod", "cluster"}
CACHED = 'response_cache_bytes = 1048576\n'


@pytest.fixture
def series(cluster):  # noqa: F811
    """Of a server that has everything on: TLS, access, a model with a cache."""
    rendered = rendering.render(
        {
            "config": CACHED,
            "tls": {"secretName": "server"},
            "access": {"files": {"access.toml": ""}},
            "server": {"drain": {"pauseSeconds": 0}},
        }
    )
    server = cluster.server(rendered)
    wait_for_start(server)
    probe = {"httpGet": {"path": "/metrics", "port": "admin"}, "timeoutSeconds": 30}
    good, words = server.probe(probe)
    assert good, words
    return exposed(words)


def test_every_series_that_the_chart_names_is_there_from_the_first_scrape(series):
    missing = set()
    count = 0
    for where, query in queries():
        for name, matchers in named(query):
            count += 1
            if name not in series:
                missing.add(f"{where}: {name}")
                continue
            for label, how, value in matchers:
                if label in ADDED or value.startswith("$"):
                    continue
                has = series[name].get(label)
                if not has:
                    missing.add(f"{where}: {name} has no label {label}")
                elif how == "=" and value not in has:
                    missing.add(f"{where}: {name}{{{label}}} is never {value}")
                elif how == "=~":
                    for each in value.split("|"):
                        if not any(re.fullmatch(each, one) for one in has):
                            missing.add(f"{where}: {name}{{{label}}} is never {each}")
    assert count > 60
    assert not missing, "\n".join(sorted(missing))


def test_labels_that_are_shown_are_there(series):
    """`by (…)` and legends."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            has = set(ADDED)
            for name, _ in named(target["expr"]):
                has |= set(series[name])
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            wanted = {each.strip() for group in grouped for each in group.split(",")}
            wanted |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert wanted <= has | {"le"}, f"{panel['title']}: {wanted - has}"


def test_promtool_takes_every_query(tmp_path):
    found = list(queries())
    made = [
        {"record": "a:b", "expr": query.replace("$__rate_interval", "5m").replace("<<.GroupBy>>", "pod")}
        for where, query in found
        if "label_values" not in query
    ]
    assert len(made) > 40
    path = tmp_path / "queries.yaml"
    # One group each: two rules of a group may not be the same.
    groups = [{"name": str(at), "rules": [rule]} for at, rule in enumerate(made)]
    path.write_text(yaml.safe_dump({"groups": groups}))
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


# --- dashboard -------------------------------------------------------------------------------------


def test_the_dashboard_is_one_that_grafana_reads():
    board = dashboard()
    assert board["id"] is None and board["uid"] == "onnxd" and board["schemaVersion"] >= 36
    variables = {each["name"] for each in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__rate_interval", "__all"}
    assert used == variables
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    kinds = {panel["type"] for panel in board["panels"]}
    assert kinds == {"row", "stat", "timeseries", "table"}
    places = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24 and panel["title"], panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, f"{panel['title']} lies on another panel"
        places |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            refs = [target["refId"] for target in panel["targets"]]
            assert refs and len(refs) == len(set(refs))
            if panel["type"] != "table":
                assert panel["fieldConfig"]["defaults"]["unit"]


def test_what_scales_is_what_the_adapter_gives():
    """Names and units of README.md's rules are those that the HorizontalPodAutoscaler asks for."""
    scaler = rendering.only(rendering.render(rendering.values("hpa-values.yaml")), "HorizontalPodAutoscaler")
    asked = {each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"] if "pods" in each}
    assert asked == {rule["name"]["as"] for rule in adapter()}
