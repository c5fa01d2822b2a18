#!/bin/sh
# Installs, on Debian and its kin and as root, the packages that bring the named programs. Fails if one is missing then.
set -eu

package() {
    case $1 in
    cc) echo gcc libc6-dev ;;
    busybox) echo busybox-static ;;
    ip) echo iproute2 ;;
    mkfs.ext4) echo e2fsprogs ;;
    nft) echo nftables ;;
    ctr) echo containerd ;;
    pip3) echo python3-pip ;;
    podman) echo podman netavark aardvark-dns ;;
    ps) echo procps ;;
    qemu-system-x86_64) echo qemu-system-x86 ;;
    readelf) echo binutils ;;
    script) echo bsdutils ;;
    xz) echo xz-utils ;;
    *) echo "$1" ;;
    esac
}

wanted=
for program in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || wanted="$wanted $(package "$program")"
done
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing:$wanted" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list
apt-get install -qq -y --no-install-recommends $wanted >/dev/null 2>&1 ||
    { apt-get update -qq >/dev/null && apt-get install -qq -y --no-install-recommends $wanted >/dev/null; }
