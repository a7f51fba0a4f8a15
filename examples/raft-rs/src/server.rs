//! A replica on the network: an `EventLoop` that a thread of the application turns.
//!
//! Of raft's messages it knows only which are snapshots.

use std::{
    error::Error,
    net::TcpListener,
    time::{Duration, Instant},
};

use protobuf::Message as _;
use quorum_cnx::{
    Config, Event, EventLoop, Frame, Handle, Handler, InitialMessageVersion, Outbox, Sid,
};
use raft::eraftpb::{Message, MessageType};

use crate::{disk::Disk, replica::Replica};

/// The time between two ticks of raft.
pub const TICK: Duration = Duration::from_millis(50);

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
    /// If the addresses, the socket or the disk cannot be used.
    pub fn new(
        own: u64,
        members: &[(u64, String)],
        socket: TcpListener,
        disk: Disk,
    ) -> Result<Self, Box<dyn Error>> {
        let mut config = Config::builder(Sid::try_from(own)?);
        for (id, address) in members {
            config = config.server(Sid::try_from(*id)?, address);
        }
        let config = config
            .listener(socket)
            .outbox(Outbox::QUEUE)
            // No ZooKeeper takes part: each link is answered, so that a wrong address is found out.
            .initial_message(InitialMessageVersion::Native)
            .native_only(true)
            .build()?;
        let transport = Transport {
            replica: Replica::new(own, disk)?,
            buffer: Vec::new(),
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
    /// Those of [`EventLoop::turn`], and of the disk.
    pub fn turn(&mut self, timeout: Duration) -> Result<bool, Box<dyn Error>> {
        // What the application has proposed since the last turn.
        self.mesh.handler_mut().send(&self.handle)?;
        let until_tick = self.next_tick.saturating_duration_since(Instant::now());
        let goes_on = self.mesh.turn(Some(timeout.min(until_tick)))?;
        let transport = self.mesh.handler_mut();
        let now = Instant::now();
        if now >= self.next_tick {
            transport.replica.tick();
            // Not `next_tick + TICK`: a node that was paused does not make up for the ticks that it has missed.
            self.next_tick = now + TICK;
        }
        // Once for all frames of the turn: a disk is then written once.
        transport.send(&self.handle)?;
        Ok(goes_on)
    }

    /// What other threads may use: `wake` ends the wait of a turn.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The node of raft.
    pub fn replica(&mut self) -> &mut Replica {
        &mut self.mesh.handler_mut().replica
    }
}

/// What the loop calls, and what sends.
struct Transport {
    replica: Replica,
    /// Each message is encoded here.
    buffer: Vec<u8>,
}

impl Transport {
    fn send(&mut self, handle: &Handle) -> Result<(), Box<dyn Error>> {
        for message in self.replica.advance()? {
            self.buffer.clear();
            message.write_to_vec(&mut self.buffer)?;
            // What would wait for a link is out of date when the link is there: raft sends it anew. A member could have it sent to an id
            // that is no sid.
            let is_sent = Sid::try_from(message.to).is_ok_and(|to| {
                handle.connected_to_peer(to) && handle.to_send_slice(to, &self.buffer).is_ok()
            });
            if !is_sent {
                let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
                self.replica.on_lost(message.to, is_snapshot);
            }
        }
        Ok(())
    }
}

impl Handler for Transport {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        match Message::parse_from_bytes(&frame) {
            // Not always `from` is its `from`: a node that leads no more passes proposals and reads of others on.
            Ok(message) => self.replica.step(message),
            // No node of raft sends this: its link ends. An error means that the loop halts.
            Err(_) => {
                let _ = handle.disconnect(from);
            }
        }
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        if let Event::Down { sid, .. } = event {
            // As above. An error means that there is no such peer.
            let _ = handle.discard(*sid);
            if let Ok(peer) = u64::try_from(*sid) {
                self.replica.on_lost(peer, true);
            }
        }
    }
}
