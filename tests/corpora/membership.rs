//! Target `membership`: any steps to other members while frames are sent, links come and go, and the loop turns or does not.
//!
//! Each call must return what the model returns, and each turn report what the model says, however many steps were made before it. No
//! frame reaches a server that has the sid later, and each frame is accounted for.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::ErrorKind,
    net::SocketAddr,
    time::Duration,
};

use quorum_cnx::{
    Changes, Config, Event, EventLoop, Handle, Leave, Members, Outbox, PeerHandle, Reason,
    ReconfigureError, SendError, SendOutcome, Sid, simulation::HostNet, simulation::limits,
};

use crate::{
    input::Input,
    membership_model::{Generation, Leaver, Model, OWN, Place, Refused, Step, Told},
    net::{Recorder, Remote, Reported, initial_message_bytes, split},
};

/// Those that may be members. The loop dials the smaller ones, and is dialed by the larger ones.
const OTHERS: [Sid; 4] = [Sid(2), Sid(3), Sid(9), Sid(11)];
/// Steps of one run.
const STEPS_MAX: usize = 400;
const PENDING_MAX: usize = 4;
/// Bytes of the queue of a peer: a few of the largest frames here fill it.
const QUEUE_BYTES: usize = limits::FRAME_BYTES_MAX + 4;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut run = Run::new(input.byte());
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
        run.check();
    }
    run.halt();
}

/// One loop, its far ends, and the model.
struct Run {
    remote: Remote,
    event_loop: EventLoop<Recorder, HostNet>,
    handle: Handle,
    model: Model,
    is_queue: bool,
    arrivals: u16,
    /// Of each generation: its handle, and how many frames were accepted for it.
    peers: Vec<(PeerHandle, u32)>,
    /// The generation that has each sid in the loop.
    known: BTreeMap<Sid, Generation>,
    linked: BTreeSet<Generation>,
    /// The connections that were links.
    links: BTreeMap<usize, Generation>,
    has_ended: bool,
}

impl Run {
    fn new(flags: u8) -> Self {
        let is_queue = flags & 1 != 0;
        let outbox = match (is_queue, flags & 2 != 0) {
            (false, _) => Outbox::Latest,
            (true, false) => Outbox::queue(QUEUE_BYTES),
            (true, true) => Outbox::lanes(QUEUE_BYTES),
        };
        let first = &OTHERS[..usize::from(flags >> 2) % 3];
        let max = if flags & 16 == 0 { 4 } else { 8 };
        let mut config = Config::builder(OWN)
            .server(OWN, Place::First.text(OWN))
            .members_max(max)
            .pending_max(PENDING_MAX)
            .outbox(outbox)
            .seed(u64::from(flags));
        for sid in first {
            config = config.server(*sid, Place::First.text(*sid));
        }
        let config = config.build().expect("the configuration is valid");
        let (remote, event_loop) = Remote::start(config);
        let mut run = Self {
            remote,
            handle: event_loop.handle().clone(),
            event_loop,
            model: Model::new(first, max),
            is_queue,
            arrivals: 0,
            peers: Vec::new(),
            known: BTreeMap::new(),
            linked: BTreeSet::new(),
            links: BTreeMap::new(),
            has_ended: false,
        };
        run.meet();
        for (sid, member) in &run.model.members {
            run.known.insert(*sid, member.generation);
        }
        run
    }

    /// Takes the handles of new members.
    fn meet(&mut self) {
        let mut new: Vec<_> = self.model.members.iter().collect();
        new.retain(|(_, member)| member.generation.0 >= self.peers.len());
        new.sort_by_key(|(_, member)| member.generation);
        for (sid, _) in new {
            let peer = self.handle.peer(*sid).expect("it is a member");
            self.peers.push((peer, 0));
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..3 => self.turn(),
            3 | 4 => self.reconfigure(input),
            5 | 6 => {
                let (sid, place) = (sid(input), Place::from_byte(input.byte()));
                let mut servers = self.model.servers();
                servers.retain(|(other, _)| *other != sid);
                servers.push((sid, place));
                let result = self.handle.set_server(sid, place.text(sid));
                self.compare(None, Leave::Now, servers, result);
            }
            7 | 8 => {
                let (sid, leave) = (sid(input), leave(input));
                let mut servers = self.model.servers();
                servers.retain(|(other, _)| *other != sid);
                let result = self.handle.remove_server(sid, leave);
                let no_member = result.as_ref().is_ok_and(|it| it.left.is_empty());
                self.compare(None, leave, servers, result);
                if no_member {
                    self.model.hurry(sid, leave, self.remote.time());
                }
            }
            9 | 10 => self.send(input),
            11 => self.send_to_any(input),
            12 => {
                let room = if input.byte() & 1 == 0 {
                    usize::MAX
                } else {
                    64
                };
                self.remote.answer_dials(input.byte() & 3 != 0, room);
            }
            13 => self.arrive(input),
            14 => self.end_or_make_room(input),
            _ => self.pass_time(input.byte()),
        }
    }

