//! A network of its own, in which the congestion control is the same wherever this runs.
//!
//! The namespace has no name: it is gone with its last process, however that ends.

use std::{
    env, fmt, fs,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use crate::output::complain;

/// Set for the harness inside.
const INSIDE: &str = "QUORUM_CNX_FRAMES_INSIDE";

/// What every program compared runs with.
const CONGESTION: &str = "reno";

const SETTING: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// In which network the frames go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Network {
    /// One of our own.
    Own,
    /// The machine's.
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

/// What the kernel uses here.
pub(crate) fn congestion_control() -> String {
    fs::read_to_string(SETTING).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// Starts this program anew in a namespace of its own, in its place, unless it is there already or cannot.
pub(crate) fn enter() -> Network {
    if env::var_os(INSIDE).is_some() {
        return match prepare() {
            Ok(()) => Network::Own,
            Err(why) => {
                complain(format_args!(
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
        complain(format_args!(
            "note: cannot start anew in a network namespace: {error}"
        ));
    }
    if congestion_control() != CONGESTION {
        complain(format_args!(
            "note: the congestion control is the machine's, {}; for {CONGESTION}, run as root on Linux with `unshare` and `ip` installed",
            congestion_control()
        ));
    }
    Network::Kept
}

/// Raises the loopback and sets the congestion control, inside.
fn prepare() -> Result<(), String> {
    let raised = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .map_err(|error| format!("cannot run `ip`: {error}"))?;
    if !raised.success() {
        return Err(format!("`ip link set lo up` failed: {raised}"));
    }
    fs::write(SETTING, CONGESTION).map_err(|error| format!("cannot write {SETTING}: {error}"))
}
