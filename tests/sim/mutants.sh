#!/usr/bin/env bash
# Checks that the simulator finds hand-made bugs (mutants), each in a copy of the tree. A mutant that survives, or that can no
# longer be made, is a failure. `mutants.sh name...` tries only these; MUTANT_SEEDS=n sets the seeds of each (2048).
# `mutants.sh --made` only checks that each can still be made, in a second.
#
# A line `Needs TLS.` in a mutant has it built with the feature tls-ring, and half of its seeds use TLS. A line
# `Found by the unit test NAME.` has this test run in place of the simulator.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
# All mutants share one directory, so that each needs only an incremental build.
tree=$target/mutants/tree
export CARGO_TARGET_DIR=$target/mutants/target SIM_SEEDS=${MUTANT_SEEDS:-2048} RUST_BACKTRACE=0

# `in_the_tree FIRST_SEED TEST...`
in_the_tree() {
    (cd "$tree" && SIM_FIRST=$1 SIM_SHRINK=0 timeout 300 cargo test --quiet "${@:2}" 2>&1)
}

restore() {
    local file
    for file in $(cd "$root" && git ls-files -- src tests/sim); do
        # Only files that differ are written, so that nothing else is rebuilt.
        cmp -s "$root/$file" "$tree/$file" || cp "$root/$file" "$tree/$file"
    done
}

failures=0
verdict() {
    printf '%-24s %-26s %4d s  %s\n' "$1" "$2" "$3" "$4"
}

only_made=
if [ "${1:-}" = --made ]; then
    only_made=1
    shift
fi
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for mutant in tests/sim/mutants/*.txt; do
        names+=("$(basename "$mutant" .txt)")
    done
fi

# First that each can be made: one whose text has changed must not be found only after all others have run.
for name in "${names[@]}"; do
    mutant=tests/sim/mutants/$name.txt
    if ! perl tests/sim/mutate.pl --check "$mutant"; then
        verdict "$name" 'CANNOT BE MADE' 0 "$(head -n 1 "$mutant")"
        failures=$((failures + 1))
    fi
done
if [ "$failures" -ne 0 ] || [ -n "$only_made" ]; then
    echo "${#names[@]} mutants, $failures cannot be made"
    [ "$failures" -eq 0 ]
    exit
fi

# No more to build than the simulator needs. Cargo finds `tests/sim` by itself there.
tests/alone.sh "$tree" tests/sim

# Little is rebuilt for each mutant, and it runs for long.
printf '\n[profile.dev]\nopt-level = 1\ndebug = false\n' >>"$tree/Cargo.toml"

# What the unit tests need, and the certificates of the simulator.
{
    printf '\n[dev-dependencies]\n'
    sed -n '/^\[dev-dependencies\]/,/^$/p' Cargo.toml | grep -E '^(libc|proptest|signal-hook) '
    grep -E '^rcgen ' Cargo.toml
} >>"$tree/Cargo.toml"

for name in "${names[@]}"; do
    mutant=$root/tests/sim/mutants/$name.txt start=$SECONDS
    what=$(head -n 1 "$mutant")
    restore
    (cd "$tree" && perl "$root/tests/sim/mutate.pl" "$mutant")
    status=0
    # Some are found only by a late seed. Earlier seeds are skipped.
    first=$(sed -n 's/^Not seen before seed \([0-9]*\)\.$/\1/p' "$mutant")
    features=() tests=(--test sim all_properties)
    grep -q '^Needs TLS\.$' "$mutant" && features=(--features tls-ring)
    unit=$(sed -n 's/^Found by the unit test \(.*\)\.$/\1/p' "$mutant")
    [ -n "$unit" ] && tests=(--lib "$unit")
    output=$(in_the_tree "${first:-0}" "${features[@]}" "${tests[@]}") || status=$?
    if [ -n "$unit" ]; then
        found=$(sed -n 's/^test result: FAILED.*/by its unit test/p' <<<"$output")
    else
        found=$(sed -n 's/^seed \([0-9]*\): \(P[0-9]*\|panic\|determinism\): .*/\2 in seed \1/p' <<<"$output" | tail -n 1)
    fi
    if [ -n "$found" ]; then
        verdict "$name" "$found" $((SECONDS - start)) "$what"
    elif [ "$status" -eq 124 ]; then
        # The remaining seeds have not run.
        verdict "$name" 'NOT FOUND IN TIME' $((SECONDS - start)) "$what"
        failures=$((failures + 1))
    elif [ "$status" -eq 0 ]; then
        verdict "$name" 'SURVIVES' $((SECONDS - start)) "$what"
        failures=$((failures + 1))
    else
        verdict "$name" 'CANNOT BE BUILT' $((SECONDS - start)) "$what"
        sed -n '/^error/,/^$/p' <<<"$output" | head -n 20
        failures=$((failures + 1))
    fi
done
echo "${#names[@]} mutants, $failures not found"
[ "$failures" -eq 0 ]
