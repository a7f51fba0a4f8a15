//! The simulated network of a fuzz target: one loop, and all far ends of its connections.
//!
//! The input decides what arrives, and when. Nothing here happens by itself.

use std::{
    io::ErrorKind,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use quorum_cnx::{
    Config, Event, EventLoop, Frame, Handle, Handler, Sid,
    simulation::{Call, Host, HostNet, Net, Network, RemoteEnd, limits},
};

/// Where the loop listens. No input is likely to contain it.
pub(crate) const OWN_ADDRESS: &str = "192.0.2.5:3888";

/// A simulated network with one host, and the far ends of the connections of its loop.
pub(crate) struct Remote {
    pub(crate) network: Network,
    pub(crate) host: Host,
    /// In the order in which the connections were opened.
    connections: Vec<Connection>,
    /// Dials that were neither accepted nor refused.
    dials: Vec<usize>,
}

/// One connection, from its far end.
pub(crate) struct Connection {
    pub(crate) end: RemoteEnd,
    /// All bytes that were sent to the loop.
    pub(crate) sent: Vec<u8>,
}

impl Remote {
    /// Starts a loop. Nothing answers its dials and lookups, and no buffer is ever full before the input says so.
    pub(crate) fn start(config: Config) -> (Self, EventLoop<Recorder, HostNet>) {
        Self::start_on(config, |net| net)
    }

    /// The same with a network on top of that of the host.
    pub(crate) fn start_on<N: Net>(
        config: Config,
        on_top: impl FnOnce(HostNet) -> N,
    ) -> (Self, EventLoop<Recorder, N>) {
        let network = Network::new();
        network.hold_lookups();
        network.set_buffers(usize::MAX, usize::MAX);
        let own: SocketAddr = OWN_ADDRESS.parse().expect("an address");
        let host = network.host(own.ip());
        host.add_ip(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5));
        let event_loop = EventLoop::with_net(config, Recorder::default(), on_top(host.net()))
            .expect("no socket was handed over");
        let mut remote = Self {
            network,
            host,
            connections: Vec::new(),
            dials: Vec::new(),
        };
        remote.collect_dials();
        (remote, event_loop)
    }

    /// Turns the loop once. Returns whether it goes on.
    pub(crate) fn turn<N: Net>(&mut self, event_loop: &mut EventLoop<Recorder, N>) -> bool {
        let goes_on = event_loop.turn(None).expect("this system never fails");
        self.collect_dials();
        goes_on
    }

    fn collect_dials(&mut self) {
        for end in self.network.take_dials() {
            self.dials.push(self.connections.len());
            self.push(end);
        }
    }

    fn push(&mut self, end: RemoteEnd) -> usize {
        let sent = Vec::new();
        self.connections.push(Connection { end, sent });
        self.connections.len() - 1
    }

    /// A connection arrives from this address.
    pub(crate) fn arrive(&mut self, from: SocketAddr) -> usize {
        self.arrive_at(from, OWN_ADDRESS.parse().expect("an address"))
    }

    /// The same at another address.
    pub(crate) fn arrive_at(&mut self, from: SocketAddr, to: SocketAddr) -> usize {
        let end = self.network.connect(from, to).expect("the loop listens");
        self.push(end)
    }

    /// Sends bytes to the loop, if the connection still takes some.
    pub(crate) fn send(&mut self, connection: usize, bytes: &[u8]) {
        let connection = &mut self.connections[connection];
        if connection.end.send(bytes).is_ok() {
            connection.sent.extend_from_slice(bytes);
        }
    }

    /// Accepts or refuses all dials. The loop can write so many bytes to each.
    pub(crate) fn answer_dials(&mut self, accept: bool, room: usize) {
        for dial in std::mem::take(&mut self.dials) {
            let end = &self.connections[dial].end;
            end.set_room(room);
            // Fails if the loop has given up.
            let _ = if accept { end.accept() } else { end.refuse() };
        }
    }

    /// The next call of this kind fails.
    pub(crate) fn fail_next(&self, call: Call) {
        self.host.fail_next(call, ErrorKind::OutOfMemory.into());
    }

    pub(crate) fn time(&self) -> Duration {
        self.network.elapsed()
    }

    /// The number of connections.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn get(&self, connection: usize) -> &Connection {
        &self.connections[connection]
    }

    /// The addresses that were dialed since this connection.
    pub(crate) fn dialed_since(&self, connection: usize) -> Vec<SocketAddr> {
        let ends = self.connections[connection + 1..].iter().map(|it| &it.end);
        let dials = ends.filter(|end| end.was_dialed());
        dials.map(RemoteEnd::local_addr).collect()
    }

    /// The newest connection to or from this address.
    pub(crate) fn newest(&self, addr: SocketAddr) -> usize {
        let mut connections = self.connections.iter();
        let found = connections.rposition(|connection| connection.end.local_addr() == addr);
        found.expect("the loop names addresses that exist")
    }

    /// Whether the loop has a listening socket or a connection.
    pub(crate) fn holds_something(&self) -> bool {
        !self.host.listening().is_empty() || self.holds_connections()
    }

    pub(crate) fn holds_connections(&self) -> bool {
        self.host.connections() > 0
    }
}

/// Records what the loop reports.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) reported: Vec<Reported>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reported {
    Frame(Sid, Vec<u8>),
    Event(Event),
}

impl Handler for Recorder {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        self.reported.push(Reported::Frame(from, frame.to_vec()));
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if !matches!(event, Event::Listening { .. } | Event::SlowTurn { .. }) {
            self.reported.push(Reported::Event(event.clone()));
        }
    }
}

/// The whole frames at the front, and the bytes after them.
pub(crate) fn split(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
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

/// The length of the initial message at the front: of a version with addresses, or of a server that listens nowhere.
pub(crate) fn initial_message_bytes(received: &[u8]) -> usize {
    let is_bare = received[0] & 0x80 == 0;
    if is_bare {
        return 8;
    }
    let len = received[16..20].try_into().expect("4 bytes");
    20 + u32::from_be_bytes(len) as usize
}
