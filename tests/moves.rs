//! Where peers are dialed while their names are looked up, peers that come back with another address behind their name, and
//! links that die, and who else comes in their name, on a network in memory: each connection, each lookup and the time are
//! the test's own.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    mem,
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use quorum_cnx::{
    Config, Event, EventLoop, Frame, Handle, Handler, Reason, Sid,
    limits::{
        BACKOFF_MAX, CONNECT_TIMEOUT, KNOCK_CROSSING, LOOKUP_GRACE, LOOKUP_TIMEOUT,
        RENEWAL_PAUSE_MAX, RESOLVE_PAUSE, SILENT_AFTER, UNHEARD_RENEWAL_PAUSE,
    },
    simulation::{Found, Net, Ready, Stream, Waker, Wire},
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
    /// Nobody listens there.
    is_refused: bool,
    /// The kernel has found the far end dead and has not reported it yet. It does so once, to the first call.
    is_dead: bool,
    /// The next write is interrupted by a signal.
    is_interrupted: bool,
    was_reset: bool,
    token: Option<usize>,
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
        let mut state = self.0.lock().unwrap();
        if mem::take(&mut state.is_dead) {
            return Err(ErrorKind::TimedOut.into());
        }
        if mem::take(&mut state.is_interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
}

impl Stream for End {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        if mem::take(&mut state.is_dead) {
            return Err(ErrorKind::TimedOut.into());
        }
        if state.said.is_empty() && !state.is_finished {
            return Err(ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut state.said, buf)
    }

    fn connected(&self) -> io::Result<bool> {
        let state = self.0.lock().unwrap();
        match state.is_refused {
            true => Err(ErrorKind::ConnectionRefused.into()),
            false => Ok(!state.is_connecting),
        }
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
    /// Lookups that wait for an answer.
    asked: Vec<(u64, String)>,
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

    fn close_listeners(&mut self) {}

    fn dial(&mut self, to: SocketAddr) -> io::Result<End> {
        let end = End::default();
        end.0.lock().unwrap().is_connecting = true;
        self.dialed.push((to.to_string(), end.clone()));
        Ok(end)
    }

    fn watch(&mut self, stream: &End, token: usize) -> io::Result<()> {
        let is_connecting = {
            let mut state = stream.0.lock().unwrap();
            state.token = Some(token);
            state.is_connecting
        };
        if !is_connecting {
            self.ready.push(Ready::Connection {
                token,
                readable: true,
                writable: true,
                ended: false,
            });
        }
        Ok(())
    }

    fn unwatch(&mut self, _: &End) {}

    fn lookup(&mut self, lookup_id: u64, host: &str) {
        self.asked.push((lookup_id, host.to_owned()));
    }

    fn found(&mut self) -> Option<Found> {
        self.answers.pop_front()
    }

    fn waker(&self) -> Waker {
        Arc::new(|| {})
    }
}

/// The frames and the events that have come.
#[derive(Default)]
struct Received {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    events: Vec<Event>,
}

impl Handler for Received {
    fn on_frame(&mut self, _: Sid, frame: Frame<'_>, _: &Handle) {
        self.frames.lock().unwrap().push(frame.to_vec());
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        self.events.push(event.clone());
    }
}

/// A loop with one peer, which is behind a name that means [`OLD`] at first.
struct World {
    event_loop: EventLoop<Received, Memory>,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl World {
    fn with(peer: i64) -> Self {
        let mut world = Self::at(peer, "peer.example:4000");
        world.answer(OLD);
        world
    }

    /// The same with these addresses of the peer, and no answer yet.
    fn at(peer: i64, addresses: &str) -> Self {
        let config = Config::builder(Sid(OWN))
            .server(Sid(OWN), "10.0.0.100:4000")
            .server(Sid(peer), addresses);
        let memory = Memory {
            now: Instant::now(),
            ready: Vec::new(),
            arriving: VecDeque::new(),
            dialed: Vec::new(),
            asked: Vec::new(),
            answers: VecDeque::new(),
        };
        let handler = Received::default();
        let received = Arc::clone(&handler.frames);
        let event_loop = EventLoop::with_net(config.build().unwrap(), handler, memory).unwrap();
        let mut world = Self {
            event_loop,
            received,
        };
        world.go_on();
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

    /// All who have asked for a name are told this.
    fn answer(&mut self, address: &str) {
        self.answer_for("", Ok(&[address]));
    }

    /// All who have asked for this name are told this.
    fn answer_for(&mut self, name: &str, answer: Result<&[&str], &str>) {
        let net = self.event_loop.net();
        for (lookup_id, host) in mem::take(&mut net.asked) {
            if !host.starts_with(name) {
                net.asked.push((lookup_id, host));
                continue;
            }
            let addresses = |all: &[&str]| all.iter().map(|at| at.parse().unwrap()).collect();
            let answer = answer.map(addresses).map_err(io::Error::other);
            net.answers.push_back(Found { lookup_id, answer });
        }
        net.ready.push(Ready::Waker);
        self.go_on();
    }

    /// Where has been dialed since the last call, and the ends of that.
    fn dialed(&mut self) -> (Vec<String>, Vec<End>) {
        mem::take(&mut self.event_loop.net().dialed)
            .into_iter()
            .unzip()
    }

    /// A connect ends: well, or not.
    fn connects(&mut self, end: &End, well: bool) {
        {
            let mut state = end.0.lock().unwrap();
            (state.is_connecting, state.is_refused) = (false, !well);
        }
        let token = end.0.lock().unwrap().token.expect("it is watched");
        self.event_loop.net().ready.push(Ready::Connection {
            token,
            readable: !well,
            writable: true,
            ended: !well,
        });
        self.go_on();
    }

    /// So much time passes.
    fn pass(&mut self, time: Duration) {
        self.event_loop.net().now += time;
        self.go_on();
    }

    /// The dials that have failed: where, and why.
    fn failures(&mut self) -> Vec<(Option<String>, String)> {
        let failure = |event: &Event| match event {
            Event::DialFailed { addr, reason, .. } => {
                Some((addr.map(|addr| addr.to_string()), reason.to_string()))
            }
            _ => None,
        };
        self.event_loop
            .handler_mut()
            .events
            .iter()
            .filter_map(failure)
            .collect()
    }

    /// The kernel finds the far end of this link dead. A frame is sent before the loop looks, or not.
    fn dies(&mut self, end: &End, with_a_frame: bool) {
        let token = {
            let mut state = end.0.lock().unwrap();
            (state.is_dead, state.is_finished) = (true, true);
            state.token.expect("it is watched")
        };
        if with_a_frame {
            let handle = self.event_loop.handle();
            handle.to_send(Sid(LARGER), b"frame".as_slice()).unwrap();
        }
        self.event_loop.net().ready.push(Ready::Connection {
            token,
            readable: true,
            writable: true,
            ended: true,
        });
        self.go_on();
    }

    /// A connection comes from there.
    fn arrive(&mut self, end: &End, from: &str) {
        let net = self.event_loop.net();
        net.arriving.push_back((end.clone(), from.parse().unwrap()));
        net.ready.push(Ready::Listener(0));
        self.go_on();
    }

    /// The peer with the smaller sid was there, and is linked.
    fn linked_by_a_dial() -> Self {
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
            net.ready.push(Ready::Connection {
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
        world.event_loop.net().now += RESOLVE_PAUSE;
    }
    assert_eq!(world.received(), [b"first"]);
    assert!(!link.was_reset());
}

#[test]
fn a_known_address_is_dialed_while_a_name_is_looked_up() {
    for addresses in [
        "10.0.0.1:4000|peer.example:4000",
        "peer.example:4000|10.0.0.1:4000",
    ] {
        let mut world = World::at(SMALLER, addresses);
        let (dialed, ends) = world.dialed();
        assert_eq!(dialed, [OLD]);
        assert_eq!(world.event_loop.net().asked.len(), 1);
        // What the answer brings comes next.
        world.answer(NEW);
        assert!(!ends[0].was_reset());
        world.connects(&ends[0], false);
        assert_eq!(world.dialed().0, [NEW]);
    }
}

#[test]
fn a_slow_name_does_not_delay_another_name_of_the_peer() {
    let mut world = World::at(SMALLER, "slow.example:4000|peer.example:4000");
    assert_eq!(world.dialed().0, [""; 0]);
    world.answer_for("peer", Ok(&[NEW]));
    let (dialed, ends) = world.dialed();
    assert_eq!(dialed, [NEW]);
    world.answer_for("slow", Ok(&[OLD, NEW]));
    world.connects(&ends[0], false);
    assert_eq!(world.dialed().0, [OLD], "each address is tried once");
}

#[test]
fn a_name_server_that_falls_silent_delays_no_dial() {
    let mut world = World::with(SMALLER);
    for _ in 0..5 {
        // From the second dial on the name is looked up in vain.
        let (dialed, ends) = world.dialed();
        assert_eq!(dialed, [OLD]);
        world.connects(&ends[0], false);
        world.pass(LOOKUP_GRACE);
        world.pass(BACKOFF_MAX);
    }
    assert_eq!(world.failures().len(), 5);
    assert!(
        world
            .failures()
            .iter()
            .all(|(at, _)| at.as_deref() == Some(OLD))
    );
    assert_eq!(world.event_loop.net().asked.len(), 1);
}

#[test]
fn a_peer_that_has_moved_is_dialed_where_it_is() {
    // The old address refuses before the answer is there.
    let mut world = World::with(SMALLER);
    let (_, ends) = world.dialed();
    world.connects(&ends[0], false);
    world.pass(BACKOFF_MAX);
    let (dialed, ends) = world.dialed();
    assert_eq!(dialed, [OLD]);
    world.connects(&ends[0], false);
    assert_eq!(
        world.failures().len(),
        1,
        "the answer may come at any moment"
    );
    world.answer(NEW);
    assert_eq!(world.dialed().0, [NEW]);
    assert_eq!(world.failures().len(), 1);

    // The old address does not answer at all.
    let mut world = World::with(SMALLER);
    let (_, ends) = world.dialed();
    world.connects(&ends[0], false);
    world.pass(BACKOFF_MAX);
    let (_, ends) = world.dialed();
    world.answer(NEW);
    assert!(ends[0].was_reset());
    assert_eq!(world.dialed().0, [NEW]);
}

#[test]
fn a_link_to_where_a_peer_was_before_is_given_up() {
    let mut world = World::with(SMALLER);
    let (_, ends) = world.dialed();
    world.connects(&ends[0], false);
    world.pass(BACKOFF_MAX);
    // Somebody else has the old address by now, and was faster than the resolver.
    let (dialed, old) = world.dialed();
    assert_eq!(dialed, [OLD]);
    world.connects(&old[0], true);
    assert!(world.event_loop.handle().connected_to_peer(Sid(SMALLER)));
    world.answer(NEW);
    assert!(old[0].was_reset());
    world.pass(BACKOFF_MAX);
    let (dialed, new) = world.dialed();
    assert_eq!(dialed, [NEW]);
    world.connects(&new[0], true);
    assert!(world.event_loop.handle().connected_to_peer(Sid(SMALLER)));
    // A name that means something else at each answer does not make the link flap.
    for address in [OLD, NEW, OLD] {
        world.answer(address);
        world.pass(BACKOFF_MAX);
    }
    assert_eq!(world.dialed().0, [""; 0]);
    assert!(!new[0].was_reset());
}

#[test]
fn what_the_resolver_says_of_each_name_of_a_peer_is_told() {
    let mut world = World::at(SMALLER, "one.example:4000|two.example:4000|three.example:1");
    world.answer_for("one", Err("Temporary failure in name resolution"));
    world.answer_for("two", Ok(&["0.0.0.0:0"]));
    assert_eq!(world.failures(), []);
    world.pass(LOOKUP_TIMEOUT);
    let failures = world.failures();
    let [(None, why)] = &failures[..] else {
        panic!("{failures:?}")
    };
    for part in [
        "one.example (Temporary failure in name resolution)",
        "two.example (",
        "three.example (no answer",
    ] {
        assert!(why.contains(part), "{why}");
    }
    // Nobody can make it long.
    world.pass(BACKOFF_MAX);
    world.answer_for("", Err(&"no such name, and I mean it! ".repeat(100)));
    let (_, why) = world.failures().pop().unwrap();
    assert!(why.len() < 600, "{why}");
}

#[test]
fn an_interrupted_initial_message_is_written_again() {
    let mut world = World::at(SMALLER, "10.0.0.1:1");
    let (_, ends) = world.dialed();
    ends[0].0.lock().unwrap().is_interrupted = true;
    world.connects(&ends[0], true);
    assert_eq!(world.failures(), []);
    assert!(world.event_loop.handle().connected_to_peer(Sid(SMALLER)));
}

#[test]
fn a_connect_that_does_not_end_is_followed_by_what_an_answer_brought() {
    let mut world = World::at(SMALLER, "10.0.0.1:4000|peer.example:4000");
    world.answer(NEW);
    assert_eq!(world.dialed().0, [OLD]);
    world.pass(CONNECT_TIMEOUT);
    assert_eq!(world.dialed().0, [NEW]);
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
    world.event_loop.net().now += RESOLVE_PAUSE;
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
    let mut world = World::linked_by_a_dial();
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
fn a_silent_link_of_who_never_knocked_is_renewed_once_and_then_seldom() {
    let mut world = World::linked_by_a_dial();
    world.event_loop.net().now += Duration::from_secs(3600);
    let knocks = |time: Duration| (time.as_millis() / KNOCK.as_millis()) as u32;
    assert_eq!(world.knock(NEW, knocks(UNHEARD_RENEWAL_PAUSE)), 1);
    assert_eq!(world.knock(NEW, knocks(UNHEARD_RENEWAL_PAUSE)), 1);
    let renewed = world.knock(NEW, knocks(RENEWAL_PAUSE_MAX * 10));
    assert!((8..=12).contains(&renewed), "{renewed} times");
}

#[test]
fn a_dead_link_is_called_dead_whichever_call_learns_it() {
    for with_a_frame in [false, true] {
        let (mut world, link) = World::linked();
        world.dies(&link, with_a_frame);
        let reason = |event: &Event| match event {
            Event::Down { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        let events = &world.event_loop.handler_mut().events;
        let reasons: Vec<Reason> = events.iter().filter_map(reason).collect();
        assert_eq!(reasons, [Reason::Dead], "with a frame: {with_a_frame}");
    }
}
