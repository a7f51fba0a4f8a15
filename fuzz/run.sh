#!/usr/bin/env bash
# Fuzzes each grammar for a while: fuzz/run.sh [SECONDS]. Needs cargo-fuzz (`cargo install cargo-fuzz`) and a C++ compiler.
# Without sanitizers, which the library has no use for (it forbids unsafe code), the stable toolchain will do.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
for target in challenge link config; do
    seeds=$(mktemp -d)
    case $target in
        challenge)
            printf '\0\0\0\0\0\0\0\5' > "$seeds/bare"
            printf '\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\5\0\0\0\x0d10.0.0.2:3888' > "$seeds/v1"
            printf '\xff\xff\xff\xff\xff\xff\0\1\0\0\0\0\0\0\0\5\0\0\0\x0f[::1]:1|a.b:22|' > "$seeds/v2"
            ;;
        link)
            printf '\4\0\0\0\0\0\0\0\5\0\0\0\2hi\0\0\0\1!' > "$seeds/bare"
            printf '\7\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\5\0\0\0\x0d10.0.0.2:3888\0\0\0\1!' > "$seeds/v1"
            ;;
        config)
            printf 'tickTime=2000\nsyncLimit=5\nserver.1=10.0.0.1:2888:3888:observer;0.0.0.0:2181\n' > "$seeds/static"
            printf 'multiAddress.enabled=true\nserver.1=a:1:2|[::1]:3:4\ncnxTimeout=\\u0031\n' > "$seeds/multi"
            ;;
    esac
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "$seeds" -- \
        -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024
    rm -r "$seeds"
done
