#!/usr/bin/env bash
# Callers and workers of a queue in every order of their steps, under loom, which finds a wake-up that
# is lost and an answer that is forgotten.
#
#   tests/loom.sh [filter of tests; default: batcher::tests::interleavings]
set -euo pipefail
cd "$(dirname "$0")/.."

# Threads are interrupted so often at most. Each fault that was planted showed with two; all orders of
# four threads would take for ever.
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-4}"
# The queue's lock is loom's then, and tests that are not played by loom cannot take it.
export RUSTFLAGS='--cfg onnxd_loom'
exec cargo test --locked --lib --target-dir target/loom \
    "${1:-batcher::tests::interleavings}" -- --nocapture
