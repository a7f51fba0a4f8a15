#!/usr/bin/env bash
# Runs tests under Miri and the sanitizers, which find data races and memory errors: tests/sanitizers.sh [miri] [thread] [address].
# Without an argument it runs all. Needs the nightly toolchain with two components:
#
#     rustup toolchain install nightly --profile minimal --component miri,rust-src
#
# and fails with a message where they are missing. Nothing is suppressed. It takes some ten minutes and is not part of `run.sh`:
# the library forbids unsafe code, and `run.sh` checks what threads share with loom. This script also checks the real locks and
# atomics, and the unsafe code of the dependencies.
#
# Limits: Miri has no sockets, so that it runs only `sync`, `outbox`, `inbox` and `proto`. A sanitizer sees only the paths and the
# thread schedules of this run.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')

need() {
    [[ $(rustup component list --toolchain nightly --installed 2>/dev/null) == *"$1"* ]] || {
        echo "CANNOT RUN: rustup component add $1 --toolchain nightly" >&2
        exit 1
    }
}

# Undefined behaviour, and data races under several schedules, in the files without a socket. Miri is a thousand times slower
# than the processor: hence few random cases.
miri() {
    need miri
    need rust-src
    local flags=-Zmiri-disable-isolation
    env CARGO_TARGET_DIR=target/miri PROPTEST_CASES=2 MIRIFLAGS="$flags -Zmiri-many-seeds=0..4" \
        timeout 3600 cargo +nightly miri test --lib -- sync:: outbox:: inbox::
    # This code has no threads: one schedule is enough. The tests that split hundreds of kilobytes into pieces would take hours.
    env CARGO_TARGET_DIR=target/miri PROPTEST_CASES=2 MIRIFLAGS="$flags" \
        timeout 3600 cargo +nightly miri test --lib -- \
        proto:: --skip any_splitting_gives --skip frame_from_pieces --skip frames_of_every_length
}

# Rebuilds everything with instrumentation, the standard library too: code without it causes false reports of races.
sanitized() {
    local kind=$1
    need rust-src
    shift
    # Tests have deadlines: hence the optimizer, and no backtraces of expected panics, which take long to print.
    env CARGO_TARGET_DIR="target/sanitizer-$kind" RUSTFLAGS="-Zsanitizer=$kind" PROPTEST_CASES=8 RUST_BACKTRACE=0 \
        CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_TEST_OPT_LEVEL=1 \
        timeout 3600 cargo +nightly test -Zbuild-std --target "$host" "$@"
}

# Data races, on real sockets.
thread() {
    TSAN_OPTIONS='halt_on_error=0 exitcode=66' \
        sanitized thread --lib --test promises --test streams --test parity
}

# Memory errors, and leaks at the end of a process.
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
