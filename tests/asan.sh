#!/usr/bin/env bash
# The tests of the real runtime under AddressSanitizer: tensors that are lent to ONNX Runtime and come
# back from it are memory that no compiler watches over. Leaks are what `make soak` looks for.
#
#   tests/asan.sh [filter of tests]
set -euo pipefail
cd "$(dirname "$0")/.."

TOOLCHAIN=nightly-2026-10-30
TARGET=$(rustc -vV | sed -n 's/^host: //p')
if ! rustup toolchain list | grep -q "^$TOOLCHAIN"; then
    rustup toolchain install "$TOOLCHAIN" --profile minimal
fi

# Among the models of the tests, one asks for more memory than there is, and one ends its process. What
# a server holds is not what it holds without the sanitizer: that test is left out.
export RUSTFLAGS=-Zsanitizer=address
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_sigfpe=0
exec cargo "+$TOOLCHAIN" test --locked --test onnx --target "$TARGET" --target-dir target/asan -- \
    --skip each_instance_holds_its_weights_once "$@"
