#!/usr/bin/env bash
# Copies the library without the rest of the workspace: tests/alone.sh FOLDER [PATH...]
#
# FOLDER gets the manifest without members and without dependencies of tests, the lock file, `src`, and each PATH. It is a
# workspace of its own there, wherever FOLDER is.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
rm -rf "$folder"
mkdir -p "$folder"
git ls-files -z --cached --others --exclude-standard -- Cargo.toml Cargo.lock src "$@" |
    xargs -0 cp --parents -t "$folder"
sed -i -e '/^\(members\|default-members\|exclude\|autotests\)/d' -e '/^\[dev-dependencies\]/,/^$/d' "$folder/Cargo.toml"
