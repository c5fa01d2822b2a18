# Files: images as bases, copies in and out, what has changed.

# A blob of the layout $work/away/oci, from stdin; its descriptor.
blob() { # media type
    cat >"$work/blob"
    digest=$(sha256 -q "$work/blob")
    mkdir -p "$work/away/oci/blobs/sha256"
    cp "$work/blob" "$work/away/oci/blobs/sha256/$digest"
    printf '{"mediaType": "%s", "digest": "sha256:%s", "size": %s}' "$1" "$digest" "$(stat -f %z "$work/blob")"
}

case_an_image_is_a_base() {
    mkdir -p "$work/away/1/etc" "$work/away/1/gone" "$work/away/2/etc"
    echo one >"$work/away/1/etc/a" && echo x >"$work/away/1/gone/x" && ln -s /etc "$work/away/1/link"
    echo two >"$work/away/2/etc/b" && : >"$work/away/2/.wh.gone"
    layers= diffs=
    for n in 1 2; do
        tar -C "$work/away/$n" -cf "$work/away/$n.tar" .
        one=$(gzip -c "$work/away/$n.tar" | blob application/vnd.oci.image.layer.v1.tar+gzip)
        layers="$layers${layers:+, }$one" diffs="$diffs${diffs:+, }\"sha256:$(sha256 -q "$work/away/$n.tar")\""
    done
    config=$(printf '{"architecture": "amd64", "os": "freebsd", "config": {"Cmd": ["/bin/x"], "WorkingDir": "/etc"},
        "rootfs": {"type": "layers", "diff_ids": [%s]}}' "$diffs" | blob application/vnd.oci.image.config.v1+json)
    manifest=$(printf '{"schemaVersion": 2, "config": %s, "layers": [%s]}' "$config" "$layers" |
        blob application/vnd.oci.image.manifest.v1+json)
    printf '{"imageLayoutVersion": "1.0.0"}' >"$work/away/oci/oci-layout"
    printf '{"schemaVersion": 2, "manifests": [%s]}' "$manifest" >"$work/away/oci/index.json"
    works "$potrun" base import image --oci "$work/away/oci"
    tree=/opt/pot/bases/image
    same "$(cat $tree/etc/a $tree/etc/b | tr '\n' ' ')" "one two " "the layers"
    [ ! -e $tree/gone ] || fail "a whiteout hides nothing"
    same "$(readlink $tree/link)" /etc "a link"
    mkdir -p "$bundles/image"
    works "$potrun" spec --base image --bundle "$bundles/image"
    has "$(tr -d ' \n' <"$bundles/image/config.json")" '"cwd":"/etc"' "spec"
    has "$(tr -d ' \n' <"$bundles/image/config.json")" '"args":["/bin/x"]' "spec"
    works "$potrun" base rm image
    # One byte of a layer.
    layer=$(printf %s "$one" | sed 's/.*sha256:\([0-9a-f]*\).*/\1/')
    printf x | dd of="$work/away/oci/blobs/sha256/$layer" bs=1 seek=3 conv=notrunc 2>/dev/null
    refused "has sha256" "$potrun" base import image --oci "$work/away/oci"
}

case_copies_keep_all_in_every_state() {
    top=$work/away/source
    mkdir -p "$top/sub/deep"
    echo text >"$top/sub/file" && chown 12:34 "$top/sub/file" && chmod 640 "$top/sub/file"
    ln "$top/sub/file" "$top/again" && ln -s /nowhere "$top/link" && mkfifo "$top/fifo" && chmod 1770 "$top/sub/deep"
    touch -t 200102030405.06 "$top/sub/file" "$top/sub/deep" "$top/sub"
    look() {
        (cd "$1" && find . -exec stat -f '%N %HT %p %u %g %m %l %Y' {} + | sed '/ Directory /s/ [0-9]* *$//' | sort)
    }
    pot a 'sleep 1000'
    create a
    for state in created running stopped; do
        case $state in
        running) works "$potrun" start a ;;
        stopped) works "$potrun" kill a KILL && until_true stopped a ;;
        esac
        works "$potrun" copy-in a "$top" "/tmp/$state"
        works "$potrun" copy-out a "/tmp/$state" "$work/away/$state"
        same "$(look "$work/away/$state")" "$(look "$top")" "$state"
    done
    "$potrun" copy-out a /tmp/running - >"$work/away/stream" || fail "no stream"
    has "$(tar tf "$work/away/stream")" "running/sub/file" "a stream"
    "$potrun" copy-in a - /var/tmp <"$work/away/stream" || fail "no stream in"
    works "$potrun" copy-out a /var/tmp/running "$work/away/back"
    same "$(look "$work/away/back")" "$(look "$top")" "a stream"
}

