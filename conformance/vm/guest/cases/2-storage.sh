# Storage: the root, mounts, fscomps, devices.

case_the_root_is_a_clone_marked_as_ours() {
    pot a 'echo x >/var/run/x' '"network": {"type": "inherit"}, "limits": {"disk": "64m"}'
    create a
    same "$(zfs get -H -o value origin $pool/pot/jails/a/m)" "$pool/pot/bases/$release@potrun" "origin"
    same "$(zfs get -H -o value potrun:id $pool/pot/jails/a/m)" a "mark"
    # All that the root shows counts, what it shares with its base included.
    base=$(zfs get -Hp -o value referenced $pool/pot/bases/$release@potrun)
    same "$(zfs get -Hp -o value refquota $pool/pot/jails/a/m)" $((base + 64 * 1048576)) "refquota"
    works "$potrun" start a
    until_true stopped a
    pot b 'cat /var/run/x'
    run b
    has "$out" "No such file" "another pot's root"
}

case_a_dataset_that_is_not_ours_stays() {
    works zfs create $pool/pot/jails/a
    works zfs create $pool/pot/jails/a/m
    works touch /opt/pot/jails/a/m/precious
    pot a true
    refused "a" "$potrun" run --bundle "$bundles/a" a
    "$potrun" delete --force a >/dev/null 2>&1
    [ -e /opt/pot/jails/a/m/precious ] || fail "somebody's dataset was destroyed"
    works zfs destroy -r $pool/pot/jails/a
}

case_disk_limit_is_in_force() {
    pot a 'dd if=/dev/random of=/var/tmp/f bs=1m count=24' '"limits": {"disk": "16m"}'
    run a
    has "$out" "Disc quota exceeded" "writing more than the quota"
}

case_devfs_hides_the_devices_of_the_host() {
    pot a 'ls /dev; echo x >/dev/null && head -c 4 /dev/random | wc -c'
    ran a
    for name in null zero random urandom fd stdin; do has " $(echo $out) " " $name " "/dev"; done
    for name in mem kmem pf $(sysctl -n kern.disks) io pci; do lacks " $(echo $out) " " $name " "/dev"; done
}

case_a_ruleset_that_does_not_exist_exposes_nothing() {
    pot a 'ls /dev' '"attributes": {"devfsRuleset": 777}'
    refused "hides nothing" "$potrun" run --bundle "$bundles/a" a
    same "$(devfs rule -s 777 show)" "" "rules of set 777"
}

case_devices_of_the_bundle_are_shown() {
    pot a 'ls -l /dev/pf | cut -c1-10' '' '"freebsd": {"devices": [{"path": "pf", "mode": 416}]}'
    sed -i '' 's/ | cut -c1-10//' "$bundles/a/config.json"
    ran a
    has "$out" "crw-r-----" "mode of a device"
    # And only there.
    pot b 'ls /dev'
    ran b
    lacks " $(echo $out) " " pf " "/dev of another pot"
    same "$(stat -f %Lp /dev/pf)" 600 "mode on the host"
}

