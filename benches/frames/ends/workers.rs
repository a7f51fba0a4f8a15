//! The threads of an end, whose failures end it at once.
//!
//! Nobody here waits for a thread: an end that has its results leaves them behind.

use std::{
    io,
    thread::{self, JoinHandle},
};

use crate::failure::{While, failure};

/// Threads by name.
#[derive(Default)]
pub(crate) struct Workers(Vec<(&'static str, JoinHandle<io::Result<()>>)>);

impl Workers {
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .context(format_args!("starting the {name} thread"))?;
        self.0.push((name, thread));
        Ok(())
    }

    /// Whether one has failed. One that has come to its end, because the other end is gone, has not.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        while let Some(at) = self.0.iter().position(|(_, thread)| thread.is_finished()) {
            let (name, thread) = self.0.swap_remove(at);
            match thread.join() {
                Ok(done) => done.context(format_args!("the {name} thread"))?,
                Err(_) => return Err(failure(format_args!("the {name} thread has panicked"))),
            }
        }
        Ok(())
    }
}
