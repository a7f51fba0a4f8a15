//! Names to addresses, off the loop.
//!
//! `getaddrinfo(3)` blocks for as long as it likes and cannot be given up, so each lookup has a thread of its own, a few at
//! a time; the loop has a deadline of its own for the answer.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::net::{Found, Waker};
use crate::limits::LOOKUPS_MAX;

/// Lookups under way, and those that wait for a thread.
pub(super) struct Resolver {
    answers: (Sender<Found>, Receiver<Found>),
    waiting: VecDeque<(u64, String)>,
    running: usize,
    waker: Waker,
}

impl Resolver {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            answers: channel(),
            waiting: VecDeque::new(),
            running: 0,
            waker,
        }
    }

    pub(super) fn lookup(&mut self, ticket: u64, host: &str) {
        // Bounded by the caller: one question at a time for each configured name.
        self.waiting.push_back((ticket, host.to_owned()));
        self.start();
    }

    pub(super) fn found(&mut self) -> Option<Found> {
        let found = self.answers.1.try_recv().ok()?;
        self.running -= 1;
        self.start();
        Some(found)
    }

    fn start(&mut self) {
        while self.running < LOOKUPS_MAX {
            let Some((ticket, host)) = self.waiting.pop_front() else {
                return;
            };
            self.running += 1;
            let (answers, waker) = (self.answers.0.clone(), self.waker.clone());
            let ask = move || {
                let answer = addresses(&host);
                // Fails only when the loop is gone, and then nobody wants to know.
                if answers.send(Found { ticket, answer }).is_ok() {
                    waker();
                }
            };
            if let Err(error) = thread::Builder::new()
                .name("quorum-cnx-lookup".into())
                .spawn(ask)
            {
                let found = Found {
                    ticket,
                    answer: Err(error),
                };
                self.answers
                    .0
                    .send(found)
                    .expect("the receiver is in the same struct");
                (self.waker)();
            }
        }
    }
}

fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut ips = Vec::new();
    for addr in (host, 0).to_socket_addrs()? {
        if !ips.contains(&addr.ip()) {
            ips.push(addr.ip());
        }
    }
    Ok(ips)
}
