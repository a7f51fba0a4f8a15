//! The application of a simulated host, and the oracle: what all applications have sent and received.
//!
//! The properties that an application can see are checked here, at each frame and event. The others are in `properties`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::LazyLock,
    time::Duration,
};

use bytes::Bytes;
use quorum_cnx::{
    Event, FRAME_BYTES_MAX, Frame, Handle, Handler, Outbox, Reason, Refusal, SendError,
    SendOutcome, Sender, Sid,
    simulation::limits::{LANES_RUN_BYTES, PREFIX_BYTES, SILENT_AFTER},
};

use crate::{
    kernel::SimEvent, members::Rejoined, net::Machines, random_calls::random_call, rng::Rng,
};

/// A violated property.
#[derive(Clone, Debug)]
pub struct Failure {
    pub property: &'static str,
    pub what: String,
}

impl Failure {
    /// What two failures of one kind have in common: the property, and the first words without their numbers.
    pub fn kind(&self) -> (&'static str, String) {
        let words = self.what.split([':', ';']).next().unwrap_or_default();
        let words = words.chars().filter(|it| !it.is_ascii_digit()).collect();
        (self.property, words)
    }
}

pub type SharedOracle = Rc<RefCell<Oracle>>;

/// What all applications of a run have done and seen.
#[derive(Debug, Default)]
pub struct Oracle {
    pub failure: Option<Failure>,
    /// The sid of each host.
    pub sids: Vec<Sid>,
    pub hosts: Vec<HostRecord>,
    /// A second connection replaces a link, whatever its address ([`Replace::Newest`](quorum_cnx::Replace)).
    pub replace_newest: bool,
    /// Members are configured by name.
    pub by_name: bool,
    /// The outbox of all hosts.
    pub outbox: Outbox,
    /// There are strangers and no faults: no link of a member may end.
    pub strangers_only: bool,
    /// Nothing but renewals happens to the links: a queue loses nothing.
    pub renews_only: bool,
    /// While that is so: the frames of queues that have not arrived, by sender and receiver.
    pub due: BTreeMap<(usize, usize), VecDeque<u64>>,
    /// No byte was damaged, and every certificate is believed by every host.
    pub is_steady: bool,
    /// Handlers answer no frames.
    pub answers_ended: bool,
    /// A second process has the sid of a host: a stranger claims it.
    pub has_strangers: bool,
    /// Applications make no more calls.
    pub calls_ended: bool,
    /// Hosts change their members.
    pub changes_members: bool,
    /// Hosts whose connections have come from another address for a while, which not all others were given at once.
    pub elsewhere: BTreeSet<usize>,
    /// When a link was dialed again while there were only strangers, by dialer and peer.
    pub redialed: BTreeMap<(Sid, Sid), Duration>,
    pub now: Duration,
}

/// What one host has done since its process started.
#[derive(Debug, Default)]
pub struct HostRecord {
    /// Its configured addresses.
    pub configured_ips: Vec<IpAddr>,
    /// All source addresses of its connections.
    pub source_ips: Vec<IpAddr>,
    pub incarnation: u32,
    /// Newest frame sent to each host, by its index, in each lane; and when it was sent.
    pub newest_sent: BTreeMap<(usize, Lane), (u64, Duration)>,
    /// Newest frame received from each incarnation of each host, in each lane.
    pub newest_received: BTreeMap<(usize, u32, Lane), u64>,
    /// Frames of a queue that came from each incarnation of each host and were sent after the newest one of its slot that has come: their
    /// numbers and bytes.
    ahead: BTreeMap<(usize, u32), VecDeque<(u64, usize)>>,
    pub links: BTreeMap<Sid, Up>,
    /// How often each host has restarted between two of its links, as the events say.
    restarts: BTreeMap<usize, u32>,
    pub accepted: u64,
    /// Frames to itself: sent, received.
    pub loopback: [u64; 2],
    pub frames: u64,
    pub ups: u64,
    pub accepted_ups: u64,
    pub downs: u64,
    pub rejected: u64,
    pub events: u64,
    /// Peers whose names were resolved.
    pub resolved: BTreeSet<Sid>,
    /// The addresses of those names.
    resolved_ips: BTreeSet<IpAddr>,
    /// Times of dials of a peer that has not proved to be there, by the machine's clock; see `properties`.
    pub unproven_dials: BTreeMap<Sid, Vec<Duration>>,
    /// The number of the newest frame, accepted or not.
    pub next: u64,
    /// Dials of admitted peers that calls of the application may have caused; see `properties`.
    pub guest_dials_max: u64,
    /// Time of a soft halt: the next turn drops the links that are older.
    pub soft_halt_at: Option<Duration>,
    /// The same for a soft halt inside a turn: the turn after the current one drops them.
    pub soft_halt_in_turn: Option<Duration>,
    last_link: u64,
    /// The link that was just replaced: its peer, the link, and for how long it brought nothing.
    replaced: Option<(Sid, Up, Duration)>,
    /// When the last frame of each peer came.
    last_frame_at: BTreeMap<Sid, Duration>,
    pub rules: Rules,
    /// The rules after the next reload of its certificates.
    pub next_rules: Rules,
    /// Number of linked observers when one was refused in this turn.
    pub refused: Option<usize>,
    /// The version of its members.
    pub version: u64,
    /// Hosts that are no members of it.
    pub removed: BTreeSet<usize>,
    /// When hosts became members of it again.
    pub rejoined: BTreeMap<usize, Vec<Rejoined>>,
}

