//! Reloads the certificates at each SIGHUP.
//!
//! The program `election` uses this file, too.

use std::{
    io::{self, Read as _},
    os::unix::net::UnixStream,
    thread,
};

use quorum_cnx::{Handle, Tls};
use signal_hook::{consts::SIGHUP, low_level};

/// At each SIGHUP, reads the certificates, uses them for new links, and renews all links. `report` gets what is wrong; then the old
/// certificates stay in use.
pub(crate) fn on_hangup(
    handles: Vec<Handle>,
    load: impl Fn() -> Result<Option<Tls>, String> + Send + 'static,
    report: impl Fn(String) + Send + 'static,
) -> io::Result<()> {
    let (mut receiver, sender) = UnixStream::pair()?;
    low_level::pipe::register(SIGHUP, sender)?;
    let reload = move || -> Result<(), String> {
        let tls = load()?.ok_or("the configuration has no TLS any more: restart this program")?;
        for handle in &handles {
            handle
                .set_tls(tls.clone())
                .map_err(|error| error.to_string())?;
            handle.renew();
        }
        Ok(())
    };
    thread::Builder::new()
        .name("certificates".into())
        .spawn(move || {
            // A few signals that come together are one.
            while receiver.read(&mut [0; 16]).is_ok() {
                if let Err(why) = reload() {
                    report(format!("the certificates are not reloaded: {why}"));
                }
            }
        })?;
    Ok(())
}
