//! What must hold: after every turn, after healing, and after halting.
//!
//! P3 and P6, and the parts of P1 and P5 that an application sees, are checked in `host` where they happen.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use quorum_cnx::{SendError, Sid, Stats};

use crate::{
    host::{Up, put},
    plan::{GUESTS, OBSERVERS},
    world::World,
};

/// Turns in a row, within [`IN_A_ROW`] of each other, that may find nothing to do. A few are normal: an event that was
/// reported late, a socket that was closed meanwhile.
const IDLE_TURNS_MAX: u32 = 25;
const IN_A_ROW: Duration = Duration::from_millis(2);

/// So many dials of a peer that never proved to be there take at least so long. The ceiling of the backoff is above
/// half a second from the fifth attempt on, and half of the ceiling is the mean: thirty take 13 s on average, and fewer
/// than 5 s in less than one of a million cases.
const DIALS_MAX: usize = 30;
const DIALS_TAKE: Duration = Duration::from_secs(5);

/// Sums only grow, so that what is wrong stays wrong: they are looked at when a connection has come or gone or something
/// was told, and else in one of so many turns.
const UNEVENTFUL_TURNS: u32 = 8;

/// Whoever can turn has done by then what an event was about.
const LATE: Duration = Duration::from_secs(1);

/// What is remembered of a host from turn to turn.
#[derive(Debug, Default)]
pub struct Watch {
    last: [u64; 2],
    told: [u64; 2],
    uneventful: u32,
    idle_turns: u32,
    idle_at: Duration,
    dials: BTreeMap<Sid, u64>,
    dials_of_guests: u64,
}

impl World {
    fn fail(&self, property: &'static str, what: String) {
        self.books.borrow_mut().fail(property, what);
    }

    /// Looks at a host after each of its turns.
    pub fn watch(&mut self, host: usize, reported: u64) {
        self.watch_order(host);
        let (now, moved, held) = {
            let kernel = self.kernel();
            let node = &kernel.nodes[host];
            (kernel.now, node.moved, node.held as u64)
        };
        let events = {
            let account = &self.books.borrow().hosts[host];
            account.events + account.looped[1]
        };
        let watch = &mut self.hosts[host].watch;
        let (seen, told) = ([reported, moved], [events, held]);
        let eventful = std::mem::replace(&mut watch.told, told) != told;
        if std::mem::replace(&mut watch.last, seen) != seen
            || eventful
            || now - watch.idle_at > IN_A_ROW
        {
            watch.idle_turns = 0;
        }
        watch.idle_turns += 1;
        watch.idle_at = now;
        let spins = watch.idle_turns > IDLE_TURNS_MAX;
        watch.uneventful += 1;
        if eventful || watch.uneventful >= UNEVENTFUL_TURNS {
            watch.uneventful = 0;
            let handle = self.hosts[host].handle.as_ref().expect("it turns");
            let stats = handle.stats();
            self.watch_sums(host, &stats);
            self.watch_limits(host, &stats);
            self.watch_dials(host, &stats);
            self.watch_far_ends(host);
        }
        if spins {
            self.fail(
                "P4",
                format!("host {host} turns again and again and finds nothing to do"),
            );
        }
    }

    /// P5.
    fn watch_sums(&self, host: usize, stats: &Stats) {
        let failure = {
            let account = &self.books.borrow().hosts[host];
            let downs: u64 = stats.downs.values().sum();
            let rejected: u64 = stats.rejected.values().sum();
            let events = (account.ups, account.downs, account.rejected);
            if !stats.balances() {
                Some("a sum does not balance")
            } else if stats.sent.accepted != account.accepted {
                Some("not as many frames were taken as were put")
            } else if events != (stats.ups, downs, rejected) {
                Some("an event was not told or not counted")
            } else if (stats.kept, stats.received.frames) != (account.ups_accepted, account.frames)
            {
                Some("a link or a frame was not counted")
            } else {
                None
            }
        };
        if let Some(what) = failure {
            self.fail("P5", format!("host {host}: {what}; {stats:?}"));
        }
    }

    /// P4: tables.
    fn watch_limits(&self, host: usize, stats: &Stats) {
        let refused = self.books.borrow_mut().hosts[host].refused.take();
        if let Some(served @ ..OBSERVERS) = refused {
            self.fail(
                "P4",
                format!("host {host} serves {served} observers and no more"),
            );
        }
        let (members, guests) = (
            self.plan.hosts.len() - 1,
            if self.plan.admits { GUESTS } else { 0 },
        );
        let peers = members + guests + OBSERVERS;
        // A link, a contender and an attempt for each peer.
        let most = 3 * peers + self.plan.pending_max;
        let held = self.kernel().nodes[host].held;
        if stats.peers.len() > peers || held > most {
            self.fail(
                "P4",
                format!(
                    "host {host} has {} peers and {held} sockets",
                    stats.peers.len()
                ),
            );
        }
        // AwaitingInitialMessage, or as a contender of a member or a guest.
        if stats.pending > (self.plan.pending_max + members + guests) as u64 {
            self.fail(
                "P4",
                format!("host {host} has {} pending connections", stats.pending),
            );
        }
        if stats.connections != held as u64 {
            self.fail(
                "P4",
                format!(
                    "host {host} knows {} connections and holds {held}",
                    stats.connections
                ),
            );
        }
    }

