//! The way to a loop from any thread: send, ask, wait.
//!
//! Nothing here waits for the network, but for the one call whose name says that it waits.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    error::SendError,
    outbox::{LoopRequest, SendOutcome},
    proto::Sid,
    shared::{Life, Listening, Shared, Stats},
};

/// The way to a loop from any thread; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The own sid.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.shared.own
    }

    /// Holds out `frame` to `sid` as the latest message. Never waits for the network: the frame is written on this
    /// thread if the socket takes it, else it waits in the peer's one slot, where a newer frame replaces it. With
    /// [`Outbox::Queue`](crate::Outbox::Queue) it goes behind those that wait, and leaves together with others.
    ///
    /// A frame for a peer that is not linked waits for the link; with [`Dial::OnDemand`](crate::Dial::OnDemand) the
    /// peer is dialed for it. A frame for the own sid goes to the own inbox.
    ///
    /// # Errors
    ///
    /// A [`SendError`] if the frame was not taken. A frame for the own sid is refused with [`SendError::Full`] if the inbox is
    /// full and drops nothing ([`InboxFull::PushBack`](crate::InboxFull::PushBack)).
    pub fn to_send(&self, sid: Sid, frame: impl Into<Bytes>) -> Result<SendOutcome, SendError> {
        self.shared.to_send(sid, frame.into())
    }

    /// The same for bytes that the caller keeps: they are copied. In a queue this costs less than a `Bytes` does.
    ///
    /// # Errors
    ///
    /// Those of [`to_send`](Self::to_send).
    pub fn to_send_slice(&self, sid: Sid, frame: &[u8]) -> Result<SendOutcome, SendError> {
        self.shared.to_send_slice(sid, frame)
    }

    /// Puts many frames at once; they are copied. Returns how many were taken, from the first on: with
    /// [`Outbox::Queue`](crate::Outbox::Queue) fewer than given if the rest has no room. What is more than
    /// [leaves together](crate::limits::QUEUE_RUN_BYTES) is put in parts, between which frames of other threads may come. With
    /// [`Outbox::Latest`](crate::Outbox::Latest) it is the same as one [`to_send`](Self::to_send) after the other.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] if there is no room for the first one; else those of [`to_send`](Self::to_send), for any of the
    /// frames. Nothing was taken then.
    pub fn to_send_all(&self, sid: Sid, frames: &[&[u8]]) -> Result<usize, SendError> {
        self.shared.to_send_all(sid, frames)
    }

    /// Waits until a frame for `sid` would replace none and be taken: until the slot is free, or at least half of the
    /// [queue](crate::Outbox::Queue). Returns whether it is, or `false` when the time has passed. For the own sid: until the
    /// inbox takes a message and drops none. On the loop's own thread, for which it would wait, it does not wait; until an
    /// [`EventLoop`](crate::EventLoop) is turned by another thread, the one that has made it counts as that.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`]. A loop that has halted has room, and [`to_send`](Self::to_send) says that it has halted.
    pub fn wait_for_room(&self, sid: Sid, timeout: Duration) -> Result<bool, SendError> {
        self.shared.wait_for_room(sid, timeout)
    }

    /// Discards the frames that wait for `sid`, and returns how many they were; [`Outgoing::discarded`] counts them. For a queue
    /// whose peer was away for so long that what waits for it is of no use any more. What is just being written, at most
    /// [`TURN_BYTES`](crate::limits::TURN_BYTES), is not discarded while there is a link.
    ///
    /// [`Outgoing::discarded`]: crate::Outgoing::discarded
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn discard(&self, sid: Sid) -> Result<u64, SendError> {
        self.shared.discard(sid)
    }

    /// Has the loop look again at what it waits for, a [handler that was not ready](crate::Handler::is_ready) for instance.
    pub fn wake(&self) {
        self.shared.wake_flag.notify();
    }

    /// Asks for a link to `sid`, if there is none and none is underway.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn connect_one(&self, sid: Sid) -> Result<(), SendError> {
        self.ask(sid, LoopRequest::LINK)
    }

    /// Asks for a link to every peer.
    pub fn connect_all(&self) {
        for peer in self.shared.peers() {
            // Refused only where there is no loop.
            let _ = self.shared.ask(&peer, LoopRequest::LINK);
        }
    }

    /// Dials `sid` also when it is linked; the new connection replaces the old one, and the last frame goes over it
    /// once more. A larger sid is asked by a knock to do the same, which it ignores for a link that is younger than
    /// [`KNOCK_CROSSING`](crate::limits::KNOCK_CROSSING).
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn initiate_connection(&self, sid: Sid) -> Result<(), SendError> {
        self.ask(sid, LoopRequest::INITIATE)
    }

    fn ask(&self, sid: Sid, request: LoopRequest) -> Result<(), SendError> {
        if self.shared.life() != Life::Running {
            return Err(SendError::Halted);
        }
        let peer = self.shared.find(sid).ok_or(SendError::UnknownPeer(sid))?;
        self.shared.ask(&peer, request)
    }

    /// Whether nothing waits for any peer: every accepted frame was written, replaced or discarded.
    #[must_use]
    pub fn have_delivered(&self) -> bool {
        self.shared
            .peers()
            .iter()
            .all(|peer| peer.outbox.is_empty())
    }

    /// Whether `sid` is linked.
    #[must_use]
    pub fn connected_to_peer(&self, sid: Sid) -> bool {
        self.shared
            .find(sid)
            .is_some_and(|peer| peer.linked.load(Ordering::Acquire))
    }

    /// Who is linked, by sid. Its length is what `getThreadCount() / 2` of the original counts.
    #[must_use]
    pub fn linked_peers(&self) -> Vec<Sid> {
        let linked = |peer: &Arc<crate::shared::Peer>| peer.linked.load(Ordering::Acquire);
        self.shared
            .peers()
            .iter()
            .filter(|peer| linked(peer))
            .map(|peer| peer.sid)
            .collect()
    }

    /// What each listening socket is doing. Empty once halted.
    #[must_use]
    pub fn listening(&self) -> Vec<Listening> {
        self.shared.listening()
    }

    /// All counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Drops every link and goes on: peers come back by the rules of [`Dial`](crate::Dial).
    pub fn soft_halt(&self) {
        self.shared.order(&self.shared.drop_links);
    }

    /// Asks the loop to halt, without waiting for it. From now on no frame is taken, and none that comes is handed over.
    pub fn request_halt(&self) {
        self.shared.request_halt();
    }

    /// Whether the loop has ended, by request or not.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.shared.life() != Life::Running
    }

    /// Whether the loop has ended without being asked to: an error of the system, or a panic of a handler.
    #[must_use]
    pub fn has_died(&self) -> bool {
        self.shared.life() == Life::Died
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for Handle {
    /// Without the peers and what waits for them: a payload is nobody else's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("sid", &self.sid())
            .finish_non_exhaustive()
    }
}
