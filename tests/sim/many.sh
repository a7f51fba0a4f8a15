#!/usr/bin/env bash
# Runs very many seeds of the simulator in chunks. Each chunk is a line in the log: first seed, seeds, seconds, result. A new run
# continues after the last line of the log. A seed that fails does not end the run; its trace is kept beside the log.
#     tests/sim/many.sh LOG [SEEDS [CHUNK]]
# SIM_EXE names a simulator that is already built.
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
        # Other workers may have been ahead. The seeds after the failed one run again.
        ((seed)) && count=$((seed + 1 - next))
    fi
    printf '%d %d %d %s\n' "$next" "$count" $((SECONDS - start)) "$result" >>"$log"
    next=$((next + count))
done
echo "$total seeds, $(grep -c FAILED "$log" || true) of them failed"
