#!/bin/sh
# Builds a target and runs it: fuzz/run.sh <target> [seconds]. Needs neither a nightly compiler nor cargo-fuzz: coverage is an LLVM pass that
# the stable compiler has, and there is no sanitizer, because the targets have next to no unsafe code. `cargo fuzz run -s none` does the same.
set -eu
cd "$(dirname "$0")"
target=$1
seconds=${2:-60}
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
# With --target the flags are not for build scripts, which have no fuzzer to call.
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$triple" --bin "$target" --no-default-features --features "$target"
mkdir -p "corpus/$target" "artifacts/$target"
seeds=""
if [ -d "seeds/$target" ]; then seeds="seeds/$target"; fi
exec "${CARGO_TARGET_DIR:-target}/$triple/release/$target" -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" \
    -rss_limit_mb=2048 -timeout=20 "corpus/$target" $seeds
