//! Watches the files of the certificates, on a thread of its own, since reading a file may block.
//!
//! Nothing here knows what is in a file.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::Arc,
    thread,
};

use crate::{
    error::ConfigError,
    file,
    limits::TLS_FILES_READ_EVERY,
    shared::{Life, Shared},
    sync::release,
    tls::Tls,
};

/// The contents of the files, or why they cannot be read. Not their times or numbers: a Kubernetes secret changes when the symbolic link
/// to its directory does.
type Contents = Vec<Result<Vec<u8>, io::ErrorKind>>;

fn read(files: &[PathBuf]) -> Contents {
    let read = |path: &PathBuf| file::read(path).map_err(|error| error.kind());
    files.iter().map(read).collect()
}

/// The files as they were found last.
struct Watched {
    contents: Contents,
    /// Why they could not be loaded. `None` if they are in use.
    failure: Option<String>,
}

impl Watched {
    /// Loads the files if they have changed, and again if they could not be loaded: the cause may have been one of a moment, such as a
    /// link that was being replaced. Returns what is new: a failure that lasts is returned once for each change.
    fn look<T>(
        &mut self,
        now: Contents,
        load: impl FnOnce() -> Result<T, ConfigError>,
    ) -> Option<Result<T, String>> {
        let is_changed = now != self.contents;
        if !is_changed && self.failure.is_none() {
            return None;
        }
        self.contents = now;
        // A panic of the application's function is a failure like another: this thread must go on, or later changes would not be seen.
        let loaded = panic::catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panicked| {
            release(panicked);
            Err(ConfigError::BadOption {
                option: "tls",
                why: "the function that loads the watched files has panicked".to_owned(),
            })
        });
        match loaded {
            Ok(loaded) => {
                self.failure = None;
                Some(Ok(loaded))
            }
            Err(error) => {
                let why = error.to_string();
                let before = self.failure.replace(why.clone());
                (is_changed || before.as_ref() != Some(&why)).then_some(Err(why))
            }
        }
    }
}

/// Starts a thread that calls `load` after the files have changed, and again until it succeeds, until the loop ends.
///
/// # Errors
///
/// The error of the system if there can be no other thread.
pub(crate) fn watch(
    shared: Arc<Shared>,
    files: Vec<PathBuf>,
    load: impl Fn() -> Result<Tls, ConfigError> + Send + 'static,
) -> io::Result<()> {
    let mut watched = Watched {
        contents: read(&files),
        failure: None,
    };
    let name = format!("quorum-cnx-tls-{}", shared.own);
    thread::Builder::new().name(name).spawn(move || {
        while shared.wait_for_end_at_most(TLS_FILES_READ_EVERY) == Life::Running {
            // Read before they are loaded: a change in between is seen in the next round.
            match watched.look(read(&files), &load) {
                Some(Ok(tls)) => _ = shared.set_tls(tls),
                Some(Err(why)) => shared.tls_failed(why),
                None => {}
            }
        }
    })?;
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Looks at a file with these contents. Returns what is reported, and whether the file was loaded.
    fn look(
        watched: &mut Watched,
        contents: &str,
        loaded: Result<(), &str>,
    ) -> (Option<Result<(), String>>, bool) {
        let mut is_called = false;
        let reported = watched.look(vec![Ok(contents.into())], || {
            is_called = true;
            loaded.map_err(|why| ConfigError::BadOption {
                option: "tls",
                why: why.to_owned(),
            })
        });
        (reported, is_called)
    }

    #[test]
    fn files_are_loaded_until_it_works_and_each_failure_is_told_once() {
        let mut watched = Watched {
            contents: vec![Ok("first".into())],
            failure: None,
        };
        let failed = |why| {
            let error = ConfigError::BadOption { option: "tls", why };
            Some(Err(error.to_string()))
        };
        let denied = failed("denied".to_owned());
        let missing = failed("missing".to_owned());
        for (contents, loaded, reported, is_called) in [
            ("first", Ok(()), None, false),
            ("second", Err("denied"), denied.clone(), true),
            // Nothing has changed.
            ("second", Err("denied"), None, true),
            ("second", Err("denied"), None, true),
            ("second", Err("missing"), missing, true),
            // Someone has written a file, and it is no better.
            ("third", Err("denied"), denied.clone(), true),
            ("third", Ok(()), Some(Ok(())), true),
            ("third", Ok(()), None, false),
            ("fourth", Err("denied"), denied, true),
        ] {
            let found = look(&mut watched, contents, loaded);
            assert_eq!(found, (reported, is_called), "{contents}, {loaded:?}");
        }
    }

    #[test]
    fn panic_while_loading_is_a_failure_and_the_files_are_tried_again() {
        let mut watched = Watched {
            contents: vec![Ok("first".into())],
            failure: None,
        };
        let second = || vec![Ok("second".into())];
        let failed = watched.look::<()>(second(), || panic!("in the application"));
        let why = failed.unwrap().unwrap_err();
        assert!(why.contains("has panicked"), "{why}");
        assert_eq!(watched.look(second(), || Ok(())), Some(Ok(())));
    }
}