/// Whom a host may be linked to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Only to those whose key is that of the server.
    pub requires_proof: bool,
    /// Not to this server, whose certificate was revoked.
    pub refuses: Option<Sid>,
}

impl HostRecord {
    /// Its loop uses its newest certificates from now on.
    pub fn take_rules(&mut self) {
        self.rules = self.next_rules;
    }

    pub fn new(configured_ips: Vec<IpAddr>, source_ips: Vec<IpAddr>) -> Self {
        Self {
            configured_ips,
            source_ips,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Up {
    pub addr: SocketAddr,
    pub dialed: bool,
    pub since: Duration,
    pub number: u64,
    /// When its connection was begun, if that is known.
    pub begun: Option<Duration>,
}

impl Oracle {
    pub fn fail(&mut self, property: &'static str, what: impl Into<String>) {
        self.failure.get_or_insert_with(|| Failure {
            property,
            what: what.into(),
        });
    }

    pub fn index_of(&self, sid: Sid) -> Option<usize> {
        self.sids.iter().position(|host| *host == sid)
    }

    /// A lookup of a host has found another host's address.
    pub fn on_resolved(&mut self, me: usize, ip: IpAddr) {
        let owner = self
            .hosts
            .iter()
            .position(|host| host.configured_ips.contains(&ip));
        let sid = owner.map(|host| self.sids[host]);
        if me < self.hosts.len() {
            self.hosts[me].resolved.extend(sid);
            self.hosts[me].resolved_ips.insert(ip);
        }
    }

    fn is_configured_ip(&self, sid: Sid, ip: IpAddr) -> bool {
        self.index_of(sid)
            .is_some_and(|host| self.hosts[host].configured_ips.contains(&ip))
    }

    /// Whether this host knows that connections of `sid` come from this address.
    fn knows_source(&self, me: usize, sid: Sid, ip: IpAddr) -> bool {
        let is_known = !self.by_name || self.hosts[me].resolved_ips.contains(&ip);
        is_known && self.is_configured_ip(sid, ip) && !self.was_elsewhere(sid)
    }

    fn was_elsewhere(&self, sid: Sid) -> bool {
        self.index_of(sid)
            .is_some_and(|host| self.elsewhere.contains(&host))
    }

    /// Whether this member's connections come from its configured addresses: not from a proxy or a NAT.
    fn is_direct(&self, sid: Sid) -> bool {
        let host = self.index_of(sid).map(|host| &self.hosts[host]);
        host.is_some_and(|host| {
            host.source_ips
                .iter()
                .all(|ip| host.configured_ips.contains(ip))
        })
    }

    /// P6: there are strangers and no faults, and the link of a member goes down.
    fn check_strangers_only_down(
        &mut self,
        me: usize,
        sid: Sid,
        silent_for: Duration,
        reason: &Reason,
    ) {
        let own = self.sids[me];
        let direct = self.is_direct(sid) && self.is_direct(own);
        let replaced = *reason == Reason::Replaced;
        let excuse = if sid > own {
            // If it is replaced, the next `Up` is checked. Otherwise the peer has dialed again, and closed the old link first.
            let redialed = self.redialed.get(&(sid, own)).copied();
            let is_new = |at| self.now - at < Duration::from_secs(1);
            replaced || !direct || redialed.is_some_and(is_new)
        } else {
            self.redialed.insert((own, sid), self.now);
            (replaced && silent_for >= SILENT_AFTER) || (!direct && !replaced)
        };
        if !excuse {
            let what = format!("{sid} goes down at host {me} without a fault: {reason}");
            self.fail("P6", what);
        }
    }

    /// The process of a host starts without any state.
    pub fn start(&mut self, host: usize) {
        let old = std::mem::take(&mut self.hosts[host]);
        self.hosts[host] = HostRecord {
            incarnation: old.incarnation + 1,
            ..HostRecord::new(old.configured_ips, old.source_ips)
        };
    }

    fn on_event(&mut self, me: usize, event: &Event) {
        let now = self.now;
        let record = &mut self.hosts[me];
        // Repeated `AcceptFailed` events are no work: such a loop spins.
        record.events += u64::from(!matches!(event, Event::AcceptFailed { .. }));
        match event {
            Event::TlsReloaded => record.take_rules(),
            Event::Up {
                sid,
                dialed,
                addr,
                link,
                restarted,
                ..
            } => {
                record.ups += 1;
                record.accepted_ups += u64::from(!dialed);
                if let (Some(served), true) = (&mut record.refused, sid.0 < 0) {
                    // This observer was accepted before the refusal, and its event comes after.
                    *served += 1;
                }
                let up = Up {
                    addr: *addr,
                    dialed: *dialed,
                    since: now,
                    number: *link,
                    begun: None,
                };
                let last = std::mem::replace(&mut record.last_link, *link);
                let older = record.links.insert(*sid, up);
                let replaced = record.replaced.take().filter(|(peer, ..)| peer == sid);
                let member = self.index_of(*sid).is_some();
                self.check_restart(me, *sid, *restarted);
                self.check_refused(me, *sid);
                if *link <= last {
                    self.fail("P5", format!("link {link} comes up after link {last}"));
                }
                if older.is_some() {
                    self.fail("P1", format!("{sid} is up twice at host {me}"));
                }
                if *dialed && *sid > self.sids[me] {
                    self.fail(
                        "P1",
                        format!("host {me} keeps a link that it dialed to the larger {sid}"),
                    );
                }
                // P6 protects a link from a known address, and one that brought bytes while there were only strangers.
                let is_protected = |(_, older, silent_for): (Sid, Up, Duration)| {
                    let is_known = older.dialed || self.knows_source(me, *sid, older.addr.ip());
                    is_known || (self.strangers_only && silent_for < SILENT_AFTER)
                };
                let at = self.index_of(*sid).map(|host| &self.hosts[host]);
                let is_stranger = at.is_some_and(|host| !host.source_ips.contains(&addr.ip()));
                if replaced.is_some_and(is_protected)
                    && member
                    && !self.replace_newest
                    && is_stranger
                {
                    self.fail(
                        "P6",
                        format!("a stranger at {addr} replaces the link of {sid} at host {me}"),
                    );
                }
            }
            Event::Down {
                sid, reason, link, ..
            } => {
                record.downs += 1;
                let Some(up) = record.links.remove(sid) else {
                    return self.fail("P5", format!("{sid} goes down at host {me} and was not up"));
                };
                if up.number != *link {
                    let what = format!("link {link} of {sid} goes down at host {me}, not {up:?}");
                    return self.fail("P5", what);
                }
                let last_frame = record.last_frame_at.get(sid).copied();
                let silent_for = now - last_frame.unwrap_or_default().max(up.since);
                record.replaced = (*reason == Reason::Replaced).then_some((*sid, up, silent_for));
                if now - up.since >= Duration::from_secs(1) {
                    record.unproven_dials.remove(sid);
                }
                if self.is_steady && matches!(reason, Reason::Tls(_)) {
                    let what = format!("the link of {sid} at host {me} ends: {reason}");
                    self.fail("P10", what);
                }
                if self.strangers_only && self.index_of(*sid).is_some() {
                    self.check_strangers_only_down(me, *sid, silent_for, reason);
                }
            }
            Event::Rejected {
                addr, sid, reason, ..
            } => {
                record.rejected += 1;
                if *reason == Reason::ObserversFull {
                    // Observers have negative ids. The events of those that have ended came before.
                    record.refused = Some(record.links.range(..Sid(0)).count());
                }
                self.check_identity(me, reason);
                let is_doubted = matches!(
                    reason,
                    Reason::OlderLinkAlive | Reason::ContenderWaiting | Reason::DuplicateSid
                );
                // The addresses of a name are known only after a lookup.
                let claimant = sid.filter(|_| is_doubted && !self.by_name);
                let is_known = |sid| self.knows_source(me, sid, addr.ip());
                if claimant.is_some_and(is_known) {
                    let what = format!("host {me} takes {addr} for a stranger: {reason}");
                    self.fail("P1", what);
                }
            }
            Event::DialFailed {
                sid,
                reason: Reason::NoAddress(_),
                ..
            } if record.resolved.contains(sid) && !self.changes_members => {
                let what = format!("host {me} has forgotten the address of {sid}");
                self.fail("P2", what);
            }
            Event::DialFailed { reason, .. } => self.check_identity(me, reason),
            Event::Flapping {
                duplicate: true, ..
            } => self.check_identity(me, &Reason::DuplicateSid),
            Event::SlowTurn { took, .. } => {
                self.fail("P4", format!("a turn took {took:?} of virtual time"))
            }
            _ => {}
        }
    }

    /// P10.
    fn check_refused(&mut self, me: usize, sid: Sid) {
        if self.hosts[me].rules.refuses == Some(sid) {
            let what = format!("host {me} is linked to {sid}, whose certificate is revoked");
            self.fail("P10", what);
        }
    }

    /// P10: after a turn, no link is left to a server whose certificate is revoked.
    pub fn check_links(&mut self, me: usize) {
        let refused = self.hosts[me].rules.refuses;
        if let Some(sid) = refused.filter(|sid| self.hosts[me].links.contains_key(sid)) {
            self.check_refused(me, sid);
        }
    }

    /// P5: a link comes up, and the peer is said to have started since its last one.
    fn check_restart(&mut self, me: usize, sid: Sid, restarted: bool) {
        let Some(peer) = self.index_of(sid) else {
            return;
        };
        let restarts = self.hosts[me].restarts.entry(peer).or_default();
        *restarts += u32::from(restarted);
        let told = *restarts;
        if told >= self.hosts[peer].incarnation && !self.has_strangers {
            let what = format!("host {me} says that {sid} has restarted {told} times");
            self.fail("P5", what);
        }
    }

    /// P5: every host is at its addresses, in the same cluster, and known to all others. Only a stranger has the sid of a host as well.
    fn check_identity(&mut self, me: usize, reason: &Reason) {
        let is_false = match reason {
            Reason::WrongServer(_)
            | Reason::WrongCluster
            | Reason::BadAnswer(_)
            | Reason::Refused(
                Refusal::WrongServer(_)
                | Refusal::WrongCluster
                | Refusal::UnknownSid
                | Refusal::NoRoom,
            ) => true,
            Reason::DuplicateSid | Reason::Refused(Refusal::DuplicateSid) => !self.has_strangers,
            _ => false,
        };
        if is_false && !self.is_of_members(reason) {
            self.fail(
                "P5",
                format!("host {me} takes a host for another: {reason}"),
            );
        }
    }

    /// Returns the index of the sender, if it is a host.
    fn on_frame(&mut self, me: usize, from: Sid, link: u64, payload: &[u8]) -> Option<usize> {
        let own = self.sids[me];
        let current = self.hosts[me].links.get(&from).map_or(0, |up| up.number);
        if link != current {
            let what =
                format!("host {me} received a frame of {from} over link {link}, not {current}");
            self.fail("P5", what);
        }
        if from == own {
            self.hosts[me].loopback[1] += 1;
        } else {
            self.check_refused(me, from);
            self.hosts[me].frames += 1;
            self.hosts[me].last_frame_at.insert(from, self.now);
            self.hosts[me].unproven_dials.remove(&from);
        }
        let addr = self.hosts[me].links.get(&from).map(|up| up.addr.ip());
        let sender = self.index_of(from).map(|host| &self.hosts[host]);
        if from != own
            && !sender
                .zip(addr)
                .is_some_and(|(host, addr)| host.source_ips.contains(&addr))
        {
            // A stranger that has the place of an absent peer, or an admitted one. It may send anything.
            return None;
        }
        if payload.starts_with(STRANGER_MARK) {
            self.fail(
                "P6",
                format!("host {me} attributes a frame of a stranger to {from}"),
            );
            return None;
        }
        let Some(header) = FrameHeader::decode(payload) else {
            self.fail(
                "P3",
                format!(
                    "host {me} received a torn frame of {} bytes from {from}",
                    payload.len()
                ),
            );
            return None;
        };
        if header.to != me || self.sids[header.from] != from {
            self.fail(
                "P3",
                format!("host {me} received a frame of {from} that is {header:?}"),
            );
        }
        if from != own {
            // Frames of an earlier process may arrive after those of the next one.
            let key = (header.from, header.incarnation, header.lane);
            let newest = self.hosts[me].newest_received.insert(key, header.number);
            // A slot may repeat its newest frame, a queue repeats none.
            let once = u64::from(header.lane == Lane::Queue);
            if header.number < newest.map_or(0, |newest| newest + once) {
                self.fail(
                    "P3",
                    format!("host {me} received {header:?} after the newer {newest:?}"),
                );
            }
            self.check_lossless(me, header);
            // Not the last frame of a slot once more.
            if newest != Some(header.number) {
                self.check_lanes(me, header, PREFIX_BYTES + payload.len());
            }
        }
        let begun = self.hosts[me].links.get(&from).and_then(|up| up.begun);
        if let Some(begun) = begun.filter(|_| from != own) {
            self.check_rejoined(me, header.from, header, begun);
        }
        Some(header.from)
    }
}

impl Oracle {
    /// P13: no frame is missing before this one.
    fn check_lossless(&mut self, me: usize, header: FrameHeader) {
        let due = self.due.get_mut(&(header.from, me));
        let Some(due) = due.filter(|_| header.lane == Lane::Queue) else {
            return;
        };
        if due.front().is_some_and(|next| *next <= header.number) {
            let next = due.pop_front();
            if next != Some(header.number) {
                self.fail(
                    "P13",
                    format!("host {me} lacks frame {next:?} before {header:?}"),
                );
            }
        }
    }

    /// P11: of the frames that were put into the queue after this one into the slot, at most one run comes before it.
    fn check_lanes(&mut self, me: usize, header: FrameHeader, bytes: usize) {
        let key = (header.from, header.incarnation);
        let ahead = self.hosts[me].ahead.entry(key).or_default();
        if !matches!(self.outbox, Outbox::Lanes { .. }) {
            return;
        }
        if header.lane == Lane::Queue {
            ahead.push_back((header.number, bytes));
            return;
        }
        ahead.retain(|(number, _)| *number > header.number);
        let bytes: usize = ahead.iter().map(|(_, bytes)| bytes).sum();
        if ahead.len() > 1 && bytes > LANES_RUN_BYTES {
            let what = format!(
                "{} later frames of {bytes} bytes come before {header:?}",
                ahead.len()
            );
            self.fail("P11", what);
        }
    }

    /// The lane of the next frame of a host.
    fn lane(&self, number: u64) -> Lane {
        match self.outbox {
            Outbox::Latest => Lane::Slot,
            Outbox::Lanes { .. } if number % 3 == 0 => Lane::Slot,
            _ => Lane::Queue,
        }
    }
}

/// What a frame waits in at its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Slot,
    Queue,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Slot, Self::Queue];
}

/// The first bytes of each stranger's frame.
pub const STRANGER_MARK: &[u8] = b"stranger";

/// The header of a frame between hosts. A body follows, whose content depends on the number.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    from: usize,
    to: usize,
    lane: Lane,
    incarnation: u32,
    pub number: u64,
}

