#!/usr/bin/env bash
# Fuzzes everything that reads bytes from outside, guided by coverage and under AddressSanitizer: no
# crash, no hang, bounded memory. What was found lies in target/fuzz-artifacts.
#
#   tests/fuzz.sh [--minutes 10] [target ...; default: all of tests/fuzz/Cargo.toml]
set -euo pipefail
cd "$(dirname "$0")/.."

TOOLCHAIN=nightly-2026-10-30
CARGO_FUZZ=0.13.2
HOST=$(rustc -vV | sed -n 's/^host: //p')
if ! rustup toolchain list | grep -q "^$TOOLCHAIN"; then
    rustup toolchain install "$TOOLCHAIN" --profile minimal
fi
tools=.tools/cargo-fuzz
if [[ $("$tools/bin/cargo-fuzz" --version 2>/dev/null) != "cargo-fuzz $CARGO_FUZZ" ]]; then
    cargo install --locked --root "$tools" cargo-fuzz --version "=$CARGO_FUZZ"
fi

# What is fuzzed are the crates of the server in their versions: its lock is where this one begins.
lock=tests/fuzz/Cargo.lock
if [[ ! -f $lock || Cargo.lock -nt $lock || tests/fuzz/Cargo.toml -nt $lock ]]; then
    cp Cargo.lock "$lock"
fi
PATH="$PWD/$tools/bin:$PATH" cargo "+$TOOLCHAIN" fuzz build --fuzz-dir tests/fuzz --target-dir target/fuzz
exec python3 tests/fuzz/run.py --binaries "target/fuzz/$HOST/release" "$@"
