# The suite of conformance/, which takes any OCI runtime.

suite=$(dirname "$potrun")/conformance

judge() { # path of a runtime, arguments...
    [ -x "$suite" ] || skip "no conformance suite beside potrun"
    runtime=$1
    shift
    log=$work/conformance
    "$suite" --runtime "$runtime" "$@" >"$log" 2>&1
    result=$?
    grep -v ^passed "$log"
    echo "$(cat "$work/said" 2>/dev/null) ${runtime##*/}: $(tail -n 1 "$log")" >"$work/said"
    return $result
}

case_conformance() { judge "$potrun" || fail "not all passed"; }

# They have their own ways, so what fails is told, and judges nothing but that the suite comes to its end.
case_conformance_of_other_runtimes() {
    found=
    for runtime in ocijail runj crun; do
        command -v $runtime >/dev/null || continue
        found=1
        judge "$(command -v $runtime)"
        tail -n 1 "$work/conformance" | grep -q '[0-9] passed' || fail "the suite did not end"
    done
    [ "$found" ] || skip "no ocijail, runj or crun is installed"
}
