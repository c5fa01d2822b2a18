# The systemd driver, with a systemd that runs beside busybox's init, in namespaces of its own.

# Starts it, with its bus, in a group of its own. $first is its process.
manage() {
    command -v systemctl >/dev/null || skip "no systemd"
    echo "+cpu +cpuset +io +memory +pids" >$cgroup/cgroup.subtree_control
    mkdir $cgroup/manager
    # The bus alone: what else starts with a system would take minutes, and look after the interfaces of the case.
    cat >"$work/dbus.socket" <<'X'
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
X
    cat >"$work/dbus.service" <<'X'
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
X
    cat >"$work/manager.sh" <<'X'
mount -t proc proc /proc
umount /sys/fs/cgroup
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system
cp "$1/dbus.socket" "$1/dbus.service" /run/systemd/system
exec env -i container=other PATH="$PATH" /usr/lib/systemd/systemd --unit=dbus.service --log-target=null --show-status=no
X
    # Nobody else is in its group, or it could hand no controller down.
    unshare --mount --pid --ipc --uts --fork --kill-child --propagation private sh -c "echo 0 >$cgroup/manager/cgroup.procs &&
        exec unshare --cgroup sh $work/manager.sh $work" </dev/null >"$work/systemd" 2>&1 &
    until_true pgrep -x systemd
    first=$(pgrep -o -x systemd)
    until_true inside test -S /run/dbus/system_bus_socket
    until_true inside systemctl is-active dbus.service
}

# Runs something where that systemd is the host's: in its namespaces, and in its groups.
inside() {
    sh -c 'echo $$ >'$cgroup'/manager/init.scope/cgroup.procs; exec nsenter --target '$first' --mount --pid --cgroup --ipc \
        --uts "$@"' sh "$@" </dev/null
}

unmanage() {
    echo 1 >$cgroup/manager/cgroup.kill
    until_true sh -c "! grep -q 'populated 1' $cgroup/manager/cgroup.events"
    find $cgroup/manager -depth -type d -exec rmdir {} \;
}

value_of() { inside systemctl show --property "$1" --value "$2"; }

case_systemd_keeps_the_limits_of_a_scope() {
    manage
    bundle a 'sleep 1000' '"root": {"path": "rootfs"}, "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"cgroupsPath": "pots-web.slice:engine:abc",
        "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}],
        "resources": {"memory": {"limit": 67108864, "swap": 67108864}, "pids": {"limit": 33},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "1"}, "unified": {"memory.oom.group": "1"}}}'
    mkdir "$bundles/a/rootfs" && tar -C "$bundles/a/rootfs" -xzf "$work/base.tgz"
    works inside "$potrun" --systemd-cgroup create --bundle "$bundles/a" a
    works inside "$potrun" start a
    at=$cgroup/manager/pots.slice/pots-web.slice/engine-abc.scope
    same "$(cat $at/memory.max $at/memory.swap.max $at/pids.max $at/cpu.max $at/cpuset.cpus $at/memory.oom.group |
        tr '\n' ' ')" "67108864 0 33 50000 100000 1 1 " "what the kernel has"
    same "$(value_of MemoryMax engine-abc.scope) $(value_of TasksMax engine-abc.scope)" "67108864 33" "what systemd has"
    same "$(value_of CPUQuotaPerSecUSec engine-abc.scope) $(value_of AllowedCPUs engine-abc.scope)" "500ms 1" "processor"
    same "$(value_of Description engine-abc.scope), $(value_of Delegate engine-abc.scope)" "potrun container a, yes" mark
    same "$(wc -l <$at/cgroup.procs)" 1 "processes of the scope"
    # A reload writes what systemd knows.
    works inside systemctl daemon-reload
    same "$(cat $at/memory.max $at/pids.max $at/cpu.max | tr '\n' ' ')" "67108864 33 50000 100000 " "after a reload"
    works inside "$potrun" update --memory 48m --memory-swap 48m --pids-limit 20 --cpu-quota 20000 --cpu-period 100000 a
    works inside systemctl daemon-reload
    same "$(cat $at/memory.max $at/pids.max $at/cpu.max | tr '\n' ' ')" "50331648 20 20000 100000 " "after an update"
    same "$(value_of MemoryMax engine-abc.scope) $(value_of TasksMax engine-abc.scope)" "50331648 20" "what systemd has now"
    same "$(inside "$potrun" exec a cat /proc/self/cgroup)" "0::/" exec
    works inside "$potrun" pause a
    works inside "$potrun" resume a
    works inside "$potrun" delete --force a
    same "$(value_of LoadState engine-abc.scope)" not-found "the unit of what is deleted"
    [ ! -e $at ] || fail "the group is left"
    # One that ends by itself, and one that fails to start.
    bundle b 'exit 3' '"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}]}'
    ln -s ../a/rootfs "$bundles/b/rootfs"
    code=0
    inside "$potrun" --systemd-cgroup run --bundle "$bundles/b" b || code=$?
    same $code 3 "the exit code"
    bundle c true '"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}]},
        "hooks": {"createRuntime": [{"path": "/bin/false"}]}'
    ln -s ../a/rootfs "$bundles/c/rootfs"
    refused createRuntime inside "$potrun" --systemd-cgroup create --bundle "$bundles/c" c
    same "$(inside systemctl list-units --no-legend --all 'potrun-*' 'engine-*')" "" "units that are left"
    unmanage
}

