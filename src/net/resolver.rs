//! Resolves names to addresses, on threads of its own.
//!
//! Nothing here blocks the loop. `getaddrinfo(3)` blocks without a limit and cannot be cancelled, so each lookup has its own
//! thread, at most [`LOOKUPS_MAX`] at a time. The loop has its own deadline for the answer.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use super::traits::{Found, Waker};
use crate::limits::{LOOKUPS_MAX, LOOKUPS_WAITING_MAX, RESOLVER_WORDS_MAX};

/// Lookups under way, and lookups that wait for a thread.
pub(crate) struct Resolver {
    /// The mutex is never locked. With it a loop is `Sync`, so that a future that borrows it can move to another thread.
    answers: (Sender<Found>, Mutex<Receiver<Found>>),
    waiting: VecDeque<(u64, String)>,
    /// Lookups that do not wait for a thread any more, and whose answers were not taken yet.
    running: usize,
    waker: Waker,
}

impl Resolver {
    pub(crate) fn new(waker: Waker) -> Self {
        let (sender, receiver) = channel();
        Self {
            answers: (sender, Mutex::new(receiver)),
            waiting: VecDeque::new(),
            running: 0,
            waker,
        }
    }

    pub(crate) fn lookup(&mut self, lookup_id: u64, host: &str) {
        // A member looks up each name once at a time. An admitted peer can name new hosts at any time, and a name whose servers do
        // not answer occupies its thread without a limit.
        if self.waiting.len() >= LOOKUPS_WAITING_MAX {
            let busy = io::Error::new(io::ErrorKind::ResourceBusy, "too many names are looked up");
            self.running += 1;
            return self.fail(lookup_id, busy);
        }
        self.waiting.push_back((lookup_id, host.to_owned()));
        self.start();
    }

    pub(crate) fn found(&mut self) -> Option<Found> {
        let answers = self.answers.1.get_mut();
        let found = answers
            .unwrap_or_else(PoisonError::into_inner)
            .try_recv()
            .ok()?;
        self.running -= 1;
        self.start();
        Some(found)
    }

    fn start(&mut self) {
        while self.running < LOOKUPS_MAX {
            let Some((lookup_id, host)) = self.waiting.pop_front() else {
                return;
            };
            self.running += 1;
            let (answers, waker) = (self.answers.0.clone(), self.waker.clone());
            let ask = move || {
                let answer = addresses(&host);
                // Fails only if the loop is gone. Nothing waits for the answer then.
                if answers.send(Found { lookup_id, answer }).is_ok() {
                    waker();
                }
            };
            if let Err(error) = thread::Builder::new()
                .name("quorum-cnx-lookup".into())
                .spawn(ask)
            {
                self.fail(lookup_id, error);
            }
        }
    }

    /// Answers a lookup with an error, without a thread.
    fn fail(&self, lookup_id: u64, error: io::Error) {
        let found = Found {
            lookup_id,
            answer: Err(error),
        };
        self.answers
            .0
            .send(found)
            .expect("the receiver is in the same struct");
        (self.waker)();
    }
}

/// Reported for an answer that is neither an error nor an address.
pub(crate) const NO_ADDRESS: &str = "the resolver knows none";

/// The error message of the resolver, cut to a bounded length.
pub(crate) fn words_of(error: &io::Error) -> String {
    let text = error.to_string();
    // The prefix that the standard library adds to the text of `gai_strerror(3)`.
    let words = text.strip_prefix("failed to lookup address information: ");
    cut(words.unwrap_or(&text), RESOLVER_WORDS_MAX)
}

/// The beginning of a text, cut to at most this many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    const MARK: &str = "...";
    let mut end = bytes_max - MARK.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &text[..end])
}

fn addresses(host: &str) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in (host, 0).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_link_local_address_keeps_its_scope() {
        // The scope is a number, since interface names differ between systems.
        let [SocketAddr::V6(address)] = addresses("fe80::1%1").unwrap()[..] else {
            panic!("one literal is one address")
        };
        assert_eq!(
            (address.ip().to_string(), address.scope_id()),
            ("fe80::1".into(), 1)
        );
    }

    #[test]
    fn lookup_above_the_limit_fails_and_the_others_run() {
        let mut resolver = Resolver::new(Arc::new(|| {}));
        // As if names whose servers do not answer occupied all threads.
        resolver.running = LOOKUPS_MAX;
        for lookup_id in 0..LOOKUPS_WAITING_MAX as u64 + 1 {
            resolver.lookup(lookup_id, "127.0.0.1");
        }
        assert_eq!(resolver.waiting.len(), LOOKUPS_WAITING_MAX);
        let found = resolver.found().expect("nobody waits for this answer");
        assert_eq!(found.lookup_id, LOOKUPS_WAITING_MAX as u64);
        assert!(found.answer.is_err());
        assert_eq!(resolver.running, LOOKUPS_MAX);
        // Now a thread is free again.
        resolver.waiting.truncate(2);
        resolver.running -= 1;
        resolver.start();
        for lookup_id in 0..2 {
            let found = loop {
                match resolver.found() {
                    Some(found) => break found,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(found.lookup_id, lookup_id);
            assert!(found.answer.is_ok());
        }
        assert_eq!(resolver.running, LOOKUPS_MAX - 1);
    }
}
