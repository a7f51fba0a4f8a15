//! Checks the properties after each turn, after the storm, and after a halt.
//!
//! P3, P6, and the parts of P1 and P5 that an application can see are checked in `oracle`.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use quorum_cnx::{Handle, SendError, Sid, Stats, simulation::limits::DIALS_AT_ONCE};

use crate::{
    oracle::{Lane, Up, send_frame},
    plan::{GUESTS, OBSERVERS},
    simulation::Simulation,
};

/// Consecutive turns, within [`IN_A_ROW`] of each other, that may find nothing to do. A few are normal: an event that is
/// reported late, a socket that is closed in the meantime.
const IDLE_TURNS_MAX: u32 = 25;
const IN_A_ROW: Duration = Duration::from_millis(2);

/// `DIALS_MAX` dials of a peer that has not proved to be there take at least `DIALS_TAKE`. The ceiling of the backoff is above
/// half a second from the fifth attempt on, and the mean is half of the ceiling. So thirty dials take 13 s on average, and
/// less than 5 s in fewer than one of a million cases.
const DIALS_MAX: usize = 30;
const DIALS_TAKE: Duration = Duration::from_secs(5);

/// Counters only grow, so that a wrong one stays wrong. They are checked after a turn with an event, a frame to itself or a new or
/// closed socket, and otherwise in one of so many turns.
const UNEVENTFUL_TURNS: u32 = 8;

/// Within this time a knock has ended at both ends, also if the FIN of the far end was lost.
const KNOCK_TAKES: Duration = Duration::from_secs(5);

/// Within this time a dial is refused because an older link lives.
const DIAL_WAITS: Duration = Duration::from_secs(10);

/// Frames of a host that halts after them. Some are larger than all buffers between two hosts.
const LAST_BYTES_MAX: usize = 60_000;

/// More than the mesh needs to send them.
const QUIET: Duration = Duration::from_secs(10);

/// By then, a host that runs has handled an event.
const LATE: Duration = Duration::from_secs(1);

/// What the checks remember of a host from turn to turn.
#[derive(Debug, Default)]
pub struct TurnMonitor {
    last: [u64; 2],
    last_events: [u64; 2],
    uneventful: u32,
    idle_turns: u32,
    idle_at: Duration,
    dials: BTreeMap<Sid, u64>,
    dials_of_guests: u64,
    /// As in its machine, when its listening sockets were checked last.
    pub listen_calls: u64,
    pub has_listened: bool,
}

impl Simulation {
    fn fail(&self, property: &'static str, what: String) {
        self.oracle.borrow_mut().fail(property, what);
    }

    /// Checks a host after each of its turns.
    pub fn check_turn(&mut self, host: usize, reported: u64) {
        self.check_soft_halt(host);
        self.oracle.borrow_mut().check_links(host);
        self.check_listeners(host);
        let (now, progress_calls, held) = {
            let kernel = self.kernel();
            let node = &kernel.nodes[host];
            (kernel.now, node.progress_calls, node.held as u64)
        };
        let events = {
            let record = &self.oracle.borrow().hosts[host];
            record.events + record.loopback[1]
        };
        let monitor = &mut self.hosts[host].monitor;
        let (progress, events) = ([reported, progress_calls], [events, held]);
        let eventful = std::mem::replace(&mut monitor.last_events, events) != events;
        if std::mem::replace(&mut monitor.last, progress) != progress
            || eventful
            || now - monitor.idle_at > IN_A_ROW
        {
            monitor.idle_turns = 0;
        }
        monitor.idle_turns += 1;
        monitor.idle_at = now;
        let spins = monitor.idle_turns > IDLE_TURNS_MAX;
        monitor.uneventful += 1;
        if eventful || monitor.uneventful >= UNEVENTFUL_TURNS {
            monitor.uneventful = 0;
            let handle = self.hosts[host].handle.as_ref().expect("it runs");
            let stats = handle.stats();
            self.check_sums(host, &stats);
            self.check_limits(host, &stats);
            self.check_dials(host, &stats);
            self.check_ended_connections(host);
        }
        if spins {
            self.fail(
                "P4",
                format!("host {host} runs turn after turn and finds nothing to do"),
            );
        }
    }