    fn reconfigure(&mut self, input: &mut Input<'_>) {
        let (what, mask) = (input.byte(), input.byte());
        let mut servers = match what & 1 {
            0 => self.model.servers(),
            _ => vec![(OWN, self.model.own)],
        };
        for (bit, sid) in OTHERS.into_iter().enumerate() {
            if mask >> bit & 1 == 0 {
                continue;
            }
            let before = servers.len();
            servers.retain(|(other, _)| *other != sid);
            if servers.len() == before {
                servers.push((sid, Place::from_byte(input.byte())));
            }
        }
        match mask >> 4 {
            // The order makes no difference.
            0..4 => servers.reverse(),
            4 => servers.retain(|(sid, _)| *sid != OWN),
            5 => servers.push((sid(input), Place::Second)),
            6 | 7 => {
                servers.retain(|(sid, _)| *sid != OWN);
                servers.push((OWN, Place::from_byte(input.byte())));
            }
            _ => {}
        }
        let current = self.model.version;
        let version = match what >> 1 & 7 {
            0 => current,
            1 => current.saturating_sub(1),
            2 if what >> 4 == 15 => u64::MAX,
            _ => current.saturating_add(u64::from(what >> 4) + 1),
        };
        let leave = leave(input);
        let members = Members::new(version).leave(leave);
        let texts = servers.iter().map(|(sid, place)| (*sid, place.text(*sid)));
        let result = self.handle.reconfigure(members.servers(texts));
        self.compare(Some(version), leave, servers, result);
    }

    /// The model makes the same step.
    fn compare(
        &mut self,
        version: Option<u64>,
        leave: Leave,
        servers: Vec<(Sid, Place)>,
        result: Result<Changes, ReconfigureError>,
    ) {
        let (now, what) = (
            self.remote.time(),
            format!("{version:?} {leave:?} {servers:?}"),
        );
        let leave = match leave {
            Leave::After(time) => Some(time),
            _ => None,
        };
        let step = Step {
            version,
            leave,
            now,
        };
        let expected = self.model.step(step, servers);
        assert_eq!(result.map_err(Refused::from), expected, "{what}");
        self.meet();
    }

    /// Sends by the sid.
    fn send(&mut self, input: &mut Input<'_>) {
        let (sid, len) = (sid(input), length(input));
        let member = self.model.members.get(&sid).copied();
        let generation = member.map(|member| member.generation);
        let frame = self.frame(generation, len);
        let sent = match input.byte() & 1 {
            0 => self.handle.to_send(sid, frame),
            _ => self.handle.to_send_latest(sid, frame),
        };
        match generation {
            _ if self.model.is_halted => assert_eq!(sent, Err(SendError::Halted)),
            _ if sid == OWN => assert_eq!(sent, Ok(SendOutcome::Loopback)),
            None => assert_eq!(sent, Err(SendError::UnknownPeer(sid))),
            Some(generation) => self.count(generation, sent),
        }
    }

    /// Sends by the handle of any generation, also of one that is gone.
    fn send_to_any(&mut self, input: &mut Input<'_>) {
        let back = usize::from(input.byte());
        let Some(last) = self.peers.len().checked_sub(1) else {
            return;
        };
        let generation = Generation(last - back % (last + 1).min(8));
        let frame = self.frame(Some(generation), length(input));
        let peer = &self.peers[generation.0].0;
        let sid = peer.sid();
        let sent = match input.byte() % 4 {
            0 => peer.send(frame),
            1 => peer.send_latest(frame),
            2 => peer.send_slice(&frame),
            _ => peer.send_all(&[&frame]).map(|_| SendOutcome::Queued),
        };
        let mut members = self.model.members.values();
        let is_member = members.any(|member| member.generation == generation);
        let connected = peer.connect();
        match is_member {
            _ if self.model.is_halted => assert_eq!(sent, Err(SendError::Halted)),
            false => {
                let removed = SendError::Removed(sid);
                assert_eq!((sent, connected), (Err(removed), Err(removed)));
            }
            true => {
                assert_eq!(connected, Ok(()));
                self.count(generation, sent);
            }
        }
    }

    /// A frame that contains its generation and its number.
    fn frame(&self, generation: Option<Generation>, len: usize) -> Vec<u8> {
        let Generation(generation) = generation.unwrap_or(Generation(usize::MAX));
        let number = self
            .peers
            .get(generation)
            .map_or(0, |(_, accepted)| *accepted);
        let mut frame = (generation as u32).to_be_bytes().to_vec();
        frame.extend(number.to_be_bytes());
        frame.resize(len.max(8), 7);
        frame
    }

