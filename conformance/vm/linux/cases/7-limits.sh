# What a unified hierarchy has controllers for, beside the limits of pots: of bundles, changed, counted, and hit.

own_root() { mkdir "$bundles/$1/rootfs" && tar -C "$bundles/$1/rootfs" -xzf "$work/base.tgz"; }
shm='{"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=80m"]}'

case_block_devices_are_throttled() {
    device=$(cat /sys/block/vda/dev)
    major=${device%:*} minor=${device#*:}
    bundle a 'dd if=/dev/disk of=/dev/null bs=1M skip=5000 count=4 && sleep 1000' '"root": {"path": "rootfs"},
        "mounts": ['"$shm"'],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}],
        "devices": [{"path": "/dev/disk", "type": "b", "major": '"$major"', "minor": '"$minor"', "fileMode": 384}],
        "resources": {"devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "b", "major": '"$major"', "minor": '"$minor"', "access": "r"}],
            "blockIO": {"throttleReadBpsDevice": [{"major": '"$major"', "minor": '"$minor"', "rate": 1048576}],
                "throttleWriteIOPSDevice": [{"major": '"$major"', "minor": '"$minor"', "rate": 50}]}}}'
    own_root a
    create a
    same "$(value a io.max)" "$device rbps=1048576 wbps=max riops=max wiops=50" io.max
    before=$(date +%s%N)
    works "$potrun" start a
    until_true sh -c "grep -q '^$device .*rbytes=[4-9][0-9][0-9][0-9][0-9][0-9][0-9]' $(group a)/io.stat"
    taken=$((($(date +%s%N) - before) / 1000000))
    [ $taken -ge 2500 ] || fail "4 MiB at 1 MiB/s took $taken ms"
    has "$("$potrun" events --stats a)" '"ioServiceBytesRecursive":[{"major":'"$major" "the figures"
    echo " ($taken ms for 4 MiB)" >"$work/said"
}

case_weights_huge_pages_and_files_of_the_kernel_are_written() {
    huge=$(ls -d /sys/kernel/mm/hugepages/hugepages-2048kB 2>/dev/null) || skip "no huge pages"
    bundle a 'sleep 1000' '"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}],
        "resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "unified": {"memory.oom.group": "1", "memory.high": "41943040", "cpu.weight": "50", "pids.max": "9"}}}'
    own_root a
    create a
    same "$(value a hugetlb.2MB.max) $(value a memory.oom.group) $(value a memory.high) $(value a cpu.weight) \
$(value a pids.max)" "4194304 1 41943040 50 9" "what was asked for"
    works "$potrun" delete a
    # What the kernel does not take is an error, in its words and with the file's name, and leaves nothing.
    for one in '"rdma": {"none0": {"hcaHandles": 3}} rdma.max' '"unified": {"memory.nosuch": "1"} memory.nosuch' \
        '"unified": {"cpu.weight": "0"} cpu.weight' '"hugepageLimits": [{"pageSize": "3MB", "limit": 1}] hugetlb.3MB.max'; do
        bundle b true '"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}],
            "resources": {'"${one% *}"'}}'
        [ -d "$bundles/b/rootfs" ] || own_root b
        refused "${one##* }" "$potrun" create --bundle "$bundles/b" b
        [ ! -e "$(group b)" ] || fail "a group is left"
    done
}

case_io_weights_are_written() {
    bundle a 'sleep 1000' '"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}],
        "resources": {"blockIO": {"weight": 500}}}'
    own_root a
    create a
    [ -e "$(group a)/io.weight" ] || skip "the kernel has no weights of block devices"
    # 10 to 1000 there is 1 to 10000 here.
    same "$(value a io.weight)" "default 4950" io.weight
}

