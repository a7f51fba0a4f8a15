#!/usr/bin/env bash
# Runs the fuzz targets: fuzz/run.sh [SECONDS [TARGET...]], by default each for a minute. Needs cargo-fuzz
# (`cargo install cargo-fuzz`) and a C++ compiler. It uses no sanitizers, since the library forbids unsafe code, so that the
# stable toolchain is enough.
#
# The targets are the functions in `tests/corpora`. A run begins with the inputs in `fuzz/corpus`, which
# `cargo test --test corpora` gives to the same functions. It finds thousands of inputs, and keeps those that reach code that no
# other input reaches, the smallest first. An input that fails is left in `fuzz/artifacts`. Write a test for it, fix the bug,
# and add the input to `fuzz/corpus`.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(initial_message answer frames link membership config notification tls_accept tls_stream certificate_names)
for target in "${targets[@]}"; do
    kept=fuzz/corpus/$target
    found=fuzz/target/found/$target
    mkdir -p "$kept" "$found"
    # An input may take long on a busy machine.
    options=(-max_len=4096 -timeout=60 -rss_limit_mb=1024)
    cargo fuzz run --sanitizer none "$target" "$found" "$kept" -- "${options[@]}" -max_total_time="$seconds"
    smallest=$(mktemp -d)
    cargo fuzz run --sanitizer none "$target" "$smallest" "$found" "$kept" -- "${options[@]}" -merge=1 -use_counters=0
    # Files of the corpus are named by the hash of their content.
    rm -rf "$kept"
    mv "$smallest" "$kept"
    chmod 755 "$kept"
done
