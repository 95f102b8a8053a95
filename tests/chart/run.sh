#!/usr/bin/env bash
# Tests of the Helm chart: rendered, held against what clusters take, and run. Nothing is skipped: a tool
# that cannot be had is a failure.
#
#   tests/chart/run.sh [pytest arguments, files seen from tests/chart]
#
# ONNXD_BIN      server to test; default: target/release/onnxd
# ONNXD_RUNTIME  folder of ONNX Runtime; default: onnxruntime beside the server
# PYTHON         interpreter that makes the virtual environment; default: python3
#
# The pods are namespaces of this machine, which root makes (sudo, for others). The environment goes into
# .venv and the tools into .tools, both ignored by git.
set -euo pipefail
cd "$(dirname "$0")/../.."

ONNXD_BIN=$(realpath "${ONNXD_BIN:-target/release/onnxd}")
ONNXD_RUNTIME=$(realpath "${ONNXD_RUNTIME:-$(dirname "$ONNXD_BIN")/onnxruntime}")
for needed in "$ONNXD_BIN" "$ONNXD_RUNTIME/manifest.json"; do
    if [[ ! -f $needed ]]; then
        echo "$needed is missing: make build" >&2
        exit 1
    fi
done
export ONNXD_BIN ONNXD_RUNTIME

wanted=$(cksum <tests/chart/requirements.txt)
if [[ ! -f .venv/chart/installed || $(<.venv/chart/installed) != "$wanted" ]]; then
    "${PYTHON:-python3}" -m venv --clear .venv/chart
    .venv/chart/bin/python -m pip install --quiet --disable-pip-version-check \
        --requirement tests/chart/requirements.txt
    echo "$wanted" >.venv/chart/installed
fi

tests/chart/tools.sh

export ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1
cd tests/chart
exec ../../.venv/chart/bin/python -m pytest -p no:cacheprovider --durations=5 "$@"