case_update_changes_the_limits_of_who_runs() {
    pot a 'while :; do :; done' '"limits": {"memory": "64m", "cpus": 1, "cpuset": "0", "pids": 33}'
    started a
    works "$potrun" update --memory 48m --memory-reservation 16m --memory-swap 64m --pids-limit 5 --cpu-quota 20000 \
        --cpu-period 100000 --cpu-share 2048 --cpuset-cpus 1 --cpuset-mems 0 a
    same "$(value a memory.max) $(value a memory.low) $(value a memory.swap.max)" "50331648 16777216 16777216" memory
    same "$(value a pids.max) $(value a cpu.max) $(value a cpuset.cpus.effective) $(value a cpuset.mems.effective)" \
        "5 20000 100000 1 0" "the rest"
    # The kernel keeps them from now on.
    until_true sh -c "[ \$(sed -n 's/^nr_throttled //p' $(group a)/cpu.stat) -gt 2 ]"
    has "$("$potrun" exec a sh -c 'for n in 1 2 3 4 5 6; do sleep 9 & done' 2>&1)" fork "the sixth process"
    same "$("$potrun" exec a sed -n 's/Cpus_allowed_list:.//p' /proc/self/status)" 1 "processors"
    # As containerd does it; what is not named stays.
    echo '{"memory": {"limit": 33554432, "swap": 33554432}}' | "$potrun" update --resources - a || fail "update from stdin"
    same "$(value a memory.max) $(value a pids.max)" "33554432 5" "after another update"
    # What is in use is not taken away where the caller does not want that.
    echo '{"memory": {"limit": 4096, "swap": 4096, "checkBeforeUpdate": true}}' >"$work/less"
    refused "more than 4096" "$potrun" update --resources "$work/less" a
    same "$(value a memory.max)" 33554432 "after a check"
    # One that the kernel does not take takes back those before it.
    refused cpuset.cpus "$potrun" update --memory 40m --memory-swap 40m --cpuset-cpus 77 a
    same "$(value a memory.max) $(value a cpuset.cpus)" "33554432 1" "after a refusal"
}

case_events_tell_what_is_used() {
    pot a 'head -c 8m /dev/zero >/dev/shm/f; sleep 1000 & while :; do :; done' \
        '"limits": {"memory": "64m", "cpus": 0.5, "pids": 33}'
    started a
    until_true sh -c "[ \$(cat $(group a)/memory.current) -gt 8388608 ] && [ \$(cat $(group a)/pids.current) = 2 ]"
    until_true sh -c "[ \$(sed -n 's/^nr_throttled //p' $(group a)/cpu.stat) -gt 1 ]"
    said=$("$potrun" events --stats a)
    has "$said" '"type":"stats"' "an event"
    has "$said" '"pids":{"current":2,"limit":33}' "processes"
    figure() { echo "$said" | sed -n 's/.*"'"$1"'":{[^{}]*"'"$2"'":\([0-9]*\).*/\1/p'; }
    same "$(figure usage limit)" 67108864 "the limit of memory"
    [ "$(echo "$said" | sed -n 's/.*"memory":{.*"usage":{[^{}]*"usage":\([0-9]*\).*/\1/p')" -gt 8388608 ] ||
        fail "memory in use: $said"
    [ "$(figure throttling throttledPeriods)" -gt 1 ] || fail "throttled periods: $said"
    [ "$(echo "$said" | sed -n 's/.*"usage":{"kernel":[0-9]*,"total":\([0-9]*\).*/\1/p')" -gt 10000000 ] || fail "processor time: $said"
}

case_an_oom_kill_is_told_by_wait_and_events() {
    pot a 'head -c 64m /dev/zero >/dev/shm/f; sleep 3; exit 9' '"limits": {"memory": "24m"}' \
        '"mounts": [{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=80m"]}]'
    create a
    "$potrun" events --interval 500ms a >"$work/events" 2>&1 </dev/null &
    works "$potrun" start a
    said=$("$potrun" wait a) || fail "wait: $said"
    has "$said" '"oomKilled":true' "wait"
    wait
    has "$(cat "$work/events")" '"type":"oom"' "events"
    same "$(grep -c '"type":"oom"' "$work/events")" 1 "how often it is told"
    has "$("$potrun" show a)" oomKilled show
}
