//! Checks once, before any test, what this machine supports.
//!
//! If something is missing, no test runs, and the run fails.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    namespace::{self, Namespace, try_feed},
    switch::Fate,
};

/// The Debian packages that these tests need.
const PACKAGES: &str = "iproute2 procps nftables ethtool libfaketime";

/// Fails with a sentence about what is missing.
pub(crate) fn check() -> Result<(), String> {
    for name in namespace::sweep() {
        println!("network: removed {name}, left over from a killed run");
    }
    let missing: Vec<&str> = ["ip", "tc", "sysctl", "nft", "ethtool", "date"]
        .into_iter()
        .filter(|program| Command::new(program).arg("--help").output().is_err())
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "{} not found; install (Debian's names) {PACKAGES}",
            missing.join(", ")
        ));
    }
    if faketime().is_none() {
        return Err(format!(
            "libfaketime.so.1 not found in /usr/lib; install (Debian's names) {PACKAGES}"
        ));
    }
    check_permissions()?;
    let network = namespace::nth_network();
    let trial = Namespace::new(network, "trial");
    check_devices(&trial)?;
    for fate in Fate::ALL {
        let script = format!(
            "table netdev trial {{ chain trial {{ type filter hook ingress device \"one\" priority 0; {}\n }}\n }}\n\
             delete table netdev trial\n",
            fate.statement("one")
        );
        try_feed(trial.command("nft").args(["-f", "-"]), &script)
            .map_err(|error| format!("nftables of this kernel cannot {fate:?}: {error}"))?;
    }
    let slow = ["tbf", "rate", "1mbit", "burst", "16k", "latency", "500ms"];
    let mut tc = trial.command("tc");
    tc.args(["qdisc", "add", "dev", "one", "root"]).args(slow);
    try_feed(&mut tc, "")
        .map_err(|error| format!("this kernel cannot limit rates (tbf): {error}"))?;
    Ok(())
}

fn check_permissions() -> Result<(), String> {
    let name = format!("{}rights", namespace::prefix(namespace::nth_network()));
    let ip = |arguments: &[&str]| try_feed(Command::new("ip").args(arguments), "");
    ip(&["netns", "add", &name])
        .and_then(|()| ip(&["netns", "exec", &name, "true"]))
        .and_then(|()| ip(&["netns", "del", &name]))
        .map_err(|error| {
            format!("cannot create network namespaces, which needs Linux and root: {error}")
        })
}

fn check_devices(trial: &Namespace) -> Result<(), String> {
    let script = "link add one type veth peer name two\nlink add bridge type bridge\nlink set one master bridge";
    let mut ip = Command::new("ip");
    try_feed(ip.args(["-n", trial.name(), "-batch", "-"]), script)
        .map_err(|error| format!("this kernel has no veth or no bridge: {error}"))
}

/// The path of libfaketime, which gives a process another time of day.
pub(crate) fn faketime() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let mut directories = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/lib64")];
        directories.extend(
            fs::read_dir("/usr/lib")
                .ok()?
                .filter_map(|entry| Some(entry.ok()?.path())),
        );
        directories
            .into_iter()
            .map(|directory| directory.join("faketime/libfaketime.so.1"))
            .find(|path| path.exists())
    };
    FOUND.get_or_init(find).as_deref()
}
