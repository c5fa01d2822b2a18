#!/bin/sh
# Runs the cases of this directory on a Linux machine that can be thrown away, as root, and looks after each whether the
# machine is as it was before. It must have a unified cgroup hierarchy, OpenZFS, a disk that says its serial number is
# "pool", whose first partition is overwritten, and one that says "quota", with a file system of ext4 that keeps project
# quotas. Two network cards of virtio on one wire are what the cases of lent cards take.
#
# usage: run.sh POTRUN [CASE...]        (default: all)
#
# Prints a line a case: passed, FAILED or skipped. Exit: 0 none failed, 1 some did, 2 it could not begin.
set -u
here=$(cd "$(dirname "$0")" && pwd)
potrun=$1
shift
work=/var/tmp/potrun-test
pool=potruntest
bundles=$work/bundles
state=/run/potrun
cgroup=/sys/fs/cgroup
release=tiny
outer=198.51.100.1 # RFC 5737, TEST-NET-2
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
. "$here/../guest/shell.sh"

# Everything of the machine that a pot may change.
machine() {
    zfs list -H -o name,mountpoint,mounted,quota,refquota,readonly,potrun:id -t all
    cut -d ' ' -f 4- /proc/self/mountinfo | sed -e 's/ \(shared\|master\):[0-9]*//g' -e 's/,seclabel//'
    ip -o link | sed 's/^[0-9]*: //'
    ip -o address | sed 's/^[0-9]*: //'
    ip route
    nft list ruleset
    find $cgroup -type d
    cat /run/potrun.leases 2>/dev/null
    ls -A --ignore=:seccomp $state "$work/away" /opt/pot /opt/pot/* /var/lib/potrun /var/lib/potrun/* /var/lib/potrun/bases/*/users
    cat /etc/potrun.conf
    pgrep -l potrun
} 2>&1

# A base of busybox.
make_base() {
    tree=$work/base
    mkdir -p "$tree"
    for dir in bin dev etc mnt proc root srv sys tmp var/tmp; do mkdir -p "$tree/$dir"; done
    chmod 1777 "$tree/tmp" "$tree/var/tmp"
    cp /usr/bin/busybox "$tree/bin/"
    for name in $(busybox --list); do [ "$name" = busybox ] || ln -s busybox "$tree/bin/$name"; done
    echo "root:x:0:0::/root:/bin/sh" >"$tree/etc/passwd"
    tar -C "$tree" -czf "$work/base.tgz" .
    rm -rf "$tree"
}

# The disk that says its serial number is NAME.
disk() { # name
    for one in /sys/block/*; do
        [ "$(cat "$one/serial" 2>/dev/null)" != "$1" ] || echo "/dev/${one##*/}"
    done
}

# From now on datasets, or directories, are what bases and pots are kept in.
on_zfs() { printf 'POT_ZFS_ROOT=%s/pot\nPOT_FS_ROOT=/opt/pot # a remark\n' $pool >/etc/potrun.conf; }
on_overlay() { : >/etc/potrun.conf; }

# What is there before the first pot.
setup() {
    mkdir -p "$bundles" "$work/away"
    modprobe zfs || exit 2
    # The first time that a card is up it gets its queue.
    modprobe virtio_net && for card in $(cards); do ip link set "$card" up && ip link set "$card" down; done
    zpool create -f -m /$pool $pool "$(disk pool)1" || exit 2
    ip link add ext0 type dummy
    ip address add $outer/24 dev ext0
    ip link set ext0 up
    make_base
    on_overlay
    "$potrun" base import $release "$work/base.tgz" || exit 2
    zfs create -o mountpoint=/opt/pot -o canmount=off -o atime=off $pool/pot || exit 2
    on_zfs
    "$potrun" base import $release "$work/base.tgz" || exit 2
    # What the first pot makes and leaves is there for all of them: empty directories, the lock of the ledger.
    on_overlay
    pot warm true '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}], "limits": {"memory": "64m", "cpus": 1, "cpuset": "0", "pids": 99}'
    ran warm
    rm -r "$bundles/warm"
    mkdir -m 700 -p /var/lib/potrun/making /var/lib/potrun/partial
}

tidy() {
    on_overlay
    rm -rf "$bundles" "$work"/*.tar "$work"/*.zfs
    find "$work/away" -mindepth 1 -delete
}

wipe() {
    [ ! -d $cgroup/manager ] || (unmanage)
    umount "$work/limited"
    zpool destroy -f small
    for part in jails fscomp bases; do
        for one in $(zfs list -H -o name -d 1 -t filesystem $pool/pot/$part | tail -n +2); do
            [ "$one" = $pool/pot/bases/$release ] || zfs destroy -R -f "$one"
        done
    done
    for one in $(zfs list -H -o name -d 1 $pool | tail -n +2); do [ "$one" = $pool/pot ] || zfs destroy -r -f "$one"; done
    rm -rf /var/lib/potrun/pots/* /var/lib/potrun/fscomps
    rmdir /opt/pot/jails/* # what zfs(8) leaves of a mountpoint of its own
}

for file in "$here"/cases/*.sh; do . "$file"; done
# A failure in the set-up is a failure of everything.
zpool list $pool >/dev/null 2>&1 || (setup) >"$work.setup" 2>&1 || {
    cat "$work.setup"
    echo "FAILED  setup"
    exit 2
}
cases "$@"