/// This bit of the second byte says that the frame was put into a slot.
const SLOT_BIT: u8 = 0x80;

const HEADER_BYTES: usize = 18;

/// Every frame's body is a part of this, so that torn and mixed frames are recognized.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..FRAME_BYTES_MAX + 251)
        .map(|i| (i % 251) as u8)
        .collect()
});

impl FrameHeader {
    /// Whether it was sent by this incarnation of its sender.
    pub fn is_of(self, incarnation: u32) -> bool {
        self.incarnation == incarnation
    }

    fn encode(self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + len);
        let lane = if self.lane == Lane::Slot { SLOT_BIT } else { 0 };
        bytes.extend([self.from as u8, self.to as u8 | lane]);
        bytes.extend(self.incarnation.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(u32::try_from(len).expect("it is short").to_be_bytes());
        let from = self.number as usize % 251;
        bytes.extend(&PATTERN[from..from + len]);
        bytes.into()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let number = u64::from_be_bytes(header[6..14].try_into().ok()?);
        let len = u32::from_be_bytes(header[14..].try_into().ok()?) as usize;
        let from = number as usize % 251;
        let body = PATTERN.get(from..from + len)?;
        (rest == body).then_some(Self {
            from: header[0].into(),
            to: (header[1] & !SLOT_BIT).into(),
            lane: if header[1] & SLOT_BIT == 0 {
                Lane::Queue
            } else {
                Lane::Slot
            },
            incarnation: u32::from_be_bytes(header[2..6].try_into().ok()?),
            number,
        })
    }
}

