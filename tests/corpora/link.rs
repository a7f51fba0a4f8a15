//! Target `link`: everything that can happen to the links of one loop, in any order.
//!
//! Connections arrive with any sid, bring bytes, end and break. Sockets are full and have room again. Frames are sent one by one or
//! many at once, through a slot or a queue. Links are dropped, time passes, and the loop halts. After each step and at the end, the
//! target checks the promises of the crate page at the far ends and in the counters.

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr, time::Duration};

use quorum_cnx::{
    Config, Event, EventLoop, Outbox, Replace, SendError, Sid, Unknown,
    simulation::limits,
    simulation::{Call, HostNet},
};

use crate::{
    input::Input,
    net::{OWN_ADDRESS, Recorder, Remote, Reported, initial_message_bytes, split},
};

const OWN: Sid = Sid(5);
const SMALL: Sid = Sid(2);
const LARGE: Sid = Sid(9);
const UNKNOWN: Sid = Sid(77);
const SIDS: [Sid; 5] = [LARGE, Sid::OBSERVER, SMALL, OWN, UNKNOWN];

/// Bytes that one connection may bring, and bytes of one call that sends many frames.
const BYTES_MAX: usize = 2 << 20;
/// Steps of one run.
const STEPS_MAX: usize = 400;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let mut run = Run::new(flags);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
    }
    run.settle();
    if flags & 16 == 0 {
        run.halt();
    } else {
        run.die();
    }
}

/// One loop, its far ends, and what is expected of both.
struct Run {
    remote: Remote,
    event_loop: EventLoop<Recorder, HostNet>,
    is_queue: bool,
    arrivals: u16,
    /// The lengths of the frames that were accepted for each peer. A frame begins with its number.
    sent: BTreeMap<Sid, Vec<usize>>,
    /// The connections that were the link of each sid, and whether the last one is up.
    links: BTreeMap<Sid, (Vec<usize>, bool)>,
    /// When the newest link of each peer came up.
    up_at: BTreeMap<Sid, Duration>,
    /// The frames that the loop has received over each link.
    received: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Run {
    fn new(flags: u8) -> Self {
        let is_queue = flags & 1 != 0;
        let outbox = match (is_queue, flags & 2 != 0) {
            (false, _) => Outbox::Latest,
            (true, false) => Outbox::QUEUE,
            // The smallest one.
            (true, true) => Outbox::queue(limits::FRAME_BYTES_MAX + 4),
        };
        let mut config = Config::builder(OWN)
            .server(OWN, OWN_ADDRESS)
            .server(SMALL, "10.0.0.2:3888")
            .server(LARGE, "10.0.0.9:3888")
            .observers_max(2)
            .pending_max(3)
            .outbox(outbox)
            .seed(u64::from(flags));
        if flags & 4 != 0 {
            config = config.unknown(Unknown::admit(1));
        }
        if flags & 8 != 0 {
            config = config.replace(Replace::Newest);
        }
        let config = config.build().expect("the configuration is valid");
        let (remote, event_loop) = Remote::start(config);
        Self {
            remote,
            event_loop,
            is_queue,
            arrivals: 0,
            sent: BTreeMap::new(),
            links: BTreeMap::new(),
            up_at: BTreeMap::new(),
            received: BTreeMap::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 => self.turn(),
            1 | 2 => self.arrive(input),
            3 => self.bring(input, |input| {
                let len = usize::from(input.byte());
                input.take(len).to_vec()
            }),
            4 | 5 => self.bring(input, |input| {
                let frame = frame(u32::from(input.byte()), input.size());
                [&(frame.len() as u32).to_be_bytes(), &frame[..]].concat()
            }),
            6 => {
                if let Some(connection) = self.connection(input) {
                    // Fails for a dial that was not accepted, and after a reset.
                    let _ = self.remote.get(connection).end.shutdown_write();
                }
            }
            7 => {
                if let Some(connection) = self.connection(input) {
                    let errors = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    let error = errors[usize::from(input.byte() & 1)];
                    self.remote.get(connection).end.fail(error);
                }
            }
            8 | 9 => {
                if let Some(connection) = self.connection(input) {
                    let bytes = input.size();
                    self.remote.get(connection).end.make_room(bytes);
                }
            }
            10 => {
                // The room may be too little for an initial message.
                let flags = input.byte();
                self.remote.answer_dials(flags & 3 != 0, input.size());
            }
            11 | 12 => self.send(input),
            13 => self.send_many(input),
            14 => {
                let time = Duration::from_millis(u64::from(input.byte()) * 20);
                self.remote.network.advance(time);
                self.turn();
            }
            _ => self.call(input.byte()),
        }
        let stats = self.event_loop.handle().stats();
        let all = stats.peers.iter().map(|peer| peer.sent);
        for sent in all.chain([stats.sent]) {
            assert!(sent.balances(), "{sent:?}");
        }
    }

    fn connection(&self, input: &mut Input<'_>) -> Option<usize> {
        // The newest connections are the most likely to be open.
        let back = usize::from(input.byte()) % self.remote.len().max(1);
        self.remote.len().checked_sub(back + 1)
    }

    /// A connection arrives, perhaps with a sid.
    fn arrive(&mut self, input: &mut Input<'_>) {
        let flags = input.byte();
        let sid = SIDS[usize::from(flags >> 2) % SIDS.len()];
        let host = match (sid, flags & 1) {
            (LARGE, 0) => 9,
            (SMALL, 0) => 2,
            _ => 66,
        };
        // Each connection has a port of its own, so that the events tell links apart.
        self.arrivals += 1;
        let from = SocketAddr::from(([10, 0, 0, host], self.arrivals));
        let connection = self.remote.arrive(from);
        self.remote.get(connection).end.set_room(0);
        if flags & 2 == 0 {
            self.remote.send(connection, &sid.0.to_be_bytes());
        }
    }

    /// A connection brings bytes.
    fn bring(&mut self, input: &mut Input<'_>, bytes: impl FnOnce(&mut Input<'_>) -> Vec<u8>) {
        let Some(connection) = self.connection(input) else {
            return;
        };
        let bytes = bytes(input);
        if self.remote.get(connection).sent.len() + bytes.len() <= BYTES_MAX {
            self.remote.send(connection, &bytes);
        }
    }

