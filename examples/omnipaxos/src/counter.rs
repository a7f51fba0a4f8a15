//! The state machine: a counter that serves each request once. Its requests are the entries of the log.
//!
//! Nothing here depends on the network.

use std::collections::BTreeMap;

use omnipaxos::storage::{Entry, NoSnapshot};
use serde::{Deserialize, Serialize};

/// The clients that the counter remembers. More are not served: the bound of its memory.
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

impl Entry for Request {
    type Snapshot = NoSnapshot;
}

#[derive(Debug, Default)]
pub(crate) struct Counter {
    value: u64,
    /// For each client, the number of its last request and its result.
    last: BTreeMap<u64, (u64, u64)>,
}

impl Counter {
    /// Serves the request, unless it has been served. Returns the value that the counter had after that. `None` if nobody waits for
    /// the result, since the client has gone on, or if there are too many clients.
    pub(crate) fn apply(&mut self, request: Request) -> Option<u64> {
        match self.last.get(&request.client) {
            Some((number, _)) if *number > request.number => return None,
            Some((number, result)) if *number == request.number => return Some(*result),
            None if self.last.len() == CLIENTS_MAX => return None,
            _ => self.value += u64::from(request.is_increment),
        }
        let last = (request.number, self.value);
        self.last.insert(request.client, last);
        Some(self.value)
    }
}