/// Sends a new frame to a host, or to the sender itself.
pub fn send_frame(
    oracle: &SharedOracle,
    handle: &Handle,
    me: usize,
    to: usize,
    len: usize,
) -> Result<SendOutcome, SendError> {
    let (sid, lane, is_latest) = {
        let oracle = oracle.borrow();
        let lane = oracle.lane(oracle.hosts[me].next + 1);
        let is_latest = lane == Lane::Slot && oracle.outbox != Outbox::Latest;
        (oracle.sids[to], lane, is_latest)
    };
    put_frame(oracle, me, (to, lane), len, |frame| match is_latest {
        true => handle.to_send_latest(sid, frame),
        false => handle.to_send(sid, frame),
    })
}

/// Feeds a new frame to a `Sender`, which must put it into the queue before anything else is sent to that host.
pub fn feed_frame(
    oracle: &SharedOracle,
    sender: &mut Sender,
    me: usize,
    to: usize,
    len: usize,
) -> Result<(), SendError> {
    let outcome = if me == to {
        SendOutcome::Loopback
    } else {
        SendOutcome::Queued
    };
    let feed = |frame: Bytes| sender.feed(&frame).map(|()| outcome);
    let lane = match oracle.borrow().outbox {
        Outbox::Latest => Lane::Slot,
        _ => Lane::Queue,
    };
    put_frame(oracle, me, (to, lane), len, feed).map(drop)
}

