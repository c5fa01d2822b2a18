# Programs confined by a security module. The guest has AppArmor; SELinux in its place where the driver is called with
# --append "security=selinux selinux=1".

# What two files a program could write to, and what it is confined by.
TRY='for file in secret other; do echo x 2>/dev/null >/srv/$file && echo "$file written" || echo "$file denied"; done
cat /proc/self/attr/current; echo'

has_apparmor() {
    [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] || skip "the kernel runs without AppArmor"
}

# A profile that lets a program do anything but one.
profile() { # name, what it denies
    printf 'profile %s flags=(attach_disconnected,mediate_deleted) {\n file,\n capability,\n network,\n mount,\n umount,
 signal,\n ptrace,\n unix,\n deny %s rwklx,\n}\n' "$1" "$2" >"$work/profile"
    works apparmor_parser --replace --skip-cache "$work/profile"
}

case_apparmor_confines_create_and_exec() {
    has_apparmor
    profile potrun-secret /srv/secret
    profile potrun-other /srv/other
    pot a "$TRY; sleep 1000" "" "" '"apparmorProfile": "potrun-secret"'
    create a --pid-file "$work/pid"
    works "$potrun" start a
    until_true grep -q '^potrun-secret (enforce)' "/proc/$(cat "$work/pid")/attr/apparmor/current"
    # The container's own profile, another one, and none.
    same "$("$potrun" exec a sh -c "$TRY" | tr '\n' ' ')" "secret denied other written potrun-secret (enforce)  " exec
    same "$("$potrun" exec --apparmor potrun-other a sh -c "$TRY" | tr '\n' ' ')" \
        "secret written other denied potrun-other (enforce)  " "exec --apparmor"
    same "$("$potrun" exec --apparmor unconfined a sh -c "$TRY" | tr '\n' ' ')" \
        "secret written other written unconfined  " "exec --apparmor unconfined"
    printf '{"args": ["sh", "-c", %s], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 1000, "gid": 1000},
        "noNewPrivileges": true, "apparmorProfile": "potrun-other"}' "$(json 'cat /proc/self/attr/current')" >"$work/process"
    same "$("$potrun" exec --process "$work/process" a)" "potrun-other (enforce)" "exec --process, without privileges"
    works "$potrun" delete --force a
    pot b "$TRY" "" "" '"apparmorProfile": "potrun-secret"'
    ran b
    same "$(echo "$out" | tr '\n' ' ')" "secret denied other written potrun-secret (enforce) " run
}

# By create already, as runc and crun have it: nothing is made, and no hook runs.
case_apparmor_profiles_that_are_not_there_are_named() {
    has_apparmor
    pot a true "" "\"hooks\": {\"createRuntime\": [{\"path\": \"/bin/touch\", \"args\": [\"touch\", \"$work/away/hooked\"]}]}" \
        '"apparmorProfile": "potrun-missing"'
    refused "apparmor potrun-missing" "$potrun" create --bundle "$bundles/a" a
    # The error, as podman reads it.
    has "$(cat "$work/out")" '`/proc/thread-self/attr/apparmor/exec`' "the error of create"
    [ ! -e "$work/away/hooked" ] || fail "a hook has run"
    [ -z "$(status a)" ] || fail "there is a container"
    run a
    [ "$code" = 1 ] || fail "run ended with $code: $out"
    has "$out" "apparmor potrun-missing" "the error of run"
    # What asked whether the profile is there confines nothing: the hooks of a container are its caller's.
    profile potrun-secret /srv/secret
    pot b "$TRY" "" "\"hooks\": {\"createRuntime\": [{\"path\": \"/bin/sh\", \"args\": [\"sh\", \"-c\",
            \"cat /proc/self/attr/current >$work/away/hooked\"]}]}" '"apparmorProfile": "potrun-secret"'
    ran b
    same "$(cat "$work/away/hooked")" unconfined "what a hook is confined by"
    has "$out" "secret denied" "what the program could write"
    # One more process says so, too.
    pot c 'sleep 1000'
    started c
    refused "apparmor potrun-missing" "$potrun" exec --apparmor potrun-missing c true
}

