#!/usr/bin/env bash
# Looks for inputs that break what must hold: fuzz/run.sh [SECONDS [TARGET...]]; a minute for each target by default. Needs
# cargo-fuzz (`cargo install cargo-fuzz`) and a C++ compiler. Without sanitizers, which the library has no use for (it
# forbids unsafe code), the stable toolchain will do.
#
# The targets are the functions in `tests/corpora`. What is kept of earlier runs, in `fuzz/corpus`, is where a run begins, and
# `cargo test --test corpora` gives it to the same functions. A run finds thousands of inputs; afterwards those that reach
# something that no other does are kept, the smallest first. What breaks is left in `fuzz/artifacts`: it becomes a test where
# the mistake was, and is put into `fuzz/corpus` once that is mended.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(initial_message frames link config notification)
for target in "${targets[@]}"; do
    kept=fuzz/corpus/$target
    found=fuzz/target/found/$target
    mkdir -p "$kept" "$found"
    # A unit may take long on a machine that does other things besides.
    options=(-max_len=4096 -timeout=60 -rss_limit_mb=1024)
    cargo fuzz run --sanitizer none "$target" "$found" "$kept" -- "${options[@]}" -max_total_time="$seconds"
    smallest=$(mktemp -d)
    cargo fuzz run --sanitizer none "$target" "$smallest" "$found" "$kept" -- "${options[@]}" -merge=1 -use_counters=0
    # In the repository an input is named by what is in it, as it was found.
    rm -rf "$kept"
    mv "$smallest" "$kept"
    chmod 755 "$kept"
done
