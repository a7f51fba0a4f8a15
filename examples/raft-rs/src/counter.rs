//! The state machine: a counter that counts each request once.
//!
//! Nothing here depends on raft or the network.

use std::collections::BTreeMap;

/// The clients that the counter remembers. More are not counted: the bound of its memory and of its snapshot, 24 bytes each.
const CLIENTS_MAX: usize = 1024;

/// What a client wants. It numbers its requests, and repeats each of them, at any node, until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The client.
    pub client: u64,
    /// The number of the request among those of this client.
    pub number: u64,
    /// Whether it is to be counted, or only to be answered.
    pub is_increment: bool,
}

impl Request {
    /// Without `is_increment`: increments are entries of the log, and reads are not.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [self.client, self.number].map(u64::to_be_bytes).concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8], is_increment: bool) -> Option<Self> {
        let [client, number] = numbers(bytes)?.try_into().ok()?;
        Some(Self {
            client,
            number,
            is_increment,
        })
    }
}

#[derive(Debug, Default)]
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

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.value.to_be_bytes().to_vec();
        for (client, (number, result)) in &self.last {
            bytes.extend(
                [*client, *number, *result]
                    .into_iter()
                    .flat_map(u64::to_be_bytes),
            );
        }
        bytes
    }

    /// The counter of a snapshot. A new one if there is no snapshot, which has no bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut numbers = numbers(bytes)?.into_iter();
        let mut counter = Self {
            value: numbers.next().unwrap_or_default(),
            ..Self::default()
        };
        while let Some(client) = numbers.next() {
            let last = (numbers.next()?, numbers.next()?);
            counter.last.insert(client, last);
        }
        Some(counter)
    }
}

fn numbers(bytes: &[u8]) -> Option<Vec<u64>> {
    let numbers = bytes
        .chunks(8)
        .map(|number| Some(u64::from_be_bytes(number.try_into().ok()?)));
    numbers.collect()
}
