#!/usr/bin/env bash
# Tensors are joined, padded and cut under Miri, which finds every byte that is read or written where it
# must not be, and every cast that does not hold.
#
#   tests/miri.sh [filter of tests; default: tensor::]
set -euo pipefail
cd "$(dirname "$0")/.."

TOOLCHAIN=nightly-2026-10-30
if ! rustup component list --toolchain "$TOOLCHAIN" --installed 2>/dev/null | grep -q '^miri'; then
    rustup toolchain install "$TOOLCHAIN" --profile minimal --component miri,rust-src
fi

# Interpreted code takes a thousand times as long: a few cases of each property.
export PROPTEST_CASES=4 MIRIFLAGS=-Zmiri-disable-isolation
exec cargo "+$TOOLCHAIN" miri test --locked --lib --target-dir target/miri "${1:-tensor::}"
