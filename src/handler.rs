//! What the loop calls on its own thread.
//!
//! A handler never blocks: while it runs, no link is served.

use crate::{event::Event, handle::Handle, message::Frame, proto::Sid};

/// What the loop calls on its own thread.
///
/// A frame is delivered on the thread that has decoded it. An answer that is sent through `handle` is written in the same turn.
///
/// A method must not block: while it runs, no link is served.
pub trait Handler {
    /// A whole frame was received from this peer, or from this server itself by loopback.
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle);

    /// Whether frames of this peer can be taken now. Called before a link is read. While it returns `false`, the link is not read, so
    /// that TCP slows the peer; what the peer has sent is read before its link ends. Writing, other links, handshakes and
    /// [`Event`]s go on. Called again after another thread has woken the loop: see [`Handle::wake`].
    fn is_ready(&mut self, from: Sid) -> bool {
        let _ = from;
        true
    }

    /// Called after all frames of one read from one peer have been delivered (at least one), and after a batch of loopback frames. If the
    /// peer has sent more than its [budget](crate::limits::TURN_BYTES) for the turn, the rest follows in the next turn.
    fn on_read_complete(&mut self, handle: &Handle) {
        let _ = handle;
    }

    /// Something happened to the mesh.
    fn on_event(&mut self, event: &Event, handle: &Handle) {
        let _ = (event, handle);
    }
}
