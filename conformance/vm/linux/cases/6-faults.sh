# Storage that fails or is full: nothing is lost that was there, and nothing is left that was not.

case_a_project_quota_is_kept() {
    mkdir "$work/limited"
    works mount -o prjquota "$(disk quota)" "$work/limited"
    store="--store $work/limited/store"
    works "$potrun" $store base import $release "$work/base.tgz"
    pot a 'dd if=/dev/zero of=/var/tmp/f bs=1M count=16; rm /var/tmp/f; dd if=/dev/zero of=/var/tmp/g bs=1M count=4 && echo again' \
        '"limits": {"disk": "8m"}'
    out=$("$potrun" $store run --bundle "$bundles/a" a 2>&1)
    has "$out" "quota exceeded" "more than the quota"
    has "$out" again "what was freed"
    pot b 'dd if=/dev/zero of=/var/tmp/f bs=1M count=16 2>/dev/null && echo all' '"persistent": true'
    same "$("$potrun" $store run --bundle "$bundles/b" b)" all "a pot without a quota"
    pot b true '"limits": {"disk": "8m"}'
    refused "made without a limit" "$potrun" $store run --bundle "$bundles/b" b
    works "$potrun" $store delete --data b
    # A clone has the limit, and what it has counts.
    pot c 'dd if=/dev/zero of=/var/tmp/f bs=1M count=6 2>/dev/null' '"limits": {"disk": "8m"}'
    works "$potrun" $store create --bundle "$bundles/c" c
    works "$potrun" start c
    until_true stopped c
    works "$potrun" $store clone --bundle "$bundles/d" c d
    same "$(ls "$work/limited/store/layers" | wc -l)" 1 "layers that both lie on"
    pot d 'dd if=/dev/zero of=/var/tmp/g bs=1M count=6; ls /var/tmp' '"limits": {"disk": "8m"}'
    out=$("$potrun" $store run --bundle "$bundles/d" d 2>&1)
    has "$out" "quota exceeded" "more than what is left of the quota"
    has "$out" f "what it has of the first"
    # With another limit, less what is shared.
    pot d 'dd if=/dev/zero of=/var/tmp/g bs=1M count=6 2>/dev/null && echo all' '"limits": {"disk": "16m"}'
    same "$("$potrun" $store run --bundle "$bundles/d" d)" all "less than a new limit"
    works "$potrun" $store delete --data d
    works "$potrun" $store delete c
    same "$(ls "$work/limited/store/layers" | wc -l)" 0 "layers that are left"
    # A volume.
    works "$potrun" $store fscomp create --quota 4m data
    pot e 'dd if=/dev/zero of=/srv/f bs=1M count=6' '"fscomps": [{"name": "data", "destination": "/srv"}]' '' \
        '"capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}'
    has "$("$potrun" $store run --bundle "$bundles/e" e 2>&1)" "quota exceeded" "more than the quota of the volume"
    rm "$work/limited/store/fscomps/data/f"
    works "$potrun" $store fscomp quota data 8m
    same "$("$potrun" $store run --bundle "$bundles/e" e >/dev/null 2>&1; echo $?)" 0 "less than the new quota"
    refused "does not exist" "$potrun" $store fscomp quota none 8m
    rm "$work/limited/store/fscomps/data/f"
    works "$potrun" $store fscomp rm data
    works umount "$work/limited"
    # Without them it is refused, by its place.
    works mount "$(disk quota)" "$work/limited"
    refused "/pot/limits/disk: needs" "$potrun" $store run --bundle "$bundles/a" a
    refused "project quotas" "$potrun" $store fscomp create --quota 4m data
    rm -r "$work/limited/store"
    works umount "$work/limited"
    rmdir "$work/limited"
}

case_quotas_of_datasets() {
    on_zfs
    # The base counts as well for refquota, so it is added.
    pot a true '"limits": {"disk": "8m"}'
    create a
    base=$(zfs get -Hp -o value referenced $pool/pot/bases/$release@potrun)
    same "$(zfs get -Hp -o value refquota,quota $pool/pot/jails/a/m | tr '\n' ' ')" "$((base + 8388608)) 0 " "refquota and quota"
    # So a snapshot does not use it up.
    works dd if=/dev/urandom of=/opt/pot/jails/a/m/var/tmp/f bs=1M count=6
    works "$potrun" snapshot a
    works dd if=/dev/urandom of=/opt/pot/jails/a/m/var/tmp/f bs=1M count=6
    works "$potrun" delete --force a
    works "$potrun" fscomp create --quota 4m data
    refused "quota" dd if=/dev/urandom of=/opt/pot/fscomp/data/f bs=1M count=6
    works "$potrun" fscomp quota data 16m
    works dd if=/dev/urandom of=/opt/pot/fscomp/data/f bs=1M count=6
    refused "does not exist" "$potrun" fscomp quota none 16m
    for bad in 0 4x '' 1.5g; do refused "whole number" "$potrun" fscomp quota data "$bad"; done
    rm /opt/pot/fscomp/data/f
    works "$potrun" fscomp rm data
}

# A pool on a disk that takes no more: its file is in a file system that is full.
failing() { # failmode
    mkdir "$work/disk"
    works mount -t tmpfs -o size=40m tmpfs "$work/disk"
    truncate -s 160m "$work/disk/file"
    works zpool create -O compression=off -o failmode=$1 -m none small "$work/disk/file"
    store="--store zfs:small/pot"
    works zfs create -o mountpoint="$work/small.d" small/pot
    works "$potrun" $store base import $release "$work/base.tgz"
    mkdir "$work/big"
    for n in 1 2 3 4; do head -c 12582912 /dev/urandom >"$work/big/$n"; done
    tar -C "$work/big" -cf "$work/big.tar" .
    works zpool sync small
}

suspended() { zpool list -H -o health small | grep -q SUSPENDED; }

mended() {
    works mount -o remount,size=200m "$work/disk"
    works zpool clear small
}

# What was there before is there, and nothing else.
unharmed() { # bases
    until_true sh -c '! pgrep -x zfs'
    works "$potrun" $store gc
    same "$(zfs list -H -o name -r small/pot | tr '\n' ' ')" "small/pot small/pot/bases $1small/pot/fscomp small/pot/jails " "datasets"
    pot a 'test -x /bin/busybox && echo there'
    same "$("$potrun" $store run --bundle "$bundles/a" a)" there "what was there before"
    works zpool destroy small
    works umount "$work/disk"
    rm -r "$work/disk" "$work/big" "$work/big.tar" "$work/imported"
    rmdir "$work/small.d"
}

case_a_suspended_pool_is_waited_for() {
    failing wait
    "$potrun" $store base import second "$work/big.tar" >"$work/imported" 2>&1 &
    importer=$!
    until_true suspended
    kill -0 $importer || fail "it did not wait: $(cat "$work/imported")"
    mended
    wait $importer || fail "it did not come to its end: $(cat "$work/imported")"
    unharmed "small/pot/bases/second small/pot/bases/$release "
}

case_an_import_killed_in_a_suspended_pool() {
    failing wait
    "$potrun" $store base import second "$work/big.tar" >"$work/imported" 2>&1 &
    importer=$!
    until_true suspended
    kill -9 $importer
    mended
    wait $importer
    unharmed "small/pot/bases/$release "
}

case_a_failing_pool_that_goes_on() {
    failing continue
    "$potrun" $store base import second "$work/big.tar" >"$work/imported" 2>&1 &
    importer=$!
    until_true suspended
    mended
    wait $importer && bases="small/pot/bases/second " || bases=
    unharmed "${bases}small/pot/bases/$release "
}
