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
for program in controlplane trial; do
    echo "building $program (a first build takes many minutes)"
    go -C tests/kube build -ldflags '-s -w' -o "$PWD/.tools/kube/$program" "./$program"
done

exec .tools/kube/trial -controlplane .tools/kube/controlplane \
    -helm .tools/helm,.tools/helm3 -chart helm/onnxd -crds .tools/definitions "$@"
