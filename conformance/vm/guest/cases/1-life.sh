# The life of a container (runtime.md) on a jail.

case_life_of_a_pot() {
    pot a 'trap "exit 0" TERM; echo up >/var/run/up; while :; do sleep 1 & wait $!; done' '"network": {"type": "inherit"}' \
        '"hostname": "a.example.org", "annotations": {"x": "y"}'
    create a --pid-file "$work/away/pid"
    same "$(status a)" created "status after create"
    same "$(cat "$work/away/pid")" "$(pid a)" "pid file"
    same "$(jls -j a host.hostname)" a.example.org "host name"
    same "$(jls -j a osrelease)" "$(freebsd-version -u)" "osrelease"
    [ ! -e /opt/pot/jails/a/m/var/run/up ] || fail "the program runs before start"
    # The first process waits outside of the jail: nothing inside could see it.
    same "$(ps -o jid= -p "$(pid a)" | tr -d ' ')" 0 "jail of the waiting process"
    works "$potrun" start a
    same "$(status a)" running "status after start"
    same "$(ps -o jid= -p "$(pid a)" | tr -d ' ')" "$(jls -j a jid)" "jail of the program"
    until_true test -e /opt/pot/jails/a/m/var/run/up
    refused "not stopped" "$potrun" delete a
    refused "" "$potrun" start a
    works "$potrun" kill a TERM
    until_true stopped a
    works "$potrun" delete a
    refused "does not exist" "$potrun" state a
}

case_exit_code_comes_back() {
    pot a 'exit 7'
    run a
    same "$code" 7 "exit code"
    pot a 'kill -9 $$'
    run a
    same "$code" 137 "exit code of a killed program"
}

case_bundle_without_pot_is_a_plain_jail() {
    bundle a 'echo $(hostname); ls /dev/null; echo $#' '"root": {"path": "rootfs"}, "hostname": "plain",
        "mounts": [{"destination": "/dev", "type": "devfs", "source": "devfs"}]'
    mkdir "$bundles/a/rootfs" && tar -C "$bundles/a/rootfs" -xf "$work/base.txz"
    ran a
    same "$out" "plain
/dev/null
0" "output"
}

case_what_cannot_be_run_is_told_by_start() {
    pot a ''
    sed -i '' 's|"/bin/sh", "-c", ""|"/no/such"|' "$bundles/a/config.json"
    create a
    refused '/no/such' "$potrun" start a
    refused 'o such file' "$potrun" run --bundle "$bundles/a" b
    pot c ''
    sed -i '' 's|"/bin/sh", "-c", ""|"/etc/group"|' "$bundles/c/config.json"
    refused 'ermission denied' "$potrun" run --bundle "$bundles/c" c
}

case_user_groups_umask_cwd_env() {
    pot a 'id -u; id -g; id -G; umask; pwd; env | grep -v ^PWD; exec touch /tmp/mine' '' '' \
        '"cwd": "/var/tmp", "user": {"uid": 65, "gid": 66, "additionalGids": [67, 68], "umask": 23}'
    sed -i '' 's|"cwd": "/", ||; s|"user": {"uid": 0, "gid": 0}, ||' "$bundles/a/config.json"
    ran a
    # Up to FreeBSD 14 a process's list of groups begins with its effective one; from 15 on it need not be there.
    same "$(printf '%s\n' "$out" | sed '3s/^66 //')" "65
66
67 68
0027
/var/tmp
PATH=/sbin:/bin:/usr/sbin:/usr/bin
HOME=/var/empty" "who it is"
}

case_rlimits() {
    pot a 'ulimit -n; ulimit -Hn; ulimit -c' '' '' \
        '"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]'
    ran a
    same "$out" "100
200
0" "limits"
}

