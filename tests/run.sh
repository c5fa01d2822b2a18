#!/usr/bin/env bash
# All tests. What cannot run here says "skipped" and why; anything that fails ends the script with 1 after the rest has run.
#
# usage: tests/run.sh [STEP...]
#
# steps: format lint test conformance callers demo freebsd guest debian, which are the default, and vm, which runs all cases of
# the guest of Debian: that takes half an hour where the processor is emulated. Both make the guest if need be, once.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0 skipped=0
step() { # name, command...: 0 passed, 77 skipped, else failed
    local name=$1 status
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    "$@"
    status=$?
    case $status in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)) && echo "skipped: $name" ;;
    *) failed=$((failed + 1)) && echo "FAILED: $name (exit $status)" ;;
    esac
}

format() { cargo fmt --all --check; }
lint() { cargo clippy --workspace --all-targets --quiet -- -D warnings; }
unit() { cargo test --workspace --quiet; }

conformance() {
    if [ "$(id -u)" != 0 ] || [ "$(uname -s)" != Linux ]; then
        echo "skipped: conformance: takes root on Linux"
        return 77
    fi
    cargo build --workspace --quiet || return 1
    local bin
    bin=target/$(rustc -vV | sed -n 's/^host: //p')/debug
    local status=0
    # Proven on runc first: a suite that runc fails says nothing about potrun.
    if tests/install.sh runc; then
        "$bin/conformance" --runtime "$(PATH=$PATH:/usr/sbin command -v runc)" --cgroups v1 | tail -n 1 || status=1
    else
        echo "skipped: conformance of runc: it cannot be installed here"
    fi
    "$bin/conformance" --runtime "$PWD/$bin/potrun" --cgroups v2 | grep -v ^passed || true
    [ "${PIPESTATUS[0]}" = 0 ] || status=1
    return $status
}

callers() {
    cargo build --quiet || return 1
    tests/callers.sh "target/$(rustc -vV | sed -n 's/^host: //p')/debug/potrun"
}

vm() { # case...: all, if none is named
    tests/install.sh qemu-system-x86_64 debootstrap cpio mkfs.ext4 || true # what is missing is named there
    cargo build --workspace --release --quiet || return 1
    conformance/vm/debian -- "$@"
}

# One or two cases of each kind.
debian() {
    vm limits_are_written more_memory_than_the_limit_kills apparmor_confines_create_and_exec \
        a_pot_is_a_clone_of_its_base a_quota_is_kept snapshots_of_pots clone_of_a_pot_shares_its_data a_project_quota_is_kept \
        a_card_is_lent_and_comes_back
}

export CARGO_TERM_COLOR=never
tests/install.sh cc busybox conntrack ip nft ps tar xz strace file readelf python3 pip3 || true # what is missing is skipped, by name, where it is needed
wanted=("$@")
[ $# -gt 0 ] || wanted=(format lint test conformance callers demo freebsd guest debian)
for name in "${wanted[@]}"; do
    case $name in
    format) step format format ;;
    lint) step lint lint ;;
    test) step test unit ;;
    conformance) step conformance conformance ;;
    callers) step callers callers ;;
    demo) step demo tests/demo.sh "${DEMO:-debian}" ;;
    freebsd) step freebsd tests/freebsd.sh ;;
    guest) step guest conformance/vm/freebsd ;;
    debian) step debian debian ;;
    vm) step vm vm ;;
    *) echo "no step $name" >&2 && exit 2 ;;
    esac
done
printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
