# potrun killed at its system calls that change something, by strace(1): whatever the moment, delete --force (or gc, where
# there is no container) puts the machine back, and what was there before is there after.

changing='openat,mkdir,mkdirat,rename,renameat2,unlink,unlinkat,rmdir,symlink,symlinkat,mount,umount2,clone,clone3,fork,vfork,write,ftruncate,flock,fcntl,socket,bind,sendmsg,sendto,bpf,kill,pidfd_send_signal,fchmod,fchmodat,chmod'

# Kills VERB at every so many calls (all of them would take long in an emulated machine; each run begins at another one);
# PREPARE makes what the verb needs, RECOVER takes away what is left. How it must be then is in $work/prior.
killed() { # every, prepare, recover, verb and arguments of potrun
    step=$1 prepare=$2 recover=$3
    shift 3
    n=$(($(date +%s) % step + 1)) times=0
    while :; do
        $prepare
        strace -qqq -o /dev/null -e trace=$changing -e inject=$changing:signal=KILL:when=$n "$potrun" "$@" \
            >"$work/out" 2>&1 </dev/null
        [ $? = 137 ] || break
        $recover
        machine >"$work/after"
        diff -U0 "$work/prior" "$work/after" >"$work/diff" || fail "not as it was, killed at call $n:
$(cat "$work/diff")"
        n=$((n + step)) times=$((times + 1))
    done
    [ $times -gt 3 ] || fail "killed only $times times: $(cat "$work/out")"
    echo " ($times times, at every ${step}th of $n calls)" >"$work/said"
}

delete_a() { works "$potrun" delete --force a; }
collect() {
    until_true sh -c "! pgrep -x zfs"
    works "$potrun" gc
}

full() {
    on_zfs
    pot a 'sleep 1000' "\"network\": {\"type\": \"public-bridge\"}, \"exportedPorts\": [{\"port\": 80}],
        \"limits\": {\"memory\": \"64m\", \"disk\": \"32m\"}, \"directories\": [{\"source\": \"$work/away\", \"destination\": \"/mnt\"}]"
    machine >"$work/prior"
}

case_create_killed() {
    full
    killed 11 true delete_a create --bundle "$bundles/a" a
    delete_a
}

case_delete_killed() {
    full
    killed 3 'create a' delete_a delete --force a
}

case_import_killed() {
    on_zfs
    machine >"$work/prior"
    killed 61 true collect base import second "$work/base.tgz"
    works "$potrun" base rm second
}

case_rollback_killed() {
    # Done or not, whatever the moment; and the snapshot is there.
    on_zfs
    works "$potrun" fscomp create data
    echo old >/opt/pot/fscomp/data/f
    works "$potrun" fscomp snapshot data@one
    machine >"$work/prior"
    spoil() { echo new >/opt/pot/fscomp/data/f; }
    look() {
        until_true sh -c '! pgrep -x zfs'
        case $(cat /opt/pot/fscomp/data/f) in old | new) ;; *) fail "neither old nor new" ;; esac
    }
    killed 3 spoil look revert --fscomp data
    works zfs destroy -r $pool/pot/fscomp/data
}

# What a verb has made of pot a, for b: whole, or nothing.
whole_or_nothing() {
    collect
    if [ -e "$bundles/b/config.json" ]; then
        code=0 out=$("$potrun" run --bundle "$bundles/b" b 2>&1 </dev/null) || code=$?
        same "$code $out" "0 made" "what b is, at call $n"
        works "$potrun" delete --data b
    else
        same "$(ls -A "$bundles/b" 2>/dev/null)" "" "what is left of its bundle, at call $n"
        refused "does not exist" "$potrun" delete --data b
    fi
    rm -rf "$bundles/b"
    same "$(ls -A "$bundles")" a "what is left beside it, at call $n"
}

made() {
    on_zfs
    pot a 'if [ -e /var/tmp/f ]; then cat /var/tmp/f; else echo made >/var/tmp/f; fi'
    started a
    until_true stopped a
}

case_clone_killed() {
    made
    machine >"$work/prior"
    killed 3 true whole_or_nothing clone --bundle "$bundles/b" a b
    whole_or_nothing
}

case_import_of_a_pot_killed() {
    made
    works "$potrun" export a "$work/a.tar"
    works "$potrun" export --zfs a "$work/a.zfs"
    machine >"$work/prior"
    for file in a.tar a.zfs; do
        killed 2 "mkdir $bundles/b" whole_or_nothing import --bundle "$bundles/b" --id b "$work/$file"
        whole_or_nothing
        rm "$work/$file"
    done
}

case_export_killed() {
    made
    mkdir "$bundles/b"
    machine >"$work/prior"
    nothing() {
        collect
        same "$(ls -A "$bundles/b")" "" "what is left, at call $n"
    }
    killed 7 true nothing export --zfs a "$bundles/b/x"
    works tar -tf "$bundles/b/x"
}

case_what_is_under_way_when_potrun_dies_is_waited_for() {
    # zfs(8) goes on when potrun is killed: a delete that looked at once would find nothing, and leave the clone.
    full
    mkdir "$work/slow"
    cp /usr/sbin/zfs "$work/zfs"
    printf '#!/bin/sh\ncase $1 in clone) touch %s/cloning; sleep 3 ;; esac\nexec %s/zfs "$@"\n' "$work" "$work" >"$work/slow/zfs"
    chmod +x "$work/slow/zfs"
    mount --bind "$work/slow/zfs" /usr/sbin/zfs
    "$potrun" create --bundle "$bundles/a" a >"$work/out" 2>&1 </dev/null &
    creator=$!
    until_true test -e "$work/cloning"
    kill -9 $creator
    "$potrun" delete --force a >"$work/out" 2>&1
    code=$?
    umount /usr/sbin/zfs
    left=$(zfs list -H -o name -r $pool/pot/jails | grep -c jails/a)
    rm -r "$work/slow" "$work/zfs" "$work/cloning"
    same "$code $left" "0 0" "delete and what is left: $(cat "$work/out")"
}
