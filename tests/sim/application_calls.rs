//! The calls that applications make on their own: they send frames, and ask for links.
//!
//! The calls of their handlers are in `oracle`.

use std::{rc::Rc, time::Duration};

use quorum_cnx::{Handle, simulation::limits::RENEWAL_TRIES};

use crate::{
    kernel::SimEvent,
    net::during_next_write,
    oracle::{feed_frame, send_frame},
    plan::GUESTS,
    random_calls::random_call,
    rng::Rng,
    simulation::Simulation,
};

/// After so many calls in one run, applications make calls more slowly. Otherwise a few busy runs would take longer than hundreds
/// of others.
const BUSY_CALLS: usize = 400;
const SLOWER: u32 = 10;

/// Bytes of large frames in one run; all later frames are small.
const LARGE_BYTES: usize = 8 << 20;

impl Simulation {
    /// The application of a host makes a call.
    pub fn run_application(&mut self, host: usize) {
        if !self.sends_frames {
            return;
        }
        let number = self.size.calls;
        self.size.calls += 1;
        let pace = self.plan.call_interval_max * if number < BUSY_CALLS { 1 } else { SLOWER };
        let every = self.rng.micros(0, pace.as_micros() as u64);
        let to = self.rng.below(self.hosts.len());
        let what = self.rng.below(100);
        self.kernel().after(every, SimEvent::App(host));
        let handle = self.hosts[host].handle.clone();
        let Some(handle) = handle.filter(|_| self.is_up(host) && self.only.has_call(number)) else {
            return;
        };
        let sid = self.plan.hosts[to].sid;
        let note = |what: &str| {
            self.kernel()
                .note(host, || format!("call {number}: {what}"));
        };
        // A clone, so that the run is the same if no members change.
        let mut changes = self.rng.clone().fork().fork();
        let in_storm = self.kernel().now < self.plan.storm[1];
        if self.plan.changes_members && in_storm && changes.percent(5) {
            if self.plan.changes_own && changes.clone().fork().percent(50) {
                note("own addresses");
                return self.change_own_addresses(host, changes);
            }
            note("members");
            if self.change_members(host, changes) {
                return;
            }
        }
        // The same.
        let mut renewals = self.rng.clone().fork().fork().fork();
        if in_storm && renewals.percent(self.plan.renews) {
            note("renew");
            let record = &mut self.oracle.borrow_mut().hosts[host];
            record.unproven_dials.clear();
            record.guest_dials_max += GUESTS as u64 * u64::from(RENEWAL_TRIES);
            return handle.renew();
        }
        let is_removed = self.oracle.borrow().hosts[host].removed.contains(&to);
        match what {
            _ if is_removed => {
                note("frame for a removed member");
                self.send(host, to);
            }
            // A link that the application ends is not a violation of P6.
            0 if !self.plan.strangers_only => {
                note("soft_halt");
                handle.soft_halt();
                let now = self.kernel().now;
                self.oracle.borrow_mut().hosts[host].soft_halt_at = Some(now);
            }
            1 if !self.plan.strangers_only && to != host => {
                note(&format!("initiate_connection to host {to}"));
                self.oracle.borrow_mut().hosts[host]
                    .unproven_dials
                    .remove(&sid);
                handle.initiate_connection(sid).expect("it is a member");
            }
            2 if to != host => {
                note(&format!("connect_one to host {to}"));
                self.oracle.borrow_mut().hosts[host]
                    .unproven_dials
                    .remove(&sid);
                handle.connect_one(sid).expect("it is a member");
            }
            3 => {
                note("connect_all");
                handle.connect_all();
                let record = &mut self.oracle.borrow_mut().hosts[host];
                record.unproven_dials.clear();
                record.guest_dials_max += GUESTS as u64;
            }
            _ => {
                note("frames");
                let mut feeds = self.rng.clone().fork();
                if self.plan.feeds && feeds.percent(30) {
                    return self.feed(host, to, feeds);
                }
                for _ in 0..*self.rng.pick(&[1, 1, 1, 2, 30]) {
                    self.send(host, to);
                }
            }
        }
    }

