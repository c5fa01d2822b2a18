# Limits of pots, kept by the kernel.

group() { echo $cgroup/potrun-$1; }
value() { cat "$(group "$1")/$2"; }

case_limits_are_written() {
    pot a 'sleep 1000' '"limits": {"memory": "64m", "cpus": 0.5, "cpuset": "1", "pids": 33}'
    started a
    same "$(value a memory.max)" 67108864 memory.max
    same "$(value a cpu.max)" "50000 100000" cpu.max
    same "$(value a cpuset.cpus.effective)" 1 cpuset.cpus.effective
    same "$(value a pids.max)" 33 pids.max
    works "$potrun" delete --force a
    [ ! -e "$(group a)" ] || fail "the group is left"
}

case_more_memory_than_the_limit_kills() {
    # tmpfs is memory of who writes it; the shell outlives what is killed, unless it is chosen itself.
    pot a 'head -c 64m /dev/zero >/dev/shm/f; echo $?' '"limits": {"memory": "24m"}' \
        '"mounts": [{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=80m"]}]'
    run a
    case "$code $out" in
    "137 "* | "0 "*137) ;;
    *) fail "not killed: $code $out" ;;
    esac
    pot b 'head -c 16m /dev/zero >/dev/shm/f; echo $?' '"limits": {"memory": "24m"}' \
        '"mounts": [{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=80m"]}]'
    ran b
    same "$out" 0 "less than the limit"
}

case_the_kernel_counts_what_it_killed() {
    pot a 'head -c 64m /dev/zero >/dev/shm/f; sleep 1000' '"limits": {"memory": "24m"}' \
        '"mounts": [{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=80m"]}]'
    started a
    until_true grep -q '^oom_kill [1-9]' "$(group a)/memory.events"
}

case_runc_is_judged_as_well() {
    # The suite is proven on runc first: here with the controllers that it has nowhere else.
    log=$work/conformance
    "$(dirname "$potrun")/conformance" --runtime /usr/sbin/runc --cgroups v2 --filter resources/ --filter pause/ >"$log" 2>&1 ||
        fail "$(grep -v ^passed "$log")"
    echo ": $(tail -n 1 "$log")" >"$work/said"
}

case_a_processor_is_shared_as_said() {
    pot a 'while :; do :; done' '"limits": {"cpus": 0.2}'
    started a
    until_true sh -c "[ \$(sed -n 's/^nr_throttled //p' $(group a)/cpu.stat) -gt 4 ]"
    before="$(sed -n 's/^usage_usec //p' "$(group a)/cpu.stat") $(date +%s%N)"
    until_true sh -c "[ \$(sed -n 's/^nr_periods //p' $(group a)/cpu.stat) -gt 40 ]"
    after="$(sed -n 's/^usage_usec //p' "$(group a)/cpu.stat") $(date +%s%N)"
    set -- $before $after
    percent=$((($3 - $1) * 100000 / ($4 - $2)))
    [ $percent -ge 10 ] && [ $percent -le 30 ] || fail "20 % of a processor are $percent %"
    echo " ($percent % of 20 %)" >"$work/said"
}

case_processes_run_on_the_processors_said() {
    pot a 'grep Cpus_allowed_list /proc/self/status; nproc' '"limits": {"cpuset": "1"}'
    ran a
    has "$out" "Cpus_allowed_list:	1" "what the process may use"
}

case_no_more_processes_than_said() {
    pot a 'n=0; while [ $n -lt 12 ]; do sleep 5 & n=$((n+1)); done; echo made $n' '"limits": {"pids": 6}'
    run a
    has "$out" "fork" "the seventh process"
    pot b 'n=0; while [ $n -lt 4 ]; do sleep 1 & n=$((n+1)); done; echo made $n' '"limits": {"pids": 6}'
    ran b
    same "$out" "made 4" "five processes"
}

case_limits_of_a_bundle_are_kept_too() {
    bundle a 'cat /proc/self/cgroup' '"root": {"path": "rootfs"}, "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"cgroupsPath": "/made/by/a/caller", "namespaces": [{"type": "mount"}, {"type": "pid"}],
        "resources": {"memory": {"limit": 50331648, "reservation": 25165824, "swap": 50331648}, "pids": {"limit": 20},
            "cpu": {"shares": 512, "quota": 20000, "period": 50000, "cpus": "0"},
            "unified": {"memory.high": "41943040"}}}'
    mkdir "$bundles/a/rootfs" && tar -C "$bundles/a/rootfs" -xzf "$work/base.tgz"
    create a
    at=$cgroup/made/by/a/caller
    same "$(cat $at/memory.max $at/memory.low $at/memory.swap.max $at/memory.high | tr '\n' ' ')" \
        "50331648 25165824 0 41943040 " "memory"
    same "$(cat $at/cpu.max $at/cpu.weight $at/cpuset.cpus $at/pids.max | tr '\n' ' ')" "20000 50000 20 0 20 " "the rest"
    works "$potrun" start a
    until_true stopped a
    works "$potrun" delete a
    rmdir $cgroup/made/by/a $cgroup/made/by $cgroup/made
}

case_conformance_with_cgroup2() {
    on_zfs
    log=$work/conformance
    "$(dirname "$potrun")/conformance" --runtime "$potrun" --cgroups v2 >"$log" 2>&1
    echo ": $(tail -n 1 "$log")" >"$work/said"
    if grep -q ^FAILED "$log" || ! grep -q '[1-9][0-9]* passed' "$log"; then fail "$(grep -v ^passed "$log")"; fi
}
