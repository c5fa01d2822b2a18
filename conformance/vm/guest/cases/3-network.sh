# The network of a pot: the four types, exported ports.

# What a pot does to answer: it says its name to whoever connects to port 80.
SERVE='while :; do hostname | nc -6 -N -l 80 >/dev/null 2>&1 || sleep 1000; done & while :; do hostname | nc -4 -N -l 80 >/dev/null; done'

# A private bridge, as pot keeps it: pot create-private-bridge writes such a file.
private() { # name, net, gateway
    mkdir -p /opt/pot/bridges
    printf 'net=%s\ngateway=%s\nname=%s\n' "$2" "$3" "$1" >"/opt/pot/bridges/$1"
}

# The rules of all pots.
redirections() {
    for anchor in $(pfctl -q -v -s Anchors | grep pot-rdr/); do pfctl -qP -a "$anchor" -s nat; done
}

# What is said by whoever listens at ADDRESS PORT, asked by jail WHO (or the host: -).
ask() { # who, address, port
    who=$1
    shift
    if [ "$who" = - ]; then nc -w 3 "$@" </dev/null; else jexec "$who" nc -w 3 "$@" </dev/null; fi
}
asked() { test "$(ask "$1" "$2" "$3")" = "$4"; }
address() { jexec "$1" ifconfig | sed -n "s/.*$2 \([0-9a-f.:]*\).*/\1/p" | grep -v -e '^127' -e '^::1' -e '^fe80' | head -1; }

case_inherit_is_the_network_of_the_host() {
    pot a 'ifconfig -l; hostname' '"network": {"type": "inherit"}'
    ran a
    has "$out" "$(ifconfig -l)" "interfaces"
    create a
    same "$(jls -j a ip4 ip6)" "inherit disable" "one stack"
    works "$potrun" delete --force a
    pot b true '"network": {"type": "inherit", "stack": "dual"}'
    create b
    same "$(jls -j b ip4 ip6)" "inherit inherit" "both stacks"
}

case_alias_adds_and_removes_its_addresses() {
    pot a "ifconfig ext0; $SERVE" '"network": {"type": "alias", "stack": "dual",
        "addresses": ["198.51.100.30", "ext0|198.51.100.31", "ext0|2001:db8:77::30"]}' '"hostname": "alias-a"'
    started a
    for one in 198.51.100.30 198.51.100.31 2001:db8:77::30; do
        has "$(ifconfig ext0)" "$one " "addresses of ext0"
    done
    until_true asked world 198.51.100.31 80 alias-a
    until_true asked world 2001:db8:77::30 80 alias-a
    works "$potrun" delete --force a
    lacks "$(ifconfig ext0)" 198.51.100.3 "addresses of ext0"
}

case_alias_keeps_an_address_that_was_there() {
    works ifconfig ext0 inet 198.51.100.40/32 alias
    pot a 'sleep 100' '"network": {"type": "alias", "addresses": ["198.51.100.40", "198.51.100.41"]}'
    started a
    works "$potrun" delete --force a
    has "$(ifconfig ext0)" "198.51.100.40 " "addresses of ext0"
    lacks "$(ifconfig ext0)" "198.51.100.41 " "addresses of ext0"
    works ifconfig ext0 inet 198.51.100.40 -alias
}

case_public_bridge() {
    pot a "$SERVE" '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80, "hostPort": 18080}, {"port": 80}]' \
        '"hostname": "pub-a", "freebsd": {"jail": {"allow": {"rawSockets": true}}}'
    started a
    has "$(jexec a ifconfig lo0)" 127.0.0.1 "loopback"
    address=$(address a inet)
    same "$(jexec a route -n get default | sed -n 's/.*gateway: //p')" 10.192.0.1 "default route"
    has "$(ifconfig pb-public)" "inet 10.192.0.1 " "bridge"
    until_true asked - "$address" 80 pub-a
    until_true asked world $outer 18080 pub-a
    until_true asked world $outer 1024 pub-a
    works jexec a ping -c 1 -t 3 $world
    has "$(pfctl -q -a pot-rdr/a -s nat)" "port = 18080 -> $address port 80" "rules"
    has "$(cat $ledger)" "$address" "ledger"
    works "$potrun" delete --force a
    same "$(pfctl -q -s state | grep "$address")" "" "states of a deleted pot"
}

