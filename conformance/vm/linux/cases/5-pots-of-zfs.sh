# Pots on datasets that are cloned, and go through a file.

changes='echo made >/var/tmp/made; chmod 640 /var/tmp/made; chown 12:34 /var/tmp/made; ln /var/tmp/made /srv/again
    rm /etc/passwd; mkdir /etc/new; echo new >/etc/new/f; rm -r /mnt; ln -s away /mnt; mkfifo /srv/fifo'
shown='cat /var/tmp/made /etc/new/f; ls -l /var/tmp/made /mnt | tr -s " " | cut -d" " -f 1-4,9-; ls /srv; ls /etc/passwd; true'
is_shown="made
new
lrwxrwxrwx 1 0 0 /mnt -> away
-rw-r----- 2 12 34 /var/tmp/made
again
fifo
ls: /etc/passwd: No such file or directory"

# A pot that has ended, with changes; in $bundles/ID it then shows them.
changed() { # id, [pot]
    pot "$1" "$changes" "${2-}"
    started "$1"
    until_true stopped "$1"
    pot "$1" "$shown" "${2-}"
    same "$(zfs list -H -o name -r -t snapshot $pool/pot/jails)" "" "snapshots"
}

names() { zfs list -H -o name -r -t all "$@" | sed "s|^$pool/pot/||" | tr '\n' ' '; }

case_clone_of_a_pot_shares_its_data() {
    on_zfs
    changed a
    works "$potrun" clone --bundle "$bundles/b" a b
    refused "data of b" "$potrun" clone --bundle "$bundles/x" a b
    [ ! -e "$bundles/x" ] || fail "a bundle that was refused is there"
    [ "$(zfs get -Hp -o value used $pool/pot/jails/b/m)" -lt 100000 ] || fail "the clone takes room"
    same "$("$potrun" snapshots ls a | tail -n +2)" "" "snapshots that the user sees"
    pot b "$shown; echo of b >>/var/tmp/made"
    ran b
    same "$out" "$is_shown" "what the clone has"
    # The first one has not changed, and goes, and its clone stays; so with the clone of the clone.
    same "$(cat /opt/pot/jails/a/m/var/tmp/made)" made "of the first"
    create b
    works "$potrun" clone --bundle "$bundles/c" b c
    has "$("$potrun" diff b)" "A /etc/new/f" "what changed since the base"
    works "$potrun" delete --force b
    has "$("$potrun" base ls --json)" '"b"' "the users of the base"
    works "$potrun" delete a
    works "$potrun" delete --data b
    same "$(names $pool/pot/jails | sed 's/@[^ ]*/@/')" "jails jails/c jails/c/m " "what is left"
    ran c
    works "$potrun" gc
    works "$potrun" delete --data c
    same "$(names $pool/pot/jails)" "jails " "what is left at last"
    # Without a base it is a copy.
    refused "" "$potrun" clone none d
}

case_pots_of_zfs_go_through_a_file() {
    on_zfs
    changed a
    works "$potrun" export a "$work/a.tar"
    works "$potrun" export --zfs a "$work/a.zfs"
    same "$(tar -tf "$work/a.tar" | tr '\n' ' ')$(tar -tf "$work/a.zfs" | tr '\n' ' ')" \
        "manifest.json config.json layer.tar manifest.json config.json root.zfs " "their parts"
    works "$potrun" delete a
    same "$(names $pool/pot/jails)" "jails " "what export left"
    for file in a.tar a.zfs; do
        rm -r "$bundles" && mkdir -p "$bundles/a"
        works "$potrun" import --bundle "$bundles/a" "$work/$file"
        pot a "$shown"
        ran a
        same "$out" "$is_shown" "what came by $file"
        works "$potrun" gc
        mkdir "$bundles/x"
        refused "data of a" "$potrun" import --bundle "$bundles/x" "$work/$file"
        works "$potrun" delete --data a
        same "$(names $pool/pot/jails)" "jails " "what is left of $file"
        # Cut off: nothing.
        head -c 20000 "$work/$file" >"$work/cut"
        refused "" "$potrun" import --bundle "$bundles/x" "$work/cut"
        same "$(ls "$bundles/x")$(names $pool/pot/jails)" "jails " "what a file that is cut off has left"
    done
    # Into directories goes what came from datasets, and the other way round; a stream does not.
    on_overlay
    refused "needs a ZFS store" "$potrun" import --bundle "$bundles/x" "$work/a.zfs"
    works "$potrun" import --bundle "$bundles/x" "$work/a.tar"
    pot x "$shown"
    code=0 out=$("$potrun" run --bundle "$bundles/x" a 2>&1) || code=$?
    same "$code $out" "0 $is_shown" "on overlayfs"
    pot x "$shown"
    works "$potrun" create --bundle "$bundles/x" a
    works "$potrun" export a "$work/back.tar"
    works "$potrun" delete --force --data a
    on_zfs
    mkdir "$bundles/y"
    works "$potrun" import --bundle "$bundles/y" "$work/back.tar"
    code=0 out=$("$potrun" run --bundle "$bundles/y" a 2>&1) || code=$?
    same "$code $out" "0 $is_shown" "on datasets again"
    works "$potrun" delete --data a
    rm "$work"/*.tar "$work/a.zfs" "$work/cut"
}

case_diff_of_a_pot_of_zfs() {
    on_zfs
    # Of two names of one file zfs-diff(8) tells one.
    pot a "${changes%%; ln*}; ${changes#*/srv/again
    }"
    started a
    until_true stopped a
    same "$("$potrun" diff a)" "C /etc
A /etc/new
A /etc/new/f
D /etc/passwd
C /mnt
C /srv
A /srv/fifo
C /var/tmp
A /var/tmp/made" "what changed"
}
