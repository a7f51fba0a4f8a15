//! The end of a program by Ctrl-C or SIGTERM: the first signal asks for it, a second one ends the process at once.
//!
//! Nothing here knows what is to be done; other programs use this file as well.

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

/// After the first signal, what waits to be printed is waited for so long: a reader that is stopped must not keep a process.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Does this on a thread of its own when the first signal has come.
pub(crate) fn on_first(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (mut told, tells) = UnixStream::pair()?;
    let is_second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset.
        flag::register_conditional_default(signal, Arc::clone(&is_second))?;
        flag::register(signal, Arc::clone(&is_second))?;
        low_level::pipe::register(signal, tells.try_clone()?)?;
    }
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if told.read_exact(&mut [0]).is_ok() {
                act();
            }
        })?;
    Ok(())
}
