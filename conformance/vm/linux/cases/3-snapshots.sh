# Snapshots of volumes and pots, and streams.

case_snapshots_of_volumes() {
    on_zfs
    works "$potrun" fscomp create data
    at=/opt/pot/fscomp/data
    echo one >$at/f
    works "$potrun" fscomp snapshot data@first
    refused "already exists" "$potrun" fscomp snapshot data@first
    echo two >$at/f
    same "$("$potrun" snapshot --fscomp data | grep -c '^[0-9]*$')" 1 "a name of seconds"
    echo three >$at/f
    works "$potrun" fscomp rollback data
    same "$(cat $at/f)" two "the latest"
    refused "no snapshot none" "$potrun" fscomp rollback data@none
    if "$potrun" revert --fscomp data --to first >/dev/null 2>&1; then fail "a later snapshot was lost"; fi
    works "$potrun" revert --fscomp data --to first --newer
    same "$(cat $at/f)" one "the first"
    same "$("$potrun" snapshots ls --fscomp data | tail -n +2 | cut -d' ' -f1)" first "what is left of the snapshots"
    # Not under the eyes of a pot.
    pot a 'sleep 1000' '"fscomps": [{"name": "data", "destination": "/srv/data"}]'
    started a
    refused "in use: it is mounted on /srv/data" "$potrun" fscomp rollback data
    refused "in use" "$potrun" fscomp rm data
    works "$potrun" fscomp snapshot data@live
    works "$potrun" delete --force a
    works "$potrun" fscomp clone data@first copy
    echo more >/opt/pot/fscomp/copy/g
    same "$(cat $at/f /opt/pot/fscomp/copy/f) $(ls $at)" "one
one f" "the clone and its origin"
    refused "already exists" "$potrun" fscomp clone data copy
    refused "clone" "$potrun" snapshots rm --fscomp data --name first
    works "$potrun" snapshots rm --fscomp data --name live
    rm /opt/pot/fscomp/copy/?
    works "$potrun" fscomp rm copy
    works "$potrun" snapshots rm --fscomp data --name first
    rm $at/f
    works "$potrun" fscomp rm data
    for bad in 'data@a/b' 'data@a b' 'data@%' 'a@b@c' '-r' 'da ta' '@x' 'no/such'; do
        refused "is not a name" "$potrun" fscomp snapshot -- "$bad"
    done
    on_overlay
    works "$potrun" fscomp create data
    for verb in snapshot rollback send receive; do
        refused "needs a ZFS store" sh -c "\"$potrun\" fscomp $verb data </dev/null"
    done
    refused "needs a ZFS store" "$potrun" fscomp clone data new
    refused "needs a ZFS store" "$potrun" snapshot a
    works "$potrun" fscomp rm data
    rmdir /var/lib/potrun/fscomps
}

case_streams_of_volumes() {
    on_zfs
    works "$potrun" fscomp create data
    at=/opt/pot/fscomp
    head -c 3000000 /dev/urandom >$at/data/f
    refused "no snapshot" "$potrun" fscomp send data
    works "$potrun" fscomp snapshot data@one
    "$potrun" fscomp send data >"$work/one" || fail "send"
    echo more >>$at/data/f
    works "$potrun" fscomp snapshot data@two
    "$potrun" fscomp send data --from one >"$work/two" || fail "send of what has changed"
    [ "$(stat -c %s "$work/two")" -lt 1000000 ] || fail "what has changed is as much as all"
    "$potrun" fscomp receive copy <"$work/one" || fail "receive"
    head -c 3000000 $at/data/f | cmp - $at/copy/f || fail "what has come is another thing"
    refused "exists" sh -c "\"$potrun\" fscomp receive copy <$work/one"
    echo local >>$at/copy/f
    refused "has been modified" sh -c "\"$potrun\" fscomp receive copy <$work/two"
    same "$(tail -c 6 $at/copy/f)" local "what was changed here"
    "$potrun" fscomp receive --discard copy <"$work/two" || fail "receive of what has changed"
    cmp $at/data/f $at/copy/f || fail "what has come is another thing"
    # Cut off, or something else: nothing.
    head -c 1000000 "$work/one" >"$work/cut"
    refused "" sh -c "\"$potrun\" fscomp receive third <$work/cut"
    refused "" sh -c "\"$potrun\" fscomp receive third <$potrun"
    # Killed in the middle: nothing either, once the stream has ended.
    mkfifo "$work/pipe"
    "$potrun" fscomp receive third <"$work/pipe" &
    receiver=$!
    exec 9>"$work/pipe"
    head -c 2000000 "$work/one" >&9
    kill -9 $receiver
    exec 9>&-
    until_true sh -c '! pgrep -x zfs'
    same "$("$potrun" fscomp ls | tr '\n' ' ')" "copy data " "the volumes"
    rm "$work/pipe" "$work/one" "$work/two" "$work/cut"
    for name in copy data; do
        works zfs destroy -r $pool/pot/fscomp/$name
    done
}

case_snapshots_of_pots() {
    on_zfs
    pot a 'cat /var/tmp/f 2>/dev/null; date +%s%N >/var/tmp/f; sleep 1000' '"persistent": true'
    started a
    until_true test -s /opt/pot/jails/a/m/var/tmp/f
    same "$("$potrun" snapshot a --name live)" live "its name"
    refused "it must be stopped" "$potrun" revert a
    kill -9 "$(pid a)"
    until_true stopped a
    was=$(cat /opt/pot/jails/a/m/var/tmp/f)
    echo other >/opt/pot/jails/a/m/var/tmp/f
    works "$potrun" revert a
    same "$(cat /opt/pot/jails/a/m/var/tmp/f)" "$was" "after the revert"
    works "$potrun" delete a
    echo other >/opt/pot/jails/a/m/var/tmp/f
    works "$potrun" revert a --to live
    same "$(cat /opt/pot/jails/a/m/var/tmp/f)" "$was" "what it kept, after the revert"
    has "$("$potrun" snapshots ls a --format json)" '"name": "live"' "its snapshots"
    works "$potrun" snapshots rm a --name live
    refused "no snapshot" "$potrun" snapshots rm a --name live
    works "$potrun" delete --data a
    refused "does not exist" "$potrun" snapshot a
    # What is somebody else's is not touched.
    works zfs create -p $pool/pot/jails/theirs/m
    refused "does not exist" "$potrun" snapshot theirs
    works zfs destroy -r $pool/pot/jails/theirs
}
