//! What this machine can do: found out once, before any test, and said aloud.
//!
//! Nothing here is skipped in silence: without what every test needs nothing is run and the run fails.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    namespace::{self, Namespace, run, try_feed},
    switch::Fate,
};

/// What these tests need beside Rust, by Debian's names.
const PACKAGES: &str = "iproute2 procps nftables ethtool libfaketime";

/// Fails with one sentence for each thing that is missing; tells what is tested how.
pub(crate) fn look() -> Result<(), String> {
    for name in namespace::sweep() {
        println!("network: removed {name}, left by a run that was killed");
    }
    let missing: Vec<&str> = ["ip", "tc", "sysctl", "nft", "ethtool", "kill", "date"]
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
    rights()?;
    let network = namespace::nth_network();
    let trial = Namespace::new(network, "trial");
    devices(&trial)?;
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
        .map_err(|error| format!("this kernel has no slow ways (tbf): {error}"))?;
    run(trial
        .command("tc")
        .args(["qdisc", "del", "dev", "one", "root"]));
    let netem = Command::new("tc")
        .args(["-n", trial.name(), "qdisc", "add", "dev", "one", "root"])
        .args(["netem", "delay", "1ms"])
        .output();
    let netem = netem.is_ok_and(|output| output.status.success());
    println!(
        "network: namespaces, bridge and veth: yes; loss, duplicates and resets by nftables: yes; netem: {}, so delay \
         and reordering are those of a cable in user space; clocks are stepped by libfaketime",
        if netem { "yes, not used" } else { "no" }
    );
    Ok(())
}

fn rights() -> Result<(), String> {
    let name = format!("{}rights", namespace::prefix(namespace::nth_network()));
    let ip = |arguments: &[&str]| try_feed(Command::new("ip").args(arguments), "");
    ip(&["netns", "add", &name])
        .and_then(|()| ip(&["netns", "exec", &name, "true"]))
        .and_then(|()| ip(&["netns", "del", &name]))
        .map_err(|error| {
            format!("network namespaces cannot be made here, which needs Linux and root: {error}")
        })
}

fn devices(trial: &Namespace) -> Result<(), String> {
    let script = "link add one type veth peer name two\nlink add bridge type bridge\nlink set one master bridge";
    try_feed(
        Command::new("ip").args(["-n", trial.name(), "-batch", "-"]),
        script,
    )
    .map_err(|error| format!("this kernel has no veth or no bridge: {error}"))
}

/// The library that shows a process another time of day.
pub(crate) fn faketime() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let mut places = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/lib64")];
        places.extend(
            fs::read_dir("/usr/lib")
                .ok()?
                .filter_map(|entry| Some(entry.ok()?.path())),
        );
        places
            .into_iter()
            .map(|place| place.join("faketime/libfaketime.so.1"))
            .find(|path| path.exists())
    };
    FOUND.get_or_init(find).as_deref()
}