case_public_bridge_with_both_families() {
    pot a "$SERVE" '"network": {"type": "public-bridge", "stack": "dual"}, "exportedPorts": [{"port": 80, "hostPort": 18081}]' \
        '"hostname": "dual-a", "freebsd": {"jail": {"allow": {"rawSockets": true}}}'
    started a
    six=$(address a inet6)
    has "$six" fd70:6f74:: "address"
    until_true asked - "$six" 80 dual-a
    until_true asked world $outer6 18081 dual-a
    until_true asked world $outer 18081 dual-a
    works timeout 9 jexec a ping6 -c 1 $world6
}

case_public_bridge_with_ipv6_alone() {
    pot a 'ifconfig; netstat -rn' '"network": {"type": "public-bridge", "stack": "ipv6"}'
    ran a
    has "$out" "inet6 fd70:6f74::" "address"
    lacks "$out" "inet 10." "address"
}

case_pots_on_the_public_bridge_see_each_other_unless_isolated() {
    pot a "$SERVE" '"network": {"type": "public-bridge"}' '"hostname": "a"'
    pot b 'sleep 1000' '"network": {"type": "public-bridge"}'
    started a
    started b
    until_true asked b "$(address a inet)" 80 a
    works "$potrun" delete --force a
    works "$potrun" delete --force b
    echo 'POT_ISOLATE_VNET_POTS=true' >>/usr/local/etc/pot/pot.conf
    started a
    started b
    until_true asked - "$(address a inet)" 80 a
    ask b "$(address a inet)" 80 && seen=yes || seen=no
    sed -i '' /ISOLATE/d /usr/local/etc/pot/pot.conf
    same $seen no "isolated pots see each other"
}

case_neighbours_know_each_other_by_name() {
    pot a 'sleep 1000' '"network": {"type": "public-bridge"}'
    pot b "$SERVE" '"network": {"type": "public-bridge"}, "hosts": [{"name": "db", "address": "192.0.2.7"}]' '"hostname": "bee"'
    started a
    started b
    until_true asked a b 80 bee
    until_true asked a bee 80 bee
    has "$(jexec b cat /etc/hosts)" "192.0.2.7 db" "hosts of the bundle"
    has "$(jexec b cat /etc/hosts)" "$(address a inet) a" "hosts"
    jexec a sh -c 'echo 192.0.2.1 evil >>/etc/hosts' 2>/dev/null && said=written || said=refused
    same $said refused "a pot writes to the names of all"
    works "$potrun" delete --force b
    lacks "$(jexec a grep -v ^# /etc/hosts)" bee "hosts"
    works "$potrun" delete --force a
    same "$(ls -d /var/run/potrun.hosts 2>/dev/null)" "" "what is left"
}

