//! Signals to other processes.

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

pub use nix::sys::signal::Signal;

/// Sends a signal. Fails if the process has ended and its parent has taken notice.
pub fn signal(process: u32, signal: Signal) -> Result<(), Errno> {
    let number = process.try_into();
    let process = Pid::from_raw(number.expect("process numbers are far below 2^31"));
    kill(process, signal)
}
