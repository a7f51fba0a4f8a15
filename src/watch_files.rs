//! Watches the files of the certificates, on a thread of its own, since reading a file may block.
//!
//! Nothing here knows what is in a file.

use std::{io, path::PathBuf, sync::Arc, thread};

use crate::{
    error::ConfigError,
    file,
    limits::TLS_FILES_READ_EVERY,
    shared::{Life, Shared},
    tls::Tls,
};

/// The contents of the files, or why they cannot be read. Not their times or numbers: a Kubernetes secret changes when the symbolic link
/// to its directory does.
type Contents = Vec<Result<Vec<u8>, io::ErrorKind>>;

fn read(files: &[PathBuf]) -> Contents {
    let read = |path: &PathBuf| file::read(path).map_err(|error| error.kind());
    files.iter().map(read).collect()
}

/// Starts a thread that calls `load` after the files have changed, until the loop ends.
///
/// # Errors
///
/// The error of the system if there can be no other thread.
pub(crate) fn watch(
    shared: Arc<Shared>,
    files: Vec<PathBuf>,
    load: impl Fn() -> Result<Tls, ConfigError> + Send + 'static,
) -> io::Result<()> {
    let mut before = read(&files);
    let name = format!("quorum-cnx-tls-{}", shared.own);
    thread::Builder::new().name(name).spawn(move || {
        while shared.wait_for_end_at_most(TLS_FILES_READ_EVERY) == Life::Running {
            let now = read(&files);
            if now == before {
                continue;
            }
            // Read before they are loaded: a change in between is seen in the next round.
            before = now;
            match load() {
                Ok(tls) => {
                    let _ = shared.set_tls(tls);
                }
                Err(error) => shared.tls_failed(error.to_string()),
            }
        }
    })?;
    Ok(())
}