case_mounts_of_every_type() {
    mkdir -p "$work/away/dir/sub"
    pot a 'mount; touch /mnt/dir/sub/new; touch /media/x; cat </dev/fd/0; sysctl -n kern.ostype; ls /proc | head -1
           stat -f %p /tmp; dd if=/dev/zero of=/tmp/f bs=1m count=3' \
        "\"directories\": [{\"source\": \"$work/away/dir\", \"destination\": \"/mnt/dir\"},
            {\"source\": \"$work/away/dir\", \"destination\": \"/media\", \"readonly\": true}]" \
        '"freebsd": {"jail": {"enforceStatfs": 1}},
         "mounts": [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777", "size=1m"]},
            {"destination": "/dev/fd", "type": "fdescfs", "source": "fdescfs"},
            {"destination": "/proc", "type": "procfs", "source": "proc"}]'
    run a
    [ -e "$work/away/dir/sub/new" ] || fail "nothing was written through nullfs: $out"
    has "$out" "touch: /media/x: Read-only file system" "a read-only mount"
    has "$out" "41777" "mode of tmpfs"
    has "$out" "No space left" "size of tmpfs"
    has "$out" "/proc (procfs" "procfs"
    has "$out" "/dev/fd (fdescfs" "fdescfs"
}

case_a_file_is_mounted_where_the_kernel_can() {
    # FreeBSD 13 panics (sys/kern/vfs_cache.c, vn_path_to_global_path_hardlink: len is never set).
    echo host >"$work/away/file"
    pot a 'cat /mnt/file; echo changed >/mnt/file' "\"directories\": [
        {\"source\": \"$work/away/file\", \"destination\": \"/mnt/file\"}]"
    if [ "$(sysctl -n kern.osreldate)" -lt 1400000 ]; then
        refused "FreeBSD 14" "$potrun" run --bundle "$bundles/a" a
        return
    fi
    ran a
    same "$out" host "a file of the host"
    same "$(cat "$work/away/file")" changed "what the pot wrote"
    pot b 'cat /mnt/new/file; echo again >/mnt/new/file || echo refused' "\"directories\": [
        {\"source\": \"$work/away/file\", \"destination\": \"/mnt/new/file\", \"readonly\": true}]"
    ran b
    has "$out" changed "a read-only file"
    has "$out" refused "writing a read-only file"
}

mounts_files() { [ "$(sysctl -n kern.osreldate)" -ge 1400000 ] || skip "no file can be mounted before FreeBSD 14"; }

# Makes a directory by turns what it is and each of the others, until the case ends, as fast as it can be done here.
exchange_directory() { # its directory, its name, others...
    if [ -x /usr/libexec/flua ]; then
        cat >"$work/exchange.lua" <<'X'
local function at(n) return arg[1] .. "/" .. arg[n] end
local was = at(2) .. ".was"
while true do
    for n = 3, #arg do
        if not os.rename(at(2), was) then os.remove(at(2) .. "/file") os.remove(at(2)) end
        if os.rename(at(n), at(2)) then os.rename(at(2), at(n)) end
        os.rename(was, at(2))
    end
end
X
        /usr/libexec/flua "$work/exchange.lua" "$@" &
    else
        (cd "$1" && name=$2 && shift 2 && while :; do
            for other; do
                mv -h "$name" "$name.was" || rm -rf "$name"
                mv -h "$other" "$name" && mv -h "$name" "$other"
                mv -h "$name.was" "$name"
            done
        done) 2>/dev/null &
    fi
    movers="${movers-} $!"
    trap 'kill $movers 2>/dev/null' EXIT
}

# Makes a file by turns a link to each of the others, and nothing. Nothing is renamed to its name: FreeBSD 15.1 never comes
# back from a rename(2) to a file that something is mounted on (sys/kern/vfs_syscalls.c, kern_renameat).
exchange_file() { # its directory, its name, others...
    (cd "$1" && name=$2 && shift 2 && while :; do
        for other; do
            rm -f "$name"
            ln -s "$other" "$name"
        done
        rm -f "$name"
    done) 2>/dev/null &
    movers="${movers-} $!"
    trap 'kill $movers 2>/dev/null' EXIT
}

case_a_file_that_becomes_a_link_is_not_followed() {
    mounts_files
    mkdir "$work/away/out"
    echo host >"$work/away/source"
    for name in leaf file; do echo precious >"$work/away/out/$name"; done
    pot a 'sleep 1000'
    started a
    mnt=/opt/pot/jails/a/m/mnt
    mkdir "$mnt/dir" "$mnt/other"
    for name in dir/file other/file; do echo image >"$mnt/$name"; done
    # The file itself, and a directory above it; both ways that a link can lead out.
    up=../../../../../../../../../..
    ln -s "$work/away/out" "$mnt/above" && ln -s "$up$work/away/out" "$mnt/beside"
    exchange_file $mnt leaf "$work/away/out/leaf" "$up$work/away/out/leaf"
    exchange_directory $mnt dir above beside other
    : >"$work/told"
    # As often as can be in a minute.
    round=0 end=$(($(date +%s) + 60))
    while [ $round -lt 10 ] || [ "$(date +%s)" -lt $end ]; do
        for target in /mnt/leaf /mnt/dir/file; do
            "$potrun" mount-in a "$work/away/source" $target >>"$work/told" 2>&1 && echo mounted >>"$work/told"
            outside=$(mount | grep " on $work/away")
            [ -z "$outside" ] || fail "mounted outside of the root: $outside"
            "$potrun" mount-out a $target >/dev/null 2>&1
        done
        round=$((round + 1))
    done
    kill $movers
    wait $movers 2>/dev/null
    works "$potrun" delete --force a
    same "$(mount | grep -e "$work/away" -e jails/a)" "" "what is mounted after delete"
    same "$(cat "$work/away/out/leaf" "$work/away/out/file")" "precious
precious" "files outside"
    same "$(ls "$work/away/out")" "file
leaf" "what is outside"
    same "$(cat "$work/away/source")" host "the file that was mounted"
    has "$(cat "$work/told")" mounted "$((2 * round)) attempts"
    met=$(grep -c "a link took the place" "$work/told") strayed=$(grep -c "was moved away" "$work/told")
    echo ": $((2 * round)) attempts, $(grep -cx mounted "$work/told") mounted, $met met a link, $strayed went astray" >"$work/said"
}

case_a_file_of_two_names_is_not_mounted_on() {
    mounts_files
    echo host >"$work/away/source"
    bundle a true "\"root\": {\"path\": \"rootfs\"}, \"mounts\": [
        {\"destination\": \"/mnt/one\", \"type\": \"nullfs\", \"source\": \"$work/away/source\"}]"
    root=$bundles/a/rootfs
    mkdir -p "$root" && tar -C "$root" -xf "$work/base.txz"
    echo image >"$root/mnt/one" && ln "$root/mnt/one" "$root/mnt/two"
    before=$(mount)
    # The kernel's rule: it covers a file, and not one of its names.
    refused "2 names" "$potrun" create --bundle "$bundles/a" a
    same "$(mount)" "$before" "mounts"
    rm "$root/mnt/two"
    create a
    same "$(cat "$root/mnt/one")" host "a file of one name"
    works "$potrun" delete --force a
    same "$(mount)" "$before" "mounts"
    same "$(cat "$root/mnt/one")" image "the file of the image"
    chflags -R noschg "$bundles/a" 2>/dev/null
    true # what was not immutable
}

case_no_file_is_mounted_on_another() {
    mounts_files
    echo one >"$work/away/one" && echo two >"$work/away/two"
    pot a 'sleep 1000'
    started a
    before=$(mount)
    works "$potrun" mount-in --ro a "$work/away/one" /mnt/file
    has "$(mount)" "$work/away/one on /opt/pot/jails/a/m/mnt/file (nullfs, local, " "what is mounted"
    refused "already" "$potrun" mount-in a "$work/away/two" /mnt/file
    ln -s file /opt/pot/jails/a/m/mnt/alias
    refused "mounted on the file there already" "$potrun" mount-in a "$work/away/two" /mnt/alias
    works "$potrun" exec a sh -c 'test "$(cat /mnt/file)" = one && ! echo x >/mnt/file'
    same "$(cat "$work/away/one")" one "a file that is mounted read-only"
    works "$potrun" mount-out a /mnt/file
    same "$(mount)" "$before" "mounts"
    works "$potrun" mount-in a "$work/away/two" /mnt/file
    works "$potrun" exec a sh -c 'test "$(cat /mnt/file)" = two && echo x >/mnt/file'
    same "$(cat "$work/away/two")" x "a file that is mounted to be written"
    works "$potrun" delete --force a
    same "$(mount | grep jails/a)" "" "what is mounted after delete"
}

case_deeper_mounts_lie_on_those_above() {
    mkdir -p "$work/away/above/inner" "$work/away/below"
    echo above >"$work/away/above/inner/f" && echo below >"$work/away/below/f"
    pot a 'cat /mnt/inner/f' "\"directories\": [{\"source\": \"$work/away/below\", \"destination\": \"/mnt/inner\"},
        {\"source\": \"$work/away/above\", \"destination\": \"/mnt\"}]"
    ran a
    same "$out" below "what the pot sees"
}

case_fscomps_and_datasets() {
    works zfs create $pool/pot/fscomp/data
    works zfs create $pool/foreign
    echo f >/opt/pot/fscomp/data/f && echo g >/$pool/foreign/g
    pot a 'cat /srv/data/f /srv/ro/f /srv/foreign/g; touch /srv/data/new; touch /srv/ro/new' \
        "\"fscomps\": [{\"name\": \"data\", \"destination\": \"/srv/data\"},
                       {\"name\": \"data\", \"destination\": \"/srv/ro\", \"readonly\": true}],
         \"datasets\": [{\"dataset\": \"$pool/foreign\", \"destination\": \"/srv/foreign\"}]"
    run a
    has "$out" "f
f
g" "what is there"
    has "$out" "touch: /srv/ro/new: Read-only" "a read-only fscomp"
    [ -e /opt/pot/fscomp/data/new ] || fail "nothing was written to the fscomp"
    works zfs destroy $pool/foreign
    works zfs destroy $pool/pot/fscomp/data
}

case_read_only_root() {
    pot a 'touch /x; touch /tmp/x && echo fine' '' '"root": {"path": "", "readonly": true},
        "mounts": [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]'
    sed -i '' 's|"root": {"path": "", |"root": {|' "$bundles/a/config.json"
    run a
    has "$out" "touch: /x: Read-only file system" "the root"
    has "$out" fine "a tmpfs in it"
}

case_read_only_root_of_a_plain_bundle() {
    bundle a 'touch /x; echo $(ls /dev | head -1)' '"root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/dev", "type": "devfs", "source": "devfs"}]'
    mkdir "$bundles/a/rootfs" && tar -C "$bundles/a/rootfs" -xf "$work/base.txz"
    run a
    has "$out" "touch: /x: Read-only file system" "the root"
}

case_dns_file_is_the_bundles() {
    pot a 'cat /etc/resolv.conf' '"dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]}'
    ran a
    has "$out" "nameserver 192.0.2.53" "resolv.conf"
    has "$out" "search example.org" "resolv.conf"
}

case_links_of_the_image_are_not_followed_out() {
    # As root on the host the runtime must not write, mount or make anything outside of the root.
    for evil in /etc /var /tmp /mnt /dev; do
        bundle a 'true' "\"root\": {\"path\": \"rootfs\"}, \"mounts\": [
            {\"destination\": \"$evil/made/here\", \"type\": \"tmpfs\", \"source\": \"tmpfs\"}]"
        mkdir -p "$bundles/a/rootfs" && tar -C "$bundles/a/rootfs" -xf "$work/base.txz"
        rm -rf "$bundles/a/rootfs$evil" && ln -s "../../../../../../../..$work/away" "$bundles/a/rootfs$evil"
        "$potrun" run --bundle "$bundles/a" a >/dev/null 2>&1
        same "$(ls -A "$work/away")" "" "what was made outside by a link at $evil"
        ln -sfh "$work/away" "$bundles/a/rootfs$evil"
        "$potrun" run --bundle "$bundles/a" a >/dev/null 2>&1
        same "$(ls -A "$work/away")" "" "what was made outside by an absolute link at $evil"
        "$potrun" delete --force a >/dev/null 2>&1
        chflags -R noschg "$bundles/a" && rm -rf "$bundles/a"
    done
}

case_resolv_conf_as_a_link_is_replaced() {
    echo mine >"$work/away/f"
    pot a 'rm -f /etc/resolv.conf; ln -s ../../../../../../..'"$work"'/away/f /etc/resolv.conf'
    ran a
    tar -C / -czf "$work/away/evil.txz" -T /dev/null
    mkdir -p "$work/away/tree/etc" "$work/away/tree/dev" && ln -s "$work/away/f" "$work/away/tree/etc/resolv.conf"
    bundle b true '"root": {"path": "'"$work"'/away/tree"}, "pot": {"dns": {"nameservers": ["192.0.2.53"]}}'
    "$potrun" run --bundle "$bundles/b" b >/dev/null 2>&1
    same "$(cat "$work/away/f")" mine "a file of the host"
}

case_a_link_that_moves_during_create_is_not_followed() {
    # The mount point's parent is exchanged all the time, by somebody in the image (CVE-2021-30465 and its kin).
    bundle a 'true' '"root": {"path": "rootfs"}, "mounts": [
        {"destination": "/mnt/a/b", "type": "tmpfs", "source": "tmpfs"}]'
    root=$bundles/a/rootfs
    mkdir -p "$root" && tar -C "$root" -xf "$work/base.txz"
    mkdir -p "$root/mnt/a/b" "$work/away/b"
    ln -s "../../../../..$work/away" "$root/mnt/link"
    chroot "$root" /bin/sh -c 'cd /mnt; while :; do mv -h a was; mv -h link a; mv -h a link; mv -h was a; done' 2>/dev/null &
    mover=$!
    for n in 1 2 3 4 5 6 7 8 9 10; do
        "$potrun" create --bundle "$bundles/a" a >/dev/null 2>&1
        # Inside, a link leads to where it would in a chroot(2): a path of the same name below the root is fine.
        outside=$(mount | grep " on $work/away")
        [ -z "$outside" ] || { kill $mover; fail "mounted outside of the root: $outside"; }
        "$potrun" delete --force a >/dev/null 2>&1
    done
    kill $mover
    wait $mover 2>/dev/null
    chflags -R noschg "$bundles/a" 2>/dev/null
    true # what the mover moved meanwhile is not found
}

case_a_persistent_root_outlives_its_container() {
    pot a 'cat /var/tmp/kept 2>/dev/null; echo once >/var/tmp/kept' '"persistent": true'
    ran a
    same "$out" "" "the first life"
    same "$(zfs get -H -o value potrun:persistent $pool/pot/jails/a)" on "the dataset's mark"
    ran a
    same "$out" once "the second life"
    # It gets the limit that its bundle has now.
    pot a 'dd if=/dev/urandom of=/var/tmp/f bs=1m count=16; rm -f /var/tmp/f' '"persistent": true, "limits": {"disk": "8m"}'
    run a
    has "$out" "Disc quota exceeded" "more than a new limit"
    pot a 'dd if=/dev/urandom of=/var/tmp/f bs=1m count=16 2>/dev/null && echo all; rm /var/tmp/f' '"persistent": true'
    ran a
    same "$out" all "what has no limit any more"
    # Another base, another root: it is not destroyed for that.
    pot a true '"persistent": true'
    sed -i '' "s|\"release\": \"$release\"|\"release\": \"other\"|" "$bundles/a/config.json"
    works zfs create $pool/pot/bases/other
    works zfs snapshot $pool/pot/bases/other@potrun
    refused "delete --data a" "$potrun" run --bundle "$bundles/a" a
    works zfs destroy -r $pool/pot/bases/other
    works "$potrun" delete --data a
    refused "does not exist" "$potrun" delete --data a
    # A create that fails leaves nothing.
    pot b true '"persistent": true' '"hooks": {"createRuntime": [{"path": "/usr/bin/false"}]}'
    refused createRuntime "$potrun" create --bundle "$bundles/b" b
}

case_nothing_is_left_in_the_directory_of_pots() {
    pot a true
    ran a
    same "$(ls /opt/pot/jails)" "" "directories of pots"
}

case_snapshots_and_streams_of_volumes_and_pots() {
    at=/opt/pot/fscomp
    works "$potrun" fscomp create data
    echo one >$at/data/f
    works "$potrun" fscomp snapshot data@first
    echo two >$at/data/f
    pot a 'sleep 1000' '"persistent": true, "fscomps": [{"name": "data", "destination": "/mnt"}]'
    started a
    refused "in use: it is mounted on" "$potrun" fscomp rollback data
    works "$potrun" snapshot a --name live
    refused "it must be stopped" "$potrun" revert a
    works "$potrun" delete --force a
    touch /opt/pot/jails/a/m/var/tmp/late
    works "$potrun" revert a --to live
    [ ! -e /opt/pot/jails/a/m/var/tmp/late ] || fail "the pot was not put back"
    works "$potrun" delete --data a
    works "$potrun" fscomp rollback data
    same "$(cat $at/data/f)" one "the volume after rollback"
    "$potrun" fscomp send data | "$potrun" fscomp receive copy || fail "send and receive"
    same "$(cat $at/copy/f)" one "what has come"
    works "$potrun" fscomp clone data@first third
    same "$(cat $at/third/f)" one "the clone"
    refused "clone" "$potrun" snapshots rm --fscomp data --name first
    for name in third copy data; do works zfs destroy -r $pool/pot/fscomp/$name; done
    has "$("$potrun" info)" "$pool/pot" "where datasets are"
}

case_clone_of_a_pot_shares_its_data() {
    pot a 'echo data >/var/run/x' '"network": {"type": "inherit"}'
    started a
    until_true stopped a
    works "$potrun" clone --bundle "$bundles/b" a b
    [ "$(zfs get -Hp -o value used $pool/pot/jails/b/m)" -lt 200000 ] || fail "the clone takes room"
    pot b 'cat /var/run/x; echo more >>/var/run/x' '"network": {"type": "inherit"}'
    ran b
    same "$out" data "what the clone has"
    same "$(cat /opt/pot/jails/a/m/var/run/x)" data "what the first one has"
    works "$potrun" delete a
    ran b
    same "$out" "data
more" "what the clone has when the first one is gone"
    works "$potrun" delete --data b
    same "$(zfs list -H -o name -t all -r $pool/pot/jails)" "$pool/pot/jails" "what is left"
}

case_pots_go_through_a_file() {
    pot a 'echo data >/var/run/x; chflags uchg /var/run/x' '"network": {"type": "inherit"}'
    started a
    until_true stopped a
    works "$potrun" export a "$work/away/a.tar"
    works "$potrun" export --zfs a "$work/away/a.zfs"
    works "$potrun" delete a
    for file in a.tar a.zfs; do
        rm -r "$bundles/a" && mkdir "$bundles/a"
        works "$potrun" import --bundle "$bundles/a" "$work/away/$file"
        pot a 'cat /var/run/x' '"network": {"type": "inherit"}'
        ran a
        same "$out" data "what came by $file"
        works "$potrun" delete --data a
        same "$(zfs list -H -o name -t all -r $pool/pot/jails)" "$pool/pot/jails" "what is left of $file"
    done
}
