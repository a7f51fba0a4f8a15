#!/usr/bin/env bash
# Has the code run where mistakes of threads and of memory show: tests/sanitizers.sh [miri] [thread] [address]; all without
# an argument. Needs the nightly toolchain with two components:
#
#     rustup toolchain install nightly --profile minimal --component miri,rust-src
#
# and fails, saying so, where they are missing. Nothing is suppressed. It takes some ten minutes and is no part of `run.sh`:
# the library forbids unsafe code, and what threads share is model-checked by loom there. This looks at the same from another
# side: at the real locks and atomics, and at what the dependencies do beneath.
#
# What it cannot see: Miri has no sockets, so that only `sync`, `outbox`, `inbox` and `proto` are run in it; a sanitizer sees the paths that
# the tests take and the orders in which they happened to run.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')

need() {
    [[ $(rustup component list --toolchain nightly --installed 2>/dev/null) == *"$1"* ]] || {
        echo "CANNOT RUN: rustup component add $1 --toolchain nightly" >&2
        exit 1
    }
}

# Undefined behaviour, and data races under other schedules than ours: the files without a socket. Where a model of the
# processor is a thousand times slower than one, few random cases must do.
miri() {
    need miri
    need rust-src
    local flags=-Zmiri-disable-isolation
    env CARGO_TARGET_DIR=target/miri PROPTEST_CASES=2 MIRIFLAGS="$flags -Zmiri-many-seeds=0..4" \
        timeout 3600 cargo +nightly miri test --lib -- sync:: outbox:: inbox::
    # No threads here, so that one schedule is all of them. What cuts hundreds of kilobytes into pieces would take hours.
    env CARGO_TARGET_DIR=target/miri PROPTEST_CASES=2 MIRIFLAGS="$flags" \
        timeout 3600 cargo +nightly miri test --lib -- \
        proto:: --skip any_splitting_gives --skip a_frame_that_came_in_pieces --skip frames_of_every_length
}

# Everything is built anew, the standard library too: what is not instrumented looks like a race.
sanitized() {
    local kind=$1
    need rust-src
    shift
    # Tests have deadlines: hence the optimizer, and no trace of a panic that a test wants, which takes long to be written.
    env CARGO_TARGET_DIR="target/sanitizer-$kind" RUSTFLAGS="-Zsanitizer=$kind" PROPTEST_CASES=8 RUST_BACKTRACE=0 \
        CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_TEST_OPT_LEVEL=1 \
        timeout 3600 cargo +nightly test -Zbuild-std --target "$host" "$@"
}

# Data races, on real sockets.
thread() {
    TSAN_OPTIONS='halt_on_error=0 exitcode=66' \
        sanitized thread --lib --test promises --test streams --test parity
}

# Memory misused, and memory left behind when a process ends.
address() {
    ASAN_OPTIONS='detect_leaks=1' sanitized address --lib --test promises --test streams --test corpora
}

tools=("$@")
((${#tools[@]})) || tools=(miri thread address)
for tool in "${tools[@]}"; do
    case $tool in
        miri | thread | address)
            echo "== $tool"
            "$tool"
            ;;
        *)
            echo "usage: tests/sanitizers.sh [miri] [thread] [address]" >&2
            exit 2
            ;;
    esac
done