    /// P5.
    fn check_sums(&self, host: usize, stats: &Stats) {
        let failure = {
            let record = &self.oracle.borrow().hosts[host];
            let downs: u64 = stats.downs.values().sum();
            let rejected: u64 = stats.rejected.values().sum();
            let events = (record.ups, record.downs, record.rejected);
            if !stats.balances() {
                Some("counters do not balance")
            } else if stats.sent.accepted != record.accepted {
                Some("the number of accepted frames is wrong")
            } else if events != (stats.ups, downs, rejected) {
                Some("an event was not emitted or not counted")
            } else if (stats.kept, stats.received.frames) != (record.accepted_ups, record.frames) {
                Some("a link or a frame was not counted")
            } else if stats
                .peers
                .iter()
                .any(|peer| (peer.sent.waiting > 0) != peer.sent.waiting_since.is_some())
            {
                Some("the age of what waits is missing, or is left behind")
            } else {
                None
            }
        };
        if let Some(what) = failure {
            self.fail("P5", format!("host {host}: {what}; {stats:?}"));
        }
    }

    /// P4: tables.
    fn check_limits(&self, host: usize, stats: &Stats) {
        let fail = |what| self.fail("P4", what);
        let refused = self.oracle.borrow_mut().hosts[host].refused.take();
        if let Some(served @ ..OBSERVERS) = refused {
            fail(format!(
                "host {host} has {served} observers and refuses another"
            ));
        }
        let (members, admitted) = (
            self.plan.hosts.len() - 1,
            if self.plan.admits { GUESTS } else { 0 },
        );
        let peers = members + admitted + OBSERVERS;
        // A link, a contender and the connections of an attempt for each peer.
        let most = (2 + DIALS_AT_ONCE) * peers + self.plan.pending_max;
        let held = self.kernel().nodes[host].held;
        if stats.peers.len() > peers || held > most {
            let known = stats.peers.len();
            fail(format!("host {host} has {known} peers and {held} sockets"));
        }
        // Connections without an initial message, and a contender for each member and admitted peer.
        if stats.pending > (self.plan.pending_max + members + admitted) as u64 {
            let pending = stats.pending;
            fail(format!("host {host} has {pending} pending connections"));
        }
        if stats.connections != held as u64 {
            let known = stats.connections;
            fail(format!(
                "host {host} knows {known} connections and holds {held}"
            ));
        }
    }

