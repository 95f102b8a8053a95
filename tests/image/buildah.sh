# To be sourced, from the top of the checkout: `buildah` with a store of its own in .tools/image,
# and `base`, which makes an image of folders and archives.

work=.tools/image
mkdir -p "$work"

as_root=()
[[ $EUID -eq 0 ]] || as_root=(sudo --preserve-env)

# packages TOOL[=PACKAGE]...: installs what is missing of these.
packages() {
    local missing=() tool
    for tool in "$@"; do
        command -v "${tool%%=*}" >/dev/null || missing+=("${tool#*=}")
    done
    if ((${#missing[@]})); then
        "${as_root[@]}" apt-get update -q
        "${as_root[@]}" apt-get install -qy --no-install-recommends "${missing[@]}"
    fi
}
packages buildah mmdebstrap runc

# Images are kept here and nowhere else; layers are plain folders, which any file system can hold.
export BUILDAH_ISOLATION=chroot BUILDAH_FORMAT=docker
builder=$(type -P buildah)
buildah() {
    "${as_root[@]}" "$builder" --storage-driver vfs --root "$PWD/$work/store" \
        --runroot "$PWD/$work/run" "$@"
}
exists() { buildah inspect --type image "$1" >/dev/null 2>&1; }

# base NAME SOURCE...: an image of these folders or archives, unpacked one over the other.
base() {
    local name=$1 container
    shift
    container=$(buildah from scratch)
    for source in "$@"; do
        buildah add --quiet "$container" "${source%%=*}" "${source#*=}" >/dev/null
    done
    buildah config --env PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit --quiet --rm "$container" "$name" >/dev/null
}