    fn send(&mut self, input: &mut Input<'_>) {
        let flags = input.byte();
        let (to, len) = (peer(flags), input.size().max(4));
        let frame = self.frame(to, len);
        let taken = match flags & 2 {
            0 => self.event_loop.handle().to_send(to, frame),
            _ => self.event_loop.handle().to_send_slice(to, &frame),
        };
        let taken = match taken {
            Ok(_) => 1,
            Err(SendError::Full) if self.is_queue => 0,
            Err(other) => panic!("{other}"),
        };
        self.sent.entry(to).or_default().extend(vec![len; taken]);
    }

    fn send_many(&mut self, input: &mut Input<'_>) {
        let flags = input.byte();
        let (to, count) = (peer(flags), usize::from(flags >> 2));
        let len = input.size().max(4);
        let count = count.min(BYTES_MAX / len);
        let first = self.sent.entry(to).or_default().len();
        let frames: Vec<_> = (first..first + count)
            .map(|number| frame(number as u32, len))
            .collect();
        let slices: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let taken = match self.event_loop.handle().to_send_all(to, &slices) {
            Ok(taken) => taken,
            Err(SendError::Full) if self.is_queue => 0,
            Err(other) => panic!("{other}"),
        };
        self.sent.entry(to).or_default().extend(vec![len; taken]);
    }

    fn frame(&self, to: Sid, len: usize) -> Vec<u8> {
        frame(self.sent.get(&to).map_or(0, Vec::len) as u32, len)
    }

    /// Makes one call of the handle, or has calls of the loop fail.
    fn call(&self, what: u8) {
        let handle = self.event_loop.handle();
        if what & 0x80 != 0 {
            return self.call_about_no_member(what & 0x7f);
        }
        match what % 8 {
            0 => handle.soft_halt(),
            1 => handle.connect_all(),
            2 => handle
                .initiate_connection(peer(what >> 3))
                .expect("the peer is known, and the loop runs"),
            3 => handle
                .connect_one(peer(what >> 3))
                .expect("the peer is known, and the loop runs"),
            // In a row, so that no call in between succeeds.
            4 => (0..9).for_each(|_| self.remote.fail_next(Call::Accept)),
            5 => self.remote.fail_next(Call::Dial),
            6 => self.remote.fail_next(Call::Watch),
            _ => self.remote.fail_next(Call::Shutdown),
        }
    }

