#!/usr/bin/env bash
# Everything that must pass. Bounded in time; says what it ran.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@"
    echo "== $name: done in $((SECONDS - start)) s"
}

step 'formatting' cargo fmt --all --check
step 'clippy' timeout 900 cargo clippy --all-targets -- -D warnings
step 'docs' env RUSTDOCFLAGS='-D warnings' timeout 300 cargo doc --no-deps
step 'loom' env RUSTFLAGS='--cfg loom' LOOM_MAX_PREEMPTIONS=3 CARGO_TARGET_DIR=target/loom \
    timeout 900 cargo test --release --lib loom_
step 'tests' timeout 900 cargo test
