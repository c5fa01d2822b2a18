#!/bin/sh
# Builds potrun for use and prints where it is, below the current directory.
set -eu
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || { echo "no cargo: install Rust 1.89 or newer (https://rustup.rs)" >&2; exit 1; }
tests/install.sh cc >&2
cargo build --release --quiet >&2
echo "target/$(rustc -vV | sed -n 's/^host: //p')/release/potrun"
