#!/usr/bin/env bash
# Very many seeds of the simulator, in chunks, each a line in a log: first seed, seeds, seconds, result. Goes on after the
# last line of the log, and past a seed that fails, whose history is kept beside the log.
#     tests/sim/many.sh LOG [SEEDS [CHUNK]]
# SIM_EXE names a simulator that is built already.
set -euo pipefail
cd "$(dirname "$0")/../.."
log=${1:?a file for the log} total=${2:-1000000} chunk=${3:-20000}
exe=${SIM_EXE:-$(cargo test --profile sim --test sim --no-run 2>&1 | sed -n 's/.*Executable .*(\(.*\))$/\1/p')}
touch "$log"
next=$(tail -n 1 "$log" | awk '{ print $1 + $2 }')
while ((${next:=0} < total)); do
    start=$SECONDS status=0 result=ok
    count=$((next + chunk > total ? total - next : chunk))
    output=$(SIM_FIRST=$next SIM_SEEDS=$count RUST_BACKTRACE=0 timeout 7200 "$exe" all_properties 2>&1) || status=$?
    if ((status != 0)); then
        seed=$(sed -n 's/^seed \([0-9]*\): .*/\1/p' <<<"$output" | tail -n 1)
        printf '%s\n' "$output" >"$log.${seed:-from-$next}"
        result="FAILED: $(grep -m 1 '^seed ' <<<"$output" || echo "exit code $status")"
        # A worker may have been ahead of the one that failed: what comes after the seed is done again.
        ((seed)) && count=$((seed + 1 - next))
    fi
    printf '%d %d %d %s\n' "$next" "$count" $((SECONDS - start)) "$result" >>"$log"
    next=$((next + count))
done
echo "$total seeds, $(grep -c FAILED "$log" || true) of them failed"