/// Makes a new frame, passes it to `put`, and counts the outcome.
fn put_frame(
    oracle: &SharedOracle,
    me: usize,
    (to, lane): (usize, Lane),
    len: usize,
    put: impl FnOnce(Bytes) -> Result<SendOutcome, SendError>,
) -> Result<SendOutcome, SendError> {
    let header = {
        let record = &mut oracle.borrow_mut().hosts[me];
        record.next += 1;
        FrameHeader {
            from: me,
            to,
            lane,
            incarnation: record.incarnation,
            number: record.next,
        }
    };
    let is_due = oracle.borrow().renews_only && lane == Lane::Queue && to != me;
    if is_due {
        let due = &mut oracle.borrow_mut().due;
        due.entry((me, to)).or_default().push_back(header.number);
    }
    // Without the borrow: a turn may run in the middle of this call.
    let result = put(header.encode(len));
    let oracle = &mut *oracle.borrow_mut();
    if let (true, Err(_), Some(due)) = (is_due, &result, oracle.due.get_mut(&(me, to))) {
        due.retain(|number| *number != header.number);
    }
    let record = &mut oracle.hosts[me];
    match result {
        Ok(SendOutcome::Loopback) => record.loopback[0] += 1,
        Ok(_) => {
            record.accepted += 1;
            let newest = record.newest_sent.entry((to, lane)).or_default();
            *newest = (header.number.max(newest.0), oracle.now);
        }
        Err(_) => {}
    }
    result
}