    fn count(&mut self, generation: Generation, sent: Result<SendOutcome, SendError>) {
        match sent {
            Ok(_) => self.peers[generation.0].1 += 1,
            Err(SendError::Full) if self.is_queue => {}
            Err(other) => panic!("{generation:?}: {other}"),
        }
    }

    /// A server dials this one.
    fn arrive(&mut self, input: &mut Input<'_>) {
        let (sid, flags) = (sid(input), input.byte());
        self.arrivals += 1;
        let net = if flags & 1 == 0 { 0 } else { 1 };
        let from = SocketAddr::from(([10, 0, net, sid.0 as u8], self.arrivals));
        let to = self.remote.host.listening();
        let Some(connection) = to.first().map(|to| self.remote.arrive_at(from, *to)) else {
            return;
        };
        if flags & 2 != 0 {
            self.remote.get(connection).end.set_room(64);
        }
        self.remote.send(connection, &sid.0.to_be_bytes());
    }

    /// A far end closes its connection or takes more, or the path breaks.
    fn end_or_make_room(&self, input: &mut Input<'_>) {
        let (back, what) = (usize::from(input.byte()), input.byte());
        let back = back % self.remote.len().max(1);
        let Some(connection) = self.remote.len().checked_sub(back + 1) else {
            return;
        };
        let end = &self.remote.get(connection).end;
        match what % 4 {
            // Fails for a dial that was not accepted, and after a reset.
            0 => drop(end.shutdown_write()),
            1 => end.fail(ErrorKind::ConnectionReset),
            _ => end.make_room(usize::from(what) << 4),
        }
    }

    /// Time passes before a turn. Rarely the loop is asked to halt instead, or other calls are made that change no members.
    fn pass_time(&mut self, what: u8) {
        match what {
            0 => {
                self.handle.request_halt();
                self.model.is_halted = true;
            }
            1 => self.handle.renew(),
            2 => self.handle.soft_halt(),
            3 => self.handle.connect_all(),
            _ => {
                self.remote
                    .network
                    .advance(Duration::from_millis(u64::from(what) * 20));
                self.turn();
            }
        }
    }

    fn turn(&mut self) {
        if self.has_ended {
            return;
        }
        let now = self.remote.time();
        let (told, gone) = self.model.turn(now);
        let goes_on = self.remote.turn(&mut self.event_loop);
        assert_eq!(goes_on, !self.model.is_halted);
        self.has_ended = !goes_on;
        let mut told = VecDeque::from(told);
        for reported in std::mem::take(&mut self.event_loop.handler_mut().reported) {
            if let Reported::Event(event) = reported {
                self.follow(&event, &mut told, now);
            }
        }
        assert!(told.is_empty(), "not reported: {told:?}");
        for generation in gone {
            let mut leavers = self.model.leavers.iter();
            let stays = leavers.any(|leaver| leaver.member.generation == generation);
            assert!(!stays, "{generation:?} has not left in time");
        }
        self.model.follow();
        let stats = self.handle.stats();
        assert!(stats.balances(), "{stats:?}");
        // A link, a contender and three connections of a dial.
        let most = 5 * (self.model.max - 1) + PENDING_MAX + limits::ACCEPTS_PER_TURN;
        assert!(self.remote.host.connections() <= most);
    }

    /// The loop has reported this.
    fn follow(&mut self, event: &Event, told: &mut VecDeque<Told>, now: Duration) {
        match event {
            Event::Joined { sid, .. } => match told.pop_front() {
                Some(Told::Joined(who, generation)) if who == *sid => {
                    let older = self.known.insert(*sid, generation);
                    assert_eq!(older, None, "{sid} joins twice");
                }
                other => panic!("{sid} joins, expected {other:?}"),
            },
            Event::Moved { sid, .. } => {
                assert_eq!(told.pop_front(), Some(Told::Moved(*sid)), "{sid} moves");
            }
            Event::Left { sid, discarded, .. } => {
                let generation = self.known.remove(sid).expect("it had joined");
                assert!(
                    !self.linked.contains(&generation),
                    "{sid} has left and is linked"
                );
                let leaver = self.model.left(generation);
                self.check_left(leaver, *discarded, now);
            }
            Event::Up { sid, addr, .. } => {
                let generation = *self.known.get(sid).expect("it has joined");
                assert!(self.linked.insert(generation), "two links to {sid}");
                self.links.insert(self.link(*addr), generation);
            }
            Event::Down { sid, reason, .. } => {
                let generation = self.known.get(sid).expect("it has joined");
                assert!(
                    self.linked.remove(generation),
                    "{sid} goes down and was not up"
                );
                let mut members = self.model.members.values();
                let is_member = members.any(|member| member.generation == *generation);
                assert!(
                    *reason != Reason::Removed || !is_member,
                    "{sid} is a member"
                );
            }
            _ => {}
        }
    }

