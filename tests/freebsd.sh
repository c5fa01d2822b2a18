#!/bin/sh
# Lints the workspace for FreeBSD and links a real FreeBSD 14 binary, on Linux, in nothing but target/.
#
# usage: tests/freebsd.sh [CLIPPY ARGUMENT...]        (default: --package potrun --package conformance --all-targets)
#
# Leaves target/x86_64-unknown-freebsd/release/potrun, and the conformance suite beside it. Exit: 0 all is well, 77 it could
# not be tried here (the reason is printed as "skipped: ..."), anything else: it does not lint, compile or link.
#
# The target's standard library is the toolchain's where rustup has it. Where rustup cannot be reached, it is built from
# the source of the very version of rustc: the rust-src component, or Debian's package of that name. The linker and the
# C library are Zig's (PyPI: ziglang). All is fetched once, and but for rustup's target it lies below target/freebsd.
set -eu
cd "$(dirname "$0")/.."

triple=x86_64-unknown-freebsd
zig_target=x86_64-freebsd.14.0
zig_version=0.15
here=$PWD/target/freebsd
bin=target/$triple/release/potrun
mkdir -p "$here"

skip() {
    echo "skipped: FreeBSD cross-check: $*" >&2
    exit 77
}

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || skip "made for Linux on x86_64"
for tool in file readelf python3; do
    command -v $tool >/dev/null || skip "no $tool"
done
rustc=$(rustc --version | cut -d' ' -f2)
rustlib=$(rustc --print sysroot)/lib/rustlib

# Fetches Debian's rust-src of version $rustc with a package list and a state of its own; the machine's stay as they
# are. Only library/ is unpacked.
fetch_library() {
    command -v apt-get >/dev/null || return 1
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/*$') || return 1
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    apt=$here/apt
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    for suite in trixie-backports sid; do
        echo "deb [signed-by=$keyring] $mirror $suite main"
    done >"$apt/sources.list"
    set -- -q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::PreferencesParts=/dev/null -o "Dir::State=$apt" -o "Dir::State::Lists=$apt/lists" \
        -o "Dir::State::Status=$apt/status" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root
    apt-get "$@" update >&2 || return 1
    version=$(apt-cache "$@" madison rust-src |
        awk -v v="$rustc" '{ split($3, a, /[+-]/) } a[1] == v { print $3; exit }')
    [ "$version" ] || return 1
    (cd "$apt" && apt-get "$@" download "rust-src=$version" >&2) || return 1
    rm -rf "$here/rust-src"
    mkdir -p "$apt/tree"
    from=./usr/src/rustc-$rustc
    dpkg-deb --fsys-tarfile "$apt"/rust-src_*.deb |
        tar -x -C "$apt/tree" --strip-components=4 "$from/library" "$from/src/version" || return 1
    [ "$(cat "$apt/tree/src/version")" = "$rustc" ] || return 1
    mv "$apt/tree" "$here/rust-src"
    rm -rf "$apt"
}

if [ -d "$rustlib/$triple" ] || timeout 60 rustup target add $triple 2>/dev/null; then
    std=
else
    std="-Zbuild-std=std,panic_abort"
    export RUSTC_BOOTSTRAP=1
    if [ ! -e "$rustlib/src/rust/library/Cargo.lock" ]; then
        [ "$(cat "$here/rust-src/src/version" 2>/dev/null)" = "$rustc" ] || fetch_library ||
            skip "no standard library for $triple of rustc $rustc, nor its source (rustup target add $triple)"
        # cargo's own tests say so where the library is; thus the toolchain is left as it is.
        export __CARGO_TESTS_ONLY_SRC_ROOT="$here/rust-src/library"
    fi
fi

zig=$here/zig/ziglang/zig
case $("$zig" version 2>/dev/null) in
"$zig_version".*) ;;
*)
    rm -rf "$here/zig"
    python3 -m pip install --quiet --no-deps --root-user-action ignore --target "$here/zig" "ziglang==$zig_version.*" ||
        skip "no ziglang $zig_version from PyPI"
    ;;
esac
export ZIG_GLOBAL_CACHE_DIR="$here/zig-cache" ZIG_LOCAL_CACHE_DIR="$here/zig-cache"

# cc-rs names the target in Rust's words, which Zig does not know.
cat >"$here/cc" <<END
#!/bin/sh
for arg; do
    shift
    case \$arg in --target=*) ;; *) set -- "\$@" "\$arg" ;; esac
done
exec "$zig" cc -target $zig_target -fno-sanitize=undefined "\$@"
END
printf '#!/bin/sh\nexec "%s" ar "$@"\n' "$zig" >"$here/ar"
chmod +x "$here/cc" "$here/ar"

# std and libc ask for libraries of FreeBSD's base system that Zig does not have. Nothing of them is used: under
# --as-needed an empty stand-in satisfies the linker and leaves no trace, which is checked below.
mkdir -p "$here/lib"
for lib in kvm memstat procstat devstat; do
    [ -e "$here/lib/lib$lib.so" ] ||
        "$here/cc" -shared -nostdlib -Wl,-soname,stand-in -o "$here/lib/lib$lib.so" -x c /dev/null
done

# The note that brands a binary as FreeBSD's and tells the kernel its version (14.0-RELEASE). The one in Zig's start
# files is in a section group, which --gc-sections drops.
"$here/cc" -c -o "$here/brand.o" -x assembler - <<'END'
.section .note.tag,"a",%note
.p2align 2
.4byte 8, 4, 1
.asciz "FreeBSD"
.4byte 1400097
END

# A target directory of its own: RUSTC_BOOTSTRAP would make the other builds start from nothing each time.
export CARGO_TARGET_DIR="$here/build"
export CARGO_TARGET_X86_64_UNKNOWN_FREEBSD_LINKER="$here/cc"
link="-Clink-arg=-Wl,--as-needed -Clink-arg=$here/brand.o"
export CARGO_TARGET_X86_64_UNKNOWN_FREEBSD_RUSTFLAGS="-Lnative=$here/lib $link"
export CC_x86_64_unknown_freebsd="$here/cc" AR_x86_64_unknown_freebsd="$here/ar"

[ $# -gt 0 ] || set -- --package potrun --package conformance --all-targets
cargo clippy $std --target $triple "$@" -- -D warnings
programs="potrun conformance conformance-probe conformance-stop"
cargo build $std --target $triple --release --package potrun --package conformance $(printf -- '--bin %s ' $programs)

mkdir -p "target/$triple/release"
for name in $programs; do cp "$here/build/$triple/release/$name" "target/$triple/release/"; done
needed=$(readelf -d "$bin" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
case $needed in *stand-in*) echo "$bin needs a stand-in library" >&2; exit 1 ;; esac
about=$(file "$bin")
echo "$about"
echo "needs:" $needed
case $about in *"for FreeBSD 14"*) ;; *) echo "$bin is not branded as a FreeBSD 14 binary" >&2; exit 1 ;; esac