case_no_link_leads_a_copy_out() {
    mkdir -p "$work/away/outside" "$work/away/source/x" && echo secret >"$work/away/outside/secret"
    pot a "ln -s $work/away/outside /tmp/abs; ln -s ../../../../../..$work/away/outside /tmp/rel; mkfifo /tmp/fifo
        mkdir /tmp/d; ln -s $work/away/outside /tmp/d/source; cp /bin/sh /tmp/su; chmod 6755 /tmp/su
        echo done >/tmp/done; sleep 1000"
    started a
    until_true test -e /opt/pot/jails/a/m/tmp/done
    for target in /tmp/abs /tmp/rel /tmp/abs/secret /tmp/rel/new /tmp/d; do
        "$potrun" copy-in a "$work/away/source" "$target" >"$work/out" 2>&1 && fail "copied to $target"
        "$potrun" copy-out a "$target/secret" "$work/away/got" >"$work/out" 2>&1 && fail "copied $target/secret"
    done
    same "$(ls "$work/away/outside")" secret "what is outside"
    refused "words" "$potrun" copy-out a /dev/null "$work/away/got"
    works "$potrun" copy-out a /tmp "$work/away/tmp"
    has "$(cat "$work/out")" "lost setuid" "notices"
    same "$(stat -f %Mp%Lp "$work/away/tmp/su")" 0755 "mode of a setuid file"
    [ -p "$work/away/tmp/fifo" ] || fail "a fifo"
}

case_changes_are_told() {
    pot a 'echo x >/etc/new; echo x >>/etc/group; rm /bin/ls; mkdir "/a b"; mv /home /moved' \
        '"hosts": [{"name": "x", "address": "192.0.2.1"}]'
    create a
    same "$("$potrun" diff a)" "" "changes by create alone"
    works "$potrun" start a
    until_true stopped a
    told=$("$potrun" diff a)
    for line in "A /etc/new" "C /etc/group" "D /bin/ls" "A /a b" "D /home" "A /moved"; do
        printf '%s\n' "$told" | grep -qx "$line" || fail "$line is not in: $told"
    done
}

case_directories_come_and_go_while_it_runs() {
    mkdir -p "$work/away/data" && echo text >"$work/away/data/file"
    pot a 'until [ -e /mnt/new/file ]; do sleep 0.1; done; echo seen >/mnt/new/seen; sleep 1000'
    started a
    before=$(mount)
    works "$potrun" mount-in --save a "$work/away/data" /mnt/new
    until_true test -e "$work/away/data/seen"
    has "$(cat "$bundles/a/config.json")" "$work/away/data" "config.json"
    refused "already" "$potrun" mount-in a "$work/away/data" /mnt/new
    works "$potrun" mount-in --ro a "$work/away/data" /media
    works "$potrun" exec a sh -c 'touch /media/x || touch /tmp/readonly; test -e /tmp/readonly'
    works "$potrun" mount-out a /media
    works "$potrun" mount-out --save a /mnt/new
    same "$(mount)" "$before" "mounts"
    lacks "$(cat "$bundles/a/config.json")" "$work/away/data" "config.json"
    works "$potrun" mount-in a "$work/away/data" /mnt/new
    works "$potrun" delete --force a
    same "$(cat "$work/away/data/file")" text "what was mounted"
}

case_a_bundle_goes_through_a_file() {
    mkdir -p "$bundles/a/rootfs/etc" "$work/away/back"
    bundle a true '"root": {"path": "rootfs"}'
    echo text >"$bundles/a/rootfs/etc/file" && chmod 4755 "$bundles/a/rootfs/etc/file" && ln -s / "$bundles/a/rootfs/up"
    works "$potrun" export "$bundles/a/" "$work/away/a.tar"
    has "$(tar tf "$work/away/a.tar")" rootfs.tar "the file"
    works "$potrun" import --bundle "$work/away/back" "$work/away/a.tar"
    same "$(stat -f %Mp%Lp "$work/away/back/rootfs/etc/file")" 4755 "a mode"
    same "$(readlink "$work/away/back/rootfs/up")" / "a link"
    same "$(cat "$work/away/back/config.json")" "$(cat "$bundles/a/config.json")" "config.json"
    rm -rf "$work/away/back" && mkdir "$work/away/back"
    printf x | dd of="$work/away/a.tar" bs=1 seek=3000 conv=notrunc 2>/dev/null
    refused "no exported pot" "$potrun" import --bundle "$work/away/back" "$work/away/a.tar"
    same "$(ls -A "$work/away/back")" "" "what is left"
    pot b 'sleep 1000'
    started b
    refused "it runs" "$potrun" clone --bundle "$work/away/c" b c
}
