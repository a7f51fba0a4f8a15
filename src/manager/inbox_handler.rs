//! The handler of a manager: puts received frames into the inbox.
//!
//! Nothing here blocks.

use std::{sync::Arc, thread};

use super::events::Events;
use crate::{
    event::Event,
    handle::Handle,
    handler::Handler,
    inbox::{BufferPool, Chunk, ChunkBuilder, Inbox, Owner, Source},
    message::Frame,
    proto::Sid,
};

/// The handler of a manager. It packs the frames of one read into chunks, and puts these into the inbox.
pub(super) struct InboxHandler {
    inbox: Arc<Inbox<Chunk>>,
    builder: ChunkBuilder,
    /// The source of the frames in `builder`; `None` if there are none.
    source: Option<Source>,
    /// The sids of the members, sorted.
    servers: Vec<Sid>,
    spins: bool,
    events: Events,
}

impl InboxHandler {
    /// `servers`: the sids of the members, sorted.
    pub(super) fn new(
        inbox: Arc<Inbox<Chunk>>,
        pool: Arc<BufferPool>,
        servers: Vec<Sid>,
        spins: bool,
        events: Events,
    ) -> Self {
        Self {
            inbox,
            builder: ChunkBuilder::new(pool),
            source: None,
            servers,
            spins,
            events,
        }
    }

    /// The owner whose share of the inbox and of the event queue this peer uses.
    fn owner(&self, sid: Sid) -> Owner {
        self.source(sid, 0).owner()
    }

    fn source(&self, from: Sid, link: u64) -> Source {
        Source {
            from,
            is_server: self.servers.binary_search(&from).is_ok(),
            link,
        }
    }

    /// The owner whose share of the event queue an event uses. Events that unknown peers cause cannot displace events about
    /// members.
    fn owner_of(&self, event: &Event) -> Owner {
        match event {
            Event::Up { sid, .. }
            | Event::Down { sid, .. }
            | Event::Joined { sid }
            | Event::Moved { sid }
            | Event::Left { sid, .. }
            | Event::Flapping { sid, .. }
            | Event::DialFailed { sid, .. } => self.owner(*sid),
            // The sid is only a claim of the rejected connection.
            Event::Rejected { .. } | Event::AcceptFailed { .. } => Owner::Others,
            Event::Listening { .. }
            | Event::ListenFailed { .. }
            | Event::ListenerLost { .. }
            | Event::Dropped { .. }
            | Event::SlowTurn { .. }
            | Event::TlsReloaded
            | Event::TlsReloadFailed { .. }
            | Event::CertificateExpires { .. }
            | Event::Halted => Owner::Own,
        }
    }
}

impl Handler for InboxHandler {
    #[inline] // Else the compiler may call it for each frame.
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        // Looked up once for all frames of a read, which have one source: a read is of one link.
        let source = match self.source {
            Some(source) => source,
            None => {
                let source = self.source(from, frame.link());
                *self.source.insert(source)
            }
        };
        self.builder.add(source, frame);
    }

    fn is_ready(&mut self, from: Sid) -> bool {
        // The owner is looked up only if the inbox is at least half full.
        self.inbox.has_room_for(|| self.owner(from))
    }

    fn on_read_complete(&mut self, _: &Handle) {
        if let Some(source) = self.source.take() {
            // Fails only after the loop has ended, when no thread reads any more. The loop reports dropped messages in this turn.
            let _ = self.inbox.push_all(self.builder.pack(source));
            if self.spins {
                // The thread that waits for the messages may share this processor.
                thread::yield_now();
            }
        }
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if let Event::Joined { sid } = event {
            if let Err(at) = self.servers.binary_search(sid) {
                self.servers.insert(at, *sid);
            }
        }
        let owner = self.owner_of(event);
        if let Event::Left { sid, .. } = event {
            self.servers.retain(|server| server != sid);
        }
        self.events.push(owner, event.clone());
        self.inbox.look_elsewhere();
    }
}

impl Drop for InboxHandler {
    /// The loop has ended, perhaps by a panic. No thread may wait for an event that cannot arrive.
    fn drop(&mut self) {
        self.events.close();
        self.inbox.look_elsewhere();
    }
}
