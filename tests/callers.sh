#!/usr/bin/env bash
# Real callers, as Debian packages them, drive potrun: podman, buildah, and containerd through its runc shim. Images are
# made here, of busybox.
#
# usage: tests/callers.sh POTRUN [CASE...]        (default: all cases; --list names them)
#        tests/callers.sh POTRUN --against RUNTIME [ROUNDS]
#
# The second form measures: `podman run --rm IMAGE true` with either runtime in turn (bench/peers.sh fetches some), with
# podman's system call filter and without, and a pot with an exported port beside `podman run -p`; in milliseconds, and what
# potrun takes more or less in the same round.
#
# All of it happens in network, mount, pid and cgroup namespaces of its own: the callers' firewall rules, bridges, stores
# and groups are those of that world, and end with it. Ends with 77, having said why, where it cannot run.
set -uo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "skipped: callers: $*"
    exit 77
}

# --- the world ----------------------------------------------------------------------------------------------------------

if [ "${1:-}" = --list ]; then
    sed -n 's/^case_\([a-z_]*\)() {.*/\1/p' "$0" | tr _ -
    exit 0
fi
[ $# -gt 0 ] || { echo "usage: tests/callers.sh POTRUN [CASE...]" >&2; exit 2; }
if [ -z "${CALLERS_WORLD:-}" ]; then
    [ "$(id -u)" = 0 ] && [ "$(uname -s)" = Linux ] || skip "takes root on Linux"
    tests/install.sh podman buildah ctr conmon iptables busybox ip nft script || skip "the callers cannot be installed here"
    cgroup2=$(findmnt -n -f -t cgroup2 -o TARGET)
    [ -n "$cgroup2" ] || skip "no cgroup2 hierarchy"
    potrun=$(realpath "$1") && shift
    export CALLERS_WORLD=/tmp/potrun-callers-$$ CALLERS_GROUP=$cgroup2/potrun-callers-$$
    mkdir -p "$CALLERS_WORLD" "$CALLERS_GROUP/callers" || exit 1
    # What the callers call / is the group; a group below it is where they are, since one with processes cannot hand
    # controllers down.
    sh -c 'echo 0 >"$CALLERS_GROUP/cgroup.procs" && exec unshare --cgroup "$@"' - \
        sh -c 'echo 0 >"$CALLERS_GROUP/callers/cgroup.procs" && exec "$@"' - \
        unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private "$0" "$potrun" "$@"
    status=$?
    # Whatever is left is gone with the pid namespace; its groups, from the leaves up.
    find "$CALLERS_GROUP" -depth -type d -exec rmdir {} + || status=1
    rmdir "$CALLERS_WORLD" || status=1
    exit $status
fi

world=$CALLERS_WORLD POTRUN=$1
shift
mount -t tmpfs callers "$world" || exit 1
for place in var/lib/containers var/lib/cni var/lib/containerd var/lib/potrun var/tmp etc/cni; do
    mkdir -p "$world/$place" "/$place"
    mount --bind "$world/$place" "/$place" || exit 1
done
# Bound and not mounted anew, which could change the options of the only cgroup2 there is. Hybrid hosts have v1 beside it,
# which podman must not see: it would use it.
mkdir "$world/cgroup" && mount --bind "$CALLERS_GROUP" "$world/cgroup" && umount --recursive --lazy /sys/fs/cgroup &&
    mount --move "$world/cgroup" /sys/fs/cgroup && mount -t tmpfs callers /run || exit 1
ip link set lo up
# The world's way out, as far as anybody asks: it leads nowhere.
ip link add out0 type veth peer name out1 && ip address add 192.0.2.1/24 dev out0 && ip link set out0 up &&
    ip link set out1 up && ip route add default via 192.0.2.254 || exit 1

export TMPDIR=$world/tmp CONTAINERS_CONF=$world/containers.conf STORAGE_DRIVER=overlay
mkdir "$TMPDIR"
# The limits are those that even a root without CAP_SYS_RESOURCE can give.
cat >"$CONTAINERS_CONF" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
[network]
network_backend = "netavark"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "potrun"
runtime_supports_json = ["potrun"]
runtime_supports_nocgroup = ["potrun"]
infra_image = "localhost/busybox"
[engine.runtimes]
potrun = ["$POTRUN"]
CONF

tree=$world/tree
mkdir -p "$tree"/{bin,etc,tmp}
cp "$(command -v busybox)" "$tree/bin/busybox"
"$tree/bin/busybox" --list | while read -r name; do ln -s busybox "$tree/bin/$name" 2>/dev/null; done
printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' >"$tree/etc/passwd"
tar -C "$tree" -cf "$world/busybox.tar" .
podman import --quiet --change 'CMD ["sleep", "100000"]' "$world/busybox.tar" localhost/busybox >/dev/null || exit 1
image=localhost/busybox

# --- what cases say -----------------------------------------------------------------------------------------------------

fail() {
    echo "$*" >&2
    exit 1
}

# is EXPECTED COMMAND...: it succeeds, and prints just that
is() {
    local expected=$1 got
    shift
    got=$("$@") || fail "$*: exit $?: $got"
    [ "$got" = "$expected" ] || fail "$*: printed ${got@Q}, not ${expected@Q}"
}

# has PART COMMAND...: it succeeds, and prints that, too
has() {
    local part=$1 got
    shift
    got=$("$@" 2>&1) || fail "$*: exit $?: $got"
    [[ $got = *"$part"* ]] || fail "$*: no ${part@Q} in: $got"
}

# code N COMMAND...: it ends with that code
code() {
    local expected=$1 got status=0
    shift
    got=$("$@" 2>&1) || status=$?
    [ "$status" = "$expected" ] || fail "$*: exit $status, not $expected: $got"
}

# refused PART COMMAND...: it fails, and says that
refused() {
    local part=$1 got
    shift
    got=$("$@" 2>&1) && fail "$* worked"
    [[ $got = *"$part"* ]] || fail "$*: no ${part@Q} in: $got"
}

# comes COMMAND...: it will succeed soon: a server has to start first
comes() {
    local end=$((SECONDS + 30)) got
    until got=$("$@" 2>&1); do
        [ $SECONDS -lt $end ] || fail "$*: $got"
        sleep 0.05
    done
}

# Away with a container, or with a pod. podman's own clean-up after the end, another process, now and then comes in the
# way of rm, which finds /dev/shm busy (with crun as well): then it is asked again.
away() { comes podman rm --force --ignore --time 0 "$1"; }
pod_away() { comes podman pod rm --force --ignore --time 0 "$1"; }

get() { timeout 10 busybox wget -q -O - "$1"; }

controller() { grep -qw "$1" /sys/fs/cgroup/cgroup.controllers; }

# Everything that a container could leave behind. Compiled filters are kept for the next one.
left() {
    podman ps --all --quiet
    ls -A /run/potrun 2>/dev/null | grep -vx :seccomp
    [ ! -e /run/potrun.leases ] || cat /run/potrun.leases
    find /sys/fs/cgroup -type d \( -name 'libpod-*' -o -path '*/default/*' -o -name 'buildah*' -o -name 'potrun-*' \)
    findmnt -rn -o TARGET | grep -E '/merged$|/run/potrun|/lib/potrun/|io.containerd|buildah'
    ip -brief link | grep -vE '^(lo |out[01]@|podman0 )'
    nft list tables | grep potrun
}

# --- podman ---------------------------------------------------------------------------------------------------------------

case_podman_run() {
    is hello podman run --rm "$image" echo hello
    is hello podman run --rm --network none "$image" echo hello
    is "to stdout" podman run --rm "$image" sh -c 'echo to stdout; echo to stderr >&2' 2>/dev/null
    is "from stdin" podman run --rm -i "$image" cat <<<"from stdin"
    code 3 podman run --rm "$image" sh -c 'exit 3'
    code 143 podman run --rm --init=false "$image" sh -c 'sh -c "kill -TERM \$\$"; exit $?'
    code 127 podman run --rm "$image" nosuchprogram
    code 126 podman run --rm "$image" /etc
    code 126 podman run --rm "$image" /etc/passwd
    is "/tmp value" podman run --rm -w /tmp -e NAME=value "$image" sh -c 'echo $(pwd) $NAME'
    mkdir -p "$world/volume" && echo below >"$world/volume/file"
    is below podman run --rm -v "$world/volume:/v:ro" "$image" cat /v/file
    code 1 podman run --rm -v "$world/volume:/v:ro" "$image" touch /v/other
    is below podman run --rm --mount "type=bind,src=$world/volume,dst=/v,ro,bind-propagation=rslave" "$image" cat /v/file
    is /i/bin podman run --rm --mount "type=image,src=$image,dst=/i" "$image" ls -d /i/bin
    podman volume create named >/dev/null
    podman run --rm -v named:/v "$image" touch /v/file && is file podman run --rm -v named:/v "$image" ls /v
    podman volume rm named >/dev/null
}

case_podman_life() {
    podman create --name life "$image" sh -c 'trap "echo ended; exit 9" TERM; echo begun; while :; do sleep 0.1; done' \
        >/dev/null || fail create
    podman start life >/dev/null || fail start
    comes sh -c 'podman logs life | grep -q begun'
    is running podman inspect life --format '{{.State.Status}}'
    has ' sh -c trap' podman top life pid args
    code 7 podman exec life sh -c 'exit 7'
    code 127 podman exec life nosuchprogram
    code 126 podman exec life /etc
    is "1000 /tmp value" podman exec --user user -w /tmp -e NAME=value life sh -c 'echo $(id -u) $(pwd) $NAME'
    podman exec -d life touch /tmp/made >/dev/null && comes podman exec life test -e /tmp/made
    echo of the host >"$world/file" && podman cp "$world/file" life:/tmp/copied || fail cp
    is "of the host" podman exec life cat /tmp/copied
    podman pause life >/dev/null || fail pause
    is paused podman inspect life --format '{{.State.Status}}'
    code 125 podman pause life
    code 255 podman exec life true
    podman unpause life >/dev/null || fail unpause
    has life podman stats --no-stream --format '{{.Name}} {{.CPU}}' life
    podman stop -t 20 life >/dev/null || fail stop
    is 9 podman inspect life --format '{{.State.ExitCode}}'
    has ended podman logs life
    podman start life >/dev/null && podman restart -t 0 life >/dev/null || fail restart
    podman kill -s KILL life >/dev/null || fail kill
    is 137 podman wait life
    podman rm life >/dev/null || fail rm
}

case_podman_terminal() {
    local text
    text=$(script -qec "podman run --rm -it $image sh -c 'tty; stty size >/dev/null && echo size; exit 4'" /dev/null)
    [ $? = 4 ] || fail "run -it: $text"
    [[ $text = *"/dev/pts/0"* ]] || fail "run -it: $text"
    podman run -d --name terminal -t "$image" >/dev/null || fail run
    text=$(script -qec "podman exec -it terminal sh -c 'tty; exit 5'" /dev/null)
    [ $? = 5 ] || fail "exec -it: $text"
    [[ $text = *"/dev/pts/1"* ]] || fail "exec -it: $text"
    away terminal
}

case_podman_confined() {
    local none=0000000000000000
    is "$none $none $none $none $none" podman run --rm --cap-drop all "$image" sh -c \
        'echo $(grep Cap /proc/self/status | cut -f2)'
    is 00000000a80435fa podman run --rm --cap-drop chown --cap-add net_admin "$image" sh -c \
        'grep CapEff /proc/self/status | cut -f2'
    is "uid=1000(user) gid=1000 groups=7,1000" podman run --rm --user user --group-add 7 "$image" id
    is "root tmp run" podman run --rm --read-only "$image" sh -c \
        'touch /x 2>/dev/null || printf "root "; touch /tmp/x && printf "tmp "; touch /run/x && echo run'
    is "passwd" podman run --rm --tmpfs /etc "$image" sh -c 'cd /etc; ls passwd; touch written'
    is 1024 podman run --rm --tmpfs /t:size=1m "$image" sh -c 'df -P /t | tail -n 1 | { read a b c; echo $b; }'
    is 1 podman run --rm --sysctl net.ipv4.ip_forward=1 "$image" cat /proc/sys/net/ipv4/ip_forward
    is 100 podman run --rm --ulimit nofile=100:100 --ulimit nproc=1024:1024 "$image" sh -c 'ulimit -n'
    is "500 0077 name" podman run --rm --oom-score-adj 500 --umask 0077 --hostname name "$image" sh -c \
        'echo $(cat /proc/self/oom_score_adj) $(umask) $(hostname)'
    is 2 podman run --rm "$image" sh -c 'grep ^Seccomp: /proc/self/status | cut -f2'
    is 0 podman run --rm --security-opt seccomp=unconfined "$image" sh -c 'grep ^Seccomp: /proc/self/status | cut -f2'
    is 1 podman run --rm --security-opt no-new-privileges "$image" sh -c 'grep ^NoNew /proc/self/status | cut -f2'
    is "" podman run --rm --security-opt mask=/proc/cpuinfo "$image" cat /proc/cpuinfo
    is "0 100000 1000" podman run --rm --uidmap 0:100000:1000 --gidmap 0:100000:1000 "$image" sh -c 'echo $(cat /proc/self/uid_map)'
    is i686 podman run --rm --personality=LINUX32 "$image" uname -m
    code 0 podman run --rm --privileged "$image" mount -t tmpfs x /tmp
    code 1 podman run --rm "$image" mount -t tmpfs x /tmp
    is "0::/" podman run --rm --cgroupns private "$image" grep ^0 /proc/self/cgroup
    is "0::/callers" podman run --rm --cgroups disabled --cgroupns host "$image" grep ^0 /proc/self/cgroup
    has "0::/libpod" podman run --rm --cgroupns host "$image" grep ^0 /proc/self/cgroup
    podman run -d --name users --uidmap 0:100000:1000 --gidmap 0:100000:1000 "$image" >/dev/null || fail users
    is "0 100000 1000" podman run --rm --userns container:users "$image" sh -c 'echo $(cat /proc/self/uid_map)'
    away users
}

case_podman_limits() {
    if controller memory; then
        is 16777216 podman run --rm --memory 16m "$image" cat /sys/fs/cgroup/memory.max
    else
        refused "/linux/resources/memory/limit: needs the cgroup v2 controller memory" \
            podman run --rm --memory 16m "$image" true
    fi
    if controller pids; then
        is 20 podman run --rm --pids-limit 20 "$image" cat /sys/fs/cgroup/pids.max
    else
        refused "/linux/resources/pids/limit: needs the cgroup v2 controller pids" \
            podman run --rm --pids-limit 20 "$image" true
    fi
}

case_podman_healthcheck() {
    podman run -d --name health --health-cmd 'test -e /tmp/well' --health-interval disable "$image" >/dev/null || fail run
    code 1 podman healthcheck run health
    podman exec health touch /tmp/well || fail exec
    code 0 podman healthcheck run health
    away health
}

case_podman_ports() {
    [ -x /usr/lib/podman/netavark ] || { echo "no netavark"; exit 77; }
    podman run -d --name web -p 8090:80 "$image" httpd -f -h /etc >/dev/null || fail run
    comes get http://127.0.0.1:8090/passwd
    is "$(cat "$tree/etc/passwd")" get http://127.0.0.1:8090/passwd
    is "$(cat "$tree/etc/passwd")" podman run --rm --network container:web "$image" wget -qO- http://127.0.0.1/passwd
    away web
    refused refused get http://127.0.0.1:8090/passwd
}

# A pod's own group is one that podman 4.3 lets no device through to where there is no systemd: crun and runc fail in it as
# well, so the containers are told to have none.
case_podman_pod() {
    podman pod create --name pod --share-parent=false -p 8088:8080 >/dev/null || fail "pod create"
    podman run -d --pod pod --name one "$image" httpd -f -p 8080 -h /etc >/dev/null || fail run
    comes get http://127.0.0.1:8088/passwd
    is "$(cat "$tree/etc/passwd")" podman run --rm --pod pod "$image" wget -qO- http://127.0.0.1:8080/passwd
    is pod podman run --rm --pod pod "$image" hostname
    podman pod pause pod >/dev/null || fail pause
    is paused podman inspect one --format '{{.State.Status}}'
    podman pod unpause pod >/dev/null && podman pod stop -t 0 pod >/dev/null && podman pod start pod >/dev/null ||
        fail "unpause, stop, start"
    comes get http://127.0.0.1:8088/passwd
    pod_away pod
    podman pod create --name mapped --share-parent=false --uidmap 0:100000:1000 --gidmap 0:100000:1000 >/dev/null ||
        fail "pod create"
    is "0 100000 1000" podman run --rm --pod mapped "$image" sh -c 'echo $(cat /proc/self/uid_map)'
    pod_away mapped
}

# podman reads an annotation as a line of CSV.
annotation() { echo "\"org.bsdpot.pot=${1//\"/\"\"}\""; }

case_podman_pot() {
    local pot='{"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80, "hostPort": 8091}]}' network
    # Without a network of podman's own, or with the host's files of names: both leave the network to the pot.
    for network in none host; do
        podman run -d --name pot --network $network --annotation "$(annotation "$pot")" "$image" httpd -f -h /etc \
            >/dev/null || fail "run --network $network"
        comes get http://127.0.0.1:8091/passwd
        has "inet 10.192.0.3/10" podman exec pot ip address show
        away pot
        refused refused get http://127.0.0.1:8091/passwd
    done
    refused "/annotations/org.bsdpot.pot/network/type" podman run --rm --annotation "$(annotation "$pot")" "$image" true
    podman rm -f -a >/dev/null
}

case_podman_many() {
    local n
    for n in $(seq 50); do
        is "$n" podman run --rm --network none "$image" echo "$n"
    done
    seq 50 | xargs -P 10 -I{} podman run --rm --network none --name many{} "$image" echo {} >"$world/many" || fail "at once"
    is "$(seq 50)" sort -n "$world/many"
}

# --- buildah --------------------------------------------------------------------------------------------------------------

build=(--runtime "$POTRUN" --isolation oci)

case_buildah_run() {
    local name
    name=$(buildah from "$image") || fail from
    is "out 0" buildah run "${build[@]}" "$name" -- sh -c 'echo out $(id -u)'
    code 5 buildah run "${build[@]}" "$name" -- sh -c 'exit 5'
    is 1000 buildah run "${build[@]}" --user user --network none "$name" -- id -u
    code 1 buildah run "${build[@]}" "$name" -- nosuchprogram
    buildah run "${build[@]}" "$name" -- touch /made && is /made buildah run "${build[@]}" "$name" -- ls /made
    buildah rm "$name" >/dev/null || fail rm
}

case_buildah_bud() {
    mkdir -p "$world/context" && echo of the context >"$world/context/file"
    cat >"$world/context/Containerfile" <<FILE
FROM $image AS first
RUN echo made > /made && test \$(id -u) = 0
COPY file /file
USER user
RUN test \$(id -u) = 1000 && cat /file /made
FROM $image
COPY --from=first /made /file /got/
WORKDIR /got
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x && cat made file > both
CMD ["cat", "/got/both"]
FILE
    buildah bud "${build[@]}" --pull-never --layers -t localhost/built "$world/context" >"$world/log" 2>&1 ||
        fail "bud: $(cat "$world/log")"
    is "$(printf 'made\nof the context')" podman run --rm localhost/built
    echo "RUN exit 3" >>"$world/context/Containerfile"
    code 3 buildah bud "${build[@]}" --pull-never "$world/context"
    buildah rm --all >/dev/null
    podman rmi -f localhost/built >/dev/null
}

# --- containerd -------------------------------------------------------------------------------------------------------------

# The shim runs the binary that it is told; everything else is containerd's default.
ctr_run() { ctr run --runtime io.containerd.runc.v2 --runc-binary "$POTRUN" "$@"; }

case_containerd() {
    cat >"$world/containerd.toml" <<CONF
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
CONF
    containerd --config "$world/containerd.toml" --log-level error >"$world/daemon.log" 2>&1 &
    local daemon=$! ref=localhost/busybox:latest text
    comes ctr version
    podman save --quiet --format oci-archive -o "$world/oci.tar" "$image" || fail save
    ctr images import --base-name localhost/busybox "$world/oci.tar" >/dev/null || fail import
    ref=$(ctr images ls -q | head -n 1)
    is hello ctr_run --rm "$ref" one echo hello
    code 3 ctr_run --rm "$ref" two sh -c 'exit 3'
    refused "executable file not found" ctr_run --rm "$ref" three nosuchprogram
    is 2 ctr_run --rm --seccomp "$ref" four sh -c 'grep ^Seccomp: /proc/self/status | cut -f2'
    code 1 ctr_run --rm --read-only "$ref" five touch /made
    text=$(script -qec "ctr run --rm -t --runtime io.containerd.runc.v2 --runc-binary $POTRUN $ref six tty" /dev/null)
    [[ $text = *"/dev/pts/0"* ]] || fail "run -t: $text"
    ctr_run -d "$ref" task sh -c 'trap "exit 9" TERM; while :; do sleep 0.1; done' || fail "run -d"
    has RUNNING ctr task ls
    is out ctr task exec --exec-id x1 task echo out
    code 7 ctr task exec --exec-id x2 task sh -c 'exit 7'
    refused "executable file not found" ctr task exec --exec-id x3 task nosuchprogram
    has PID ctr task ps task
    ctr task pause task || fail pause
    has PAUSED ctr task ls
    ctr task resume task || fail resume
    has RUNNING ctr task ls
    ctr task kill -s TERM task || fail kill
    comes sh -c 'ctr task ls | grep -q STOPPED'
    has "exit code 9" ctr task delete task
    ctr container delete task || fail "container delete"
    ctr_run -d "$ref" killed sleep 100000 && ctr task kill -s KILL --all killed || fail "kill --all"
    comes sh -c 'ctr task ls | grep -q STOPPED'
    has "exit code 137" ctr task delete killed
    ctr container delete killed || fail "container delete"
    is "" ctr container ls -q
    kill $daemon && wait $daemon
}

# --- or how long one takes ----------------------------------------------------------------------------------------------

# The lowest and the median of numbers, in ms.
figures() {
    sort -n | awk '{ all[NR] = $1 } END { printf "%.1f/%.1f", all[int((NR + 1) / 2)] / 1000, all[1] / 1000 }'
}

# What a command takes, in microseconds.
timed() {
    local begin=${EPOCHREALTIME/./}
    "$@" </dev/null || fail "$* failed"
    echo $((${EPOCHREALTIME/./} - begin))
}

podman_with() { podman --runtime "$1" run --rm "${@:2}" $image true; }

# Two commands in turn.
compare() { # what, ours, theirs
    for file in ours theirs more; do : >"$world/$file"; done
    for ((n = 0; n < rounds; n++)); do
        # Who begins changes.
        if ((n % 2)); then
            ours=$(timed $2) theirs=$(timed $3)
        else
            theirs=$(timed $3) ours=$(timed $2)
        fi
        echo "$ours" >>"$world/ours" && echo "$theirs" >>"$world/theirs" && echo $((ours - theirs)) >>"$world/more"
    done
    echo "$1, median/lowest of $rounds: $(figures <"$world/ours") and $(figures <"$world/theirs")," \
        "in the same round $(figures <"$world/more" | cut -d / -f 1)"
}

if [ "${1:-}" = --against ]; then
    other=$(realpath "$2") rounds=${3:-40}
    podman_with "$other" --network none || fail "$other does not run here"
    profile=$(podman info --format '{{.Host.Security.SECCOMPProfilePath}}')
    echo "true in a new container, in ms: potrun and $(basename "$other")"
    for option in "seccomp=$profile" seccomp=unconfined; do
        of_podman="--network none --security-opt $option"
        compare "podman run --network none, ${option##*/}" "podman_with $POTRUN $of_podman" "podman_with $other $of_podman"
    done
    # A network of its own with one exported port: potrun's, and podman's by netavark.
    mkdir "$world/pot"
    cat >"$world/pot/config.json" <<POT
{"ociVersion": "1.3.0", "root": {"path": "$tree"}, "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 0, "gid": 0}},
 "pot": {"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80, "hostPort": 8081}]}}
POT
    compare "a pot with an exported port, podman run -p" "$POTRUN run --bundle $world/pot pot" "podman_with $other -p 8080:80"
    exit 0
fi

# --- all of them ------------------------------------------------------------------------------------------------------------

[ $# -gt 0 ] || mapfile -t cases < <("$0" --list)
[ $# = 0 ] || cases=("$@")
failed=0
for name in "${cases[@]}"; do
    log=$world/$name.log begin=$SECONDS status=0
    ("case_${name//-/_}") >"$log" 2>&1 || status=$?
    # What engines clean up after their command has returned.
    for _ in $(seq 100); do
        [ -n "$(left 2>&1)" ] || break
        sleep 0.05
    done
    rest=$(left 2>&1)
    if [ $status = 77 ]; then
        echo "skipped: $name: $(tail -n 1 "$log")"
    elif [ $status = 0 ] && [ -z "$rest" ]; then
        echo "passed: $name ($((SECONDS - begin)) s)"
    else
        failed=1
        echo "FAILED: $name"
        sed 's/^/    /' "$log"
        [ -z "$rest" ] || sed 's/^/    left: /' <<<"$rest"
        podman rm -f -t 0 -a >/dev/null 2>&1
    fi
done
exit $failed