/// The application of a host: the handler of its loop.
pub struct App {
    pub me: usize,
    pub oracle: SharedOracle,
    pub machines: Machines,
    pub rng: Rng,
    /// How many of 100 frames it answers.
    pub answers: u32,
    /// After how many of 1000 frames and events it makes a random call.
    pub random_calls: u32,
    /// Its calls end no link.
    pub strangers_only: bool,
    /// How many of 1000 times it becomes not ready, for a while.
    pub slow: u32,
    pub busy_until: Duration,
}

impl Handler for App {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let link = frame.link();
        let sender = (self.oracle.borrow_mut()).on_frame(self.me, from, link, &frame);
        {
            let mut kernel = self.machines.lock();
            kernel.trace.mix(frame.len() as u64);
            let len = frame.len();
            kernel.note(self.me, || {
                let number = FrameHeader::decode(&frame).map_or(0, |header| header.number);
                format!("received frame {number} of {len} bytes from {from}")
            });
        }
        if let Some(sender) = sender.filter(|sender| *sender != self.me) {
            if self.rng.percent(self.answers) && !self.oracle.borrow().answers_ended {
                let len = self.rng.below(40);
                // The oracle counts the outcome.
                let _ = send_frame(&self.oracle, handle, self.me, sender, len);
            }
        }
        self.maybe_call(handle, Some(from));
    }

    fn is_ready(&mut self, _: Sid) -> bool {
        let mut kernel = self.machines.lock();
        if kernel.now < self.busy_until && !self.oracle.borrow().calls_ended {
            return false;
        }
        // It is ready for a while in between, so that every link is read.
        let is_slow = kernel.now >= self.busy_until + Duration::from_millis(5);
        if !is_slow || !self.rng.permille(self.slow) || self.oracle.borrow().calls_ended {
            return true;
        }
        let time = self.rng.millis(1, 80);
        self.busy_until = kernel.now + time;
        kernel.after(time, SimEvent::Ready(self.me));
        kernel.note(self.me, || format!("is not ready for {time:?}"));
        false
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        self.check_key(event);
        self.machines.lock().note(self.me, || format!("{event:?}"));
        self.oracle.borrow_mut().on_event(self.me, event);
        self.note_beginning(event);
        self.maybe_call(handle, peer_of(event));
    }
}

