#!/usr/bin/env bash
# A mesh of real processes under random faults for HOURS, 0.03 (about two minutes) unless told: tests/soak.sh [HOURS]
# SOAK_SEED=n does the same faults again.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$(awk -v hours="${1:-0.03}" 'BEGIN { printf "%d", hours * 3600 }')
if ((seconds < 5)); then
    echo "usage: tests/soak.sh [HOURS]; ${1:-} is not enough" >&2
    exit 2
fi
timeout 900 cargo build --quiet --example peer
timeout 900 cargo test --quiet --test soak --no-run
export SOAK_SECONDS=$seconds
# All of it is bounded in itself; this is for what nobody has thought of.
timeout $((seconds + 300)) cargo test --quiet --test soak -- --nocapture
