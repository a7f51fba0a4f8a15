#!/usr/bin/env bash
# Which lines and branches of the library the tests take: tests/coverage.sh [html]. Prints a table, and the lines that none
# takes; with `html`, also pages to read in target/coverage/html. Needs
#
#     rustup toolchain install nightly --profile minimal --component llvm-tools
#     cargo install cargo-llvm-cov --locked
#
# and fails, saying so, where they are missing. (The stable toolchain counts lines, but no branches.) Takes a few minutes, and
# is no part of `run.sh`: a figure is no proof, and what is looked at are the lines that are left over.
#
# Not counted: what only processes of their own or real ZooKeeper servers take (`mesh`, `peer`, `network`, `interop`), and loom.
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
