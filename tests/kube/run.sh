#!/usr/bin/env bash
# Tries the chart on a real Kubernetes control plane on loopback, made from Kubernetes' own Go
# modules. Nothing is skipped: a tool that cannot be had is a failure.
#
#   tests/kube/run.sh [-only REGEXP] [-keep]
#   tests/kube/run.sh --kubelet [-only REGEXP] [-keep]
#
# With --kubelet there is a node that runs the chart's pods from the image that `make test-image`
# builds: a kubelet, kube-proxy, containerd and CoreDNS, as root, with a network, mounts and processes
# of their own that end with it.
#
# The executables go into .tools, which git ignores.
set -euo pipefail
cd "$(dirname "$0")/../.."

kubelet=false
if [[ "${1:-}" == --kubelet ]]; then
    kubelet=true
    shift
fi

tests/chart/tools.sh

# Go looks by itself what has changed. What it compiled is kept in its cache.
tools=$PWD/.tools/kube
mkdir -p "$tools/node"
version=$(go -C tests/kube list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
variables=k8s.io/component-base/version
echo "building Kubernetes $version (a first build takes many minutes)"
go -C tests/kube build -o "$tools/controlplane" -ldflags "-s -w \
    -X $variables.gitVersion=$version -X $variables.gitMajor=$major -X $variables.gitMinor=$minor" ./controlplane
go -C tests/kube build -o "$tools/trial" ./trial
trial=("$tools/trial" -controlplane "$tools/controlplane"
    -helm .tools/helm,.tools/helm3 -chart helm/onnxd -crds .tools/definitions)
$kubelet || exec "${trial[@]}" "$@"

echo "building what a node runs"
go -C tests/kube/runtime build -o "$tools/node/" -ldflags "-s -w" ./names tool
CGO_ENABLED=0 go -C tests/kube build -o "$tools/pause" -ldflags "-s -w" ./pause

tests/image/build.sh >/dev/null
. tests/image/buildah.sh
packages iptables ip=iproute2
base localhost/pause:trial "$tools/pause=/"
container=$(buildah from --pull=never localhost/pause:trial)
buildah config --entrypoint '["/pause"]' --user 65535:65535 "$container"
buildah commit --quiet --rm "$container" localhost/pause:trial >/dev/null
rm -f "$tools"/*.tar
buildah push --quiet localhost/pause:trial "docker-archive:$tools/pause.tar:localhost/pause:trial"
buildah push --quiet localhost/onnxd:cpu "docker-archive:$tools/onnxd.tar:localhost/onnxd:cpu"

exec "${as_root[@]}" unshare --net --mount --pid --fork --kill-child --mount-proc \
    sh -c 'ip link set lo up && exec "$@"' sh "${trial[@]}" -node "$tools/node" \
    -images "$tools/pause.tar,$tools/onnxd.tar" -image localhost/onnxd:cpu \
    -caller target/release/onnxd "$@"
