//! The threads of an end. A failure of one ends the end at once.
//!
//! Threads are not joined at the end: an end that has its results leaves them running.

use std::{
    io,
    thread::{self, JoinHandle},
};

use crate::failure::{While, failure};

/// Threads with their names.
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

    /// An error if a thread has failed. A thread may return when the other end is gone.
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