case_private_bridge() {
    private backend 10.192.0.8/29 10.192.0.9
    private other 10.192.0.16/29 10.192.0.17
    for id in a b; do
        pot $id "$SERVE" '"network": {"type": "private-bridge", "bridge": "backend"}' "\"hostname\": \"$id\""
        started $id
    done
    pot c 'sleep 1000' '"network": {"type": "private-bridge", "bridge": "other"}'
    started c
    until_true asked b "$(address a inet)" 80 a
    until_true asked a "$(address b inet)" 80 b
    # Not from other bridges, whatever a pot says of the way there, nor with a source of theirs.
    pot p "$SERVE" '"network": {"type": "public-bridge"}' '"hostname": "p"'
    started p
    until_true asked - "$(address p inet)" 80 p
    jexec p route -q add 10.192.0.8/29 10.192.0.1
    there=$(address a inet) of_public=$(address p inet)
    for way in "c $there" "p $there" "a $of_public" "c $of_public"; do
        got=$(ask ${way% *} ${way#* } 80)
        same "$got" "" "what comes by $way"
    done
    works "$potrun" delete --force p
    # The last one takes the bridge along.
    works "$potrun" delete --force a
    until_true asked - "$(address b inet)" 80 b
    works "$potrun" delete --force b
    works "$potrun" delete --force c
    lacks "$(ifconfig)" "private bridge" "bridges"
}

case_udp_port() {
    pot a 'nc -u -l 53 >/var/run/got' '"network": {"type": "public-bridge"},
        "exportedPorts": [{"port": 53, "protocol": "udp", "hostPort": 5353}]'
    started a
    got() { echo ping | jexec world nc -u -w 1 $outer 5353; grep -q ping /opt/pot/jails/a/m/var/run/got; }
    until_true got
}

case_without_references_to_the_anchors_ports_are_refused() {
    pot a true '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]'
    pfctl -q -f /dev/null
    "$potrun" run --bundle "$bundles/a" a >"$work/out" 2>&1 && said=ran || said=$(cat "$work/out")
    pfctl -q -f "$work/pf.conf"
    has "$said" 'nat-anchor pot-nat' "error"
    has "$said" 'rdr-anchor "pot-rdr/*"' "error"
}

case_the_rules_of_the_host_are_not_reloaded() {
    echo 'pass quick proto tcp from any to any port 4711' | pfctl -q -a mine -f -
    pot a true '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]'
    ran a
    rules=$(pfctl -q -s rules; pfctl -q -a mine -s rules)
    pfctl -q -a mine -F rules
    has "$rules" "anchor \"mine\"" "rules of the host"
    has "$rules" 4711 "rules of another anchor"
}

case_a_port_that_is_taken_is_refused() {
    pot a 'sleep 100' '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80, "hostPort": 8088}]'
    pot b 'sleep 100' '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80, "hostPort": 8088}]'
    started a
    refused 8088 "$potrun" create --bundle "$bundles/b" b
    works "$potrun" delete --force a
    nc -l 8088 >/dev/null &
    listener=$!
    until_true sockstat -l4 -p 8088
    "$potrun" create --bundle "$bundles/a" a >"$work/out" 2>&1 && said=made || said=$(cat "$work/out")
    kill $listener
    has "$said" 8088 "a port on which somebody listens"
}

case_pots_made_at_once_get_addresses_and_ports_of_their_own() {
    for n in 1 2 3 4 5; do
        pot p$n 'sleep 1000' '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]'
    done
    all=
    for n in 1 2 3 4 5; do
        "$potrun" create --bundle "$bundles/p$n" p$n >"$work/out.$n" 2>&1 &
        all="$all $!"
    done
    for one in $all; do wait $one || fail "a create failed: $(cat "$work"/out.*)"; done
    same "$(for n in 1 2 3 4 5; do address p$n inet; done | sort -u | wc -l | tr -d ' ')" 5 "addresses"
    same "$(redirections | sed -n 's/.*port = \([0-9]*\) .*/\1/p' | sort -u | wc -l | tr -d ' ')" 5 "ports"
    same "$(ifconfig -a ether | sed -n 's/.*ether //p' | sort | uniq -d)" "" "addresses of interfaces"
    all=
    for n in 1 2 3 4 5; do
        "$potrun" delete --force p$n >"$work/out.$n" 2>&1 &
        all="$all $!"
    done
    for one in $all; do wait $one || fail "a delete failed: $(cat "$work"/out.*)"; done
}

case_a_long_name_has_an_anchor_of_its_own() {
    long=$(printf 'l%.0s' 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6)
    for id in ${long}a ${long}b; do
        pot $id 'sleep 100' '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]'
        started $id
    done
    same "$(redirections | grep -c 'rdr pass')" 2 "rules"
}

case_an_interface_is_lent_and_comes_back() {
    pair=$(ifconfig epair create)
    pot a 'ifconfig -l' '' "\"freebsd\": {\"jail\": {\"vnet\": \"new\", \"vnetInterfaces\": [\"$pair\"]}}"
    run a
    after=$(ifconfig -l)
    ifconfig "$pair" destroy
    has "$out" "$pair" "interfaces inside: $code"
    has "$after" "$pair" "interfaces of the host after it"
}

case_pf_that_is_off_is_told() {
    pot a true '"network": {"type": "public-bridge"}'
    pfctl -q -d
    "$potrun" run --bundle "$bundles/a" a >"$work/out" 2>&1 && said=ran || said=$(cat "$work/out")
    pfctl -q -e
    has "$said" "not enabled" "error"
}

case_networks_by_their_verbs() {
    works "$potrun" network create lab --size 5
    same "$("$potrun" network ls | sed 1d | tr -s ' ')" "lab 10.192.0.8/29 10.192.0.9" "networks"
    has "$(cat /opt/pot/bridges/lab)" "net=10.192.0.8/29" "pot's file of a bridge"
    refused "already exists" "$potrun" network create lab
    pot a "$SERVE" '"network": {"type": "private-bridge", "bridge": "lab"}' '"hostname": "lab-a"'
    started a
    until_true asked - 10.192.0.10 80 lab-a
    has "$("$potrun" network show)" 10.192.0.10 "what is shown"
    refused "" "$potrun" network rm lab
    works "$potrun" delete --force a
    works "$potrun" network up lab
    has "$(ifconfig)" "inet 10.192.0.9 " "the bridge without a pot"
    started a
    refused "" "$potrun" network down lab
    works "$potrun" delete --force a
    has "$(ifconfig)" "inet 10.192.0.9 " "the bridge after its last pot"
    works "$potrun" network down lab
    works "$potrun" network rm lab
}
