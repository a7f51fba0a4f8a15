//! How a handler on the loop's thread is called, and how it answers.
//!
//! A handler never blocks: while it runs, no link is served.

use crate::{event::Event, handle::Handle, message::Frame, proto::Sid};

/// What the loop calls on its own thread.
///
/// The loop hands a frame over where it decoded it, and an answer given through `handle` leaves in the same turn.
pub trait Handler {
    /// A whole frame has come from this peer, or from this server itself by loopback.
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle);

    /// Whether frames of this peer can be taken now. Asked before a link is read. While it is `false` the link is not read, so
    /// that TCP slows the peer; what the peer has sent is read before its link ends. Writing, other links, handshakes and
    /// [`Event`]s go on. Asked again in every turn that is brought about by another thread: see [`Handle::wake`].
    fn is_ready(&mut self, from: Sid) -> bool {
        let _ = from;
        true
    }

    /// What was read from one peer in one go has been handed over, one or more frames; if it has sent more than its
    /// [share](crate::limits::TURN_BYTES) of the turn, the rest follows in the next. Also after a burst by loopback.
    fn on_read_complete(&mut self, handle: &Handle) {
        let _ = handle;
    }

    /// Something happened to the mesh.
    fn on_event(&mut self, event: &Event, handle: &Handle) {
        let _ = (event, handle);
    }
}
