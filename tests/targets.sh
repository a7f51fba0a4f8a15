#!/usr/bin/env bash
# Compiles the library, the examples and a part of the tests for every supported target, with warnings denied. Runs nothing.
# Installs a missing standard library with rustup, and fails if it cannot.
#
# README.md, src/lib.rs ("Platforms") and deny.toml name the same targets. tests/tidy.rs compares them.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=(
    x86_64-unknown-linux-gnu
    aarch64-unknown-linux-gnu
    aarch64-linux-android
    x86_64-apple-darwin
    aarch64-apple-darwin
    x86_64-unknown-freebsd
    x86_64-unknown-netbsd
)
# Not supported: the compilation must fail with a message that says so.
refused=x86_64-pc-windows-gnu

# A target directory of its own: these flags differ from the usual ones, and would rebuild everything each time.
export CARGO_TARGET_DIR=target/targets

has_std() {
    compgen -G "$(rustc --print target-libdir --target "$1")/libstd-*" >/dev/null
}

need_std() {
    has_std "$1" || timeout 300 rustup target add "$1" && has_std "$1"
}

failed=()
for target in "${targets[@]}"; do
    echo "-- $target"
    if ! need_std "$target"; then
        echo "$target: NOT CHECKED: its standard library is missing, and rustup could not install it"
        failed+=("$target")
        continue
    fi
    RUSTFLAGS=-Dwarnings timeout 600 cargo check --quiet --target "$target" --profile test \
        --lib --examples --benches --test promises --test config || failed+=("$target")
done

echo "-- $refused: must be refused"
if ! need_std "$refused"; then
    echo "$refused: NOT CHECKED: its standard library is missing, and rustup could not install it"
elif output=$(timeout 300 cargo check --quiet -p quorum-cnx --lib --target "$refused" 2>&1); then
    echo "$refused: compiles, although it is not supported"
    failed+=("$refused")
elif [[ $output != 'error: quorum-cnx does not support this target.'* ]]; then
    echo "$refused: the first error does not say that it is not supported:"
    echo "$output"
    failed+=("$refused")
fi

if ((${#failed[@]})); then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
