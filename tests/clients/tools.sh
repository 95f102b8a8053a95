#!/usr/bin/env bash
# Puts the command line tools that the tests use into .tools/: grpcurl and grpc-health-probe are
# built with Go at pinned versions, strace comes from the system's packages.
set -euo pipefail
cd "$(dirname "$0")/../.."

GRPCURL=v1.9.4
HEALTH_PROBE=v0.4.61

if ! command -v go >/dev/null; then
    echo "Go is missing: grpcurl and grpc-health-probe are built with it" >&2
    exit 1
fi

# tool NAME PACKAGE VERSION: builds it unless it is there in that version.
tool() {
    if ! go version -m ".tools/$1" 2>/dev/null | grep -qP "^\tmod\t.*\t\Q$3\E\t"; then
        GOBIN="$PWD/.tools" go install "$2@$3"
    fi
}
tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl "$GRPCURL"
tool grpc-health-probe github.com/grpc-ecosystem/grpc-health-probe "$HEALTH_PROBE"

if ! command -v strace >/dev/null; then
    as_root=()
    [[ $EUID -eq 0 ]] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" apt-get install -qy --no-install-recommends strace
fi
