//! Enters a network namespace of its own, in which the congestion control is the same on every machine.
//!
//! The namespace has no name, so that it is gone when its last process ends.

use std::{
    env, fmt, fs,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use crate::output::print_error;

/// Environment variable that is set inside the namespace.
const INSIDE: &str = "QUORUM_CNX_FRAMES_INSIDE";

/// The congestion control of all measurements.
const CONGESTION: &str = "reno";

const SETTING: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The network of the measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Network {
    /// A namespace of its own.
    Own,
    /// That of the machine.
    Kept,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "a namespace of its own",
            Self::Kept => "the machine's",
        })
    }
}

/// The congestion control that the kernel uses here.
pub(crate) fn congestion_control() -> String {
    fs::read_to_string(SETTING).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// Replaces this process by the same program in a new namespace, unless it is in one already, or cannot create one.
pub(crate) fn enter() -> Network {
    if env::var_os(INSIDE).is_some() {
        return match prepare() {
            Ok(()) => Network::Own,
            Err(why) => {
                print_error(format_args!(
                    "note: congestion control is {}, not {CONGESTION}: {why}",
                    congestion_control()
                ));
                Network::Own
            }
        };
    }
    let can = Command::new("unshare")
        .args(["--net", "ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if can {
        let program = env::current_exe().unwrap_or_else(|_| "frames".into());
        let error = Command::new("unshare")
            .arg("--net")
            .arg(program)
            .args(env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        print_error(format_args!(
            "note: cannot start again in a network namespace: {error}"
        ));
    }
    if congestion_control() != CONGESTION {
        print_error(format_args!(
            "note: the congestion control is that of the machine, {}; for {CONGESTION}, run as root on Linux with `unshare` and `ip` installed",
            congestion_control()
        ));
    }
    Network::Kept
}

/// Inside the namespace: brings the loopback interface up, and sets the congestion control.
fn prepare() -> Result<(), String> {
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .map_err(|error| format!("cannot run `ip`: {error}"))?;
    if !status.success() {
        return Err(format!("`ip link set lo up` failed: {status}"));
    }
    set_congestion_control(CONGESTION)
}

/// Sets the congestion control of the namespace of this thread.
pub(crate) fn set_congestion_control(name: &str) -> Result<(), String> {
    fs::write(SETTING, name).map_err(|error| format!("cannot write {SETTING}: {error}"))
}
