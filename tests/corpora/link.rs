//! Target `link`: everything that can happen to the links of one loop, in any order.
//!
//! Connections come with any name, speak, fall silent, break; sockets are full and have room again; frames of one and of many
//! are sent through a slot or a queue; links are dropped; time passes; the loop halts. What the promises of the crate page say
//! holds whatever happens, and is checked from outside.

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr, time::Duration};

use quorum_cnx::{Config, Event, EventLoop, Outbox, Replace, SendError, Sid, Unknown, limits};

use crate::{
    input::Input,
    net::{Fault, Inside, Outside, Recorder, Told},
};

const OWN: Sid = Sid(5);
const SMALL: Sid = Sid(2);
const LARGE: Sid = Sid(9);
const STRANGER: Sid = Sid(77);
const NAMES: [Sid; 5] = [LARGE, Sid::OBSERVER, SMALL, OWN, STRANGER];

/// What a connection may bring in all, and what may be sent to one peer.
const BYTES_MAX: usize = 2 << 20;
/// What may happen in one run.
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

/// One loop and its surroundings.
struct Run {
    outside: Outside,
    event_loop: EventLoop<Recorder, Inside>,
    is_queue: bool,
    arrivals: u16,
    /// The lengths of the frames that were taken for each peer; a frame begins with its number.
    sent: BTreeMap<Sid, Vec<usize>>,
    /// The links that each sid has had, and whether the last is up.
    links: BTreeMap<Sid, (Vec<usize>, bool)>,
    /// When the newest link of each peer came up.
    up_at: BTreeMap<Sid, Duration>,
    /// What came over each link.
    received: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Run {
    fn new(flags: u8) -> Self {
        let is_queue = flags & 1 != 0;
        let outbox = match (is_queue, flags & 2 != 0) {
            (false, _) => Outbox::Latest,
            (true, false) => Outbox::QUEUE,
            // The smallest one.
            (true, true) => Outbox::Queue {
                bytes: limits::FRAME_BYTES_MAX + 4,
            },
        };
        let mut config = Config::builder(OWN)
            .server(OWN, "10.0.0.5:3888")
            .server(SMALL, "10.0.0.2:3888")
            .server(LARGE, "10.0.0.9:3888")
            .observers_max(2)
            .pending_max(3)
            .outbox(outbox)
            .seed(u64::from(flags));
        if flags & 4 != 0 {
            config = config.unknown(Unknown::Admit { max: 1 });
        }
        if flags & 8 != 0 {
            config = config.replace(Replace::Newest);
        }
        let config = config.build().expect("it is sound");
        let outside = Outside::default();
        let event_loop = EventLoop::with_net(config, Recorder::default(), outside.net())
            .expect("no socket was handed over");
        Self {
            outside,
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
            3 => self.say(input, |input| {
                let len = usize::from(input.byte());
                input.take(len).to_vec()
            }),
            4 | 5 => self.say(input, |input| {
                let frame = frame(u32::from(input.byte()), input.size());
                [&(frame.len() as u32).to_be_bytes(), &frame[..]].concat()
            }),
            6 => {
                if let Some(line) = self.line(input) {
                    self.outside.finish(line);
                }
            }
            7 => {
                if let Some(line) = self.line(input) {
                    let to_writers = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    let to_writers = to_writers[usize::from(input.byte() & 1)];
                    self.outside.reset(line, to_writers);
                }
            }
            8 | 9 => {
                if let Some(line) = self.line(input) {
                    self.outside.make_room(line, input.size());
                }
            }
            10 => {
                // Perhaps not even enough for the initial message.
                let flags = input.byte();
                self.outside.answer_dials(flags & 3 != 0, input.size());
            }
            11 | 12 => self.send(input),
            13 => self.send_many(input),
            14 => {
                let time = Duration::from_millis(u64::from(input.byte()) * 20);
                self.outside.pass(time);
                self.turn();
            }
            _ => self.order(input.byte()),
        }
        let stats = self.event_loop.handle().stats();
        let all = stats.peers.iter().map(|peer| peer.sent);
        for sent in all.chain([stats.sent]) {
            assert!(sent.balances(), "{sent:?}");
        }
    }

    fn line(&self, input: &mut Input<'_>) -> Option<usize> {
        // The newest are the most likely to be alive.
        let back = usize::from(input.byte()) % self.outside.lines().max(1);
        self.outside.lines().checked_sub(back + 1)
    }

    /// Somebody connects, and says who he is.
    fn arrive(&mut self, input: &mut Input<'_>) {
        let flags = input.byte();
        let name = NAMES[usize::from(flags >> 2) % NAMES.len()];
        let host = match (name, flags & 1) {
            (LARGE, 0) => 9,
            (SMALL, 0) => 2,
            _ => 66,
        };
        // Each from a port of its own, so that links are told apart.
        self.arrivals += 1;
        let addr = SocketAddr::from(([10, 0, 0, host], self.arrivals));
        let line = self.outside.arrive(addr);
        if flags & 2 == 0 {
            self.outside.say(line, &name.0.to_be_bytes());
        }
    }

    fn say(&self, input: &mut Input<'_>, what: impl FnOnce(&mut Input<'_>) -> Vec<u8>) {
        let Some(line) = self.line(input) else {
            return;
        };
        let bytes = what(input);
        if self.outside.look(line, |line| line.said.len()) + bytes.len() <= BYTES_MAX {
            self.outside.say(line, &bytes);
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

    fn order(&self, what: u8) {
        let handle = self.event_loop.handle();
        if what & 0x80 != 0 {
            return self.call(what & 0x7f);
        }
        match what % 8 {
            0 => handle.soft_halt(),
            1 => handle.connect_all(),
            2 => handle
                .initiate_connection(peer(what >> 3))
                .expect("it is known and runs"),
            3 => handle
                .connect_one(peer(what >> 3))
                .expect("it is known and runs"),
            // One after the other, so that nobody else has a chance.
            4 => (0..9).for_each(|_| self.outside.refuse(Fault::Accept)),
            5 => self.outside.refuse(Fault::Dial),
            6 => self.outside.refuse(Fault::Watch),
            _ => self.outside.refuse(Fault::Shutdown),
        }
    }

    fn turn(&mut self) {
        assert!(self.event_loop.turn(None).expect("this system never fails"));
        self.note();
    }

    /// Calls something about an observer, a server that is not configured, or nobody: that is a mistake at most.
    fn call(&self, what: u8) {
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

    /// Reads what the loop has told: at most one link for each sid, and frames only over one that is up.
    fn note(&mut self) {
        for told in std::mem::take(&mut self.event_loop.handler_mut().told) {
            match told {
                Told::Event(Event::Up {
                    sid, addr, dialed, ..
                }) => {
                    let line = self.outside.newest(addr);
                    assert_eq!(dialed, self.outside.look(line, |line| line.dialed));
                    assert!(!dialed || sid < OWN, "the smaller one dials");
                    let (lines, is_up) = self.links.entry(sid).or_default();
                    assert!(!*is_up, "two links to {sid}");
                    *is_up = true;
                    lines.push(line);
                    self.up_at.insert(sid, self.outside.time());
                }
                Told::Event(Event::Down { sid, .. }) => {
                    let (_, is_up) = self.links.get_mut(&sid).expect("it was up before");
                    assert!(*is_up, "{sid} goes down twice");
                    *is_up = false;
                }
                Told::Event(_) => {}
                Told::Frame(sid, frame) => {
                    let (lines, is_up) = &self.links[&sid];
                    assert!(*is_up, "a frame of {sid} without a link");
                    let line = *lines.last().expect("it is up");
                    self.received.entry(line).or_default().push(frame);
                }
            }
        }
    }

    /// Lets the loop do all that there is to do now, and looks at what has come of it.
    fn settle(&mut self) {
        // A link that a queue waits to be proven.
        self.outside.pass(limits::PROVEN_AFTER);
        for _ in 0..1000 {
            self.turn();
            if self.event_loop.timeout() == Some(Duration::ZERO) {
                continue;
            }
            break;
        }
        // What callers have left for the loop is done with the turn that follows.
        (0..3).for_each(|_| self.turn());
        for (sid, (lines, is_up)) in &self.links {
            for (at, line) in lines.iter().enumerate() {
                let is_up = *is_up && at + 1 == lines.len();
                self.check_received(*sid, *line, is_up);
            }
        }
        for sid in [SMALL, LARGE] {
            self.check_sent(sid);
        }
        let stats = self.event_loop.handle().stats();
        assert!(stats.balances(), "{stats:?}");
    }

    /// What came over a link is what its far end has said, from the first byte and without a gap.
    fn check_received(&self, sid: Sid, line: usize, is_up: bool) {
        let said = self.outside.look(line, |line| {
            assert_eq!(is_up, !line.closed, "{sid}");
            line.said.clone()
        });
        let name = if self.outside.look(line, |line| line.dialed) {
            0
        } else {
            8
        };
        let (frames, rest) = split(&said[name..]);
        let received = self.received.get(&line).map_or(&[][..], Vec::as_slice);
        let same = frames.iter().zip(received).all(|(said, came)| said == came);
        assert!(
            same && received.len() <= frames.len(),
            "what came from {sid} is another"
        );
        let is_sound = rest.first_chunk().is_none_or(|prefix| {
            (1..=limits::FRAME_BYTES_MAX as i32).contains(&i32::from_be_bytes(*prefix))
        });
        if is_up {
            assert!(is_sound, "a link goes on behind {rest:?}");
            assert_eq!(frames.len(), received.len(), "{sid} has said more");
        }
    }

    /// What left for a peer, over all of its links, is what the outbox promises.
    fn check_sent(&self, sid: Sid) {
        let lens = self.sent.get(&sid).map_or(&[][..], Vec::as_slice);
        let none = (Vec::new(), false);
        let (lines, is_up) = self.links.get(&sid).unwrap_or(&none);
        let mut numbers = Vec::new();
        let mut tail = None;
        for line in lines {
            let (heard, dialed) = self
                .outside
                .look(*line, |line| (line.heard.clone(), line.dialed));
            let name = if dialed { name_bytes(&heard) } else { 0 };
            let (frames, rest) = split(&heard[name..]);
            for frame in frames {
                let number = u32::from_be_bytes(*frame.first_chunk().expect("4 bytes at least"));
                let len = lens.get(number as usize).expect("it was sent");
                assert!(frame == self::frame(number, *len), "frame {number} is torn");
                numbers.push(number);
            }
            tail = Some((*line, rest.len()));
        }
        let of_peer = |peer: &&quorum_cnx::PeerStats| peer.sid == sid;
        let stats = self.event_loop.handle().stats();
        let sent = stats.peers.iter().find(of_peer).expect("a member").sent;
        assert_eq!(sent.accepted, lens.len() as u64);
        if self.is_queue {
            let all: Vec<u32> = (0..numbers.len() as u32).collect();
            assert_eq!(numbers, all, "each frame once and in order");
            // Those that leave together are counted together.
            assert!(sent.written <= numbers.len() as u64);
        } else {
            assert_eq!(sent.written + sent.resent, numbers.len() as u64);
            assert!(
                numbers.is_sorted(),
                "an older frame after a newer one: {numbers:?}"
            );
        }
        let Some((line, torn)) = tail else {
            return;
        };
        let (is_alive, is_roomy) = self
            .outside
            .look(line, |line| (line.is_alive(), line.is_roomy()));
        // A queue may wait for the link to be proven.
        let age = self.outside.time() - self.up_at.get(&sid).copied().unwrap_or_default();
        let is_held = self.is_queue && age < limits::PROVEN_AFTER;
        if *is_up && is_alive && is_roomy && !is_held {
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
        // In this turn, whatever there is to do.
        assert!(!self.event_loop.turn(None).expect("this system never fails"));
        self.note();
        assert!(!self.outside.holds_something(), "something is left open");
        assert!(self.links.values().all(|(_, is_up)| !is_up));
        assert_eq!(handle.to_send(SMALL, "late"), Err(SendError::Halted));
        let stats = handle.stats();
        assert!(stats.balances(), "{stats:?}");
        assert_eq!(
            (stats.sent.waiting, stats.pending, stats.connections),
            (0, 0, 0)
        );
    }

    /// The system does what a loop cannot go on after.
    fn die(mut self) {
        let handle = self.event_loop.handle().clone();
        self.outside.refuse(Fault::Wait);
        for _ in 0..2 {
            assert!(self.event_loop.turn(None).is_err());
            assert!(handle.has_died());
        }
        assert_eq!(handle.to_send(SMALL, "late"), Err(SendError::Halted));
        assert!(handle.linked_peers().is_empty());
        let sent = handle.stats().sent;
        assert!(sent.balances() && sent.waiting == 0, "{sent:?}");
        drop(self.event_loop);
        assert!(!self.outside.holds_lines(), "something is left open");
    }
}

fn peer(flags: u8) -> Sid {
    if flags & 1 == 0 { SMALL } else { LARGE }
}

/// A frame that shows its number, and when it is torn.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; len];
    for (byte, of) in frame.iter_mut().zip(number.to_be_bytes()) {
        *byte = of;
    }
    frame
}

/// Whole frames, and what is behind them.
fn split(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk() {
        let len = i32::from_be_bytes(*prefix);
        if len < 1 || len as usize > limits::FRAME_BYTES_MAX || rest.len() < len as usize {
            break;
        }
        let (frame, rest) = rest.split_at(len as usize);
        frames.push(frame);
        bytes = rest;
    }
    (frames, bytes)
}

/// The length of the initial message at the front of what a dialer wrote, of the kind with an address.
fn name_bytes(heard: &[u8]) -> usize {
    let len = heard[16..20].try_into().expect("4 bytes");
    20 + u32::from_be_bytes(len) as usize
}
