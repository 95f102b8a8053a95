#!/usr/bin/env bash
# Tries the chart on a real Kubernetes control plane on loopback, made from Kubernetes' own Go
# modules. Nothing is skipped: a tool that cannot be had is a failure.
#
#   tests/kube/run.sh [-only REGEXP] [-keep]
#
# The executables go into .tools, which git ignores.
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/chart/tools.sh

# Go looks by itself what has changed. What it compiled is kept in its cache.
mkdir -p .tools/kube
version=$(go -C tests/kube list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
variables=k8s.io/component-base/version
echo "building Kubernetes $version (a first build takes many minutes)"
go -C tests/kube build -o "$PWD/.tools/kube/controlplane" -ldflags "-s -w \
    -X $variables.gitVersion=$version -X $variables.gitMajor=$major -X $variables.gitMinor=$minor" ./controlplane
go -C tests/kube build -o "$PWD/.tools/kube/trial" ./trial

exec .tools/kube/trial -controlplane .tools/kube/controlplane \
    -helm .tools/helm,.tools/helm3 -chart helm/onnxd -crds .tools/definitions "$@"
