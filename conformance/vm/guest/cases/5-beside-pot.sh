# Living beside pot: its datasets, settings and pots.

case_fscomps_are_made_and_removed() {
    works "$potrun" fscomp create vol
    same "$("$potrun" fscomp ls)" vol "fscomps"
    same "$(zfs get -H -o value mountpoint $pool/pot/fscomp/vol)" /opt/pot/fscomp/vol "mount point"
    refused "already exists" "$potrun" fscomp create vol
    pot a 'echo kept >/data/f' '"fscomps": [{"name": "vol", "destination": "/data"}]'
    ran a
    same "$(cat /opt/pot/fscomp/vol/f)" kept "what a pot wrote"
    refused "not empty" "$potrun" fscomp rm vol
    rm /opt/pot/fscomp/vol/f
    works "$potrun" fscomp rm vol
    refused "does not exist" "$potrun" fscomp rm vol
}

case_addresses_of_pots_of_pot_are_taken() {
    mkdir -p /opt/pot/jails/theirs/conf
    printf 'pot.type=single\nnetwork_type=public-bridge\nip=10.192.0.3\n' >/opt/pot/jails/theirs/conf/pot.conf
    pot a 'ifconfig' '"network": {"type": "public-bridge"}'
    run a
    rm -r /opt/pot/jails/theirs
    has "$out" "inet 10.192.0.4 " "address"
}

case_a_pot_is_imported_and_runs() {
    works zfs create $pool/pot/jails/old
    works zfs clone $pool/pot/bases/$release@potrun $pool/pot/jails/old/m
    works zfs create $pool/pot/fscomp/olddata
    mkdir -p /opt/pot/jails/old/conf "$bundles/old"
    echo here >/opt/pot/jails/old/m/var/run/mine
    cat >/opt/pot/jails/old/conf/pot.conf <<X
pot.level=0
pot.type=single
pot.base=$release
pot.potbase=
pot.dns=inherit
pot.cmd=/bin/cat /var/run/mine /data/f
host.hostname="old.example.org"
osrelease="$release"
pot.attr.persistent=NO
pot.attr.no-tmpfs=NO
pot.attr.sysvshm=new
pot.attr.stop_timeout=10
pot.stack=ipv4
network_type=public-bridge
vnet=true
ip=10.192.0.9
bridge=
pot.export.ports=80:18099
pot.rss.memory=64M
X
    echo "$pool/pot/fscomp/olddata /data ro" >/opt/pot/jails/old/conf/fscomp.conf
    echo data >/opt/pot/fscomp/olddata/f
    before=$(cat /opt/pot/jails/old/conf/*)
    works "$potrun" import --bundle "$bundles/old" old
    same "$(cat /opt/pot/jails/old/conf/*)" "$before" "pot's files"
    has "$("$potrun" plan "$bundles/old")" "rdr pass on ext0 inet proto tcp from any to (ext0) port 18099 -> 10.192.0.9 port 80" "plan"
    run old
    [ -e /opt/pot/jails/old/m/var/run/mine ] || fail "the pot's own data are gone"
    works zfs destroy $pool/pot/fscomp/olddata
    works zfs destroy -f -r $pool/pot/jails/old
    same "$out" "here
data" "what the imported pot says"
}

case_create_takes_no_longer_with_a_large_base() {
    # A clone: no file is copied.
    begun=$(date +%s)
    pot a 'dd if=/dev/random of=/var/tmp/f bs=1m count=50'
    ran a
    used=$(zfs get -Hp -o value used $pool/pot/bases/$release)
    pot b 'sleep 100'
    create b
    own=$(zfs get -Hp -o value used $pool/pot/jails/b/m)
    [ "$own" -lt 200000 ] || fail "a new pot takes $own bytes of its own; its base has $used"
}

case_ports_of_pots_of_pot_are_taken() {
    mkdir -p /opt/pot/jails/theirs/conf
    printf 'network_type=public-bridge\nip=10.192.0.3\npot.export.ports=80:1024 udp:53\n' >/opt/pot/jails/theirs/conf/pot.conf
    # Where pot says no port of the host, it gives one at start, which only the rules know.
    jail -c name=theirs persist path=/
    echo 'rdr pass on ext0 proto udp from any to (ext0) port 1025 -> 10.192.0.3 port 53' |
        pfctl -q -a pot-rdr/theirs -f -
    pot a 'sleep 100' '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]'
    "$potrun" create --bundle "$bundles/a" a >"$work/out" 2>&1
    rules=$(pfctl -qP -a pot-rdr/a -s nat)
    "$potrun" delete --force a
    jail -r theirs
    pfctl -q -a pot-rdr/theirs -F nat
    rm -r /opt/pot/jails/theirs
    has "$rules" "port = 1026 ->" "rules: $(cat "$work/out")"
}
