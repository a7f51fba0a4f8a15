#!/usr/bin/env bash
# Measures which lines and branches of the library the tests execute: tests/coverage.sh [html]. Prints a table, and the lines
# that no test executes. With `html`, also writes pages to target/coverage/html. Needs
#
#     rustup toolchain install nightly --profile minimal --component llvm-tools
#     cargo install cargo-llvm-cov --locked
#
# and fails with a message where they are missing. (The stable toolchain counts lines, but no branches.) It takes a few minutes,
# and is not part of `run.sh`: it serves to find lines that no test executes, and has no threshold.
#
# Not counted: tests that start processes or real ZooKeeper servers (`mesh`, `peer`, `network`, `interop`), and loom.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $(rustup component list --toolchain nightly --installed 2>/dev/null) == *llvm-tools* ]] || {
    echo 'CANNOT RUN: rustup component add llvm-tools --toolchain nightly' >&2
    exit 1
}
cargo llvm-cov --version >/dev/null 2>&1 || {
    echo 'CANNOT RUN: cargo install cargo-llvm-cov --locked' >&2
    exit 1
}

tests=(promises hostile parity streams quiet config logs corpora sim)
export CARGO_TARGET_DIR=target/coverage
report=(--ignore-filename-regex '(^|/)(tests|examples|benches)/')
timeout 3600 cargo +nightly llvm-cov --branch --no-report --lib "${tests[@]/#/--test=}"
cargo +nightly llvm-cov report --branch "${report[@]}" --show-missing-lines
if [[ ${1:-} == html ]]; then
    cargo +nightly llvm-cov report --branch "${report[@]}" --html --output-dir target/coverage
fi