    /// The host closes connections that the far end has ended, and no connection stays in a backlog.
    fn check_ended_connections(&self, host: usize) {
        let kernel = self.kernel();
        let node = &kernel.nodes[host];
        let is_late = |since: Duration| kernel.now - since.max(node.paused_until) > LATE;
        let ended = |sock: &&usize| kernel.socks[**sock].ended_at.is_some_and(is_late);
        if let Some(sock) = node.watched.iter().find(ended) {
            let conn = kernel.socks[*sock].conn;
            self.fail(
                "P4",
                format!("host {host} does not close #{conn}, which has ended"),
            );
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
                    format!("host {host} does not accept #{conn} from its backlog"),
                );
            }
        }
    }

    /// P4: dial rates, by the clock of the machine, which may have jumped.
    fn check_dials(&mut self, host: usize, stats: &Stats) {
        let now = {
            let kernel = self.kernel();
            kernel.now + kernel.nodes[host].skew
        };
        for peer in &stats.peers {
            let before = self.hosts[host]
                .monitor
                .dials
                .insert(peer.sid, peer.dials)
                .unwrap_or_default();
            // An admitted peer may have been removed and admitted again. Then its counter starts at 0.
            let more = peer.dials.saturating_sub(before);
            let oracle = &mut *self.oracle.borrow_mut();
            // Only the larger sid dials. However many addresses a dial tries, it brings one link at most.
            let is_dialed = peer.sid.0 >= 0 && peer.sid < self.plan.hosts[host].sid;
            if is_dialed && peer.ups > peer.dials {
                let what = format!(
                    "host {host} has dialed {} {} times and has got {} links",
                    peer.sid, peer.dials, peer.ups
                );
                oracle.fail("P1", what);
            }
            if oracle.index_of(peer.sid).is_none() {
                let dials = &mut self.hosts[host].monitor.dials_of_guests;
                *dials += more;
                if *dials > stats.knocks + oracle.hosts[host].guest_dials_max {
                    let what = format!("host {host} dials {} without a reason", peer.sid);
                    oracle.fail("P4", what);
                }
            }
            let times = oracle.hosts[host]
                .unproven_dials
                .entry(peer.sid)
                .or_default();
            times.extend((0..more).map(|_| now));
            let keep = times.len().saturating_sub(DIALS_MAX);
            times.drain(..keep);
            let took = times
                .last()
                .zip(times.first())
                .map_or(Duration::MAX, |(last, first)| *last - *first);
            if times.len() == DIALS_MAX && took < DIALS_TAKE {
                oracle.fail(
                    "P4",
                    format!(
                        "host {host} dials {} {DIALS_MAX} times in {took:?}",
                        peer.sid
                    ),
                );
            }
        }
    }

    /// After the storm: P1 and P2.
    pub fn check_settled(&self) {
        for (host, it) in self.hosts.iter().enumerate() {
            let handle = it.handle.as_ref().expect("it runs");
            if !handle.have_delivered() {
                self.fail("P2", format!("host {host} has not sent all frames"));
            }
            self.check_ended_connections(host);
            self.check_listening(host);
            let [sent, received] = self.oracle.borrow().hosts[host].loopback;
            if sent != received + handle.stats().inbox.dropped {
                let what = format!("host {host} received {received} of {sent} frames from itself");
                self.fail("P5", what);
            }
        }
        for a in 0..self.hosts.len() {
            for b in 0..self.hosts.len() {
                if a < b {
                    self.check_pair(a, b);
                }
                if a != b {
                    self.check_newest(a, b);
                }
            }
        }
        let mut due = std::mem::take(&mut self.oracle.borrow_mut().due).into_iter();
        if let Some((pair, numbers)) = due.find(|(_, numbers)| !numbers.is_empty()) {
            self.fail(
                "P13",
                format!("frames {numbers:?} of {pair:?} have not arrived"),
            );
        }
        self.oracle.borrow_mut().renews_only = false;
        // Last, since it sends frames.
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|&to| to != from) {
                let handle = self.hosts[from].handle.as_ref().expect("it runs");
                let sent = send_frame(&self.oracle, handle, from, to, 1);
                if sent.is_err() {
                    let what = format!("host {from} has sent everything and has no room: {sent:?}");
                    self.fail("P2", what);
                }
            }
        }
    }

    /// P9 or P14, for one of the hosts: it halts as soon as it has sent its last frames, or shuts down at once.
    pub fn check_halt_after_frames(&mut self) {
        let shuts_down = self.rng.percent(50);
        {
            // An answer for a process that has ended would reset the connection, as with every TCP.
            let oracle = &mut *self.oracle.borrow_mut();
            (oracle.calls_ended, oracle.answers_ended) = (true, !shuts_down);
            oracle.strangers_only = false;
        }
        // So would a ping.
        if self.plan.pings && !shuts_down {
            return;
        }
        self.run_for(QUIET);
        let from = self.rng.below(self.hosts.len());
        let others: Vec<usize> = (0..self.hosts.len()).filter(|&to| to != from).collect();
        let handle = self.hosts[from].handle.clone().expect("it runs");
        let (key, ups) = {
            let record = &self.oracle.borrow().hosts[from];
            ((from, record.incarnation), record.ups)
        };
        for to in &others {
            let len = self.rng.between(1, LAST_BYTES_MAX);
            // Only a failure that is reported already makes it fail.
            let _ = send_frame(&self.oracle, &handle, from, *to, len);
        }
        let until = self.kernel().now + QUIET;
        if shuts_down {
            self.kernel().note(from, || "shuts down".into());
            handle.request_shutdown(QUIET);
            self.run_while(|it| !handle.is_halted() && it.kernel().now < until + LATE);
        } else {
            self.run_while(|it| !handle.have_delivered() && it.kernel().now < until);
        }
        if self.oracle.borrow().failure.is_some() || !(shuts_down || handle.have_delivered()) {
            return;
        }
        if shuts_down && !handle.is_halted() {
            self.fail("P14", format!("host {from} shuts down without an end"));
        }
        self.halt(from);
        self.run_for(QUIET);
        let oracle = self.oracle.borrow();
        let lost = others.iter().find(|to| {
            // The frame that was sent above. One in the other lane may have been lost with an older link.
            let sent =
                Lane::ALL.map(|lane| (oracle.hosts[from].newest_sent.get(&(**to, lane)), lane));
            let (sent, lane) = sent.into_iter().max().expect("there are two lanes");
            let received = &oracle.hosts[**to].newest_received;
            received.get(&(key.0, key.1, lane)) != sent.map(|(number, _)| number)
        });
        let (property, how) = match shuts_down {
            true => ("P14", "shut down"),
            false => ("P9", "delivered all frames and halted"),
        };
        let what = lost.map(|to| format!("host {from} has {how}, and host {to} lacks a frame"));
        // Frames of an older link are sent again only if there is a next one.
        let is_same_link = oracle.hosts[from].ups == ups;
        drop(oracle);
        if let Some(what) = what.filter(|_| is_same_link) {
            self.fail(property, what);
        }
    }

    /// P7: a soft halt drops the links in the turn that sees it.
    fn check_soft_halt(&self, host: usize) {
        let at = {
            let record = &mut self.oracle.borrow_mut().hosts[host];
            let next = record.soft_halt_in_turn.take();
            std::mem::replace(&mut record.soft_halt_at, next)
        };
        let Some(at) = at else {
            return;
        };
        let older = |up: &Up| up.since < at;
        if self.oracle.borrow().hosts[host].links.values().any(older) {
            self.fail("P7", format!("host {host} keeps links after a soft halt"));
        }
    }

    /// P1, by the sockets as well as by the events of the loops.
    fn check_pair(&self, a: usize, b: usize) {
        let fail = |what| self.fail("P1", what);
        let sid = |host: usize| self.plan.hosts[host].sid;
        let (large, small) = if sid(a) > sid(b) { (a, b) } else { (b, a) };
        let is_known = self.is_known(large, small);
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
            // A renewal is tried for more than a minute if the larger sid ignores it. Each of its knocks ends by itself.
            let is_knock = dialer == small && kernel.now < conn.begun + KNOCK_TAKES;
            if between && !open.is_empty() && !is_knock {
                let whole =
                    open.len() == 2 && open.iter().all(|sock| sock.established && !sock.gone);
                links.push((index, dialer, whole, conn.from, conn.to));
            }
        }
        let begun = |conn: usize| kernel.conns[conn].begun;
        if self.plan.changes_own && links.len() > 1 && !is_known {
            // A link to an old address is tried to be renewed for more than a minute. Each dial is refused while the old link lives.
            links.retain(|(conn, ..)| kernel.now >= begun(*conn) + DIAL_WAITS);
        }
        drop(kernel);
        let [(_, dialer, true, from, to)] = links[..] else {
            return fail(format!(
                "hosts {large} and {small} do not share exactly one link: {links:?}"
            ));
        };
        if dialer != large {
            return fail(format!(
                "hosts {large} and {small} share a link that the smaller sid dialed"
            ));
        }
        // Its members are the last ones that it was given: no other fault follows them.
        if self.plan.changes_members && !self.plan.is_told(small, to) {
            return fail(format!("host {small} has moved, and its link is at {to}"));
        }
        let oracle = self.oracle.borrow();
        let seen = |host: usize, peer: usize| {
            let up = oracle.hosts[host].links.get(&sid(peer))?;
            Some((up.addr, up.dialed))
        };
        let (at_large, at_small) = (seen(large, small), seen(small, large));
        drop(oracle);
        if at_large != Some((to, true)) || at_small != Some((from, false)) {
            fail(format!(
                "hosts {large} and {small} see their link as {at_large:?} and {at_small:?}"
            ));
        }
        for (host, peer) in [(large, small), (small, large)] {
            let handle = self.hosts[host].handle.as_ref().expect("it runs");
            if !handle.connected_to_peer(sid(peer)) {
                fail(format!("host {host} does not report its link to {peer}"));
            }
            // The one that has dialed decides whether the link is native.
            let pings = self.plan.pings && self.plan.hosts[large].native;
            if pings && !self.has_round_trip(handle, sid(peer)) {
                fail(format!("host {host} has no answer to a ping from {peer}"));
            }
        }
    }

    fn has_round_trip(&self, handle: &Handle, peer: Sid) -> bool {
        let stats = handle.stats();
        let link = stats.peers.iter().find(|of| of.sid == peer);
        link.and_then(|of| of.link.as_ref()?.round_trip).is_some()
    }

    /// P2. The current process of the receiver has the newest frame, since every link begins with it.
    fn check_newest(&self, from: usize, to: usize) {
        for lane in Lane::ALL {
            if let Some(what) = self.newest_is_missing(lane, from, to) {
                self.fail("P2", what);
            }
        }
    }

    /// Whether both hosts have received the newest frames of each other.
    pub fn have_newest(&self, a: usize, b: usize) -> bool {
        Lane::ALL.into_iter().all(|lane| {
            let missing = [(a, b), (b, a)].map(|(from, to)| self.newest_is_missing(lane, from, to));
            missing == [None, None]
        })
    }

    /// What is wrong, if the newest frame has not arrived.
    fn newest_is_missing(&self, lane: Lane, from: usize, to: usize) -> Option<String> {
        let oracle = self.oracle.borrow();
        let sender = &oracle.hosts[from];
        let (newest, at) = sender.newest_sent.get(&(to, lane)).copied()?;
        if lane == Lane::Queue {
            // A queue promises it only if the link was up at both ends before the frame was sent.
            let since = |host: usize, peer: usize| {
                let peer = self.plan.hosts[peer].sid;
                oracle.hosts[host].links.get(&peer).map(|up| up.since)
            };
            let both = [since(from, to), since(to, from)];
            if !both
                .iter()
                .all(|since| since.is_some_and(|since| since < at))
            {
                return None;
            }
        }
        let received = oracle.hosts[to]
            .newest_received
            .get(&(from, sender.incarnation, lane));
        let received = received.copied();
        (received != Some(newest)).then(|| {
            format!("host {to} received {received:?} last from host {from}, which sent {newest}")
        })
    }

    /// P7: a halt ends in the turn that sees it. It leaves no socket open and no frame waiting.
    pub fn halt(&mut self, host: usize) {
        let handle = self.hosts[host].handle.clone().expect("it runs");
        handle.request_halt();
        self.kernel().note(host, || "halts".into());
        self.turn(host);
        let fail = |what| self.fail("P7", what);
        if !handle.is_halted() || handle.has_died() {
            fail(format!("host {host} runs after its halt"));
        }
        let (held, open) = {
            let kernel = self.kernel();
            (kernel.nodes[host].held, kernel.nodes[host].listeners.len())
        };
        if held != 0 || open != 0 {
            fail(format!(
                "host {host} has halted and holds {held} sockets, {open} of them listening"
            ));
        }
        let refused = handle.to_send(self.plan.hosts[(host + 1) % self.hosts.len()].sid, "late");
        if refused != Err(SendError::Halted) || handle.stats().sent.waiting != 0 {
            fail(format!(
                "host {host} has halted and accepts a frame: {refused:?}"
            ));
        }
        self.hosts[host].event_loop.take();
        self.kernel().forget_process(host);
    }

    pub fn halt_all(&mut self) {
        let mut order: Vec<usize> = (0..self.hosts.len())
            .filter(|&host| self.is_up(host))
            .collect();
        self.rng.shuffle(&mut order);
        for host in order {
            self.halt(host);
        }
    }
}
