//! The state machine: a counter that counts each request once.
//!
//! Nothing here depends on raft or the network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The clients that the counter remembers. More are not counted: the bound of its memory and of its snapshot, 30 bytes each at most.
const CLIENTS_MAX: usize = 1024;

/// What a client wants. It numbers its requests, and repeats each of them, at any node, until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Request {
    /// The client.
    pub client: u64,
    /// The number of the request among those of this client.
    pub number: u64,
    /// Whether it is to be counted, or only to be answered.
    pub is_increment: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    value: u64,
    /// For each client, the number of its last request and its result.
    last: BTreeMap<u64, (u64, u64)>,
}

impl Counter {
    pub(crate) fn value(&self) -> u64 {
        self.value
    }

    /// Counts this increment, unless it has been counted. Returns the value that the counter had after that. `None` if nobody waits for
    /// the result, since the client has gone on, or if there are too many clients.
    pub(crate) fn apply(&mut self, increment: Request) -> Option<u64> {
        match self.last.get(&increment.client) {
            Some((number, _)) if *number > increment.number => return None,
            Some((number, result)) if *number == increment.number => return Some(*result),
            None if self.last.len() == CLIENTS_MAX => return None,
            _ => self.value += 1,
        }
        let last = (increment.number, self.value);
        self.last.insert(increment.client, last);
        Some(self.value)
    }
}