# CVE-2019-16884, CVE-2025-52881: what is mounted over /proc takes no write of ours.
case_apparmor_is_not_fooled_by_a_proc_that_is_covered() {
    has_apparmor
    profile potrun-secret /srv/secret
    pot a "$TRY" "" "" '"apparmorProfile": "potrun-secret", "capabilities": {"bounding": ["CAP_SYS_ADMIN"]}'
    "$potrun" create --bundle "$bundles/a" a >"$work/told" 2>&1 </dev/null || fail "$(cat "$work/told")"
    cover='mount -t tmpfs tmpfs /proc/1/attr && mkdir /proc/1/attr/apparmor &&
        touch /proc/1/attr/apparmor/exec /proc/1/attr/exec /proc/1/attr/current'
    works "$potrun" exec --apparmor unconfined --cap CAP_SYS_ADMIN a sh -c "$cover"
    works "$potrun" start a
    until_true stopped a
    has "$(cat "$work/told")" "secret denied" "what it could write"
    has "$(cat "$work/told")" "other written" "what it could write"
}

# One domain that may create files of one type only, and one that may do anything.
policy() {
    cat <<'X'
class process
class file
class dir
sid kernel
sid security
sid unlabeled
sid fs
sid file
sid file_labels
sid init
sid any_socket
sid port
sid netif
sid netmsg
sid node
sid igmp_packet
sid icmp_socket
sid tcp_socket
sid sysctl_modprobe
sid sysctl
sid sysctl_fs
sid sysctl_kernel
sid sysctl_net
sid sysctl_net_unix
sid sysctl_vm
sid sysctl_dev
sid kmod
sid policy
sid scmp_packet
sid devnull
class process { transition dyntransition setexec }
class file { create entrypoint execute }
class dir { add_name }
type base_t;
type pot_t;
type mine_t;
role r;
role r types { base_t pot_t mine_t };
allow base_t { base_t pot_t }:process { transition dyntransition setexec };
allow base_t { base_t mine_t }:file { create entrypoint execute };
allow pot_t pot_t:process { transition dyntransition setexec };
allow pot_t base_t:file { entrypoint execute };
allow pot_t mine_t:file create;
allow { base_t pot_t } { base_t mine_t }:dir add_name;
user u roles r;
X
    sed -n 's/^sid \(.*\)/sid \1 u:r:base_t/p' "$1"
    echo 'fs_use_xattr ext4 u:r:base_t;'
    echo 'fs_use_xattr overlay u:r:base_t;'
    for one in devpts tmpfs devtmpfs mqueue; do echo "fs_use_trans $one u:r:base_t;"; done
    echo 'genfscon proc / u:r:base_t'
    echo 'genfscon sysfs / u:r:base_t'
    echo 'genfscon cgroup2 / u:r:base_t'
}

case_selinux_confines_create_and_exec() {
    [ -e /sys/fs/selinux/load ] || skip "the kernel runs without SELinux"
    policy /dev/null >"$work/policy"
    policy "$work/policy" >"$work/policy.conf"
    works checkpolicy -U allow -c 33 -o "$work/policy.bin" "$work/policy.conf"
    dd if="$work/policy.bin" of=/sys/fs/selinux/load bs=1M 2>/dev/null || fail "the policy is not loaded: $(dmesg | tail -n 5)"
    echo 1 >/sys/fs/selinux/enforce
    try='for dir in /srv /mnt; do touch $dir/x 2>/dev/null && echo "$dir written" || echo "$dir denied"; done
        cat /proc/self/attr/current; echo'
    bundle a "$try; sleep 1000" '"root": {"path": "rootfs"}, "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
            {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}], "mountLabel": "u:r:mine_t",
            "maskedPaths": ["/sys"]}' \
        '"selinuxLabel": "u:r:pot_t"'
    mkdir "$bundles/a/rootfs" && tar -C "$bundles/a/rootfs" -xzf "$work/base.tgz"
    create a --pid-file "$work/pid"
    works "$potrun" start a
    until_true grep -q '^u:r:pot_t' "/proc/$(cat "$work/pid")/attr/current"
    same "$("$potrun" exec a sh -c "$try" | tr -d '\0' | tr '\n' ' ')" "/srv denied /mnt written u:r:pot_t " exec
    same "$("$potrun" exec --process-label u:r:base_t a sh -c "$try" | tr -d '\0' | tr '\n' ' ')" \
        "/srv written /mnt written u:r:base_t " "exec --process-label"
    same "$(ls -Zd "/proc/$(cat "$work/pid")/root/dev/mqueue" | cut -d ' ' -f 1)" u:r:mine_t "the label of mqueue"
    same "$(ls -Zd "/proc/$(cat "$work/pid")/root/sys" | cut -d ' ' -f 1)" u:r:mine_t "the label of what is masked"
    works "$potrun" delete --force a
    bundle b true '"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}], "mountLabel": "u:r:none_t"}'
    mkdir "$bundles/b/rootfs"
    run b
    [ "$code" = 1 ] || fail "a context that is none: $code $out"
}