    /// What the far end has ended goes soon, and nobody waits in a backlog.
    fn watch_far_ends(&self, host: usize) {
        let kernel = self.kernel();
        let node = &kernel.nodes[host];
        let is_late = |since: Duration| kernel.now - since.max(node.paused_until) > LATE;
        let ended = |sock: &&usize| kernel.socks[**sock].ended_at.is_some_and(is_late);
        if let Some(sock) = node.watched.iter().find(ended) {
            let conn = kernel.socks[*sock].conn;
            self.fail("P4", format!("host {host} keeps #{conn}, which has ended"));
        }
        let first = |queue: &VecDeque<usize>| queue.front().map(|&sock| &kernel.socks[sock]);
        for sock in node
            .listeners
            .iter()
            .filter_map(|listener| first(&listener.queue))
        {
            if !node.emfile && is_late(sock.queued_at.max(node.emfile_at)) {
                let conn = sock.conn;
                self.fail(
                    "P2",
                    format!("host {host} lets #{conn} wait in its backlog"),
                );
            }
        }
    }

    /// P2: a host can be reached at each of its addresses.
    fn judge_listening(&self, host: usize) {
        let kernel = self.kernel();
        let listeners = &kernel.nodes[host].listeners;
        for ip in &self.plan.hosts[host].ips {
            if !listeners.iter().any(|listener| listener.at.ip() == *ip) {
                self.fail("P2", format!("host {host} does not listen at {ip}"));
            }
        }
    }

    /// P4: dial rates, by the clock of the machine, which may have jumped.
    fn watch_dials(&mut self, host: usize, stats: &Stats) {
        let now = {
            let kernel = self.kernel();
            kernel.now + kernel.nodes[host].skew
        };
        for peer in &stats.peers {
            let before = self.hosts[host]
                .watch
                .dials
                .insert(peer.sid, peer.dials)
                .unwrap_or_default();
            // A guest may have gone and come again, and counts anew.
            let more = peer.dials.saturating_sub(before);
            let ledger = &mut *self.books.borrow_mut();
            if ledger.index_of(peer.sid).is_none() {
                let dials = &mut self.hosts[host].watch.dials_of_guests;
                *dials += more;
                if *dials > stats.knocks + ledger.hosts[host].asked_for_guests {
                    let what = format!("host {host} dials {} unasked", peer.sid);
                    ledger.fail("P4", what);
                }
            }
            let times = ledger.hosts[host].fruitless.entry(peer.sid).or_default();
            times.extend((0..more).map(|_| now));
            let keep = times.len().saturating_sub(DIALS_MAX);
            times.drain(..keep);
            let took = times
                .last()
                .zip(times.first())
                .map_or(Duration::MAX, |(last, first)| *last - *first);
            if times.len() == DIALS_MAX && took < DIALS_TAKE {
                ledger.fail(
                    "P4",
                    format!(
                        "host {host} dials {} {DIALS_MAX} times in {took:?}",
                        peer.sid
                    ),
                );
            }
        }
    }

