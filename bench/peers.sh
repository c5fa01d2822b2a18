#!/bin/sh
# Fetches what bench/life.rs compares with: the newest crun and runc of Debian, into target/bench-tools/{crun,runc}.
#
# usage: bench/peers.sh [SUITE]        (default: sid)
#
# The packages are unpacked with all they depend on, and the two programs are patched to use that dynamic linker and
# those libraries: no wrapper stands between the bench and the runtime, and nothing is installed. apt works with a
# package list and a state of its own.
set -eu
cd "$(dirname "$0")/.."
suite=${1:-sid}
tools=$PWD/target/bench-tools
apt=$tools/apt
lib=$tools/tree/usr/lib/x86_64-linux-gnu

mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/*$')
rm -rf "$tools"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$tools/tree/usr/lib" "$tools/tree/usr/bin"
# Packages of before and after the merge of / and /usr meet in one tree.
ln -s usr/lib usr/bin "$tools/tree/"
: >"$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
set -- -q -y --no-install-recommends -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::PreferencesParts=/dev/null -o "Dir::State=$apt" -o "Dir::State::Lists=$apt/lists" \
    -o "Dir::State::Status=$apt/status" -o "Dir::Cache=$apt/cache" -o "Dir::Cache::Archives=$apt/cache/archives" \
    -o APT::Sandbox::User=root
apt-get "$@" update
# An empty status file makes apt fetch the whole closure, the C library included.
apt-get "$@" install --download-only crun runc patchelf
for deb in "$apt"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$tools/tree"
done
for name in crun runc; do
    program=$(find "$tools/tree/usr/bin" "$tools/tree/usr/sbin" -name $name -type f)
    cp "$program" "$tools/$name"
    "$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$tools/tree/usr/bin/patchelf" \
        --set-interpreter "$lib/ld-linux-x86-64.so.2" --set-rpath "$lib" "$tools/$name"
    "$tools/$name" --version | head -n 1
done
rm -rf "$apt"
