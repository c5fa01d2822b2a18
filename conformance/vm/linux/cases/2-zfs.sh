# The store of datasets.

case_a_pot_is_a_clone_of_its_base() {
    on_zfs
    pot a 'echo new >/var/tmp/f; cat /proc/self/mountinfo; sleep 1000'
    started a
    same "$(zfs get -H -o value origin $pool/pot/jails/a/m)" $pool/pot/bases/$release@potrun "the origin"
    same "$(zfs get -H -o value potrun:id $pool/pot/jails/a)" a "the mark"
    until_true test -e /opt/pot/jails/a/m/var/tmp/f
    has "$("$potrun" base ls --json)" '"a"' "the users of the base"
    refused "in use" "$potrun" base rm $release
    works "$potrun" exec a test -e /var/tmp/f
    works "$potrun" delete --force a
    [ ! -e /opt/pot/jails/a ] || fail "its directory is left"
}

case_twenty_pots_leave_nothing() {
    on_zfs
    pot a 'true'
    for n in 1 2 3 4 5 6 7 8 9 10; do
        ran a
        create a
        works "$potrun" delete --force a
    done
}

case_bases_are_imported_once() {
    on_zfs
    has "$("$potrun" base import $release "$work/base.tgz")" "is there already" "the same archive once more"
    echo more | gzip >"$work/other.tgz"
    refused "another digest" "$potrun" base import $release "$work/other.tgz"
    has "$("$potrun" base ls --json)" '"source": "'$work/base.tgz'"' "where it is from"
    works "$potrun" base import second "$work/base.tgz"
    same "$(zfs list -H -o name $pool/pot/bases/second@potrun)" $pool/pot/bases/second@potrun "the snapshot"
    works "$potrun" base rm second
    # What is not an archive leaves nothing.
    refused "" "$potrun" base import third "$work/other.tgz"
    # Nor what has another name's dataset, which is somebody's.
    works zfs create $pool/pot/bases/theirs
    refused "exists" "$potrun" base import theirs "$work/base.tgz"
    works zfs destroy $pool/pot/bases/theirs
}

case_a_quota_is_kept() {
    on_zfs
    pot a 'dd if=/dev/urandom of=/var/tmp/f bs=1M count=16; echo $?' '"limits": {"disk": "8m"}'
    run a
    has "$out" "quota exceeded" "more than the quota"
    pot b 'dd if=/dev/urandom of=/var/tmp/f bs=1M count=4 2>/dev/null; echo $?' '"limits": {"disk": "8m"}'
    ran b
    same "$out" 0 "less than the quota"
}

case_a_persistent_root_outlives_its_container() {
    on_zfs
    pot a 'cat /var/tmp/kept 2>/dev/null; echo once >/var/tmp/kept' '"persistent": true'
    ran a
    same "$out" "" "the first life"
    same "$("$potrun" gc)" "" "what gc takes"
    ran a
    same "$out" once "the second life"
    # It gets the limit that its bundle has now.
    pot a 'dd if=/dev/urandom of=/var/tmp/f bs=1M count=16; rm -f /var/tmp/f' '"persistent": true, "limits": {"disk": "8m"}'
    run a
    has "$out" "quota exceeded" "more than a new limit"
    pot a 'dd if=/dev/urandom of=/var/tmp/f bs=1M count=16 2>/dev/null && echo all; rm /var/tmp/f' '"persistent": true'
    ran a
    same "$out" all "what has no limit any more"
    pot a true '"persistent": true'
    sed -i "s|\"release\": \"$release\"|\"release\": \"other\"|" "$bundles/a/config.json"
    works "$potrun" base import other "$work/base.tgz"
    refused "delete --data a" "$potrun" run --bundle "$bundles/a" a
    works "$potrun" base rm other
    works "$potrun" delete --data a
    refused "does not exist" "$potrun" delete --data a
    pot b true '"persistent": true' '"hooks": {"createRuntime": [{"path": "/bin/false"}]}'
    refused createRuntime "$potrun" create --bundle "$bundles/b" b
}

case_volumes() {
    on_zfs
    works "$potrun" fscomp create data
    refused "already exists" "$potrun" fscomp create data
    same "$("$potrun" fscomp ls)" data "the volumes"
    pot a 'echo 1 >>/srv/data/f; cat /srv/data/f; touch /srv/ro/new' '"fscomps": [{"name": "data", "destination": "/srv/data"},
        {"name": "data", "destination": "/srv/ro", "readonly": true}]'
    run a
    has "$out" "Read-only file system" "the second, read-only"
    run a
    has "$out" "1
1" "the volume after two pots"
    refused "not empty" "$potrun" fscomp rm data
    rm /opt/pot/fscomp/data/f
    works "$potrun" fscomp rm data
    refused "does not exist" "$potrun" fscomp rm data
}

