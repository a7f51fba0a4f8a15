//! Peers that come back with another address behind their name, and who else comes in their name, on a network in memory:
//! each connection, each lookup and the time are the test's own.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    mem,
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use quorum_cnx::{
    Config, EventLoop, Found, Frame, Handle, Handler, Net, Ready, Sid, Stream, Waker, Wire,
    limits::{
        INQUIRY_PAUSE, KNOCK_CROSSING, RENEWAL_PAUSE_MAX, SILENT_AFTER, UNHEARD_SILENT_AFTER,
    },
};

const OWN: i64 = 5;
const SMALLER: i64 = 1;
const LARGER: i64 = 9;

const OLD: &str = "10.0.0.1:4000";
const NEW: &str = "10.0.0.2:4000";
const THIRD: &str = "10.0.0.3:4000";

/// Time between two knocks.
const KNOCK: Duration = Duration::from_millis(250);

/// One end of a connection: what the far end said, and what became of it.
#[derive(Debug, Default)]
struct State {
    said: VecDeque<u8>,
    /// Nothing more will be said.
    is_finished: bool,
    /// Nobody has answered yet.
    is_connecting: bool,
    was_reset: bool,
}

#[derive(Clone, Debug, Default)]
struct End(Arc<Mutex<State>>);

impl End {
    /// Whoever has dialed says who it is, and this frame; if that is empty, it knocks.
    fn saying(sid: i64, frame: &[u8]) -> Self {
        let mut said = sid.to_be_bytes().to_vec();
        if !frame.is_empty() {
            said.extend((frame.len() as u32).to_be_bytes());
            said.extend(frame);
        }
        let state = State {
            said: said.into(),
            is_finished: frame.is_empty(),
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn was_reset(&self) -> bool {
        self.0.lock().unwrap().was_reset
    }
}

impl Wire for End {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
}

impl Stream for End {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        if state.said.is_empty() && !state.is_finished {
            return Err(ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut state.said, buf)
    }

    fn connected(&self) -> io::Result<bool> {
        Ok(!self.0.lock().unwrap().is_connecting)
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }

    fn abort(&self) -> io::Result<()> {
        self.0.lock().unwrap().was_reset = true;
        Ok(())
    }
}

#[derive(Debug)]
struct Memory {
    now: Instant,
    ready: Vec<Ready>,
    arriving: VecDeque<(End, SocketAddr)>,
    dialed: Vec<(String, End)>,
    /// Tickets of lookups that wait for an answer.
    asked: Vec<u64>,
    answers: VecDeque<Found>,
}

impl Net for Memory {
    type Stream = End;

    fn now(&self) -> Instant {
        self.now
    }

    fn wait(&mut self, _: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.append(&mut self.ready);
        Ok(())
    }

    fn listen(&mut self, _: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        Ok(at)
    }

    fn adopt(&mut self, _: usize, _: TcpListener) -> io::Result<SocketAddr> {
        Err(ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, _: usize) -> io::Result<(End, SocketAddr)> {
        let next = self.arriving.pop_front();
        next.ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    fn close_doors(&mut self) {}

    fn dial(&mut self, to: SocketAddr) -> io::Result<End> {
        let end = End::default();
        end.0.lock().unwrap().is_connecting = true;
        self.dialed.push((to.to_string(), end.clone()));
        Ok(end)
    }

    fn watch(&mut self, stream: &End, token: usize) -> io::Result<()> {
        let is_connecting = stream.0.lock().unwrap().is_connecting;
        if !is_connecting {
            self.ready.push(Ready::Link {
                token,
                readable: true,
                writable: true,
                ended: false,
            });
        }
        Ok(())
    }

    fn unwatch(&mut self, _: &End) {}

    fn lookup(&mut self, ticket: u64, host: &str) {
        assert_eq!(host, "peer.example");
        self.asked.push(ticket);
    }

    fn found(&mut self) -> Option<Found> {
        self.answers.pop_front()
    }

    fn waker(&self) -> Waker {
        Arc::new(|| {})
    }
}

/// The frames that have come.
struct Received(Arc<Mutex<Vec<Vec<u8>>>>);

impl Handler for Received {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        self.0.lock().unwrap().push(frame.to_vec());
    }
}

/// A loop with one peer, which is behind a name that means [`OLD`] at first.
struct World {
    event_loop: EventLoop<Received, Memory>,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl World {
    fn with(peer: i64) -> Self {
        let config = Config::builder(Sid(OWN))
            .server(Sid(OWN), "10.0.0.100:4000")
            .server(Sid(peer), "peer.example:4000");
        let memory = Memory {
            now: Instant::now(),
            ready: Vec::new(),
            arriving: VecDeque::new(),
            dialed: Vec::new(),
            asked: Vec::new(),
            answers: VecDeque::new(),
        };
        let received = Arc::default();
        let handler = Received(Arc::clone(&received));
        let event_loop = EventLoop::on_net(config.build().unwrap(), handler, memory).unwrap();
        let mut world = Self {
            event_loop,
            received,
        };
        world.go_on();
        world.answer(OLD);
        world
    }

    /// The same, and the peer has dialed from where it was at first, and said "first".
    fn linked() -> (Self, End) {
        let mut world = Self::with(LARGER);
        let link = End::saying(LARGER, b"first");
        world.arrive(&link, OLD);
        assert_eq!(world.received(), [b"first"]);
        (world, link)
    }

    /// More turns than anything here takes.
    fn go_on(&mut self) {
        for _ in 0..8 {
            assert!(self.event_loop.turn(Some(Duration::ZERO)).unwrap());
        }
    }

    /// All who have asked for the name are told this.
    fn answer(&mut self, address: &str) {
        let net = self.event_loop.net();
        for ticket in mem::take(&mut net.asked) {
            let answer = Ok(vec![address.parse().unwrap()]);
            net.answers.push_back(Found { ticket, answer });
        }
        net.ready.push(Ready::Bell);
        self.go_on();
    }

    /// A connection comes from there.
    fn arrive(&mut self, end: &End, from: &str) {
        let net = self.event_loop.net();
        net.arriving.push_back((end.clone(), from.parse().unwrap()));
        net.ready.push(Ready::Door(0));
        self.go_on();
    }

    /// The peer with the smaller sid was there, and is linked.
    fn dialed() -> Self {
        let mut world = Self::with(SMALLER);
        world.connect();
        world
    }

    /// Whatever is being dialed is reached.
    fn connect(&mut self) {
        let net = self.event_loop.net();
        let (_, end) = net.dialed.pop().unwrap();
        end.0.lock().unwrap().is_connecting = false;
        for token in 0..16 {
            net.ready.push(Ready::Link {
                token,
                readable: false,
                writable: true,
                ended: false,
            });
        }
        self.go_on();
        assert!(self.event_loop.handle().connected_to_peer(Sid(SMALLER)));
    }

    /// So many knocks in the name of the smaller peer, one each `KNOCK`. Returns how often it was dialed for that, and is linked
    /// each time.
    fn knock(&mut self, from: &str, knocks: u32) -> usize {
        let mut dials = 0;
        for _ in 0..knocks {
            self.arrive(&End::saying(SMALLER, b""), from);
            self.event_loop.net().now += KNOCK;
            self.go_on();
            if !self.event_loop.net().asked.is_empty() {
                self.answer(OLD);
            }
            if !self.event_loop.net().dialed.is_empty() {
                dials += 1;
                self.connect();
            }
        }
        dials
    }

    fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().clone()
    }
}

#[test]
fn a_dial_to_where_the_peer_is_no_more_begins_anew_where_it_is() {
    let mut world = World::with(SMALLER);
    let (to, first) = world.event_loop.net().dialed.pop().unwrap();
    assert_eq!(to, OLD);
    world.arrive(&End::saying(SMALLER, b""), NEW);
    assert!(!first.was_reset(), "anybody may say so");
    world.answer(NEW);
    assert!(first.was_reset());
    let (to, _) = world.event_loop.net().dialed.pop().unwrap();
    assert_eq!(to, NEW);
}

#[test]
fn a_peer_that_comes_back_from_elsewhere_is_recognized() {
    let (mut world, first) = World::linked();
    world.arrive(&End::saying(LARGER, b"again"), NEW);
    assert_eq!(world.received(), [b"first"], "anybody may say so");
    assert!(!first.was_reset());
    world.answer(NEW);
    assert_eq!(world.received(), [b"first", b"again"]);
    assert!(first.was_reset());
}

#[test]
fn who_says_to_be_a_peer_and_is_none_changes_nothing_and_asks_little() {
    let (mut world, link) = World::linked();
    for _ in 0..3 {
        for _ in 0..10 {
            world.arrive(&End::saying(LARGER, b"false"), NEW);
        }
        assert_eq!(world.event_loop.net().asked.len(), 1);
        world.answer(OLD);
        world.arrive(&End::saying(LARGER, b"false"), NEW);
        assert!(
            world.event_loop.net().asked.is_empty(),
            "it was asked just now"
        );
        world.event_loop.net().now += INQUIRY_PAUSE;
    }
    assert_eq!(world.received(), [b"first"]);
    assert!(!link.was_reset());
}

#[test]
fn a_link_that_has_come_from_home_is_kept_however_silent() {
    let mut world = World::with(LARGER);
    let link = End::saying(LARGER, b"first");
    world.arrive(&link, NEW);
    // It is known only now that the peer is there.
    world.answer(NEW);
    for _ in 0..3 {
        world.event_loop.net().now += Duration::from_secs(3600);
        world.arrive(&End::saying(LARGER, b"false"), THIRD);
        world.answer(NEW);
        world.event_loop.net().now += SILENT_AFTER;
        world.go_on();
    }
    assert_eq!(world.received(), [b"first"]);
    assert!(!link.was_reset());
}

#[test]
fn a_silent_link_from_elsewhere_gives_way_once_names_are_known() {
    let mut world = World::with(LARGER);
    let link = End::saying(LARGER, b"first");
    world.arrive(&link, NEW);
    world.answer(OLD);
    world.event_loop.net().now += INQUIRY_PAUSE;
    world.arrive(&End::saying(LARGER, b"again"), THIRD);
    world.event_loop.net().now += SILENT_AFTER;
    world.go_on();
    assert_eq!(world.received(), [b"first"], "it may be at home there");
    world.answer(OLD);
    world.event_loop.net().now += SILENT_AFTER;
    world.go_on();
    assert_eq!(world.received(), [&b"first"[..], b"again"]);
    assert!(link.was_reset());
}

#[test]
fn knocks_from_home_renew_a_healthy_link_seldom() {
    let mut world = World::dialed();
    world.event_loop.net().now += KNOCK_CROSSING;
    // Ten minutes.
    let renewed = world.knock(OLD, 2400);
    let most = 10 * 60 / RENEWAL_PAUSE_MAX.as_secs() as usize + 6;
    assert!((6..=most).contains(&renewed), "{renewed} times");
    // When nobody has knocked for a while, whoever knocks is believed at once, as at first.
    world.event_loop.net().now += RENEWAL_PAUSE_MAX;
    assert_eq!(world.knock(OLD, 2), 1);
}

#[test]
fn knocks_from_elsewhere_leave_a_member_alone_that_knocks_from_home() {
    let mut world = World::with(SMALLER);
    world.arrive(&End::saying(SMALLER, b""), OLD);
    world.connect();
    world.event_loop.net().now += Duration::from_secs(3600);
    assert_eq!(world.knock(NEW, 2400), 0);
}

#[test]
fn knocks_from_elsewhere_renew_the_silent_link_of_who_knocked_from_there() {
    let mut world = World::with(SMALLER);
    world.arrive(&End::saying(SMALLER, b""), NEW);
    world.answer(OLD);
    world.connect();
    world.event_loop.net().now += Duration::from_secs(3600);
    let few = 2 * SILENT_AFTER.as_millis() / KNOCK.as_millis();
    assert_eq!(world.knock(THIRD, few as u32), 1);
}

#[test]
fn a_silent_link_of_who_never_knocked_is_renewed_late() {
    let mut world = World::dialed();
    world.event_loop.net().now += Duration::from_secs(3600);
    let few = UNHEARD_SILENT_AFTER.as_millis() / KNOCK.as_millis();
    assert_eq!(world.knock(NEW, few as u32 - 1), 0);
    assert_eq!(world.knock(NEW, 2), 1);
}
