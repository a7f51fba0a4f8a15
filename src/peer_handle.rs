//! What any thread can do with one peer, which it has found once.
//!
//! Only the calls whose names begin with `wait` block, or their futures wait.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    error::SendError,
    outbox::{LoopRequest, SendOutcome},
    proto::Sid,
    sender::Sender,
    shared::{Life, Peer, PeerStats, Shared},
};

/// Sends to one peer, which [`Handle::peer`](crate::Handle::peer) has found. The calls are those of [`Handle`](crate::Handle) without the
/// sid, and without the lookup.
///
/// It means this peer until it is removed ([`Handle::reconfigure`](crate::Handle::reconfigure)). Then sending fails with
/// [`SendError::Removed`], also if the sid becomes that of a member again: what was meant for the old server does not reach the new one.
/// A clone costs two atomic increments.
///
/// # Examples
///
/// ```no_run
/// use quorum_cnx::{Handle, SendError, Sid};
///
/// fn send_all(handle: &Handle, sid: Sid, votes: &[&[u8]]) -> Result<(), SendError> {
///     let peer = handle.peer(sid)?;
///     for vote in votes {
///         peer.send_slice(vote)?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct PeerHandle {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
}

impl PeerHandle {
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        Self { shared, peer }
    }

    /// The sid of the peer.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.peer.sid
    }

    /// Sends a frame, as [`Handle::to_send`](crate::Handle::to_send) does.
    ///
    /// # Errors
    ///
    /// A [`SendError`] if the frame was not taken.
    #[inline]
    pub fn send(&self, frame: impl Into<Bytes>) -> Result<SendOutcome, SendError> {
        self.shared.send(&self.peer, frame.into())
    }

    /// Sends a frame as the latest message, as [`Handle::to_send_latest`](crate::Handle::to_send_latest) does.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_latest(&self, frame: impl Into<Bytes>) -> Result<SendOutcome, SendError> {
        self.shared.send_latest(&self.peer, frame.into())
    }

    /// Sends a copy of a frame, as [`Handle::to_send_slice`](crate::Handle::to_send_slice) does.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    #[inline]
    pub fn send_slice(&self, frame: &[u8]) -> Result<SendOutcome, SendError> {
        self.shared.send_slice(&self.peer, frame)
    }

    /// Sends copies of many frames, as [`Handle::to_send_all`](crate::Handle::to_send_all) does. Returns how many were taken.
    ///
    /// # Errors
    ///
    /// Those of [`Handle::to_send_all`](crate::Handle::to_send_all). After an error, no frame was taken.
    pub fn send_all(&self, frames: &[&[u8]]) -> Result<usize, SendError> {
        self.shared.send_all(&self.peer, frames)
    }

    /// A sender of many small frames, as from [`Handle::sender`](crate::Handle::sender).
    #[must_use]
    pub fn sender(&self) -> Sender {
        let (shared, peer) = (Arc::clone(&self.shared), Arc::clone(&self.peer));
        Sender::to(shared, peer.sid, Some(peer))
    }

    /// Blocks until there is room, as [`Handle::wait_for_room`](crate::Handle::wait_for_room) does. Returns `false` if `timeout` has
    /// passed, and `true` if the peer was removed: the next send returns the error.
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        self.shared.wait_for_room_of(&self.peer, timeout)
    }

    /// Waits as a task for the same.
    pub async fn wait_for_room_async(&self) {
        self.shared.wait_for_room_of_async(&self.peer).await;
    }

    /// Discards the frames that wait, as [`Handle::discard`](crate::Handle::discard) does. Returns their number.
    pub fn discard(&self) -> u64 {
        self.peer.outbox.discard()
    }

    /// Asks the loop for a link, as [`Handle::connect_one`](crate::Handle::connect_one) does.
    ///
    /// # Errors
    ///
    /// [`SendError::Removed`], or [`SendError::Halted`].
    pub fn connect(&self) -> Result<(), SendError> {
        if self.shared.life() != Life::Running {
            return Err(SendError::Halted);
        }
        let known = self.shared.find(self.peer.sid);
        if known.is_none_or(|known| !Arc::ptr_eq(&known, &self.peer)) {
            return Err(SendError::Removed(self.peer.sid));
        }
        self.shared.ask_here(&self.peer, LoopRequest::CONNECT);
        Ok(())
    }

    /// Whether the peer is linked.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.peer.is_linked()
    }

    /// The counters of this peer, also after it was removed.
    #[must_use]
    pub fn stats(&self) -> PeerStats {
        self.peer.stats_now()
    }
}

impl fmt::Debug for PeerHandle {
    /// Without the frames: payloads are not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerHandle")
            .field("sid", &self.sid())
            .finish_non_exhaustive()
    }
}
