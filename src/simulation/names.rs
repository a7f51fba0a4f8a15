//! The name service: what each name means, and lookups that wait for an answer.
//!
//! Nothing here knows who asks: an asker is the number of a process.

use std::{collections::BTreeMap, io, net::IpAddr};

/// A lookup that is not answered yet.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) process: usize,
    pub(super) lookup_id: u64,
    pub(super) name: String,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    /// The addresses of each name, or the error that its lookup returns.
    known: BTreeMap<String, Result<Vec<IpAddr>, String>>,
    /// True exactly when lookups wait until the test has them answered.
    pub(super) is_holding: bool,
    waiting: Vec<Lookup>,
}

impl Names {
    pub(super) fn set(&mut self, name: &str, answer: Result<Vec<IpAddr>, String>) {
        self.known.insert(name.to_owned(), answer);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.known.remove(name);
    }

    pub(super) fn answer(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self.known.get(name) {
            Some(Ok(addresses)) => Ok(addresses.clone()),
            Some(Err(error)) => Err(io::Error::other(error.clone())),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name is unknown",
            )),
        }
    }

    pub(super) fn hold(&mut self, lookup: Lookup) {
        self.waiting.push(lookup);
    }

    pub(super) fn waiting(&self) -> Vec<String> {
        self.waiting
            .iter()
            .map(|lookup| lookup.name.clone())
            .collect()
    }

    /// Takes the lookups of these names.
    pub(super) fn take(&mut self, is_asked: impl Fn(&str) -> bool) -> Vec<Lookup> {
        let waiting = std::mem::take(&mut self.waiting);
        let (taken, left) = waiting
            .into_iter()
            .partition(|lookup| is_asked(&lookup.name));
        self.waiting = left;
        taken
    }
}