case_systemd_has_the_properties_that_annotations_give() {
    manage
    plain='"root": {"path": "rootfs"}, "linux": {"cgroupsPath": "pots-web.slice:engine:abc", "namespaces": [{"type": "mount"},
        {"type": "pid"}]}'
    bundle a 'sleep 1000' "$plain"', "annotations": {"org.systemd.property.TimeoutStopUSec": "uint64 123456789",
        "org.systemd.property.CollectMode": "'"'inactive'"'", "org.systemd.property.KillSignal": "2",
        "org.systemd.property.After": "['"'dbus.service', 'other.service'"']", "org.systemd.property.MemoryMax": "uint64 67108864",
        "org.systemd.property.SendSIGHUP": "true"}'
    mkdir "$bundles/a/rootfs" && tar -C "$bundles/a/rootfs" -xzf "$work/base.tgz"
    works inside "$potrun" --systemd-cgroup create --bundle "$bundles/a" a
    works inside "$potrun" start a
    same "$(value_of TimeoutStopUSec engine-abc.scope)" "2min 3.456789s" TimeoutStopUSec
    same "$(value_of CollectMode engine-abc.scope)" inactive CollectMode
    same "$(value_of KillSignal engine-abc.scope) $(value_of SendSIGHUP engine-abc.scope)" "2 yes" "how it is ended"
    has " $(value_of After engine-abc.scope) " " dbus.service " After
    has " $(value_of After engine-abc.scope) " " other.service " After
    same "$(cat $cgroup/manager/pots.slice/pots-web.slice/engine-abc.scope/memory.max)" 67108864 "the memory of the group"
    works inside "$potrun" delete --force a
    same "$(value_of LoadState engine-abc.scope)" not-found "the unit of what is deleted"
    # One that systemd ends, started or not, and that stays as failed.
    bundle b 'sleep 1000' "$plain"', "annotations": {"org.systemd.property.RuntimeMaxSec": "10",
        "org.systemd.property.TimeoutStopSec": "1", "org.systemd.property.CollectMode": "'"'inactive'"'"}'
    ln -s ../a/rootfs "$bundles/b/rootfs"
    works inside "$potrun" --systemd-cgroup create --bundle "$bundles/b" b
    until_true inside sh -c '[ "$(systemctl show --property ActiveState --value engine-abc.scope)" = failed ]'
    until_true inside sh -c "'$potrun' state b | grep -q '\"status\": *\"stopped\"'"
    works inside "$potrun" delete b
    same "$(value_of LoadState engine-abc.scope)" not-found "the failed unit of what is deleted"
    # What systemd does not know it says by its name, and what is no value it is not told at all.
    bundle c true "$plain"', "annotations": {"org.systemd.property.NoSuchThing": "true"}'
    ln -s ../a/rootfs "$bundles/c/rootfs"
    refused NoSuchThing inside "$potrun" --systemd-cgroup create --bundle "$bundles/c" c
    bundle c true "$plain"', "annotations": {"org.systemd.property.CollectMode": "inactive"}'
    refused /annotations/org.systemd.property.CollectMode inside "$potrun" --systemd-cgroup create --bundle "$bundles/c" c
    same "$(inside systemctl list-units --no-legend --all 'potrun-*' 'engine-*')" "" "units that are left"
    unmanage
}
