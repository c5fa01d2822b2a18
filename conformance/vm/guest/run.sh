#!/bin/sh
# Runs the cases of this directory on a FreeBSD machine that can be thrown away, as root, and looks after each whether
# the machine is as it was before.
#
# usage: run.sh POTRUN [CASE...]        (default: all)
#
# Makes for itself: a ZFS pool in a file, a base of the machine's own programs, and a network to be reached from, which
# is a jail at the other end of an epair(4). Prints a line a case, as the conformance suite on Linux does:
# passed, FAILED or skipped. Exit: 0 none failed, 1 some did, 2 it could not begin.
set -u
here=$(cd "$(dirname "$0")" && pwd)
potrun=$1
shift
work=/var/tmp/potrun-test
pool=potruntest
bundles=$work/bundles
state=/var/run/potrun
ledger=/var/run/potrun.leases
release=$(freebsd-version -u | cut -d- -f1,2)
outer=198.51.100.1 world=198.51.100.2          # RFC 5737, TEST-NET-2
outer6=2001:db8:77::1 world6=2001:db8:77::2    # RFC 3849
export PATH=/sbin:/bin:/usr/sbin:/usr/bin

. "$here/shell.sh"

# Everything of the machine that a pot may change.
machine() {
    zfs list -H -o name,mountpoint,quota,refquota,readonly -t all
    mount -v | sed -e 's/, writes:.*//' -e 's/, fsid.*//'
    ifconfig -a
    netstat -rn | grep -v '^$'
    jls -d jid name
    pfctl -q -v -s Anchors
    pfctl -q -s nat && pfctl -q -s rules
    for anchor in $(pfctl -q -v -s Anchors); do pfctl -q -a "$anchor" -s nat && pfctl -q -a "$anchor" -s rules; done
    rctl
    devfs rule showsets
    cat $ledger
    ls -A $state "$work/away" /opt/pot
    find /usr/local/etc/pot -type f
    pgrep -l potrun
    posixshmcontrol ls 2>/dev/null
} 2>&1

# A base of the machine's own programs, with the libraries that they need.
make_base() {
    tree=$work/base
    mkdir -p "$tree"
    for dir in dev proc tmp root mnt media var/run var/tmp var/log etc usr/lib usr/local home; do mkdir -p "$tree/$dir"; done
    chmod 1777 "$tree/tmp" "$tree/var/tmp"
    for name in sh cat chmod chown cp dd date df echo expr freebsd-version hostname id ifconfig kenv kill limits ln ls mkdir \
        mount mv nc netstat ping ping6 procstat ps pwd realpath rm rmdir route sed setfacl sleep sockstat stat stty su \
        sort chflags awk sysctl tail test touch tr true tty umount uname wc which head grep fstat cpuset posixshmcontrol env ipcs mkfifo truss devfs jls; do
        path=$(which $name) || continue
        mkdir -p "$tree$(dirname "$path")"
        [ -e "$tree$path" ] || ln "$path" "$tree$path" 2>/dev/null || cp -p "$path" "$tree$path"
        for lib in $(ldd -f '%p\n' "$path" 2>/dev/null | grep ^/ | sort -u); do
            mkdir -p "$tree$(dirname "$lib")"
            [ -e "$tree$lib" ] || cp -p "$lib" "$tree$lib"
        done
    done
    mkdir -p "$tree/libexec" && cp -p /libexec/ld-elf.so.1 "$tree/libexec/"
    cp -p /etc/group /etc/master.passwd /etc/passwd /etc/pwd.db /etc/spwd.db /etc/protocols /etc/services "$tree/etc/"
    tar -C "$tree" -czf "$work/base.txz" . || exit 2
    chflags -R noschg "$tree" 2>/dev/null
    rm -rf "$tree"
}

# The outside: what is there before the first pot.
setup() {
    mkdir -p "$bundles" "$work/away"
    truncate -s 3g "$work/pool" && zpool create -f -m "/$pool" $pool "$work/pool" || exit 2
    pair=$(ifconfig epair create) || exit 2
    ifconfig "$pair" name ext0 >/dev/null
    jail -c name=world persist vnet allow.raw_sockets path=/ vnet.interface="${pair%a}b" || exit 2
    ifconfig ext0 inet $outer/24 up && ifconfig ext0 inet6 $outer6/64 no_dad
    jexec world ifconfig lo0 inet 127.0.0.1/8 up
    jexec world ifconfig "${pair%a}b" inet $world/24 up && jexec world ifconfig "${pair%a}b" inet6 $world6/64 no_dad
    mkdir -p /usr/local/etc/pot
    printf 'POT_ZFS_ROOT=%s/pot\nPOT_FS_ROOT=/opt/pot # a remark\nPOT_EXTIF="ext0"\n' $pool >/usr/local/etc/pot/pot.conf
    printf 'nat-anchor pot-nat\nrdr-anchor "pot-rdr/*"\nanchor "pot-rdr/*"\nanchor mine\n' >"$work/pf.conf"
    kldload pf 2>/dev/null
    pfctl -qef "$work/pf.conf" 2>/dev/null || pfctl -qf "$work/pf.conf" || exit 2
    sysctl net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1 >/dev/null
    make_base
    "$potrun" base import "$release" "$work/base.txz" || exit 2
    # What the first pot makes and leaves is there for all of them: empty datasets, the lock of the ledger.
    mkdir -p /opt/pot/bridges
    pot warm true '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]'
    ran warm
}

# A jail is held a while by pipes and connections of its processes, which ended with the case.
none_is_dying() { ! jls -d dying | grep -q true; }

tidy() {
    (until_true none_is_dying) # what is not gone by then is told as a difference of the machine
    rm -rf "$bundles" /opt/pot/bridges/*
    find "$work/away" -mindepth 1 -delete
}

wipe() { :; }

for file in "$here"/cases/*.sh; do . "$file"; done
# A failure in the set-up is a failure of everything. Where it has been done, more cases can be run.
jls -j world >/dev/null 2>&1 || (setup) >"$work.setup" 2>&1 || {
    cat "$work.setup"
    echo "FAILED  setup"
    exit 2
}
cases "$@"
