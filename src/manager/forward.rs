//! What a manager does through its [`Handle`]: send, ask, look.
//!
//! Nothing here does anything of its own.

use std::time::Duration;

use bytes::Bytes;

use super::CnxManager;
use crate::{
    config::{Leave, Members},
    error::{ReconfigureError, SendError},
    handle::Handle,
    outbox::SendOutcome,
    peer_handle::PeerHandle,
    proto::Sid,
    sender::Sender,
    shared::{Changes, Listening},
};

impl CnxManager {
    /// A handle to give to other threads. Some calls are only there, such as [`renew`](Handle::renew).
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The own sid.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.handle.sid()
    }

    /// Sends `frame` to `sid` as the latest message: see [`Handle::to_send`].
    ///
    /// # Errors
    ///
    /// A [`SendError`] if the frame was not taken.
    pub fn to_send(&self, sid: Sid, frame: impl Into<Bytes>) -> Result<SendOutcome, SendError> {
        self.handle.to_send(sid, frame)
    }

    /// Sends `frame` to `sid` ahead of the queue of [`Outbox::Lanes`](crate::Outbox::Lanes): see [`Handle::to_send_latest`].
    ///
    /// # Errors
    ///
    /// A [`SendError`] if the frame was not taken.
    pub fn to_send_latest(
        &self,
        sid: Sid,
        frame: impl Into<Bytes>,
    ) -> Result<SendOutcome, SendError> {
        self.handle.to_send_latest(sid, frame)
    }

    /// Sends a copy of `frame`: see [`Handle::to_send_slice`].
    ///
    /// # Errors
    ///
    /// A [`SendError`] if the frame was not taken.
    pub fn to_send_slice(&self, sid: Sid, frame: &[u8]) -> Result<SendOutcome, SendError> {
        self.handle.to_send_slice(sid, frame)
    }

    /// Sends copies of many frames with one call, and returns how many were taken: see [`Handle::to_send_all`].
    ///
    /// # Errors
    ///
    /// A [`SendError`] if none was taken.
    pub fn to_send_all(&self, sid: Sid, frames: &[&[u8]]) -> Result<usize, SendError> {
        self.handle.to_send_all(sid, frames)
    }

    /// A sender of many small frames to `sid`: see [`Handle::sender`].
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn sender(&self, sid: Sid) -> Result<Sender, SendError> {
        self.handle.sender(sid)
    }

    /// Finds this peer once, for many calls: see [`Handle::peer`].
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn peer(&self, sid: Sid) -> Result<PeerHandle, SendError> {
        self.handle.peer(sid)
    }

    /// Makes these servers the members, in one step: see [`Handle::reconfigure`].
    ///
    /// # Errors
    ///
    /// A [`ReconfigureError`]. Nothing has changed then.
    pub fn reconfigure(&self, members: Members) -> Result<Changes, ReconfigureError> {
        self.handle.reconfigure(members)
    }

    /// Adds a server to the members, or gives a member other addresses: see [`Handle::set_server`].
    ///
    /// # Errors
    ///
    /// A [`ReconfigureError`]. Nothing has changed then.
    pub fn set_server(
        &self,
        sid: Sid,
        addresses: impl Into<String>,
    ) -> Result<Changes, ReconfigureError> {
        self.handle.set_server(sid, addresses)
    }

    /// Removes a server from the members: see [`Handle::remove_server`].
    ///
    /// # Errors
    ///
    /// A [`ReconfigureError`]. Nothing has changed then.
    pub fn remove_server(&self, sid: Sid, leave: Leave) -> Result<Changes, ReconfigureError> {
        self.handle.remove_server(sid, leave)
    }

    /// Blocks until a send to `sid` would neither replace a frame nor fail: see [`Handle::wait_for_room`].
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn wait_for_room(&self, sid: Sid, timeout: Duration) -> Result<bool, SendError> {
        self.handle.wait_for_room(sid, timeout)
    }

    /// Waits in a task until a send to `sid` would neither replace a frame nor fail: see [`Handle::wait_for_room_async`].
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub async fn wait_for_room_async(&self, sid: Sid) -> Result<(), SendError> {
        self.handle.wait_for_room_async(sid).await
    }

    /// Discards the frames that wait for `sid`: see [`Handle::discard`].
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn discard(&self, sid: Sid) -> Result<u64, SendError> {
        self.handle.discard(sid)
    }

    /// Asks the loop for a link to `sid`: see [`Handle::connect_one`].
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn connect_one(&self, sid: Sid) -> Result<(), SendError> {
        self.handle.connect_one(sid)
    }

    /// Asks the loop for a link to every peer: see [`Handle::connect_all`].
    pub fn connect_all(&self) {
        self.handle.connect_all();
    }

    /// Dials `sid` even if it is linked: see [`Handle::initiate_connection`].
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn initiate_connection(&self, sid: Sid) -> Result<(), SendError> {
        self.handle.initiate_connection(sid)
    }

    /// Asks the loop to close the link to `sid`, if there is one: see [`Handle::disconnect`].
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn disconnect(&self, sid: Sid) -> Result<(), SendError> {
        self.handle.disconnect(sid)
    }

    /// Whether no frame waits for any peer: see [`Handle::have_delivered`].
    #[must_use]
    pub fn have_delivered(&self) -> bool {
        self.handle.have_delivered()
    }

    /// Whether `sid` is linked.
    #[must_use]
    pub fn connected_to_peer(&self, sid: Sid) -> bool {
        self.handle.connected_to_peer(sid)
    }

    /// The linked peers, sorted by sid.
    #[must_use]
    pub fn linked_peers(&self) -> Vec<Sid> {
        self.handle.linked_peers()
    }

    /// Blocks until at least `count` other members are linked, or `timeout` has passed: see [`Handle::wait_linked`].
    pub fn wait_linked(&self, count: usize, timeout: Duration) -> bool {
        self.handle.wait_linked(count, timeout)
    }

    /// Waits in a task until at least `count` other members are linked: see [`Handle::wait_linked_async`].
    pub async fn wait_linked_async(&self, count: usize) -> bool {
        self.handle.wait_linked_async(count).await
    }

    /// The state of each listening socket: see [`Handle::listening`].
    #[must_use]
    pub fn listening(&self) -> Vec<Listening> {
        self.handle.listening()
    }

    /// Closes all links and keeps running: see [`Handle::soft_halt`].
    pub fn soft_halt(&self) {
        self.handle.soft_halt();
    }

    /// Asks the loop to halt once the peers have read what was sent to them: see [`Handle::request_shutdown`].
    pub fn request_shutdown(&self, within: Duration) {
        self.handle.request_shutdown(within);
    }

    /// Asks the loop to halt, without waiting for it: see [`Handle::request_halt`].
    pub fn request_halt(&self) {
        self.handle.request_halt();
    }

    /// Whether the loop has ended, by request or not.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.handle.is_halted()
    }

    /// Whether the loop has ended without being asked to: see [`Handle::has_died`].
    #[must_use]
    pub fn has_died(&self) -> bool {
        self.handle.has_died()
    }
}