case_no_new_privileges() {
    # A set-user-id program: with no_new_privs its owner is not taken on (procctl(2), PROC_NO_NEW_PRIVS_CTL).
    for how in true false; do
        pot a 'exec /mnt/id -u' "\"directories\": [{\"source\": \"$work/away\", \"destination\": \"/mnt\"}]" '' \
            "\"noNewPrivileges\": $how, \"user\": {\"uid\": 65, \"gid\": 65}"
        sed -i '' 's|"user": {"uid": 0, "gid": 0}, ||' "$bundles/a/config.json"
        cp "$(which id)" "$work/away/id" && chmod 4755 "$work/away/id"
        ran a
        [ $how = true ] && expected=65 || expected=0
        same "$out" $expected "user of a set-user-id program, noNewPrivileges $how"
    done
}

case_hooks_run_in_their_order_and_place() {
    hook() { # moment, word
        printf '"%s": [{"path": "/bin/sh", "args": ["hook", "-c", %s, "zero", "one"], "env": ["E=1"]}]' "$1" "$(json "$2")"
    }
    there="id=\$(cat | sed -n 's/.*\"id\":\"\\([a-z]*\\)\".*/\\1/p'); echo NAME \$id \$1 \$E \$(sysctl -n security.jail.jailed) >>"
    pot a 'echo program >>/var/run/log' '' "\"hooks\": {
        $(hook createRuntime "$(echo "$there" | sed s/NAME/createRuntime/) $work/away/log"),
        $(hook createContainer "$(echo "$there" | sed s/NAME/createContainer/) $work/away/log"),
        $(hook startContainer "$(echo "$there" | sed s/NAME/startContainer/) /var/run/log"),
        $(hook poststart "$(echo "$there" | sed s/NAME/poststart/) $work/away/log"),
        $(hook poststop "$(echo "$there" | sed s/NAME/poststop/) $work/away/log")}"
    create a
    works "$potrun" start a
    until_true stopped a
    same "$(cat /opt/pot/jails/a/m/var/run/log)" "startContainer a one 1 1
program" "hooks inside"
    works "$potrun" delete a
    same "$(cat "$work/away/log")" "createRuntime a one 1 0
createContainer a one 1 0
poststart a one 1 0
poststop a one 1 0" "hooks outside"
}

case_a_hook_that_fails_undoes_the_create() {
    pot a true '' '"hooks": {"createRuntime": [{"path": "/usr/bin/false"}]}'
    refused 'createRuntime' "$potrun" create --bundle "$bundles/a" a
    [ ! -e $state/a ] || fail "something is left"
}

case_exec_joins_the_pot() {
    pot a 'sleep 1000' '"network": {"type": "public-bridge"}' '"hostname": "a"'
    started a
    same "$("$potrun" exec a /bin/sh -c 'hostname; sysctl -n security.jail.jailed; ifconfig -l')" \
        "a
1
$(jexec a ifconfig -l)" "exec's view"
    "$potrun" exec a /bin/sh -c 'exit 9'
    same $? 9 "exit code of exec"
    same "$("$potrun" exec --user 65:66 --cwd /tmp --env A=b a /bin/sh -c 'id -u; id -g; pwd; echo $A')" "65
66
/tmp
b" "exec's options"
    refused 'o such file' "$potrun" exec a /no/such
    works "$potrun" exec --detach --pid-file "$work/away/pid" a /bin/sleep 500
    same "$(ps -o jid= -p "$(cat "$work/away/pid")" | tr -d ' ')" "$(jls -j a jid)" "jail of a detached exec"
    has "$("$potrun" ps a)" "sleep 500" "ps"
}

case_kill_all_spares_the_outside() {
    pot a 'sleep 1000 & sleep 1001 & wait'
    started a
    sleep 999 &
    other=$!
    until_true pgrep -j a -f 'sleep 1001'
    works "$potrun" kill --all a KILL
    until_true stopped a
    until_true test -z "$(pgrep -j a)"
    kill -0 $other || fail "a process outside was killed"
    kill $other
}