    /// The connection that has just become a link. A newer one may be dialed already.
    fn link(&self, addr: SocketAddr) -> usize {
        let mut connections = (0..self.remote.len()).rev();
        let is_it = |connection: &usize| {
            let end = &self.remote.get(*connection).end;
            end.local_addr() == addr && !(end.was_dialed() && end.received().is_empty())
        };
        connections
            .find(is_it)
            .expect("the loop names addresses that exist")
    }

    /// Nothing waits for one that has left, and nothing was discarded before its time was over.
    fn check_left(&self, leaver: Leaver, discarded: u64, now: Duration) {
        let is_over = leaver.until.is_none_or(|until| until <= now);
        assert!(discarded == 0 || is_over, "discarded too early: {leaver:?}");
        let sent = self.peers[leaver.member.generation.0].0.stats().sent;
        assert_eq!((sent.waiting, sent.discarded), (0, discarded), "{leaver:?}");
    }

    /// What any thread can see at any time.
    fn check(&self) {
        let (stats, members) = (self.handle.stats(), &self.model.members);
        let accepted: u64 = self
            .peers
            .iter()
            .map(|(_, accepted)| u64::from(*accepted))
            .sum();
        assert!(
            stats.sent.balances() && stats.sent.accepted == accepted,
            "{:?}",
            stats.sent
        );
        let is_linked = |generation| !self.has_ended && self.linked.contains(&generation);
        let known: Vec<Sid> = stats.peers.iter().map(|peer| peer.sid).collect();
        assert!(known.iter().eq(members.keys()), "{known:?}");
        for (peer, (sid, member)) in stats.peers.iter().zip(members) {
            let (_, accepted) = self.peers[member.generation.0];
            assert_eq!(peer.sent.accepted, u64::from(accepted), "{sid} begins anew");
        }
        for (generation, (peer, accepted)) in self.peers.iter().enumerate() {
            let (linked, stats) = (is_linked(Generation(generation)), peer.stats());
            assert_eq!((peer.is_linked(), stats.linked), (linked, linked));
            assert!(stats.sent.balances() && stats.sent.accepted == u64::from(*accepted));
        }
        for sid in OTHERS {
            let member = members.get(&sid);
            let linked = member.is_some_and(|member| is_linked(member.generation));
            assert_eq!(self.handle.connected_to_peer(sid), linked, "{sid}");
            assert_eq!(self.handle.peer(sid).is_ok(), member.is_some(), "{sid}");
        }
        let leavers = self.model.leavers.iter();
        let leaving = leavers.filter(|leaver| is_linked(leaver.member.generation));
        assert_eq!(stats.leaving, leaving.count() as u64);
        assert!(members.len() + self.model.leavers.len() < self.model.max);
    }

    /// Halts, and checks that each link has carried frames of its generation only.
    fn halt(mut self) {
        self.handle.request_halt();
        self.model.is_halted = true;
        self.turn();
        self.check();
        assert!(!self.remote.holds_something(), "something is left open");
        let stats = self.handle.stats();
        assert!(stats.balances() && stats.sent.waiting == 0, "{stats:?}");
        for (link, generation) in &self.links {
            let end = &self.remote.get(*link).end;
            let received = end.received();
            let begin = match end.was_dialed() {
                true => initial_message_bytes(&received),
                false => 0,
            };
            let (frames, _) = split(&received[begin..]);
            for frame in frames {
                let of = frame.first_chunk().map(|of| u32::from_be_bytes(*of));
                let own = Some(generation.0 as u32);
                assert_eq!(of, own, "a frame of another server");
            }
        }
    }
}

/// Mostly one of those that may be members.
fn sid(input: &mut Input<'_>) -> Sid {
    match input.byte() % 32 {
        at @ 0..28 => OTHERS[usize::from(at) % OTHERS.len()],
        28 | 29 => OWN,
        30 => Sid(-1),
        _ => Sid(i64::MAX),
    }
}

fn leave(input: &mut Input<'_>) -> Leave {
    match input.byte() {
        0..100 => Leave::Now,
        255 => Leave::After(limits::LEAVE_MAX + Duration::from_nanos(1)),
        time => Leave::After(Duration::from_millis(u64::from(time - 100) * 20)),
    }
}

/// Mostly short.
fn length(input: &mut Input<'_>) -> usize {
    match input.byte() {
        0..240 => 8,
        long => usize::from(long - 239) << 12,
    }
}
