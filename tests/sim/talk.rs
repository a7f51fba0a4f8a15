//! What the applications do of their own accord: frames they put, links they ask for.
//!
//! What they do when a frame or an event comes is in `host`.

use std::{rc::Rc, time::Duration};

use crate::{
    anything::call_anything, host::put, kernel::Due, net::meanwhile, plan::GUESTS, world::World,
};

/// So often a world's applications speak at their pace; then they take their time. A few busy worlds would otherwise take
/// longer than hundreds of others.
const BUSY_CALLS: usize = 400;
const SLOWER: u32 = 10;

/// Bytes of large frames in one world; then all are small.
const LARGE_BYTES: usize = 8 << 20;

impl World {
    /// The application of a host does something.
    pub fn talk(&mut self, host: usize) {
        if !self.talking {
            return;
        }
        let number = self.size.calls;
        self.size.calls += 1;
        let pace = self.plan.talk_every * if number < BUSY_CALLS { 1 } else { SLOWER };
        let every = self.chance.micros(0, pace.as_micros() as u64);
        let to = self.chance.below(self.hosts.len());
        let what = self.chance.below(100);
        self.kernel().after(every, Due::App(host));
        let handle = self.hosts[host].handle.clone();
        let Some(handle) = handle.filter(|_| self.is_up(host) && self.only.has_call(number)) else {
            return;
        };
        let sid = self.plan.hosts[to].sid;
        let note = |what: &str| {
            self.kernel()
                .note(host, || format!("call {number}: {what}"));
        };
        match what {
            // What the application asks for is no fault of strangers.
            0 if !self.plan.calm => {
                note("soft_halt");
                handle.soft_halt();
                let now = self.kernel().now;
                self.books.borrow_mut().hosts[host].dropped_at = Some(now);
            }
            1 if !self.plan.calm && to != host => {
                note(&format!("initiate_connection to host {to}"));
                self.books.borrow_mut().hosts[host].fruitless.remove(&sid);
                handle.initiate_connection(sid).expect("it is a member");
            }
            2 if to != host => {
                note(&format!("connect_one to host {to}"));
                handle.connect_one(sid).expect("it is a member");
            }
            3 => {
                note("connect_all");
                handle.connect_all();
                self.books.borrow_mut().hosts[host].asked_for_guests += GUESTS as u64;
            }
            _ => {
                note("frames");
                for _ in 0..*self.chance.pick(&[1, 1, 1, 2, 30]) {
                    self.put(host, to);
                }
            }
        }
    }

    /// Everybody puts a frame for everybody.
    pub fn last_words(&mut self) {
        for host in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|&to| to != host) {
                self.put(host, to);
            }
        }
    }

    /// Of any size up to nearly the largest, so that all borders are crossed; the larger the power of two, the more often.
    fn length(&mut self) -> usize {
        let large = self.chance.permille(self.plan.large) && self.large_bytes < LARGE_BYTES;
        if !large {
            return self.chance.below(60);
        }
        let least = 1000 << self.chance.below(10).max(self.chance.below(10));
        let len = self.chance.between(least, (2 * least).min(520_000));
        self.large_bytes += len;
        len
    }

    /// Puts a frame, with something happening in the middle of it now and then.
    fn put(&mut self, host: usize, to: usize) {
        let Some(handle) = self.hosts[host].handle.clone() else {
            return;
        };
        let len = self.length();
        let books = Rc::clone(&self.books);
        let result = match self.chance.below(10) {
            0 => {
                let (inner, other) = (Rc::clone(&books), handle.clone());
                let (mut chance, calm) = (self.chance.fork(), self.plan.calm);
                let asks = chance.permille(self.plan.asks);
                let more = move || {
                    // What became of it is in the account.
                    let _ = put(&inner, &other, host, to, 3);
                    if asks {
                        call_anything(&inner, &other, host, &mut chance, None, calm);
                    }
                };
                meanwhile(more, || put(&books, &handle, host, to, len))
            }
            1 => {
                // What the turn leaves to be done is seen by the next one.
                let (turning, machines) =
                    (Rc::clone(&self.hosts[host].turning), self.machines.clone());
                let turn = move || {
                    if let Some(turning) = &mut *turning.borrow_mut() {
                        turning
                            .turn(Some(Duration::ZERO))
                            .expect("the simulated system does not fail");
                    }
                    machines.lock().wake(host);
                };
                meanwhile(turn, || put(&books, &handle, host, to, len))
            }
            _ => put(&books, &handle, host, to, len),
        };
        self.kernel().note(host, || {
            let number = books.borrow().hosts[host].next;
            format!("puts frame {number} of {len} bytes for host {to}: {result:?}")
        });
    }
}
