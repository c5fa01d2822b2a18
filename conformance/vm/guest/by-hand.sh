#!/bin/sh
# What potrun does for a pot on the public bridge, by the tools of the system, one after another.
# usage: by-hand.sh POOL RELEASE
pool=$1 release=$2
m=/opt/pot/jails/hand/m
zfs create $pool/pot/jails/hand
zfs clone $pool/pot/bases/$release@potrun $pool/pot/jails/hand/m
cp /etc/resolv.conf $m/etc/resolv.conf 2>/dev/null
mount -t devfs -o ruleset=4 devfs $m/dev
hand=$(ifconfig epair create)
bridge=$(ifconfig bridge create)
ifconfig "$bridge" inet 10.192.0.1/10 addm "$hand" up
ifconfig "$hand" up
sysctl net.inet.ip.forwarding=1
echo 'nat on ext0 inet from 10.192.0.0/10 to any -> (ext0:0)' | pfctl -q -a pot-nat -f -
jail -c name=hand persist vnet vnet.interface="${hand%a}b" path=$m devfs_ruleset=4 enforce_statfs=2 children.max=0 \
    host.hostname=hand sysvmsg=new sysvsem=new sysvshm=new osrelease="$release"
jexec hand ifconfig lo0 inet 127.0.0.1/8 up
jexec hand ifconfig "${hand%a}b" inet 10.192.0.3/10 up
jexec hand route add default 10.192.0.1
echo 'rdr pass on ext0 inet proto tcp from any to (ext0) port 1024 -> 10.192.0.3 port 80' | pfctl -q -a pot-rdr/hand -f -
jexec hand true
jail -r hand
pfctl -q -a pot-rdr/hand -F nat
pfctl -q -a pot-nat -F nat
ifconfig "$hand" destroy
ifconfig "$bridge" destroy
umount $m/dev
zfs destroy -r $pool/pot/jails/hand