    /// Every host sends a frame to every other host.
    pub fn send_final_frames(&mut self) {
        for host in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|&to| to != host) {
                self.send(host, to);
            }
        }
    }

    /// A link that was renewed or replaced while other connections crowded the host may have ended when everything had arrived.
    /// Then nobody dials on demand before there is another frame.
    pub fn send_where_no_link_is_needed(&mut self) {
        for host in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|&to| to != host) {
                let peer = self.plan.hosts[to].sid;
                let is_linked = |handle: &Handle| handle.connected_to_peer(peer);
                let linked = self.hosts[host].handle.as_ref().is_some_and(is_linked);
                if !linked && self.have_newest(host, to) {
                    self.send(host, to);
                }
            }
        }
    }

    /// A length up to nearly the largest, so that all limits are crossed. Larger powers of two are more frequent.
    fn length(&mut self) -> usize {
        let large = self.rng.permille(self.plan.large) && self.large_bytes < LARGE_BYTES;
        if !large {
            return self.rng.below(60);
        }
        let least = 1000 << self.rng.below(10).max(self.rng.below(10));
        let len = self.rng.between(least, (2 * least).min(520_000));
        self.large_bytes += len;
        len
    }

    /// Sends frames through a `Sender`, which is flushed now and then, and dropped at the end. Sometimes another frame is sent in the
    /// middle of the write of the last ones.
    fn feed(&mut self, host: usize, to: usize, mut rng: Rng) {
        let Some(handle) = self.hosts[host].handle.clone() else {
            return;
        };
        let oracle = Rc::clone(&self.oracle);
        let mut sender = handle
            .sender(self.plan.hosts[to].sid)
            .expect("it is a member");
        for _ in 0..*rng.pick(&[1, 2, 30]) {
            let len = self.length();
            let result = feed_frame(&oracle, &mut sender, host, to, len);
            self.kernel().note(host, || {
                let number = oracle.borrow().hosts[host].next;
                format!("feeds frame {number} of {len} bytes to host {to}: {result:?}")
            });
            if rng.percent(10) {
                sender.flush().expect("it is a member, and the loop runs");
            }
        }
        let other = move || {
            // The oracle counts the outcome.
            let _ = send_frame(&oracle, &handle, host, to, 3);
        };
        if rng.percent(30) {
            during_next_write(other, || drop(sender));
        }
    }

    /// Sends a frame. Sometimes another call or a turn runs in the middle of the write.
    fn send(&mut self, host: usize, to: usize) {
        let Some(handle) = self.hosts[host].handle.clone() else {
            return;
        };
        let len = self.length();
        let oracle = Rc::clone(&self.oracle);
        let result = match self.rng.below(10) {
            0 => {
                let (shared, other) = (Rc::clone(&oracle), handle.clone());
                let (mut rng, strangers_only) = (self.rng.fork(), self.plan.strangers_only);
                let calls = rng.permille(self.plan.random_calls);
                let other_call = move || {
                    // The oracle counts the outcome.
                    let _ = send_frame(&shared, &other, host, to, 3);
                    if calls {
                        random_call(&shared, &other, host, &mut rng, None, strangers_only);
                    }
                };
                during_next_write(other_call, || send_frame(&oracle, &handle, host, to, len))
            }
            1 => {
                // The next turn handles what this one leaves.
                let (event_loop, machines) = (
                    Rc::clone(&self.hosts[host].event_loop),
                    self.machines.clone(),
                );
                let turn = move || {
                    if let Some(event_loop) = &mut *event_loop.borrow_mut() {
                        event_loop
                            .turn(Some(Duration::ZERO))
                            .expect("the simulated system does not fail");
                    }
                    machines.lock().wake(host);
                };
                during_next_write(turn, || send_frame(&oracle, &handle, host, to, len))
            }
            _ => send_frame(&oracle, &handle, host, to, len),
        };
        self.kernel().note(host, || {
            let number = oracle.borrow().hosts[host].next;
            format!("sends frame {number} of {len} bytes to host {to}: {result:?}")
        });
    }
}
