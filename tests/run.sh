#!/usr/bin/env bash
# Checks all that must pass: tests/run.sh. Some steps of it: tests/run.sh STEP...
#
# Without arguments: on a fresh Debian machine with Rust, installs the packages that are missing (as root), runs every step of
# `steps`, and those of `tools` whose tools are installed. Stops at the first failure. Says at its end what ran, and what was
# left out and why.
#
# With arguments: runs these steps only, in this order, those of `named` included, and installs the tools that they need.
set -euo pipefail
cd "$(dirname "$0")/.."

# These need Rust, and what `setup` installs.
steps=(setup formatting clippy powerset docs targets tests tls system interop-tls soak mutants loom instructions package)
# Each needs a toolchain or a program of its own.
tools=(msrv minimal-versions external-types semver deny)
# These need tools of their own and take minutes, or need a host that not every machine reaches.
named=(interop-tls-3.9 all-features fuzz miri runtimes providers adopters advisories)

# Tools that read what other versions of Rust do not write.
nightly_of_external_types=nightly-2026-03-20
nightly_of_miri=nightly-2026-10-28

# The network tests need tools for namespaces, network faults and clocks, the mutants perl, the tests of system calls
# strace, the count of instructions valgrind, the tests of metrics Prometheus (whose service they do not use) and its Python client, the
# interop tests a JDK and ZooKeeper, and those with TLS openssl. Without iptables the benchmark prints which row it leaves out.
setup() {
    local packages=()
    command -v cc >/dev/null || packages+=(gcc libc6-dev)
    command -v ip >/dev/null || packages+=(iproute2)
    command -v sysctl >/dev/null || packages+=(procps)
    command -v perl >/dev/null || packages+=(perl)
    command -v strace >/dev/null || packages+=(strace)
    command -v nft >/dev/null || packages+=(nftables)
    command -v iptables >/dev/null || packages+=(iptables)
    command -v openssl >/dev/null || packages+=(openssl)
    command -v ethtool >/dev/null || packages+=(ethtool)
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || packages+=(libfaketime)
    command -v valgrind >/dev/null || packages+=(valgrind)
    command -v promtool >/dev/null || packages+=(prometheus)
    /usr/bin/python3 -c 'import prometheus_client' 2>/dev/null || packages+=(python3-prometheus-client)
    if ((${#packages[@]})); then
        if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
            echo "CANNOT RUN: install (Debian's names) ${packages[*]}" >&2
            return 1
        fi
        export DEBIAN_FRONTEND=noninteractive
        timeout 300 apt-get -qq update
        timeout 600 apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
    fi
    tests/system/interop/setup.sh
}

formatting() {
    # Absent from minimal toolchains, as clippy.
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo fmt --all --check
    cargo fmt --all --check --manifest-path fuzz/Cargo.toml
    cargo fmt --all --check --manifest-path benches/compare/Cargo.toml
    cargo fmt --all --check --manifest-path benches/aws-lc-rs/Cargo.toml
    cargo fmt --all --check --manifest-path examples/aws-lc-rs/Cargo.toml
    cargo fmt --all --check --manifest-path examples/tokio/Cargo.toml
    cargo fmt --all --check --manifest-path examples/raft-rs/Cargo.toml
    cargo fmt --all --check --manifest-path examples/omnipaxos/Cargo.toml
    cargo fmt --all --check --manifest-path examples/openraft/Cargo.toml
    # A mutant is made by a text of the source: seen here when that has changed, and not only after all other steps.
    tests/sim/mutants.sh --made
}

clippy() {
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    timeout 900 cargo clippy --workspace --all-targets --all-features -- -D warnings
    timeout 900 cargo clippy --workspace --all-targets -- -D warnings
}

docs() {
    RUSTDOCFLAGS='-D warnings' timeout 300 cargo doc --workspace --all-features --no-deps --document-private-items
}

targets() {
    timeout 1200 tests/targets.sh
}

# What a contributor runs. It builds the examples too.
tests() {
    timeout 600 cargo test
}

# What the features of TLS add: beside the code, in the documentation, and over real sockets.
tls() {
    timeout 600 cargo test -p quorum-cnx --lib --features tls-ring,simulation
    timeout 600 cargo test -p quorum-cnx --doc --features tls-ring
    timeout 600 cargo build --examples --features tls-ring
    timeout 600 cargo test -p quorum-cnx-tests --features tls --test sim --test corpora --test tls
    # The other tests of the programs are for those without TLS.
    timeout 600 cargo build --examples
}

# What `tests` runs, and the tests of TLS, with the programs as they are with TLS.
all-features() {
    timeout 1800 cargo test --all-features
    timeout 600 cargo build --examples
}

# Each test of these may take a minute at most; network and interop are bounded of their own.
system() {
    timeout 300 cargo build --examples
    timeout 1200 cargo test -p system-tests
}

# Real ZooKeeper with TLS. A package of its own features, so that the other tests have the library without TLS.
interop-tls() {
    timeout 300 cargo build --example election --features tls-ring
    timeout 300 cargo test -p system-tests --features tls --test interop_tls
    # The other tests of the programs are for those without TLS.
    timeout 300 cargo build --example election
}

# The same with a release that has the fips-mode. Debian has none.
interop-tls-3.9() {
    if [[ -z ${ZOOKEEPER_39_CLASSPATH:-} ]]; then
        echo 'CANNOT RUN: name the jars of ZooKeeper 3.9 and its libraries in ZOOKEEPER_39_CLASSPATH, separated by colons;' \
            'those in the package pyspark of PyPI do' >&2
        return 1
    fi
    ZOOKEEPER_CLASSPATH=$ZOOKEEPER_39_CLASSPATH interop-tls
}

soak() {
    timeout 900 tests/soak.sh 0.033
}

mutants() {
    timeout 1500 tests/sim/mutants.sh
}

loom() {
    RUSTFLAGS='--cfg loom' LOOM_MAX_PREEMPTIONS=3 CARGO_TARGET_DIR=target/loom \
        timeout 900 cargo test --release -p quorum-cnx --lib loom_
}

instructions() {
    timeout 600 cargo bench --bench instructions -- --check
}

package() {
    timeout 600 cargo package -p quorum-cnx --allow-dirty --quiet
}

# What the manifest and the README say: the library and the examples.
msrv() {
    timeout 300 cargo "+$(rust_version)" check --locked -p quorum-cnx --lib --examples --all-features \
        --target-dir target/msrv
}

# The library with the oldest versions that its manifest allows: of its own dependencies, and of all.
minimal-versions() {
    local oldest
    for oldest in direct-minimal-versions minimal-versions; do
        tests/alone.sh target/minimal-versions
        (
            cd target/minimal-versions
            cargo +nightly --quiet update -Z "$oldest"
            timeout 300 cargo check --quiet --lib --all-features --target-dir ../msrv
        )
    done
}

# Each set of features that differs in what it compiles. `cargo hack` would check the default members with it, whose features are
# unified.
powerset() {
    local features
    for features in '' futures simulation futures,simulation tls tls-ring futures,simulation,tls-ring; do
        RUSTFLAGS='-D warnings' timeout 300 cargo check -p quorum-cnx --lib --no-default-features --features "$features" \
            --target-dir target/powerset
    done
}

# Types of other crates in the interface: what `package.metadata` in Cargo.toml allows.
external-types() {
    CARGO_TARGET_DIR=target/external-types \
        timeout 600 cargo "+$nightly_of_external_types" check-external-types --all-features
}

# Against the last release.
semver() {
    timeout 900 cargo semver-checks -p quorum-cnx --baseline-rev "$(last_release)"
}

deny() {
    timeout 300 cargo deny check bans licenses sources
}

# The part of cargo deny that reads a database on github.com.
advisories() {
    timeout 300 cargo deny check advisories
}

# Ten seconds of each target, from what earlier runs have kept.
fuzz() {
    local target found
    for target in $(cargo fuzz list); do
        found=fuzz/target/smoke/$target
        mkdir -p "$found"
        timeout 600 cargo fuzz run --sanitizer none "$target" "$found" "fuzz/corpus/$target" -- \
            -max_len=4096 -timeout=60 -rss_limit_mb=1024 -max_total_time=10
    done
}

# What threads share, under one schedule of Miri. tests/sanitizers.sh has more schedules, and the rules.
miri() {
    CARGO_TARGET_DIR=target/miri PROPTEST_CASES=2 MIRIFLAGS=-Zmiri-disable-isolation \
        timeout 1200 cargo "+$nightly_of_miri" miri test -p quorum-cnx --lib -- sync:: outbox:: inbox::
}

# Receiving in tasks of tokio and smol, in a package of its own.
runtimes() {
    timeout 600 cargo clippy --manifest-path examples/tokio/Cargo.toml --all-targets -- -D warnings
    timeout 600 cargo test --manifest-path examples/tokio/Cargo.toml
    # Not what the tests have built: without their dependencies, tokio has fewer features.
    timeout 600 cargo build --manifest-path examples/tokio/Cargo.toml
    timeout 60 cargo run --quiet --manifest-path examples/tokio/Cargo.toml
}

# TLS with another provider of cryptography, in a package of its own.
providers() {
    timeout 900 cargo clippy --manifest-path examples/aws-lc-rs/Cargo.toml --all-targets -- -D warnings
    timeout 900 cargo test --manifest-path examples/aws-lc-rs/Cargo.toml
    timeout 900 cargo clippy --manifest-path benches/aws-lc-rs/Cargo.toml --all-targets -- -D warnings
}

# Consensus libraries on this one, each in a package of its own.
adopters() {
    local adopter
    for adopter in raft-rs omnipaxos openraft; do
        timeout 900 cargo clippy --manifest-path "examples/$adopter/Cargo.toml" --all-targets -- -D warnings
        timeout 900 cargo test --manifest-path "examples/$adopter/Cargo.toml"
    done
}

rust_version() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml
}

last_release() {
    git tag --list 'v*' --sort=-version:refname | head -n 1
}

has_toolchain() {
    rustc "+$1" --version >/dev/null 2>&1
}

# The command that installs what a step needs, if it is not there.
installer() {
    case $1 in
        msrv) has_toolchain "$(rust_version)" || echo "rustup toolchain install $(rust_version) --profile minimal" ;;
        minimal-versions) has_toolchain nightly || echo 'rustup toolchain install nightly --profile minimal' ;;
        external-types)
            if ! has_toolchain "$nightly_of_external_types"; then
                echo "rustup toolchain install $nightly_of_external_types --profile minimal"
            fi
            if ! cargo check-external-types --help >/dev/null 2>&1; then
                echo 'cargo install cargo-check-external-types@0.5.0 --locked'
            fi
            ;;
        semver) cargo semver-checks --version >/dev/null 2>&1 || echo 'cargo install cargo-semver-checks --locked' ;;
        deny | advisories) cargo deny --version >/dev/null 2>&1 || echo 'cargo install cargo-deny --locked' ;;
        fuzz) cargo fuzz --version >/dev/null 2>&1 || echo 'cargo install cargo-fuzz --locked' ;;
        miri)
            if ! cargo "+$nightly_of_miri" miri --version >/dev/null 2>&1; then
                echo "rustup toolchain install $nightly_of_miri --profile minimal --component miri,rust-src"
            fi
            ;;
    esac
}

