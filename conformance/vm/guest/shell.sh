# What the cases of the guests share. Who reads this has set $potrun, $work, $bundles, $state and $release, and has the
# functions `machine`, which prints everything of the machine that a pot may change, `tidy`, which takes away what a
# case has left that is its own, and `wipe`, which takes away what a failed case has left besides.

fail() { echo "    $*" && exit 1; }
skip() { echo "$*" >"$work/skipped" && exit 77; }
same() { [ "$1" = "$2" ] || fail "$3: got \"$1\", not \"$2\""; }
has() { case $1 in *"$2"*) ;; *) fail "$3: \"$2\" is not in \"$1\"" ;; esac; }
lacks() { case $1 in *"$2"*) fail "$3: \"$2\" is in \"$1\"" ;; *) ;; esac; }
works() { "$@" >"$work/out" 2>&1 || fail "$* failed: $(cat "$work/out")"; }

# Fails unless the command is an error that says this.
refused() { # words, command...
    words=$1
    shift
    if "$@" >"$work/out" 2>&1; then fail "$* was not refused"; fi
    has "$(cat "$work/out")" "$words" "the error of $*"
}

# Waits until a command succeeds: for what is an event to nobody. 60 s, then it is a failure.
until_true() {
    end=$(($(date +%s) + 60))
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt $end ] || fail "never: $*"
        sleep 0.1
    done
}

json() { # text: a JSON string
    printf '%s\n' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/	/\\t/g' |
        awk 'BEGIN { printf "\"" } { printf "%s%s", (NR > 1 ? "\\n" : ""), $0 } END { printf "\"" }'
}

# Makes the bundle $bundles/ID that runs a script. MORE are members of config.json, USER ones of its process.
bundle() { # id, script, [more], [process]
    mkdir -p "$bundles/$1"
    cat >"$bundles/$1/config.json" <<X
{"ociVersion": "1.3.0",
 "process": {"args": ["/bin/sh", "-c", $(json "$2")], "cwd": "/", "env": ["PATH=/sbin:/bin:/usr/sbin:/usr/bin"],
             "user": {"uid": 0, "gid": 0}${4:+, $4}}${3:+, $3}}
X
}

# The same on the base, with members of the pot section.
pot() { # id, script, [pot], [more], [process]
    bundle "$1" "$2" "\"pot\": {\"base\": {\"release\": \"$release\"}${3:+, $3}}${4:+, $4}" "${5-}"
}

# Runs the bundle; its output is in $out, its exit code in $code.
run() { # id, [arguments]
    id=$1
    shift
    code=0
    out=$("$potrun" run --bundle "$bundles/$id" "$@" "$id" 2>&1 </dev/null) || code=$?
}

# The same, and it must end with 0.
ran() {
    run "$@"
    [ "$code" = 0 ] || fail "run of $1 ended with $code: $out"
}

create() { # id, [arguments]
    id=$1
    shift
    works "$potrun" create --bundle "$bundles/$id" "$@" "$id"
}
started() { create "$@" && works "$potrun" start "$1"; }
status() { "$potrun" state "$1" 2>/dev/null | sed -n 's/.*"status": *"\([a-z]*\)".*/\1/p'; }
pid() { "$potrun" state "$1" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }
stopped() { [ "$(status "$1")" = stopped ]; }

# One case, in a shell of its own, and the machine after it.
one() {
    name=$1
    rm -f "$work/skipped" "$work/said"
    machine >"$work/before"
    ("case_$name") >"$work/log" 2>&1
    result=$?
    for id in $(ls -A $state 2>/dev/null); do
        "$potrun" delete --force "$id" >>"$work/log" 2>&1
    done
    tidy
    machine >"$work/after"
    if ! diff -U0 "$work/before" "$work/after" >"$work/diff"; then
        echo "    the machine is not as it was:" >>"$work/log"
        sed 1,3d "$work/diff" >>"$work/log"
        [ $result = 0 ] && result=1
    fi
    case $result in
    0) echo "passed  $name$(cat "$work/said" 2>/dev/null)" ;;
    77) echo "skipped $name: $(cat "$work/skipped")" ;;
    *) echo "FAILED  $name" && cat "$work/log" && wipe >/dev/null 2>&1 ;;
    esac
    return $result
}

# The cases that are named, or all of $here/cases; the last line says how many passed.
cases() { # [CASE...]
    [ $# -gt 0 ] || set -- $(cat "$here"/cases/*.sh | sed -n 's/^case_\([a-z0-9_]*\)().*/\1/p')
    passed=0 failed=0 skipped=0
    for name; do
        one "$name"
        case $? in 0) passed=$((passed + 1)) ;; 77) skipped=$((skipped + 1)) ;; *) failed=$((failed + 1)) ;; esac
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}