    fn turn(&mut self) {
        assert!(self.remote.turn(&mut self.event_loop));
        self.record();
    }

    /// Makes a call with the sid of an observer, of an unknown server, or of no server. Its error says only that the peer is unknown.
    fn call_about_no_member(&self, what: u8) {
        let handle = self.event_loop.handle();
        let whom = [-1, -2, -3, 1, 7, i64::MAX][usize::from(what >> 3) % 6];
        let result = match what % 8 {
            0 => handle.initiate_connection(Sid(whom)),
            1 => handle.connect_one(Sid(whom)),
            2 => handle.discard(Sid(whom)).map(drop),
            3 => handle.wait_for_room(Sid(whom), Duration::MAX).map(drop),
            4 => handle
                .to_send_all(Sid(whom), &[b"to", b"anybody"])
                .map(drop),
            _ => handle.to_send(Sid(whom), "to anybody").map(drop),
        };
        match result {
            Ok(()) | Err(SendError::UnknownPeer(_)) => {}
            Err(SendError::Full) => assert!(self.is_queue),
            Err(other) => panic!("{other}"),
        }
    }

    /// Records what the loop has reported. Each sid has one link at most, and frames arrive only over a link that is up.
    fn record(&mut self) {
        for reported in std::mem::take(&mut self.event_loop.handler_mut().reported) {
            match reported {
                Reported::Event(Event::Up {
                    sid, addr, dialed, ..
                }) => {
                    let link = self.remote.newest(addr);
                    assert_eq!(dialed, self.remote.get(link).end.was_dialed());
                    assert!(!dialed || sid < OWN, "the server with the larger sid dials");
                    let (links, is_up) = self.links.entry(sid).or_default();
                    assert!(!*is_up, "two links to {sid}");
                    *is_up = true;
                    links.push(link);
                    self.up_at.insert(sid, self.remote.time());
                }
                Reported::Event(Event::Down { sid, .. }) => {
                    let (_, is_up) = self.links.get_mut(&sid).expect("it was up before");
                    assert!(*is_up, "{sid} goes down twice");
                    *is_up = false;
                }
                Reported::Event(_) => {}
                Reported::Frame(sid, frame) => {
                    let (links, is_up) = &self.links[&sid];
                    assert!(*is_up, "a frame of {sid} without a link");
                    let link = *links.last().expect("it is up");
                    self.received.entry(link).or_default().push(frame);
                }
            }
        }
    }

    /// Lets the loop do all that there is to do now, and checks the result.
    fn settle(&mut self) {
        // A queue may wait until its link is proven.
        self.remote.network.advance(limits::PROVEN_AFTER);
        for _ in 0..1000 {
            self.turn();
            if self.event_loop.timeout() == Some(Duration::ZERO) {
                continue;
            }
            break;
        }
        // The requests of callers are handled in the turns that follow.
        (0..3).for_each(|_| self.turn());
        for (sid, (links, is_up)) in &self.links {
            for (at, link) in links.iter().enumerate() {
                let is_up = *is_up && at + 1 == links.len();
                self.check_received(*sid, *link, is_up);
            }
        }
        for sid in [SMALL, LARGE] {
            self.check_sent(sid);
        }
        let stats = self.event_loop.handle().stats();
        assert!(stats.balances(), "{stats:?}");
    }

    /// The frames that the loop has received over a link are those that its far end has sent, from the first one on.
    fn check_received(&self, sid: Sid, link: usize, is_up: bool) {
        let connection = self.remote.get(link);
        assert_eq!(is_up, !connection.end.is_closed(), "{sid}");
        let initial_message_bytes = if connection.end.was_dialed() { 0 } else { 8 };
        let (frames, rest) = split(&connection.sent[initial_message_bytes..]);
        let received = self.received.get(&link).map_or(&[][..], Vec::as_slice);
        let mut pairs = frames.iter().zip(received);
        let is_same = pairs.all(|(sent, received)| sent == received);
        assert!(
            is_same && received.len() <= frames.len(),
            "other frames of {sid} than were sent"
        );
        let has_valid_length = rest.first_chunk().is_none_or(|prefix| {
            (1..=limits::FRAME_BYTES_MAX as i32).contains(&i32::from_be_bytes(*prefix))
        });
        if is_up {
            assert!(has_valid_length, "a link goes on after {rest:?}");
            assert_eq!(frames.len(), received.len(), "{sid} has sent more");
        }
    }

