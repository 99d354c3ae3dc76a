#!/usr/bin/env bash
# Fuzzes every target for so many seconds: those that need no engine guided by coverage (libFuzzer, which needs a C++ compiler), all
# of the others, and those too, by the random driver of the tests. Run by `make fuzz`.
#
# An input that fails is left in target/fuzz/found; put it into tests/fuzz/corpus/TARGET, and every run of the tests tries it.
set -euo pipefail

cd "$(dirname "$0")/.."
seconds=${1:?how many seconds each}
export RUST_BACKTRACE=0
triple=$(rustc -vV | sed -n 's/^host: //p')
flags=(--cfg fuzzing -Cpasses=sancov-module -Clink-dead-code)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
RUSTFLAGS="${flags[*]}" cargo build --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz --target "$triple"
fuzzer=target/fuzz/$triple/release/astrid-fuzz
mkdir -p target/fuzz/found
failed=()
for target in capability profile groups admin envelope manifest; do
    printf '\n== %s\n' "$target"
    mkdir -p "target/fuzz/corpus/$target"
    # Its own corpus first, to which it adds; then the examples.
    ASTRID_FUZZ_TARGET=$target "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=16384 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="target/fuzz/found/$target-" \
        "target/fuzz/corpus/$target" "tests/fuzz/corpus/$target" || failed+=("$target")
done
printf '\n== by chance\n'
ASTRID_FUZZ_SECONDS=$seconds ASTRID_SEED=$RANDOM cargo test --release --workspace --test fuzz -- --nocapture --test-threads=2 || failed+=("by chance")
if [ "${#failed[@]}" -gt 0 ]; then
    printf 'failed: %s\n' "${failed[*]}"
    exit 1
fi
