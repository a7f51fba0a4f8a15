#!/usr/bin/env bash
# Bugs made by hand, each in a copy of the tree, and whether the simulator finds them. One that survives, or that can no
# longer be made, is a failure. `mutants.sh name...` tries these only; MUTANT_SEEDS=n gives each other than 2048 seeds.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
# One place for all, so that each costs an incremental build only.
tree=$target/mutants/tree
export CARGO_TARGET_DIR=$target/mutants/target SIM_SEEDS=${MUTANT_SEEDS:-2048} RUST_BACKTRACE=0

rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard -- Cargo.toml Cargo.lock src tests/sim |
    xargs -0 cp --parents -t "$tree"
# The copy is a crate of its own, whatever lies around it, with no more to build than the simulator needs.
grep -q '^\[workspace\]' "$tree/Cargo.toml" || printf '\n[workspace]\n' >>"$tree/Cargo.toml"
sed -i -e '/^members/d' -e '/^\[\(dev-dependencies\|\[bench\]\|\[example\]\|\[test\]\)\]/,/^$/d' \
    -e '/^\[target.*linux.*\.dev-dependencies\]/,/^$/d' "$tree/Cargo.toml"

# Little is built anew for each, and much of it is run.
printf '\n[profile.dev]\nopt-level = 1\ndebug = false\n' >>"$tree/Cargo.toml"

simulate() {
    (cd "$tree" && SIM_FIRST=$1 SIM_SHRINK=0 timeout 300 cargo test --quiet --test sim all_properties 2>&1)
}

restore() {
    local file
    for file in $(cd "$root" && git ls-files -- src); do
        # Only what differs is written, so that nothing else is built again.
        cmp -s "$root/$file" "$tree/$file" || cp "$root/$file" "$tree/$file"
    done
}

failures=0
verdict() {
    printf '%-24s %-26s %4d s  %s\n' "$1" "$2" "$3" "$4"
}

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for mutant in tests/sim/mutants/*.txt; do
        names+=("$(basename "$mutant" .txt)")
    done
fi
for name in "${names[@]}"; do
    mutant=$root/tests/sim/mutants/$name.txt start=$SECONDS
    what=$(head -n 1 "$mutant")
    restore
    if ! (cd "$tree" && perl "$root/tests/sim/mutate.pl" "$mutant"); then
        verdict "$name" 'CANNOT BE MADE' 0 "$what"
        failures=$((failures + 1))
        continue
    fi
    status=0
    # Some are seen late, and are not looked for in the seeds before.
    first=$(sed -n 's/^Not seen before seed \([0-9]*\)\.$/\1/p' "$mutant")
    output=$(simulate "${first:-0}") || status=$?
    found=$(sed -n 's/^seed \([0-9]*\): \(P[0-9]\|panic\|determinism\): .*/\2 in seed \1/p' <<<"$output" | tail -n 1)
    if [ -n "$found" ]; then
        verdict "$name" "$found" $((SECONDS - start)) "$what"
    elif [ "$status" -eq 124 ]; then
        # No property has failed so far, and nobody knows whether one would have.
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
