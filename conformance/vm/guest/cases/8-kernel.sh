# What the kernel and its tools do, on which potrun relies. No potrun is run here.

case_kernel_lets_the_host_make_children_beyond_children_max() {
    works jail -c name=p0 persist path=/ children.max=0
    jail -c name=p0.c persist path=/ >"$work/out" 2>&1
    code=$?
    jail -r p0
    same $code 0 "jail_set of p0.c from outside of p0, children.max=0: $(cat "$work/out")"
}

case_kernel_keeps_a_jail_with_a_lingering_connection() {
    works jail -c name=linger persist path=/ ip4=inherit
    (hostname | jexec linger nc -N -l 4713 >/dev/null) &
    until_true sockstat -l4 -p 4713
    works nc -w 3 127.0.0.1 4713
    wait
    works jail -r linger
    dying=$(jls -d -j linger dying 2>/dev/null)
    # tcpdrop(8) ends it, and the jail.
    for end in $(sockstat -4 -s -P tcp | awk '/:4713/ { print $6 "=" $7 }'); do
        tcpdrop "${end%=*}" "${end#*=}" >/dev/null 2>&1
    done
    tcpdrop -a -s TIME_WAIT >/dev/null 2>&1
    gone() { ! jls -d -j linger >/dev/null 2>&1; }
    until_true gone
    # FreeBSD 15 does not keep it.
    [ "$(sysctl -n kern.osreldate)" -ge 1500000 ] || same "$dying" true "the jail after jail -r"
}

case_kernel_loads_rules_into_anchors_that_nobody_refers_to() {
    echo 'pass quick proto tcp from any to any port 4711' | pfctl -q -a nowhere/x -f -
    code=$?
    rules=$(pfctl -q -a nowhere/x -s rules)
    pfctl -q -a nowhere/x -F rules
    same $code 0 "exit code of pfctl"
    has "$rules" 4711 "rules of an anchor that is never looked at"
}

case_kernel_makes_a_ruleset_that_hides_nothing_of_an_unknown_number() {
    mkdir -p "$work/away/dev"
    works mount -t devfs -o ruleset=4711 devfs "$work/away/dev"
    seen=$(ls "$work/away/dev")
    umount "$work/away/dev"
    has " $(echo $seen) " " mem " "/dev with a ruleset that does not exist"
}

case_kernel_lets_the_root_of_a_jail_trace_nobody_who_forbids_it() {
    which proccontrol >/dev/null || skip "no proccontrol(1)"
    works jail -c name=trace persist path=/
    jexec trace sleep 100 &
    until_true pgrep -j trace -f 'sleep 100'
    works proccontrol -m trace -s disable -p "$(pgrep -j trace -f 'sleep 100')"
    jexec trace timeout 5 truss -p "$(pgrep -j trace -f 'sleep 100')" >"$work/out" 2>&1
    code=$?
    jail -r trace
    wait
    has "$(cat "$work/out")" "ermitted" "truss of a process with PROC_TRACE_CTL_DISABLE, exit code $code"
}

case_kernel_gives_a_returning_interface_its_name_though_it_is_taken() {
    pair=$(ifconfig epair create)
    b=${pair%a}b
    works jail -c name=back persist vnet path=/ vnet.interface="$b"
    # Inside it takes the name of one outside.
    works jexec back ifconfig "$b" name ext0
    works jail -r back
    gone() { ! jls -d -j back >/dev/null 2>&1; }
    until_true gone
    until_true ifconfig "$pair"
    count=$(ifconfig -l | tr ' ' '\n' | grep -c '^ext0$')
    ifconfig "$pair" destroy
    [ "$count" -ge 2 ] || fail "$count interfaces of one name"
}