# Why a step means nothing today, if it does not.
moot() {
    if [[ $1 == semver && -z $(last_release) ]]; then
        echo 'there is no release yet (no tag v*)'
    fi
}

ran=() left=()

run() {
    local name=$1 start=$SECONDS code=0 why
    why=$(moot "$name")
    if [[ -n $why ]]; then
        echo "== $name: left out: $why"
        left+=("$name: $why")
        return
    fi
    echo "== $name"
    # In a shell of its own, so that `set -e` holds in it.
    set +e
    (
        set -e
        "$name"
    )
    code=$?
    set -e
    if ((code)); then
        echo "== $name: FAILED (exit code $code)"
        exit "$code"
    fi
    echo "== $name: done in $((SECONDS - start)) s"
    ran+=("$name")
}

known=" ${steps[*]} ${tools[*]} ${named[*]} "
for name in "$@"; do
    if [[ $known != *" $name "* ]]; then
        echo "usage: tests/run.sh [STEP...]; there is no step '$name', but$known" >&2
        exit 2
    fi
done

if (($#)); then
    for name in "$@"; do
        if [[ -z $(moot "$name") ]]; then
            installer "$name" | while read -r command; do
                echo "== $name: $command"
                # shellcheck disable=SC2086 # several words
                $command </dev/null
            done
        fi
        run "$name"
    done
else
    for name in "${steps[@]}"; do
        run "$name"
    done
    for name in "${tools[@]}"; do
        missing=$(installer "$name")
        if [[ -n $missing ]]; then
            left+=("$name: ${missing//$'\n'/; }")
        else
            run "$name"
        fi
    done
    for name in "${named[@]}"; do
        left+=("$name: tests/run.sh $name")
    done
    left+=("long runs, see tests/README.md: NETWORK_ROUNDS=10, STRANGERS=full, SIM_SEEDS=1000000, tests/soak.sh HOURS,"
        "fuzz/run.sh, tests/sanitizers.sh, tests/coverage.sh, cargo bench --bench frames")
fi
echo "== passed in $SECONDS s: ${ran[*]}"
if ((${#left[@]})); then
    printf '== left out: %s\n' "${left[@]}"
fi