impl App {
    /// Notes when the connection of a new link was begun.
    fn note_beginning(&self, event: &Event) {
        if let Event::Up {
            sid, addr, dialed, ..
        } = event
        {
            let begun = self.machines.lock().begun(self.me, *addr, *dialed);
            let links = &mut self.oracle.borrow_mut().hosts[self.me].links;
            if let Some(up) = links.get_mut(sid) {
                up.begun = begun;
            }
        }
    }

    /// P8.
    fn check_key(&self, event: &Event) {
        let Event::Up {
            sid, addr, dialed, ..
        } = event
        else {
            return;
        };
        let kernel = self.machines.lock();
        let far = kernel.far_node(self.me, *addr, *dialed);
        let key = far.and_then(|far| kernel.nodes[far].key);
        let oracle = &mut *self.oracle.borrow_mut();
        if oracle.hosts[self.me].rules.requires_proof && key != Some(*sid) {
            let what = format!("host {} takes {addr}, which is {key:?}, for {sid}", self.me);
            oracle.fail("P8", what);
        }
    }

    fn maybe_call(&mut self, handle: &Handle, about: Option<Sid>) {
        if self.rng.permille(self.random_calls) {
            let (oracle, rng) = (&self.oracle, &mut self.rng);
            random_call(oracle, handle, self.me, rng, about, self.strangers_only);
        }
    }
}

/// The peer that an event is about.
fn peer_of(event: &Event) -> Option<Sid> {
    match event {
        Event::Up { sid, .. } | Event::Down { sid, .. } | Event::DialFailed { sid, .. } => {
            Some(*sid)
        }
        Event::Rejected { sid, .. } => *sid,
        _ => None,
    }
}
