"""Takes the definitions of objects out of a Go module: `go mod download -json M | definitions.py TARGET`."""

import json
import sys
import zipfile
from pathlib import Path

# The kinds that the chart makes, as the modules name their files.
WANTED = {
    "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
    "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    "deploy/crds/cert-manager.io_certificates.yaml",
    "config/crd/bases/keda.sh_scaledobjects.yaml",
    "config/crd/full/serving.kserve.io_clusterservingruntimes.yaml",
    "config/crd/full/serving.kserve.io_inferenceservices.yaml",
    "config/crd/full/serving.kserve.io_servingruntimes.yaml",
}

module = json.load(sys.stdin)
target = Path(sys.argv[1])
start = f"{module['Path']}@{module['Version']}/"
with zipfile.ZipFile(module["Zip"]) as archive:
    found = [name for name in archive.namelist() if name.removeprefix(start) in WANTED]
    assert found, f"{start} has none of the definitions"
    for name in found:
        (target / Path(name).name).write_bytes(archive.read(name))
