# How long a life takes: true in a pot on the public bridge with one exported port, and the same by the tools of the
# system, one command after another.

# Seconds of one call of a command.
timed() {
    /usr/bin/time -p -o "$work/time" "$@" >"$work/out" 2>&1 </dev/null || fail "$* failed: $(cat "$work/out")"
    sed -n 's/^real *//p' "$work/time"
}
median() { sort -n | sed -n "$((($1 + 1) / 2))p"; }

case_a_life_is_shorter_than_by_hand() {
    pot s true '"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]'
    : >"$work/hand" && : >"$work/ours"
    for n in 1 2 3 4 5 6 7; do
        timed sh "$here/by-hand.sh" $pool "$release" >>"$work/hand"
        timed "$potrun" run --bundle "$bundles/s" s >>"$work/ours"
    done
    hand=$(median 7 <"$work/hand") ours=$(median 7 <"$work/ours")
    echo ": potrun $ours s, by hand $hand s, medians of 7" >"$work/said"
    [ "$(echo "$ours $hand" | awk '{ print ($1 < $2) }')" = 1 ] || fail "potrun takes longer"
}