case_pause_stops_and_resumes_all() {
    pot a 'while :; do echo x >>/var/run/ticks; sleep 0.05; done'
    started a
    until_true test -s /opt/pot/jails/a/m/var/run/ticks
    works "$potrun" pause a
    same "$(status a)" paused "status"
    first=$(wc -l </opt/pot/jails/a/m/var/run/ticks)
    sleep 0.5
    same "$(wc -l </opt/pot/jails/a/m/var/run/ticks)" "$first" "ticks while it is paused"
    works "$potrun" resume a
    same "$(status a)" running "status"
    more() { [ "$(wc -l </opt/pot/jails/a/m/var/run/ticks)" -gt "$first" ]; }
    until_true more
}

case_terminal() {
    pot a 'tty; stty size; [ -t 0 ] && [ -t 1 ] && echo yes' '' '' '"terminal": true, "consoleSize": {"height": 33, "width": 77}'
    out=$(script -q /dev/null "$potrun" run --bundle "$bundles/a" a | tr -d '\r')
    has "$out" "33 77" "size"
    has "$out" "yes" "terminal"
}

case_no_descriptor_and_no_environment_leaks() {
    pot a 'procstat -f $$ | sed 1d; env' '' '' ''
    out=$(SECRET=s "$potrun" run --bundle "$bundles/a" a 7</ 8</etc/group 2>&1 </dev/null)
    lacks "$out" SECRET "environment"
    # procstat: fd column; text, cwd, root and jail are no descriptors. sh keeps none but stdio.
    same "$(echo "$out" | awk '$3 ~ /^[0-9]+$/ && $3 > 2')" "" "descriptors"
}

case_a_directory_cannot_be_taken_in() {
    pot a 'true'
    refused 'directory' "$potrun" run --preserve-fds 1 --bundle "$bundles/a" a 3</
}

case_delete_removes_what_a_program_left() {
    # Processes, shared memory, mounts made inside, immutable files.
    pot a 'sleep 100 & mkdir -p /tmp/m; mount -t tmpfs x /tmp/m; touch /var/tmp/f; chflags schg /var/tmp/f; exit 0' '' \
        '"freebsd": {"jail": {"enforceStatfs": 1, "allow": {"chflags": true, "mount": ["tmpfs"]}}}'
    ran a
}

case_delete_does_not_wait_for_connections_that_linger() {
    # The kernel keeps a connection in TIME_WAIT for a minute, and the jail with it.
    for net in '"type": "inherit"' '"type": "alias", "addresses": ["198.51.100.33"]' '"type": "public-bridge"'; do
        pot a 'hostname | nc -N -l 4712 >/dev/null; sleep 1000' "\"network\": {$net}"
        started a
        until_true jexec a sockstat -l4 -p 4712
        address=$(jexec a ifconfig | sed -n 's/.*inet \(1[09][0-9.]*\).*/\1/p' | tail -1)
        works nc -w 3 "$address" 4712
        begun=$(date +%s)
        works "$potrun" delete --force a
        [ $(($(date +%s) - begun)) -lt 20 ] || fail "delete of $net took $(($(date +%s) - begun)) s"
    done
}

case_shared_memory_goes_with_the_jail() {
    pot a 'posixshmcontrol create /mine; posixshmcontrol ls'
    ran a
    has "$out" /mine "shared memory"
}

case_gc_takes_back_what_a_dead_create_left() {
    pot a 'sleep 100'
    create a
    kill -9 "$(pid a)"
    until_true stopped a
    works "$potrun" gc
    same "$(status a)" stopped "a created container is the caller's, not garbage"
}

case_state_list_ps_show() {
    pot a 'sleep 100' '' '"annotations": {"k": "v"}'
    started a
    has "$("$potrun" list)" running "list"
    has "$("$potrun" state a)" '"k": "v"' "annotations in state"
    has "$("$potrun" ps a)" "sleep 100" "ps"
}

