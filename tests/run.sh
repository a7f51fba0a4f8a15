#!/usr/bin/env bash
# Runs everything that must pass, on a fresh Debian machine with Rust. Installs missing packages (as root), limits the time of
# every step, prints each step, and stops at the first failure.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@" || {
        local code=$?
        echo "== $name: FAILED (exit code $code)"
        exit "$code"
    }
    echo "== $name: done in $((SECONDS - start)) s"
}

# The network tests need tools for namespaces, network faults and clocks. The mutants need perl, the tests of system calls
# strace, the count of instructions valgrind, and the interop tests a JDK and ZooKeeper.
setup() {
    local packages=()
    command -v cc >/dev/null || packages+=(gcc libc6-dev)
    command -v ip >/dev/null || packages+=(iproute2)
    command -v sysctl >/dev/null || packages+=(procps)
    command -v perl >/dev/null || packages+=(perl)
    command -v strace >/dev/null || packages+=(strace)
    command -v nft >/dev/null || packages+=(nftables)
    command -v ethtool >/dev/null || packages+=(ethtool)
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || packages+=(libfaketime)
    command -v valgrind >/dev/null || packages+=(valgrind)
    if ((${#packages[@]})); then
        if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
            echo "CANNOT RUN: install (Debian's names) ${packages[*]}" >&2
            return 1
        fi
        export DEBIAN_FRONTEND=noninteractive
        timeout 300 apt-get -qq update
        timeout 600 apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
    fi
    tests/interop/setup.sh
    # Minimal toolchains lack them.
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

# Each test of the suite takes a minute at most. The simulator and the interop tests have their own time limits.
step 'setup' setup
step 'formatting' cargo fmt --all --check
step 'clippy' timeout 900 cargo clippy --all-targets -- -D warnings
step 'docs' env RUSTDOCFLAGS='-D warnings' timeout 300 cargo doc --no-deps --document-private-items
step 'examples and benches' timeout 900 cargo build --examples --benches
step 'targets' timeout 1200 tests/targets.sh
step 'tests' timeout 1200 cargo test
step 'soak of two minutes' timeout 900 tests/soak.sh 0.033
step 'mutants of the simulator' timeout 900 tests/sim/mutants.sh
step 'loom' env RUSTFLAGS='--cfg loom' LOOM_MAX_PREEMPTIONS=3 CARGO_TARGET_DIR=target/loom \
    timeout 900 cargo test --release --lib loom_
step 'instructions' timeout 600 cargo bench --bench instructions -- --check
step 'package' timeout 600 cargo package --allow-dirty --quiet
echo "== everything passed in $SECONDS s"
echo "== left out, see tests/README.md: NETWORK_ROUNDS=10, STRANGERS=full, SIM_SEEDS=1000000, tests/soak.sh HOURS," \
    "fuzz/run.sh, tests/sanitizers.sh, tests/coverage.sh, cargo deny check, cargo bench --bench frames"
