//! What the loop calls on its own thread.
//!
//! A handler never blocks: while it runs, no link is served.

use crate::{event::Event, handle::Handle, message::Frame, proto::Sid};

/// What the loop calls on its own thread.
///
/// A frame is delivered on the thread that has decoded it. An answer that is sent through `handle` is written in the same turn.
///
/// A method must not block: while it runs, no link is served.
///
/// # Order
///
/// For each peer, calls come in this order: [`on_event`](Self::on_event) with [`Event::Up`] of a link, [`on_frame`](Self::on_frame)
/// for the frames of that link, in the order in which they were sent, and [`on_event`](Self::on_event) with [`Event::Down`] of that
/// link. Only then follows the next link. Frames of this server to itself come in their own order, at any time.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Event, Frame, Handle, Handler, Sid};
///
/// /// Sends each frame back, and counts the links that are up.
/// #[derive(Default)]
/// struct Echo {
///     links: usize,
/// }
///
/// impl Handler for Echo {
///     fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
///         // Written in this turn. An error means that the peer is gone or the loop halts: there is nobody to answer.
///         let _ = handle.to_send(from, frame.into_bytes());
///     }
///
///     fn on_event(&mut self, event: &Event, _: &Handle) {
///         match event {
///             Event::Up { .. } => self.links += 1,
///             Event::Down { .. } => self.links -= 1,
///             _ => {}
///         }
///     }
/// }
/// ```
pub trait Handler {
    /// A whole frame was received from this peer, or from this server itself by loopback.
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle);

    /// Whether frames of this peer can be taken now. Called before a link is read. While it returns `false`, the link is not read, so
    /// that TCP slows the peer; what the peer has sent is read before its link ends, unless this server ends or
    /// replaces the link. Writing, other links, handshakes and
    /// [`Event`]s go on. Called again after another thread has woken the loop: see [`Handle::wake`].
    fn is_ready(&mut self, from: Sid) -> bool {
        let _ = from;
        true
    }

    /// Called after all frames of one read from one peer have been delivered (at least one), and after a batch of loopback frames. At most 512 KiB of a peer are
    /// read in one turn. The rest follows in the next one.
    fn on_read_complete(&mut self, handle: &Handle) {
        let _ = handle;
    }

    /// Something happened to the mesh.
    fn on_event(&mut self, event: &Event, handle: &Handle) {
        let _ = (event, handle);
    }
}
