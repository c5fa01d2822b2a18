# podman with the systemd driver, where its packages are given (debian --debs).

# Unpacks podman, and tells it of potrun and of the systemd of this case.
have_podman() {
    debs=$(dirname "$potrun")/debs
    [ -d "$debs" ] || skip "no packages of podman: debian --debs"
    [ -x /usr/bin/podman ] || for deb in "$debs"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C / || fail "unpack $deb"
    done
    ldconfig
    manage
    cat >"$work/containers.conf" <<X
[containers]
log_driver = "k8s-file"
[engine]
events_logger = "file"
runtime_supports_json = ["potrun"]
X
    tree=$work/tree
    mkdir "$tree" && tar -C "$tree" -xzf "$work/base.tgz" && tar -C "$tree" -cf "$work/image.tar" . && rm -r "$tree"
    works podman import --quiet "$work/image.tar" localhost/tiny
}

podman() {
    inside env CONTAINERS_CONF="$work/containers.conf" HOME=/root /usr/bin/podman --runtime "$potrun" \
        --cgroup-manager systemd "$@"
}
quick() { podman run --rm --network none "$@"; }
detached() { works podman run --detach --network none --name "$@"; }

# Fails if the command does not end so.
ends_with() { # code, command...
    wanted=$1
    shift
    code=0
    "$@" >"$work/out" 2>&1 || code=$?
    same "$code" "$wanted" "the exit code of $*: $(cat "$work/out")"
}

no_unit() { [ -z "$(inside systemctl list-units --no-legend --all "$1")" ]; }

# Nothing of podman's containers is left: no scope, no group, no mount, no state.
nothing_is_left() {
    # podman's own scopes, of conmon, end by themselves.
    until_true no_unit 'libpod-*'
    same "$(find $cgroup/manager -name 'libpod-*')" "" "groups that are left"
    same "$(inside grep -c /merged /proc/self/mountinfo)" 0 "mounts that are left"
    same "$(inside "$potrun" list --quiet)" "" "containers that are left"
}

case_podman_has_containers_made_by_systemd() {
    have_podman
    same "$(quick localhost/tiny echo hello)" hello run
    ends_with 3 quick localhost/tiny sh -c 'exit 3'
    ends_with 127 quick localhost/tiny /no/such
    ends_with 126 quick localhost/tiny /etc
    detached a --memory 64m --memory-swap 64m --pids-limit 33 --cpus 0.5 --cpuset-cpus 1 localhost/tiny \
        sh -c 'echo begun; trap "exit 5" TERM; while :; do sleep 0.1; done'
    id=$(podman inspect --format '{{.Id}}' a)
    unit=libpod-$id.scope
    at=$cgroup/manager/machine.slice/$unit
    limits='cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpu.max cpuset.cpus'
    same "$(podman exec a sh -c "$limits" | tr '\n' ' ')" "67108864 0 33 50000 100000 1 " "its limits, seen from inside"
    same "$(cat $at/memory.max $at/pids.max $at/cpu.max | tr '\n' ' ')" "67108864 33 50000 100000 " "the same outside"
    same "$(value_of MemoryMax $unit) $(value_of TasksMax $unit) $(value_of CPUQuotaPerSecUSec $unit) $(value_of AllowedCPUs $unit)" \
        "67108864 33 500ms 1" "what systemd has"
    same "$(value_of Slice $unit)" machine.slice "its slice"
    works inside systemctl daemon-reload
    same "$(cat $at/memory.max $at/pids.max $at/cpu.max | tr '\n' ' ')" "67108864 33 50000 100000 " "after a reload"
    works podman update --memory 48m --memory-swap 48m --pids-limit 20 a
    same "$(podman exec a sh -c "$limits" | head -n 3 | tr '\n' ' ')" "50331648 0 20 " "after an update"
    same "$(value_of MemoryMax $unit) $(value_of TasksMax $unit)" "50331648 20" "what systemd has after an update"
    ends_with 7 podman exec a sh -c 'exit 7'
    ends_with 127 podman exec a /no/such
    same "$(podman logs a)" begun logs
    has "$(podman top a)" "begun" top
    stats=$(podman stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' a)
    has "$stats" "/ 50.33MB" stats
    works podman pause a
    same "$(cat $at/cgroup.freeze) $(podman inspect --format '{{.State.Status}}' a)" "1 paused" pause
    works podman unpause a
    works podman stop --time 10 a
    same "$(podman inspect --format '{{.State.ExitCode}}' a)" 5 "the exit code after stop"
    same "$(value_of LoadState $unit)" not-found "the unit of what has stopped"
    works podman start a
    same "$(cat $at/memory.max)" 50331648 "the limit after another start"
    works podman kill a
    works podman wait a
    works podman rm a
    nothing_is_left
    # One that its limit kills.
    ends_with 137 quick --memory 24m --memory-swap 24m --shm-size 80m localhost/tiny sh -c 'exec head -c 64m /dev/zero >/dev/shm/f'
    # A pod is a slice of its own.
    works podman pod create --infra=false --name p
    detached b --pod p localhost/tiny sleep 1000
    slice=machine-libpod_pod_$(podman pod inspect --format '{{.ID}}' p).slice
    works test -d "$cgroup/manager/machine.slice/$slice/libpod-$(podman inspect --format '{{.Id}}' b).scope"
    works podman pod rm --force --time 0 p
    detached c --cgroup-parent pots.slice localhost/tiny sleep 1000
    works test -d "$cgroup/manager/pots.slice/libpod-$(podman inspect --format '{{.Id}}' c).scope"
    works podman rm --force --time 0 c
    nothing_is_left
    # Ten at once.
    all=
    for n in 0 1 2 3 4 5 6 7 8 9; do
        podman run --detach --network none --memory 32m --name many$n localhost/tiny sleep 1000 >"$work/many$n" 2>&1 &
        all="$all $!"
    done
    for one in $all; do wait "$one" || fail "one of ten: $(cat "$work"/many*)"; done
    same "$(podman ps --quiet | wc -l)" 10 "containers that run"
    same "$(find $cgroup/manager/machine.slice -maxdepth 1 -name 'libpod-*' ! -name 'libpod-conmon-*' | wc -l)" 10 scopes
    works podman rm --force --all --time 0
    all=
    for n in 0 1 2 3 4 5 6 7 8 9; do
        quick --memory 32m localhost/tiny true >"$work/many$n" 2>&1 &
        all="$all $!"
    done
    for one in $all; do wait "$one" || fail "one of ten with --rm: $(cat "$work"/many*)"; done
    nothing_is_left
    rm -f "$work"/many*
    works podman rmi --force localhost/tiny
    unmanage
    rm -rf /var/lib/containers "$work/image.tar" "$work/containers.conf"
}
