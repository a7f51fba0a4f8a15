#!/usr/bin/env bash
# Runs a mesh of real processes under random faults for HOURS (default 0.03, about two minutes): tests/soak.sh [HOURS]
# SOAK_SEED=n repeats the same faults.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ! ${1:-0.03} =~ ^[0-9]+([.][0-9]+)?$ ]]; then
    echo "usage: tests/soak.sh [HOURS]; HOURS is a number, not '$1'" >&2
    exit 2
fi
seconds=$(awk -v hours="${1:-0.03}" 'BEGIN { printf "%d", hours * 3600 }')
if ((seconds < 5)); then
    echo "usage: tests/soak.sh [HOURS]; ${1:-} is not enough" >&2
    exit 2
fi
mkdir -p target
timeout 900 cargo build --quiet --example peer
timeout 900 cargo test --quiet -p system-tests --test soak --no-run
export SOAK_SECONDS=$seconds
# The test limits its own time. `timeout` ends it if that fails. The test continues if its output is closed (`| head`): the
# log file has everything, and the exit code says whether it passed.
timeout $((seconds + 300)) cargo test --quiet -p system-tests --test soak -- --nocapture | tee -p target/soak.log