    /// After healing: P1 and P2.
    pub fn judge(&self) {
        for (host, it) in self.hosts.iter().enumerate() {
            let handle = it.handle.as_ref().expect("it runs");
            if !handle.have_delivered() {
                self.fail("P2", format!("host {host} keeps a frame back"));
            }
            self.watch_far_ends(host);
            self.judge_listening(host);
            let [sent, got] = self.books.borrow().hosts[host].looped;
            if sent != got + handle.stats().inbox.dropped {
                let what = format!("host {host} got {got} of {sent} frames from itself");
                self.fail("P5", what);
            }
        }
        for a in 0..self.hosts.len() {
            for b in 0..self.hosts.len() {
                if a < b {
                    self.judge_pair(a, b);
                }
                if a != b {
                    self.judge_newest(a, b);
                }
            }
        }
        // Last, since it starts something.
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|&to| to != from) {
                let handle = self.hosts[from].handle.as_ref().expect("it runs");
                let put = put(&self.books, handle, from, to, 1);
                if put.is_err() {
                    let what = format!("host {from} has nothing to send and no room: {put:?}");
                    self.fail("P2", what);
                }
            }
        }
    }

    /// What an application has asked for is done in the turn that sees it.
    fn watch_order(&self, host: usize) {
        let at = {
            let account = &mut self.books.borrow_mut().hosts[host];
            let next = account.dropped_in_turn.take();
            std::mem::replace(&mut account.dropped_at, next)
        };
        let Some(at) = at else {
            return;
        };
        let older = |up: &Up| up.since < at;
        if self.books.borrow().hosts[host].links.values().any(older) {
            self.fail("P7", format!("host {host} keeps links after a soft halt"));
        }
    }

    /// P1, by the sockets and not only by what the loops say.
    fn judge_pair(&self, a: usize, b: usize) {
        let sid = |host: usize| self.plan.hosts[host].sid;
        let (large, small) = if sid(a) > sid(b) { (a, b) } else { (b, a) };
        let kernel = self.kernel();
        let mut links = Vec::new();
        for (index, conn) in kernel.conns.iter().enumerate() {
            let open: Vec<_> = conn
                .socks
                .iter()
                .flatten()
                .map(|&sock| &kernel.socks[sock])
                .filter(|sock| sock.held)
                .collect();
            let Some(dialer) = conn.socks[0].map(|sock| kernel.socks[sock].node) else {
                continue;
            };
            let dialed = kernel.node_at(conn.to.ip());
            let between = (dialer == large && dialed == Some(small))
                || (dialer == small && dialed == Some(large));
            if between && !open.is_empty() {
                let whole = open.len() == 2 && open.iter().all(|sock| sock.standing && !sock.gone);
                links.push((index, dialer, whole, conn.from, conn.to));
            }
        }
        drop(kernel);
        let [(_, dialer, true, from, to)] = links[..] else {
            return self.fail(
                "P1",
                format!("hosts {large} and {small} share other than one link: {links:?}"),
            );
        };
        if dialer != large {
            return self.fail(
                "P1",
                format!("the link of {large} and {small} was dialed by the smaller one"),
            );
        }
        let ledger = self.books.borrow();
        let at_large = ledger.hosts[large]
            .links
            .get(&sid(small))
            .map(|up| (up.addr, up.dialed));
        let at_small = ledger.hosts[small]
            .links
            .get(&sid(large))
            .map(|up| (up.addr, up.dialed));
        drop(ledger);
        if at_large != Some((to, true)) || at_small != Some((from, false)) {
            self.fail(
                "P1",
                format!("{large} and {small} see their link as {at_large:?} and {at_small:?}"),
            );
        }
        for (host, peer) in [(large, small), (small, large)] {
            let handle = self.hosts[host].handle.as_ref().expect("it runs");
            if !handle.connected_to_peer(sid(peer)) {
                self.fail(
                    "P1",
                    format!("host {host} does not say that it is linked to {peer}"),
                );
            }
        }
    }

    /// P2. That the process of the receiver got it is more than was promised, and true as every link begins with the
    /// newest frame.
    fn judge_newest(&self, from: usize, to: usize) {
        let ledger = self.books.borrow();
        let sender = &ledger.hosts[from];
        let Some(newest) = sender.put.get(&to).copied() else {
            return;
        };
        if ledger.once {
            // A queue promises it of a link that both ends have had since before the frame was put.
            let since = |host: usize, peer: usize| {
                let peer = self.plan.hosts[peer].sid;
                ledger.hosts[host].links.get(&peer).map(|up| up.since)
            };
            let both = [since(from, to), since(to, from)];
            let at = sender.put_at[&to];
            if !both
                .iter()
                .all(|since| since.is_some_and(|since| since < at))
            {
                return;
            }
        }
        let got = ledger.hosts[to].got.get(&(from, sender.incarnation));
        let got = got.copied();
        drop(ledger);
        if got != Some(newest) {
            let what = format!("host {to} got {got:?} last from host {from}, which put {newest}");
            self.fail("P2", what);
        }
    }

    /// P7: whatever goes on, a halt ends in the turn that sees it, with no socket left open and every frame accounted for.
    pub fn halt(&mut self, host: usize) {
        let handle = self.hosts[host].handle.clone().expect("it runs");
        handle.request_halt();
        self.kernel().note(host, || "halts".into());
        self.turn(host);
        if !handle.is_halted() || handle.has_died() {
            self.fail("P7", format!("host {host} goes on after it was halted"));
        }
        let (held, open) = {
            let kernel = self.kernel();
            (kernel.nodes[host].held, kernel.nodes[host].listeners.len())
        };
        if held != 0 || open != 0 {
            self.fail(
                "P7",
                format!(
                    "host {host} has halted and holds {held} sockets, {open} of them listening"
                ),
            );
        }
        let refused = handle.to_send(self.plan.hosts[(host + 1) % self.hosts.len()].sid, "late");
        if refused != Err(SendError::Halted) || handle.stats().sent.waiting != 0 {
            self.fail(
                "P7",
                format!("host {host} has halted and takes a frame: {refused:?}"),
            );
        }
        self.hosts[host].turning.take();
        self.kernel().forget_process(host);
    }

    pub fn halt_all(&mut self) {
        self.books.borrow_mut().calm = false;
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        self.chance.shuffle(&mut order);
        for host in order {
            self.halt(host);
        }
    }
}