case_datasets_of_others() {
    works zfs create -o mountpoint=$work/away/mine $pool/mounted
    works zfs create -o mountpoint=/nowhere -o canmount=noauto $pool/away
    works zfs create -o mountpoint=legacy $pool/legacy
    echo mounted >$work/away/mine/f
    members="\"datasets\": [{\"dataset\": \"$pool/mounted\", \"destination\": \"/srv/a\", \"readonly\": true},
        {\"dataset\": \"$pool/away\", \"destination\": \"/srv/b\"}, {\"dataset\": \"$pool/legacy\", \"destination\": \"/srv/c\"},
        {\"dataset\": \"$pool/legacy\", \"destination\": \"/srv/d\", \"readonly\": true}]"
    for store in on_overlay on_zfs; do
        $store
        pot a 'cat /srv/a/f; touch /srv/a/g; echo b >>/srv/b/f; echo c >>/srv/c/f; cat /srv/d/f; touch /srv/d/g' "$members"
        run a
        has "$out" "mounted
touch: /srv/a/g: Read-only file system
c" "what it sees"
        has "$out" "touch: /srv/d/g: Read-only" "the same dataset once more, read-only"
        # Killed in the middle of its life, it leaves them as they were.
        pot b 'sleep 1000' "$members"
        started b
        kill -9 "$(pid b)"
        until_true stopped b
        works "$potrun" delete b
        same "$(zfs get -H -o value mounted,mountpoint $pool/away $pool/legacy $pool/mounted | tr '\n' ' ')" \
            "no /nowhere no legacy yes $work/away/mine " "where they are mounted ($store)"
    done
    works mount -t zfs $pool/legacy /mnt
    same "$(cat /mnt/f)" "c
c" "what was written"
    works umount /mnt
    pot c true "\"datasets\": [{\"dataset\": \"$pool/none\", \"destination\": \"/srv\"}]"
    refused "/pot/datasets/0/dataset: dataset $pool/none does not exist" "$potrun" run --bundle "$bundles/c" c
    for one in mounted away legacy; do works zfs destroy $pool/$one; done
}

case_what_is_not_ours_is_not_destroyed() {
    on_zfs
    works zfs create $pool/pot/jails/a
    pot a true
    refused "exists" "$potrun" run --bundle "$bundles/a" a
    works "$potrun" delete --force a
    works zfs list $pool/pot/jails/a
    works zfs destroy $pool/pot/jails/a
}

case_what_a_reboot_left_is_collected() {
    # After a reboot there are datasets, and no state.
    on_zfs
    pot a 'sleep 1000'
    create a
    kill -9 "$(pid a)"
    until_true stopped a
    mv $state/a "$work/away/a"
    works "$potrun" --root "$work/away/state" gc
    works zfs list $pool/pot/jails/a
    has "$("$potrun" gc)" $pool/pot/jails/a "what gc says"
    refused "does not exist" zfs list $pool/pot/jails/a
    rmdir $cgroup/potrun-a
}

case_a_dataset_that_is_busy_is_told() {
    on_zfs
    pot a true
    create a
    (cd /opt/pot/jails/a/m && exec sleep 1000) &
    holder=$!
    until_true sh -c "[ \$(readlink /proc/$holder/cwd) = /opt/pot/jails/a/m ]"
    if "$potrun" delete --force a >"$work/out" 2>&1; then
        kill $holder
        fail "it was destroyed under a process that stands in it"
    fi
    has "$(cat "$work/out")" "busy" "why"
    kill $holder
    wait $holder 2>/dev/null
    works "$potrun" delete --force a
}

case_a_full_pool() {
    # A pool of its own: 128 MiB is what it takes at least, with room for the reserve.
    truncate -s 128m "$work/small"
    works zpool create -m none small "$work/small"
    store="--store zfs:small/pot"
    works zfs create -o mountpoint="$work/small.d" small/pot
    works "$potrun" $store base import $release "$work/base.tgz"
    mkdir "$work/big" && head -c 16777216 /dev/urandom >"$work/big/f" && tar -C "$work/big" -czf "$work/big.tgz" .
    # All that is free but 256 KiB is reserved by somebody else; what was freed before is counted when it is written.
    works zpool sync small
    works zfs create -o reservation=$(($(zfs get -Hp -o value available small) - 262144)) small/hog
    refused "space" "$potrun" $store base import second "$work/big.tgz"
    pot b true
    "$potrun" $store run --bundle "$bundles/b" b >"$work/out" 2>&1 && code=0 || code=$?
    [ $code = 0 ] || has "$(cat "$work/out")" "space" "why there is no pot b"
    [ ! -e $state/b ] || fail "b is left"
    works zfs destroy small/hog
    works "$potrun" $store run --bundle "$bundles/b" b
    same "$(zfs list -H -o name -r small/pot/jails small/pot/bases | tr '\n' ' ')" \
        "small/pot/bases small/pot/bases/$release small/pot/jails " "what is left"
    works zpool destroy small
    rm -r "$work/small" "$work/big" "$work/big.tgz"
    rmdir "$work/small.d"
}

case_the_driver_is_found_out_and_told() {
    has "$("$potrun" info)" overlay "the driver"
    on_zfs
    has "$("$potrun" info --format json)" '"driver": "zfs"' "the driver"
    echo "POT_ZFS_ROOT=$pool/none" >/etc/potrun.conf
    has "$("$potrun" info)" "is not there" "why it is directories"
    printf 'POT_ZFS_ROOT=%s/pot\nPOT_STORE=overlay\n' $pool >/etc/potrun.conf
    has "$("$potrun" info)" "POT_STORE" "why it is directories"
    has "$("$potrun" --store zfs:$pool/pot info --format json)" '"driver": "zfs"' "the driver that --store names"
}
