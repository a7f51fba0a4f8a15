//! A replica on the network: an `EventLoop` that a thread of the application turns.
//!
//! Nothing here knows what OmniPaxos' messages mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io, mem,
    net::TcpListener,
    time::{Duration, Instant},
};

use omnipaxos::messages::Message;
use quorum_cnx::{
    Config, Event, EventLoop, FRAME_BYTES_MAX, Frame, Handle, Handler, InitialMessageVersion,
    Outbox, Sid,
};

use crate::{counter::Request, disk::Disk, replica::Replica};

/// The time between two ticks of OmniPaxos.
pub const TICK: Duration = Duration::from_millis(50);

/// The longest message, which must fit into the queue: all entries that a node lacks come in one.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// One node. Nothing happens in it except in [`turn`](Self::turn).
pub struct Server {
    mesh: EventLoop<Transport>,
    handle: Handle,
    next_tick: Instant,
}

impl Server {
    /// The node `own` of these members, which `socket` listens for.
    ///
    /// # Errors
    ///
    /// If the addresses or the socket cannot be used.
    pub fn new(
        own: u64,
        members: &[(u64, String)],
        socket: TcpListener,
        disk: Disk,
    ) -> Result<Self, Box<dyn Error>> {
        let ids = members.iter().map(|(id, _)| *id).collect();
        let mut config = Config::builder(Sid::try_from(own)?);
        for (id, address) in members {
            config = config.server(Sid::try_from(*id)?, address);
        }
        let config = config
            .listener(socket)
            .outbox(Outbox::queue(MESSAGE_BYTES_MAX))
            // No ZooKeeper takes part: each link is answered, so that a wrong address is found out.
            .initial_message(InitialMessageVersion::Native)
            .native_only(true)
            .build()?;
        let transport = Transport {
            replica: Replica::new(own, ids, disk)?,
            links: BTreeSet::new(),
            parts: BTreeMap::new(),
        };
        let mesh = EventLoop::new(config, transport)?;
        Ok(Self {
            handle: mesh.handle().clone(),
            mesh,
            next_tick: Instant::now() + TICK,
        })
    }

    /// Sends what is to be sent, and waits for `timeout` at most until something happens. Returns `false` once the loop has halted.
    ///
    /// # Errors
    ///
    /// Those of [`EventLoop::turn`].
    pub fn turn(&mut self, timeout: Duration) -> io::Result<bool> {
        // What the application has proposed since the last turn.
        self.mesh.handler_mut().send(&self.handle);
        let until_tick = self.next_tick.saturating_duration_since(Instant::now());
        let goes_on = self.mesh.turn(Some(timeout.min(until_tick)))?;
        let transport = self.mesh.handler_mut();
        let now = Instant::now();
        if now >= self.next_tick {
            transport.replica.tick();
            // Not `next_tick + TICK`: a node that was paused does not make up for the ticks that it has missed.
            self.next_tick = now + TICK;
        }
        // Once for all frames of the turn.
        transport.send(&self.handle);
        Ok(goes_on)
    }

    /// What other threads may use: `wake` ends the wait of a turn.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The node of OmniPaxos.
    pub fn replica(&mut self) -> &mut Replica {
        &mut self.mesh.handler_mut().replica
    }
}

/// What the loop calls, and what sends.
struct Transport {
    replica: Replica,
    /// The peers that are linked, and for which each message since the beginning of the link is in the queue.
    links: BTreeSet<Sid>,
    /// The parts of a message that have arrived.
    parts: BTreeMap<Sid, Vec<u8>>,
}

impl Transport {
    fn send(&mut self, handle: &Handle) {
        for message in self.replica.advance() {
            let to = Sid::try_from(message.get_receiver());
            // Without a link, it has no place in the link that follows, whose begin both ends tell OmniPaxos.
            let Some(to) = to.ok().filter(|to| self.links.contains(to)) else {
                continue;
            };
            let mut bytes = postcard::to_allocvec(&message).expect("a vector takes everything");
            if bytes.len() % FRAME_BYTES_MAX == 0 {
                // The last frame is shorter. The decoder does not look at what follows a message.
                bytes.push(0);
            }
            let frames = bytes.chunks(FRAME_BYTES_MAX);
            let mut sent = frames.map(|frame| handle.to_send_slice(to, frame));
            if sent.any(|outcome| outcome.is_err()) {
                // A link without a gap or no link. An error means that the loop halts.
                self.links.remove(&to);
                let _ = handle.disconnect(to);
            }
        }
    }

    fn receive(&mut self, from: Sid, message: &[u8], handle: &Handle) {
        match postcard::from_bytes::<Message<Request>>(message) {
            Ok(message) if Sid::try_from(message.get_sender()) == Ok(from) => {
                self.replica.step(message)
            }
            // Not a message of the peer. The link has a gap now, and ends. An error means that the loop halts.
            _ => {
                let _ = handle.disconnect(from);
            }
        }
    }
}

impl Handler for Transport {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        // A frame of the greatest length is continued in the next one.
        let is_last = frame.len() < FRAME_BYTES_MAX;
        let parts = self.parts.entry(from).or_default();
        if is_last && parts.is_empty() {
            return self.receive(from, &frame, handle);
        }
        parts.extend_from_slice(&frame);
        if parts.len() > MESSAGE_BYTES_MAX {
            let _ = handle.disconnect(from);
        } else if is_last {
            let message = mem::take(parts);
            self.receive(from, &message, handle);
        }
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        match event {
            Event::Up { sid, .. } => {
                self.links.insert(*sid);
                if let Ok(peer) = u64::try_from(*sid) {
                    self.replica.on_reconnected(peer);
                }
            }
            Event::Down { sid, .. } => {
                self.links.remove(sid);
                self.parts.remove(sid);
                // As for what is not linked. An error means that there is no such peer.
                let _ = handle.discard(*sid);
            }
            _ => {}
        }
    }
}
