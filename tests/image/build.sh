#!/usr/bin/env bash
# Builds the image of the Dockerfile without a registry, into .tools/image, and unpacks it there.
#
#   tests/image/build.sh          everything but the compiling: takes ONNXD_BIN (default:
#                                 target/release/onnxd) and the onnxruntime folder beside it
#   tests/image/build.sh --whole  compiling and fetching, too, on a base with this machine's Rust
#
# FLAVOR   cpu (default) or cuda13, which needs --whole
#
# The bases that the Dockerfile names are made here from Debian's packages; the builder is Debian's
# buildah. Afterwards .tools/image has root/ (the file system), image.json (its settings) and
# layers.tar.gz (what a registry would store).
set -euo pipefail
cd "$(dirname "$0")/../.."

whole=false
[[ "${1:-}" != --whole ]] || whole=true
FLAVOR=${FLAVOR:-cpu}
LICENSES=5.0.0 # version of cargo-bundle-licenses, as in the Dockerfile
. tests/image/buildah.sh

# Debian's slim image has these packages and few more.
debian=localhost/debian:slim
if ! exists $debian; then
    [[ -f $work/debian.tar ]] || {
        mmdebstrap --quiet --variant=essential --include=libstdc++6 bookworm "$work/debian.part.tar"
        mv "$work/debian.part.tar" "$work/debian.tar"
    }
    base $debian "$work/debian.tar=/"
fi

flags=(--build-arg "FLAVOR=$FLAVOR" --build-arg "DEBIAN_IMAGE=$debian" --pull=never)
if $whole; then
    rust=localhost/rust:slim
    if ! exists $rust; then
        sysroot=$(rustc --print sysroot)
        [[ -f $work/build.tar ]] || {
            mmdebstrap --quiet --variant=apt --include=gcc,libc6-dev,ca-certificates bookworm \
                "$work/build.part.tar"
            mv "$work/build.part.tar" "$work/build.tar"
        }
        # Where the network asks for certificates of its own, they are this machine's.
        base $rust "$work/build.tar=/" "$sysroot=/usr/local/cargo" \
            /etc/ssl/certs/ca-certificates.crt=/etc/ssl/certs/
    fi
    flags+=(--build-arg "RUST_IMAGE=$rust" --file Dockerfile)
else
    ONNXD_BIN=${ONNXD_BIN:-target/release/onnxd}
    licenses=.tools/bin/cargo-bundle-licenses
    if ! $licenses bundle-licenses --version 2>/dev/null | grep -qF ":$LICENSES"; then
        cargo install --quiet --locked --root .tools --version $LICENSES cargo-bundle-licenses
    fi
    rm -rf "$work/out"
    mkdir -p "$work/out/licenses"
    cp "$ONNXD_BIN" "$work/out/onnxd"
    cp -r "$(dirname "$ONNXD_BIN")/onnxruntime" "$work/out/onnxruntime"
    $licenses bundle-licenses --format yaml \
        --output "$work/out/licenses/rust-crates.yaml" --prefer MIT --prefer Apache-2.0 2>/dev/null
    base localhost/compiled "$work/out=/out"
    # The first stage is replaced by what it would have left; the others are taken as they are.
    awk '/^FROM .* AS compile$/ { print "FROM localhost/compiled AS compile"; skip = 1; next }
         /^FROM / { skip = 0 } !skip' Dockerfile >"$work/Dockerfile"
    grep -q "^FROM localhost/compiled AS compile$" "$work/Dockerfile"
    flags+=(--file "$work/Dockerfile")
fi

image=localhost/onnxd:$FLAVOR
buildah build --quiet "${flags[@]}" --tag "$image" .

buildah inspect --type image "$image" |
    python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["Docker"]))' \
        >"$work/image.json"
container=$(buildah from --pull=never "$image")
rm -rf "$work/root"
mkdir "$work/root"
"${as_root[@]}" cp -a "$(buildah mount "$container")/." "$work/root"
buildah rm "$container" >/dev/null
buildah rmi --prune --force >/dev/null
tar -C "$work/root" -czf "$work/layers.tar.gz" .
du -sb "$work/root" | cut -f1
