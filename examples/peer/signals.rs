//! Handles SIGINT (Ctrl-C) and SIGTERM: the first signal runs a function, a second one ends the process at once.
//!
//! The other examples use this file, too.

use std::{
    io::{self, Read as _},
    os::unix::net::UnixStream,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};

/// Time after the first signal in which waiting output is still written. A reader that is stopped must not keep the process alive.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs `act` on a thread of its own at the first signal.
pub(crate) fn on_first(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (mut receiver, sender) = UnixStream::pair()?;
    let is_second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset.
        flag::register_conditional_default(signal, Arc::clone(&is_second))?;
        flag::register(signal, Arc::clone(&is_second))?;
        low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if receiver.read_exact(&mut [0]).is_ok() {
                act();
            }
        })?;
    Ok(())
}
