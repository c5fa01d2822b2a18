# potrun killed before each of its system calls that changes something: whatever the moment, delete --force puts the
# machine back.

# Kills VERB at every step; PREPARE makes what the verb needs.
killed() { # prepare, verb and arguments of potrun
    stop=$(dirname "$potrun")/conformance-stop
    [ -x "$stop" ] || skip "no conformance-stop beside potrun"
    prepare=$1
    shift
    n=0
    while :; do
        n=$((n + 1))
        $prepare
        "$stop" $n "$potrun" "$@" >"$work/out" 2>&1 </dev/null
        [ $? = 137 ] || break
        works "$potrun" delete --force a
        [ ! -e $state/a ] || fail "state is left after $n: $(cat "$work/out")"
        # All of it takes longer than the calls themselves: so not each time.
        [ $((n % 8)) = 0 ] || continue
        machine >"$work/after"
        diff -U0 "$work/before" "$work/after" >"$work/diff" || fail "not as it was at call $n or up to 7 before:
$(cat "$work/diff")"
    done
    [ $n -gt 10 ] || fail "killed only $n times: $(cat "$work/out")"
    echo "$n" >"$work/count"
}

full() {
    pot a 'sleep 1000' "\"network\": {\"type\": \"public-bridge\", \"stack\": \"dual\"}, \"exportedPorts\": [{\"port\": 80}],
        \"limits\": {\"memory\": \"64m\", \"cpuset\": \"0\"},
        \"directories\": [{\"source\": \"$work/away\", \"destination\": \"/mnt\"}]" \
        "\"hooks\": {\"createRuntime\": [{\"path\": \"/usr/bin/true\"}]}"
}

case_create_killed_at_every_step() {
    full
    killed true create --bundle "$bundles/a" a
}

case_start_killed_at_every_step() {
    full
    killed 'create a' start a
}

case_delete_killed_at_every_step() {
    full
    killed 'started a' delete --force a
}

case_run_of_an_alias_killed_at_every_step() {
    pot a 'true' '"network": {"type": "alias", "stack": "dual", "addresses": ["198.51.100.60", "2001:db8:77::60"]}' \
        '"root": {"readonly": true}'
    killed true run --bundle "$bundles/a" a
}

case_a_zfs_that_outlives_potrun_is_waited_for() {
    # potrun is killed while its zfs(8) works: a delete that looked at once would find nothing, and leave the clone.
    full
    tool=/sbin/zfs
    cp -p $tool "$work/zfs" || skip "no room for a copy of zfs(8)"
    mkdir -p "$work/slow"
    printf '#!/bin/sh\ncase $1 in clone) touch %s/cloning; sleep 3 ;; esac\nexec %s/zfs "$@"\n' "$work" "$work" >"$work/slow/zfs"
    chmod +x "$work/slow/zfs"
    mount -t nullfs "$work/slow" "$work/away" 2>/dev/null && umount "$work/away"
    mv $tool "$work/zfs.was" 2>/dev/null && cp "$work/slow/zfs" $tool 2>/dev/null || {
        rm -f "$work/zfs"
        skip "/sbin cannot be written"
    }
    "$potrun" create --bundle "$bundles/a" a >"$work/out" 2>&1 </dev/null &
    creator=$!
    until_true test -e "$work/cloning"
    kill -9 $creator
    "$potrun" delete --force a >"$work/out" 2>&1
    code=$?
    left=$("$work/zfs" list -H -o name -r $pool/pot/jails | grep -c jails/a)
    rm -f $tool "$work/cloning" && mv "$work/zfs.was" $tool && rm -f "$work/zfs"
    same "$code $left" "0 0" "delete and what is left: $(cat "$work/out")"
}
