//! An event loop that the test turns itself, and whose only peer is the test.
//!
//! No other thread runs here.

use std::time::Duration;

use quorum_cnx::{ConfigBuilder, Event, EventLoop, Frame, Handle, Handler, Reason, Sid};

use crate::{NOBODY, TestConnection, configure, eventually, listener};

/// The sid of the loop under test. Its only peer has the larger sid, and so is the one that dials.
pub const OWN: i64 = 5;
pub const PEER: i64 = 9;

/// A handler that ignores everything.
pub struct Ignore;

impl Handler for Ignore {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}
}

type Act = Box<dyn FnMut(Sid, &[u8], &Handle) + Send>;

/// Calls a function for each frame, counts the frames and their bytes, and keeps the events.
pub struct Recorder {
    act: Act,
    pub frames: usize,
    pub bytes: usize,
    pub events: Vec<Event>,
}

impl Handler for Recorder {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        self.frames += 1;
        self.bytes += frame.len();
        (self.act)(from, &frame, handle);
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        self.events.push(event.clone());
    }
}

impl Recorder {
    pub fn new(act: impl FnMut(Sid, &[u8], &Handle) + Send + 'static) -> Self {
        Self {
            act: Box::new(act),
            frames: 0,
            bytes: 0,
            events: Vec::new(),
        }
    }

    /// Why links have ended, in order.
    pub fn ends(&self) -> Vec<Reason> {
        let reason = |event: &Event| match event {
            Event::Down { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        self.events.iter().filter_map(reason).collect()
    }
}

pub struct TurnedLoop<H: Handler> {
    pub event_loop: EventLoop<H>,
    pub address: String,
}

impl<H: Handler> TurnedLoop<H> {
    pub fn with(handler: H, shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let (socket, address) = listener();
        let servers = [(OWN, &address[..]), (PEER, NOBODY)];
        let builder = shape(configure(OWN, &servers).listener(socket));
        Self {
            event_loop: EventLoop::new(builder.build().unwrap(), handler).unwrap(),
            address,
        }
    }

    pub fn handle(&self) -> Handle {
        self.event_loop.handle().clone()
    }

    pub fn handler(&self) -> &H {
        self.event_loop.handler()
    }

    /// Turns without waiting. The loop must go on.
    #[track_caller]
    pub fn turn(&mut self) {
        assert!(self.event_loop.turn(Some(Duration::ZERO)).unwrap());
    }

    /// Turns until the condition holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Handle, &H) -> bool) {
        let handle = self.handle();
        eventually(what, || {
            self.turn();
            holds(&handle, self.handler())
        });
    }

    /// The peer dials. Turns until it is linked.
    #[track_caller]
    pub fn link(&mut self) -> TestConnection {
        let peer = self.connect(PEER, &[]);
        self.until("the peer is linked", |handle, _| {
            handle.connected_to_peer(Sid(PEER))
        });
        peer
    }

    /// A member connects and sends these frames. The loop does not turn.
    pub fn connect(&self, sid: i64, frames: &[&str]) -> TestConnection {
        TestConnection::member(&self.address, sid, frames)
    }
}

impl TurnedLoop<Recorder> {
    pub fn new(
        act: impl FnMut(Sid, &[u8], &Handle) + Send + 'static,
        shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> Self {
        Self::with(Recorder::new(act), shape)
    }

    /// A loop whose handler only records.
    pub fn passive(shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        Self::new(|_, _, _| {}, shape)
    }
}
