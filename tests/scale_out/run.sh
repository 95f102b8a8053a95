#!/usr/bin/env bash
# Runs the tests here, or a trial at length, with the proxies that they need.
#
#   tests/scale_out/run.sh                    the tests
#   tests/scale_out/run.sh --rounds 100 …     trial.py with these arguments
#   tests/scale_out/run.sh --throughput …     throughput.py with these arguments
#
# nginx is unpacked from Debian's package into .tools/nginx and not installed, so that no service
# starts; Envoy comes with the Python packages of .venv/clients.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ ! -x .tools/nginx/usr/sbin/nginx ]]; then
    as_root=()
    [[ $EUID -eq 0 ]] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" apt-get install -qy --no-install-recommends libcrypt1 libpcre2-8-0 libssl3 zlib1g
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -q nginx)
    rm -rf .tools/nginx
    dpkg-deb --extract "$folder"/nginx_*.deb .tools/nginx
    rm -r "$folder"
fi

python=$PWD/.venv/clients/bin/python
export PYTHONDONTWRITEBYTECODE=1
if [[ "${1:-}" == --throughput ]]; then
    exec "$python" tests/scale_out/throughput.py "${@:2}"
fi
if (($#)); then
    exec "$python" tests/scale_out/trial.py "$@"
fi
exec "$python" -m pytest -p no:cacheprovider --durations=3 tests/scale_out
