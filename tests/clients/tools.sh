#!/usr/bin/env bash
# Puts the command line tools that the tests use into .tools/: buf, ghz, grpcurl and
# grpc-health-probe are built with Go at pinned versions, perf_analyzer comes from its wheel with the C library that it
# needs, strace, ip, Chromium and Prometheus from the system's packages.
set -euo pipefail
cd "$(dirname "$0")/../.."

BUF=v1.75.0
GHZ=v0.120.0
GRPCURL=v1.9.4
HEALTH_PROBE=v0.4.61

if ! command -v go >/dev/null; then
    echo "Go is missing: buf, ghz, grpcurl and grpc-health-probe are built with it" >&2
    exit 1
fi

# tool NAME PACKAGE VERSION: builds it unless it is there in that version.
tool() {
    if ! go version -m ".tools/$1" 2>/dev/null | grep -qP "^\tmod\t.*\t\Q$3\E\t"; then
        GOBIN="$PWD/.tools" go install "$2@$3"
    fi
}
tool buf github.com/bufbuild/buf/cmd/buf "$BUF"
tool ghz github.com/bojand/ghz/cmd/ghz "$GHZ"
tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl "$GRPCURL"
tool grpc-health-probe github.com/grpc-ecosystem/grpc-health-probe "$HEALTH_PROBE"

as_root=()
[[ $EUID -eq 0 ]] || as_root=(sudo)
# lists: fetches the lists of the system's packages.
lists() {
    "${as_root[@]}" apt-get update -q
}
# package NAME...: installs packages of the system.
package() {
    lists
    "${as_root[@]}" apt-get install -qy --no-install-recommends "$@"
}
command -v strace >/dev/null || package strace
command -v ip >/dev/null || package iproute2
[[ -x /usr/bin/chromium ]] || package chromium

# Prometheus and its promtool: unpacked and not installed, because the package starts a server.
if [[ ! -x .tools/prometheus/usr/bin/promtool ]]; then
    mkdir -p .tools/prometheus
    # A bare machine has no lists of packages yet.
    (cd .tools/prometheus && { apt-get download -q prometheus || { lists && apt-get download -q prometheus; }; })
    dpkg-deb --extract .tools/prometheus/prometheus_*.deb .tools/prometheus
    rm .tools/prometheus/prometheus_*.deb
fi

# perf_analyzer wants the C library of Debian 13, whatever this machine has.
analyzer=.tools/perf-analyzer
wanted=$(cksum <tests/clients/perf-analyzer.txt)
if [[ ! -f $analyzer/installed || $(<"$analyzer/installed") != "$wanted" ]]; then
    command -v mmdebstrap >/dev/null || package mmdebstrap
    rm -rf "$analyzer"
    mkdir -p "$analyzer/wheel"
    "${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --platform "manylinux_2_38_$(uname -m)" --python-version 3.12 \
        --dest "$analyzer/wheel" --require-hashes --requirement tests/clients/perf-analyzer.txt
    "${PYTHON:-python3}" -m zipfile --extract "$analyzer"/wheel/*.whl "$analyzer"
    chmod +x "$analyzer/perf_analyzer/bin/perf_analyzer"
    mmdebstrap --quiet --variant=extract --include=libc6,libgcc-s1,libssl3t64,libstdc++6,zlib1g \
        trixie "$analyzer/root"
    echo "$wanted" >"$analyzer/installed"
fi
