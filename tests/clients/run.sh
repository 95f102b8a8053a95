#!/usr/bin/env bash
# Tests of a real server with real clients in other languages. Nothing is skipped: a tool that
# cannot be had is a failure.
#
#   tests/clients/run.sh [pytest arguments, files seen from tests/clients]
#
# ONNXD_BIN   server to test; default: target/release/onnxd, else target/debug/onnxd
# PYTHON      interpreter that makes the virtual environment; default: python3
#
# The environments go into .venv and the tools into .tools, both ignored by git.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ -z "${ONNXD_BIN:-}" ]]; then
    for candidate in target/release/onnxd target/debug/onnxd; do
        if [[ -x $candidate ]]; then
            ONNXD_BIN=$candidate
            break
        fi
    done
fi
if [[ ! -x "${ONNXD_BIN:-}" ]]; then
    echo "no server: build one or set ONNXD_BIN" >&2
    exit 1
fi
ONNXD_BIN=$(realpath "$ONNXD_BIN")
export ONNXD_BIN

# environment NAME REQUIREMENTS: makes the virtual environment .venv/NAME unless it is there.
environment() {
    local wanted
    wanted=$(cksum <"$2")
    if [[ ! -f .venv/$1/installed || $(<".venv/$1/installed") != "$wanted" ]]; then
        "${PYTHON:-python3}" -m venv --clear ".venv/$1"
        ".venv/$1/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$2"
        echo "$wanted" >".venv/$1/installed"
    fi
}
environment clients tests/clients/requirements.txt
environment kserve tests/clients/requirements-kserve.txt

tests/clients/tools.sh

export ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1
cd tests/clients
exec ../../.venv/clients/bin/python -m pytest -p no:cacheprovider --durations=5 "$@"
