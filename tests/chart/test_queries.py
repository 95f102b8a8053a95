"""A real Prometheus scrapes a pod that works, and every query of dashboard and scaling finds something."""

import json
import re
import subprocess
import sys
import urllib.parse

import pytest
import yaml

import pod
import rendering
from test_rules import CACHED, alert_queries, dashboard_queries, keda_queries
from test_run import SECURED, authority, cluster, wait_for_start  # noqa: F401

FETCH = "import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen(sys.argv[1], timeout=30).read())"


class Prometheus:
    """In the pod's network; its targets have the labels that the operator's monitors give them."""

    def __init__(self, server, folder):
        self.server = server
        target = {
            "targets": ["127.0.0.1:8002"],
            "labels": {"namespace": rendering.NAMESPACE, "pod": "a"},
        }
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": rendering.NAME, "static_configs": [target]}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [str(rendering.PROMETHEUS / "prometheus"), f"--config.file={folder}/prometheus.yaml"]
        command += [f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:9090"]
        self.log = open(folder / "prometheus.log", "w")
        within = ["nsenter", "--net", "--target", str(server.pid()), "--"]
        self.process = subprocess.Popen(
            [*pod.AS_ROOT, *within, *command], stdout=self.log, stderr=self.log
        )

    def ask(self, query):
        """Samples of a query; `None` while nobody answers."""
        address = f"http://127.0.0.1:9090/api/v1/query?query={urllib.parse.quote(query)}"
        done = self.server.beside(sys.executable, "-c", FETCH, address)
        return json.loads(done.stdout)["data"]["result"] if done.returncode == 0 else None

    def close(self):
        subprocess.run([*pod.AS_ROOT, "kill", str(self.process.pid)], check=False)
        self.process.wait(timeout=rendering.PATIENCE)
        self.log.close()


@pytest.fixture
def prometheus(cluster, tmp_path):  # noqa: F811
    rendered = rendering.render(SECURED | {"config": CACHED})
    server = cluster.server(rendered)
    wait_for_start(server)
    prometheus = Prometheus(server, tmp_path)
    served = f'onnxd_requests_total{{job="{rendering.NAME}",model="magika",outcome="ok"}}'
    try:
        pod.wait_until(lambda: prometheus.ask(served), "the first scrape")
        # Counters must be seen to grow.
        for seen in (1, 2):
            code, words = cluster.test(rendered, server)
            assert code == 0, words
            pod.wait_until(lambda: prometheus.ask(f"{served} >= {seen}"), f"{seen} requests")
        yield prometheus
    finally:
        prometheus.close()


def test_every_query_finds_what_it_is_about(prometheus):
    empty, asked = [], 0
    for where, query in [*dashboard_queries(), *keda_queries(), *alert_queries()]:
        if "label_values" in query:
            continue
        query = query.replace("$__rate_interval", "1m")
        query = re.sub(r"\$(namespace|job|model)\b", ".*", query)
        # What is compared with a limit: whether there is something to compare. What counts faults of one
        # kind has no series where that kind has none, unless it is there from the start.
        for part in re.split(r"\bor\b", query) if where.startswith("alert") else [query]:
            part = re.sub(r"\s(>|<|==)\s[\d.e-]+\s*$", "", part.strip())
            if "absent(" in part or "ProviderMismatch" in where:
                continue
            asked += 1
            if not prometheus.ask(part):
                empty.append(f"{where}: {part}")
    assert asked > 45
    assert not empty, "\n".join(empty)