case_wait_tells_how_it_ended() {
    # The first process waits until somebody watches it: an end that nobody sees has no code.
    watched() { ps -ax -o wchan,command | grep -q "^kqread.*potrun wait $1\$"; }
    pot a 'while [ ! -e /var/run/end ]; do sleep 0.05; done; exit 7'
    started a
    timeout 60 "$potrun" wait a >"$work/away/end" &
    waiting=$!
    until_true watched a
    : >/opt/pot/jails/a/m/var/run/end
    wait $waiting || fail "wait failed"
    has "$(cat "$work/away/end")" '"exitCode":7,"signal":null' "what wait says"
    has "$("$potrun" wait a)" '"exitCode":7' "what wait says later"
    works "$potrun" delete a
    pot b 'sleep 1000'
    started b
    timeout 60 "$potrun" wait b >"$work/away/end" &
    waiting=$!
    until_true watched b
    works "$potrun" kill b KILL
    wait $waiting || fail "wait failed"
    has "$(cat "$work/away/end")" '"exitCode":137,"signal":9' "what wait says of a killed one"
    works "$potrun" delete b
    pot c 'sleep 1000'
    started c
    refused 'still running' "$potrun" wait --timeout 1 c
}

case_stop_asks_first_and_then_kills() {
    pot a 'trap "exit 3" TERM; echo up >/var/run/up; while :; do sleep 0.05; done'
    started a
    until_true test -s /opt/pot/jails/a/m/var/run/up
    has "$("$potrun" stop a)" '"exitCode":3' "what stop says"
    works "$potrun" delete a
    pot b 'trap "" TERM; echo up >/var/run/up; while :; do sleep 0.05; done'
    started b
    until_true test -s /opt/pot/jails/b/m/var/run/up
    has "$("$potrun" stop --timeout 1 b)" '"signal":9' "what stop says of a deaf one"
    works "$potrun" delete b
    # Its command comes before the signal.
    pot c 'trap "[ -e /var/run/end ] && exit 4; exit 5" TERM; echo up >/var/run/up; while :; do sleep 0.05; done' \
        '"stop": {"command": ["/bin/sh", "-c", ": >/var/run/end"]}'
    started c
    until_true test -s /opt/pot/jails/c/m/var/run/up
    has "$("$potrun" stop c)" '"exitCode":4' "what stop says after its command"
}

case_show_tells_all_of_a_pot() {
    pot a 'sleep 1000' '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80, "hostPort": 18088}]'
    started a
    shown=$("$potrun" show a | tr -d ' \n')
    has "$shown" "\"$(address a inet)\"" "address"
    has "$shown" 18088 "port"
    has "$shown" '"status":"running"' "status"
}

case_events_tell_what_a_jail_has_used() {
    pot a 'sleep 1000 & sleep 1001 & wait'
    started a
    until_true pgrep -j a -f 'sleep 1001'
    shown=$("$potrun" events --stats a)
    has "$shown" '"pids":{"current":3' "processes"
    # racct counts memory once a second.
    counted() {
        memory=$("$potrun" events --stats a | sed -n 's/.*"memory":.*[{,]"usage":{"usage":\([0-9]*\).*/\1/p')
        [ "${memory:-0}" -gt 100000 ]
    }
    until_true counted
}

case_update_changes_limits_of_a_running_pot() {
    pot a 'sleep 1000' '"limits": {"pids": 50, "memory": 104857600}'
    started a
    works "$potrun" update --pids-limit 20 --cpu-quota 50000 --cpu-period 100000 --cpuset-cpus 0 a
    rules=$(rctl jail:a)
    has "$rules" "jail:a:maxproc:deny=20" "rules"
    has "$rules" "jail:a:pcpu:deny=50" "rules"
    has "$rules" "jail:a:memoryuse:deny=104857600" "rules"
    lacks "$rules" "maxproc:deny=50" "the old rule"
    has "$(cpuset -g -j "$(jls -j a jid)")" "mask: 0" "processors"
    works "$potrun" update --memory -1 --pids-limit -1 a
    lacks "$(rctl jail:a)" maxproc "rules"
    lacks "$(rctl jail:a)" memoryuse "rules"
    refused blockIO "$potrun" update --blkio-weight 100 a
    works "$potrun" delete --force a
    same "$(rctl jail:a)" "" "what is left"
}