    /// The frames that have arrived at a peer, over all of its links, are what the outbox promises.
    fn check_sent(&self, sid: Sid) {
        let lens = self.sent.get(&sid).map_or(&[][..], Vec::as_slice);
        let none = (Vec::new(), false);
        let (links, is_up) = self.links.get(&sid).unwrap_or(&none);
        let mut numbers = Vec::new();
        let mut tail = None;
        for link in links {
            let end = &self.remote.get(*link).end;
            let received = end.received();
            let begin = match end.was_dialed() {
                true => initial_message_bytes(&received),
                false => 0,
            };
            let (frames, rest) = split(&received[begin..]);
            for frame in frames {
                let number = u32::from_be_bytes(*frame.first_chunk().expect("4 bytes at least"));
                let len = lens.get(number as usize).expect("it was sent");
                assert!(frame == self::frame(number, *len), "frame {number} is torn");
                numbers.push(number);
            }
            tail = Some((*link, rest.len()));
        }
        let of_peer = |peer: &&quorum_cnx::PeerStats| peer.sid == sid;
        let stats = self.event_loop.handle().stats();
        let sent = stats.peers.iter().find(of_peer).expect("a member").sent;
        assert_eq!(sent.accepted, lens.len() as u64);
        if self.is_queue {
            let all: Vec<u32> = (0..numbers.len() as u32).collect();
            assert_eq!(numbers, all, "each frame once and in order");
            // Frames that are written together are counted together.
            assert!(sent.written <= numbers.len() as u64);
        } else {
            assert_eq!(sent.written + sent.resent, numbers.len() as u64);
            assert!(
                numbers.is_sorted(),
                "an older frame after a newer one: {numbers:?}"
            );
        }
        let Some((link, torn)) = tail else {
            return;
        };
        let end = &self.remote.get(link).end;
        let takes_more = end.is_open() && !end.is_blocked();
        // A queue may wait until the link is proven.
        let age = self.remote.time() - self.up_at.get(&sid).copied().unwrap_or_default();
        let is_held = self.is_queue && age < limits::PROVEN_AFTER;
        if *is_up && takes_more && !is_held {
            assert_eq!(torn, 0, "a frame is not finished");
            assert_eq!(sent.written + sent.resent, numbers.len() as u64);
            let newest = numbers.last().map_or(0, |number| *number as usize + 1);
            assert_eq!(
                (sent.waiting, newest),
                (0, lens.len()),
                "there was room for more"
            );
        }
    }

    fn halt(mut self) {
        let handle = self.event_loop.handle().clone();
        handle.request_halt();
        // The loop halts in this turn, whatever else is to be done.
        assert!(!self.remote.turn(&mut self.event_loop));
        self.record();
        assert!(!self.remote.holds_something(), "something is left open");
        assert!(self.links.values().all(|(_, is_up)| !is_up));
        assert_eq!(handle.to_send(SMALL, "late"), Err(SendError::Halted));
        let stats = handle.stats();
        assert!(stats.balances(), "{stats:?}");
        assert_eq!(
            (stats.sent.waiting, stats.pending, stats.connections),
            (0, 0, 0)
        );
    }

    /// The event queue of the system fails, so that the loop cannot go on.
    fn die(mut self) {
        let handle = self.event_loop.handle().clone();
        self.remote.fail_next(Call::Wait);
        for _ in 0..2 {
            assert!(self.event_loop.turn(None).is_err());
            assert!(handle.has_died());
        }
        assert_eq!(handle.to_send(SMALL, "late"), Err(SendError::Halted));
        assert!(handle.linked_peers().is_empty());
        let sent = handle.stats().sent;
        assert!(sent.balances() && sent.waiting == 0, "{sent:?}");
        drop(self.event_loop);
        assert!(!self.remote.holds_connections(), "something is left open");
    }
}

fn peer(flags: u8) -> Sid {
    if flags & 1 == 0 { SMALL } else { LARGE }
}

/// A frame that contains its number. Its bytes show whether it is torn.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; len];
    for (byte, of) in frame.iter_mut().zip(number.to_be_bytes()) {
        *byte = of;
    }
    frame
}
