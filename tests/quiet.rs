//! The loop on a network where nothing happens and time passes only in waits.

use std::{
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use quorum_cnx::{
    Config, ConfigBuilder, EventLoop, Frame, Handle, Handler, Idle, Listening, Sid, limits,
    simulation::{Found, Net, Ready, Stream, Waker, Wire},
};

/// What asking once costs.
const ASKING: Duration = Duration::from_millis(1);

struct Nothing {
    now: Instant,
    /// So many things are ready in the next wait.
    ready: usize,
    /// The lookups that were asked for.
    asked: Vec<u64>,
    /// Those that are answered.
    answers: Vec<Found>,
}

/// There are no connections.
#[derive(Debug)]
enum Never {}

impl Net for Nothing {
    type Stream = Never;

    fn now(&self) -> Instant {
        self.now
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.extend(std::iter::repeat_n(
            Ready::Waker,
            std::mem::take(&mut self.ready),
        ));
        self.now += timeout.expect("nothing would end this wait").max(ASKING);
        Ok(())
    }

    fn listen(&mut self, _: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        Ok(at)
    }

    fn adopt(&mut self, _: usize, _: TcpListener) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, _: usize) -> io::Result<(Never, SocketAddr)> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn close_listeners(&mut self) {}

    fn dial(&mut self, _: SocketAddr) -> io::Result<Never> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn watch(&mut self, stream: &Never, _: usize) -> io::Result<()> {
        match *stream {}
    }

    fn unwatch(&mut self, stream: &Never) {
        match *stream {}
    }

    fn lookup(&mut self, lookup_id: u64, _: &str) {
        self.asked.push(lookup_id);
    }

    fn found(&mut self) -> Option<Found> {
        self.answers.pop()
    }

    fn waker(&self) -> Waker {
        Arc::new(|| ())
    }
}

impl Wire for Never {
    fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }
}

impl Stream for Never {
    fn read(&self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    fn connected(&self) -> io::Result<bool> {
        match *self {}
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        match *self {}
    }

    fn abort(&self) -> io::Result<()> {
        match *self {}
    }
}

struct Deaf;

impl Handler for Deaf {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}
}

fn event_loop(config: ConfigBuilder) -> EventLoop<Deaf, Nothing> {
    let net = Nothing {
        now: Instant::now(),
        ready: 0,
        asked: Vec::new(),
        answers: Vec::new(),
    };
    EventLoop::with_net(config.build().unwrap(), Deaf, net).unwrap()
}

#[test]
fn a_turn_takes_its_time_and_no_more_whatever_it_does_meanwhile() {
    let millis = Duration::from_millis;
    let spin = |for_at_most| Idle::Spin { for_at_most };
    for idle in [Idle::Block, spin(millis(10)), spin(millis(100))] {
        let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:3181");
        let mut event_loop = event_loop(config.idle(idle));
        // The first one finds out that nobody waits to be accepted.
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(event_loop.timeout(), None);
        for wait in [5, 10, 25, 200].map(millis) {
            let start = event_loop.net().now();
            event_loop.turn(Some(wait)).unwrap();
            let took = event_loop.net().now() - start;
            // One more look is allowed for.
            assert!(
                took >= wait && took <= wait + ASKING,
                "{idle:?}: {took:?} in place of {wait:?}"
            );
        }
    }
}

/// The application's own poll, if it is edge-triggered, says only once that the loop has something to do.
#[test]
fn a_turn_that_took_all_it_may_is_followed_by_another() {
    let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:3181");
    let mut event_loop = event_loop(config);
    event_loop.turn(Some(Duration::ZERO)).unwrap();
    for (ready, due) in [
        (limits::EVENTS_PER_TURN, Some(Duration::ZERO)),
        (limits::EVENTS_PER_TURN - 1, None),
    ] {
        event_loop.net().ready = ready;
        event_loop.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(event_loop.timeout(), due);
    }
}

#[test]
fn a_lookup_that_hangs_is_not_asked_for_again() {
    let config = Config::builder(Sid(1))
        .server(Sid(1), "one.example:3181")
        .server(Sid(2), "two.example:3181")
        .listen_tries(0);
    let mut event_loop = event_loop(config);
    let start = event_loop.net().now();
    while event_loop.net().now() - start < Duration::from_secs(600) {
        event_loop.turn(None).unwrap();
    }
    // One for the own name, one for the peer's.
    assert_eq!(event_loop.net().asked.len(), 2);
    for lookup_id in event_loop.net().asked.clone() {
        event_loop.net().answers.push(Found {
            lookup_id,
            answer: Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]),
        });
    }
    event_loop.turn(Some(Duration::ZERO)).unwrap();
    let open = [Listening::Open("127.0.0.1:3181".parse().unwrap())];
    assert_eq!(event_loop.handle().listening(), open);
}
