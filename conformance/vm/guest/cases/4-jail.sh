# Parameters of the jail, limits, annotations.

case_parameters_of_the_section() {
    pot a 'sleep 100' '"attributes": {"securelevel": 1, "childrenMax": 3}' '"hostname": "h", "domainname": "d",
        "freebsd": {"jail": {"enforceStatfs": 1, "sysvmsg": "inherit", "sysvsem": "disable",
            "allow": {"setHostname": false, "rawSockets": true, "chflags": true, "mlock": true, "mount": ["tmpfs", "nullfs"]}}}'
    started a
    same "$(jls -j a host.hostname host.domainname enforce_statfs securelevel children.max sysvmsg sysvsem sysvshm)" \
        "h d 1 1 3 inherit disable new" "parameters"
    has " $(jls -j a -n) " " allow.noset_hostname " "parameters"
    for one in raw_sockets chflags mlock mount mount.tmpfs mount.nullfs; do
        has " $(jls -j a -n) " " allow.$one " "parameters"
    done
    has " $(jls -j a -n) " " allow.nosocket_af " "what is not said"
}

case_what_is_not_said_is_not_allowed() {
    pot a 'hostname new; ping -c 1 127.0.0.1; mount -t tmpfs x /mnt' '"network": {"type": "inherit"}' '"hostname": "h"'
    run a
    has "$out" "ping: " "a raw socket"
    has "$out" "ermitted" "what is forbidden"
}

case_annotations_of_podman() {
    pot a 'ping -c 1 127.0.0.1 >/dev/null && echo pinged' '"network": {"type": "inherit"}' \
        '"annotations": {"org.freebsd.jail.allow.raw_sockets": "true"}'
    ran a
    has "$out" pinged "a raw socket"
}

case_a_parent_jail() {
    jail -c name=parent persist children.max=2 path=/ sysvmsg=new sysvsem=new sysvshm=new || fail "no parent"
    pot a 'sysctl -n security.jail.jailed; hostname; sleep 100' '' '"annotations": {"org.freebsd.parentJail": "parent"}'
    "$potrun" create --bundle "$bundles/a" a >"$work/out" 2>&1 && code=0 || code=1
    children=$(jls -j parent children.cur 2>/dev/null)
    name=$(jls name | grep '^parent\.')
    "$potrun" delete --force a >>"$work/out" 2>&1
    jail -r parent
    same "$code $children $name" "0 1 parent.a" "the child: $(cat "$work/out")"
}

case_limits_are_in_force() {
    pot a 'i=0; while [ $i -lt 20 ]; do sleep 50 & i=$((i + 1)); done; wait' \
        '"limits": {"memory": "64m", "pids": 8, "cpus": 1, "cpuset": "0"}'
    started a
    rules=$(rctl jail:a)
    has "$rules" "jail:a:maxproc:deny=8" "rules"
    has "$rules" "jail:a:memoryuse:deny=67108864" "rules"
    has "$rules" "jail:a:pcpu:deny=100" "rules"
    has "$(cpuset -g -j "$(jls -j a jid)")" "mask: 0" "processors"
    few() { n=$(pgrep -j a . | wc -l); [ "$n" -gt 4 ] && [ "$n" -le 8 ]; }
    until_true few
}

case_a_program_cannot_see_or_hurt_the_outside() {
    sleep 4711 &
    outside=$!
    pot a "ps -ax | grep 4711 | grep -v grep; kill $outside; echo \$?"
    run a
    kill $outside || fail "a process outside was killed"
    has "$out" "1" "kill of a process outside"
    lacks "$out" "sleep 4711" "processes"
}

case_the_waiting_process_cannot_be_reached_from_inside() {
    # Another process of the same user in the same jail looks for it by every means (CVE-2016-9962).
    pot a 'sleep 100'
    create a
    jexec a ps -ax >"$work/out"
    lacks "$(cat "$work/out")" potrun "processes in the jail"
    jexec a kill -9 "$(pid a)" 2>/dev/null && fail "it was reached"
    works "$potrun" start a
    same "$(status a)" running "status"
}

case_ids_that_are_no_names_of_jails() {
    for id in 2024 a.b a+b; do
        pot $id 'echo fine'
        ran $id
        same "$out" fine "output of $id"
    done
}
