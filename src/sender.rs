//! A sender of many small frames to one peer, which it has found once.
//!
//! Nothing here writes to a socket: a run of frames is given to the queue of the peer.

use std::{fmt, sync::Arc};

use crate::{
    copy,
    error::SendError,
    outbox::Run,
    proto::Sid,
    shared::{Peer, Shared},
};

/// Sends many frames to one peer with an [`Outbox::Queue`](crate::Outbox::Queue), or in the queue of [`Outbox::Lanes`](crate::Outbox::Lanes), at the least cost for each:
/// [`feed`](Self::feed) copies a frame into a buffer of this sender, without a lock and without a lookup. The frames enter the queue of the peer
/// together, when 128 KiB are collected, with [`flush`](Self::flush), and when the sender is dropped. They are in order, and each is
/// delivered at most once, as those of [`to_send`](crate::Handle::to_send). Until they are in the queue, they are in no statistics, and nobody
/// sends them: call `flush` before you do something else.
///
/// Frames that other threads, or this one by its handle, give to [`to_send`](crate::Handle::to_send) may come before those in the
/// buffer. While there are frames in the buffer, up to 128 KiB of the queue are reserved for them, so that `flush` never fails for want
/// of room.
///
/// With an [`Outbox::Latest`](crate::Outbox::Latest), and for the own sid, `feed` is
/// [`to_send_slice`](crate::Handle::to_send_slice).
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use quorum_cnx::{Handle, SendError, Sid};
///
/// fn replicate(handle: &Handle, to: Sid, log: impl Iterator<Item = Vec<u8>>) -> Result<(), SendError> {
///     let mut sender = handle.sender(to)?;
///     for entry in log {
///         while let Err(error) = sender.feed(&entry) {
///             if error != SendError::Full {
///                 return Err(error);
///             }
///             handle.wait_for_room(to, Duration::MAX)?;
///         }
///     }
///     sender.flush()
/// }
/// ```
pub struct Sender {
    shared: Arc<Shared>,
    sid: Sid,
    /// `None` for the own sid.
    peer: Option<Arc<Peer>>,
    run: Run,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>, sid: Sid) -> Result<Self, SendError> {
        let peer = if sid == shared.own {
            None
        } else {
            Some(shared.peer(sid)?)
        };
        Ok(Self::to(shared, sid, peer))
    }

    /// `peer`: `None` for the own sid.
    pub(crate) fn to(shared: Arc<Shared>, sid: Sid, peer: Option<Arc<Peer>>) -> Self {
        Self {
            shared,
            sid,
            peer,
            run: Run::default(),
        }
    }

    /// The peer.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.sid
    }

    /// Takes a copy of this frame.
    ///
    /// # Errors
    ///
    /// A [`SendError`] if the frame was not taken. After [`SendError::Full`], all frames before it are in the queue. After
    /// [`SendError::Halted`] and [`SendError::Removed`], those that were in the buffer are
    /// [discarded](crate::SendStats::discarded).
    #[inline]
    pub fn feed(&mut self, frame: &[u8]) -> Result<(), SendError> {
        self.feed_with(frame.len(), |bytes| copy::overwrite(bytes, frame))
    }

    /// Takes a frame of `len` bytes, which `fill` writes where they are sent from: nothing is copied. `fill` must write all of them.
    /// Before, they hold zeros, or what earlier frames to this peer have left there. It is called only if the frame is taken. If it
    /// panics, the frame is not.
    ///
    /// # Errors
    ///
    /// As for [`feed`](Self::feed).
    ///
    /// # Examples
    ///
    /// ```
    /// use quorum_cnx::{SendError, Sender};
    ///
    /// /// Byte layout: the index (8 bytes, big-endian), then the entry.
    /// fn feed_entry(sender: &mut Sender, index: u64, entry: &[u8]) -> Result<(), SendError> {
    ///     sender.feed_with(8 + entry.len(), |frame| {
    ///         frame[..8].copy_from_slice(&index.to_be_bytes());
    ///         frame[8..].copy_from_slice(entry);
    ///     })
    /// }
    /// ```
    ///
    /// Writers to `&mut [u8]` take it as well, those of `std::io::Write` and of `bytes::BufMut` among them.
    #[inline]
    pub fn feed_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), SendError> {
        if (1..=self.run.room()).contains(&len) && !self.shared.halt.is_given() {
            self.run.append_with(len, fill);
            return Ok(());
        }
        self.begin(len, fill)
    }

    /// Puts the frames so far into the queue of the peer.
    ///
    /// # Errors
    ///
    /// [`SendError::Halted`] or [`SendError::Removed`], as for [`feed`](Self::feed). The frames are discarded then.
    pub fn flush(&mut self) -> Result<(), SendError> {
        match &self.peer {
            Some(peer) => self.shared.put_run(peer, &mut self.run),
            None => Ok(()),
        }
    }

    /// Takes a frame for which the buffer has no room, or which is refused.
    #[cold]
    fn begin(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), SendError> {
        self.flush()?;
        match &self.peer {
            Some(peer) => self.shared.feed(peer, len, fill, &mut self.run),
            None => self.shared.loop_back_with(len, fill),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // An error means that the frames were discarded, which the statistics of the peer tell.
        let _ = self.flush();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("sid", &self.sid)
            .field("frames", &self.run.frames())
            .finish_non_exhaustive()
    }
}
