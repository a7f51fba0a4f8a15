#!/usr/bin/env bash
# Installs what the interop tests need: a JDK, and ZooKeeper with its libraries. It needs root, and Debian or a derivative.
# Elsewhere it says what is missing, and fails.
set -euo pipefail

missing() {
    local packages=()
    { command -v java && command -v javac; } >/dev/null || packages+=(default-jdk-headless)
    # ZOOKEEPER_CLASSPATH may name another release in place of Debian's.
    [[ -n ${ZOOKEEPER_CLASSPATH:-} || -e /usr/share/java/zookeeper.jar ]] || packages+=(libzookeeper-java)
    echo "${packages[*]}"
}

packages=$(missing)
if [[ -z $packages ]]; then
    echo 'interop: a JDK and ZooKeeper are here'
    exit 0
fi
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "interop: installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    timeout 300 apt-get -qq update
    # shellcheck disable=SC2086 # several words
    timeout 600 apt-get -qq install -y --no-install-recommends $packages >/dev/null
    packages=$(missing)
fi
if [[ -n $packages ]]; then
    echo "interop: CANNOT RUN: install (Debian's names) $packages, or name ZooKeeper's jars in ZOOKEEPER_CLASSPATH" >&2
    exit 1
fi
echo 'interop: a JDK and ZooKeeper are here'
