#!/bin/sh
# The life of one pot, from nothing to nothing: installs what is needed, builds potrun, imports a base, prints the plan of
# bundles/service, creates and starts the pot, shows its state, runs a program in it, stops and deletes it, and shows that
# nothing is left.
#
# usage: tests/demo.sh [debian|busybox]
#
# The base is Debian's minimal system made by debootstrap, or a busybox tree where that cannot be had. Without root the
# same is done as far as user namespaces allow: root inside is the caller, and potrun says what it left out.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$(echo "$*" | sed "s|$work|WORK|g; s|$potrun|potrun|g")"; "$@"; }
is_root() { [ "$(id -u)" = 0 ]; }

kind=${1:-debian}
work=$(mktemp -d)
potrun=$PWD/$(tests/binary.sh)
options="--root $work/state --store $work/store"

leave() {
    # shellcheck disable=SC2086 # two options
    [ ! -x "$potrun" ] || "$potrun" $options delete --force demo || true
    rm -rf --one-file-system "$work"
}
trap leave EXIT

say "A base"
tree=$work/tree
busybox_tree() {
    busybox=$(command -v busybox) || { echo "no busybox, and no debootstrap: install busybox-static" >&2; exit 1; }
    mkdir -p "$tree/bin" "$tree/etc" "$tree/tmp"
    cp "$busybox" "$tree/bin/busybox"
    for name in sh echo cat ls ps sleep id mount hostname true env touch; do ln -s busybox "$tree/bin/$name"; done
    echo "root:x:0:0:root:/:/bin/sh" >"$tree/etc/passwd"
}
if [ "$kind" = debian ] && is_root && tests/install.sh debootstrap; then
    echo "making Debian's minimal system (a minute or two) ..."
    if ! debootstrap --variant=minbase stable "$tree" >"$work/debootstrap.log" 2>&1; then
        tail -3 "$work/debootstrap.log"
        echo "left out: Debian's minimal system cannot be had here; a busybox tree instead"
        rm -rf --one-file-system "$tree"
        busybox_tree
    fi
else
    busybox_tree
fi
tar -C "$tree" -czf "$work/minimal.tar.gz" .
# shellcheck disable=SC2086
{
    show "$potrun" $options base import minimal "$work/minimal.tar.gz"
    show "$potrun" $options base ls

    say "The plan: nothing is touched"
    show "$potrun" $options plan --id demo bundles/service

    say "The pot"
    mounts=$(sort /proc/self/mountinfo)
    cgroups=$(find /sys/fs/cgroup -name 'potrun-demo' 2>/dev/null || true)
    show "$potrun" $options create --bundle bundles/service demo </dev/null >"$work/output" 2>&1 || { cat "$work/output"; exit 1; }
    show "$potrun" $options state demo
    show "$potrun" $options start demo
    show "$potrun" $options list
    show "$potrun" $options exec demo /bin/sh -c 'echo "inside: $(id -u) of $(hostname)"; ls /'
    pid=$("$potrun" $options state demo | sed -n "s/.*\"pid\": \([0-9]*\).*/\1/p")
    show "$potrun" $options kill demo TERM
    tail --pid="$pid" -f /dev/null # until it has ended
    show "$potrun" $options state demo
    show "$potrun" $options delete demo

    say "What is left"
    show "$potrun" $options list
    left=$(ls -A "$work/state"; ls -A "$work/store/pots" 2>/dev/null; ls -A "$work/store/bases/minimal/users")
    [ -z "$left" ] || { echo "left: $left"; exit 1; }
    [ "$mounts" = "$(sort /proc/self/mountinfo)" ] || { echo "left: a mount"; exit 1; }
    [ "$cgroups" = "$(find /sys/fs/cgroup -name 'potrun-demo' 2>/dev/null || true)" ] || { echo "left: a cgroup"; exit 1; }
    echo "nothing: no state, no layer, no note of the base, no mount, no cgroup"
    show "$potrun" $options base rm minimal
}
