//! What any thread can do with a loop: send, ask, wait for room.
//!
//! Only the calls whose names begin with `wait` block, or their futures wait.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

#[cfg(feature = "tls")]
use std::{io, path::PathBuf};

use crate::{
    config::{Leave, Members},
    error::{ReconfigureError, SendError},
    outbox::{LoopRequest, SendOutcome},
    peer_handle::PeerHandle,
    proto::Sid,
    sender::Sender,
    shared::{Changes, Life, Listening, Shared, Stats},
};
#[cfg(feature = "tls")]
use crate::{error::ConfigError, tls::Tls, watch_files::watch};

/// Sends through a loop, and asks it for things, from any thread. A clone costs one atomic increment.
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

    /// Sends `frame` to `sid` as the latest message. Never waits for the network: the frame is written on this thread if the socket
    /// takes it. Otherwise it waits in the slot of the peer, where a newer frame replaces it. With
    /// [`Outbox::Queue`](crate::Outbox::Queue) and [`Outbox::Lanes`](crate::Outbox::Lanes) it is appended to the queue, and is written
    /// together with other frames.
    ///
    /// A frame for a peer that is not linked waits for the link. With [`Dial::OnDemand`](crate::Dial::OnDemand) it makes the loop dial
    /// the peer. A frame for the own sid goes to the own inbox.
    ///
    /// # Errors
    ///
    /// A [`SendError`] if the frame was not taken. A frame for the own sid is refused with [`SendError::Full`] if the inbox is
    /// full and drops nothing ([`InboxFull::PushBack`](crate::InboxFull::PushBack)).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use quorum_cnx::{Handle, SendError, SendOutcome, Sid};
    ///
    /// fn vote(handle: &Handle, sid: Sid) -> Result<(), SendError> {
    ///     match handle.to_send(sid, "my vote")? {
    ///         SendOutcome::Superseded => println!("{sid} is slow or away: it never sees my vote before this one"),
    ///         outcome => println!("{outcome:?}"),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn to_send(&self, sid: Sid, frame: impl Into<Bytes>) -> Result<SendOutcome, SendError> {
        self.shared.to_send(sid, frame.into())
    }

    /// Sends `frame` to `sid` ahead of the queue of [`Outbox::Lanes`](crate::Outbox::Lanes): as [`to_send`](Self::to_send) does with
    /// [`Outbox::Latest`](crate::Outbox::Latest), so that a newer frame replaces one that waits. For heartbeats and votes beside a
    /// stream. With the other outboxes this is `to_send`.
    ///
    /// # Errors
    ///
    /// Those of [`to_send`](Self::to_send). With lanes it never fails with [`SendError::Full`] for a peer.
    pub fn to_send_latest(
        &self,
        sid: Sid,
        frame: impl Into<Bytes>,
    ) -> Result<SendOutcome, SendError> {
        self.shared.to_send_latest(sid, frame.into())
    }

    /// Sends a copy of `frame`, as [`to_send`](Self::to_send) does. With a queue this costs less than a `Bytes`.
    ///
    /// # Errors
    ///
    /// Those of [`to_send`](Self::to_send).
    pub fn to_send_slice(&self, sid: Sid, frame: &[u8]) -> Result<SendOutcome, SendError> {
        self.shared.to_send_slice(sid, frame)
    }

    /// Sends copies of many frames with one call. Returns how many were taken, from the first on: with
    /// [`Outbox::Queue`](crate::Outbox::Queue) fewer than given if the rest has no room. Frames of more than
    /// 128 KiB together are taken in parts, and frames of other threads may come between
    /// two parts. With [`Outbox::Latest`](crate::Outbox::Latest) this is the same as one [`to_send`](Self::to_send) after the other.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] if there is no room for the first frame, else those of [`to_send`](Self::to_send) for any of the frames.
    /// After an error, no frame was taken.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use quorum_cnx::{Handle, SendError, Sid};
    ///
    /// /// Sends all of these frames with [`Outbox::Queue`](quorum_cnx::Outbox::Queue), and waits where the queue is full.
    /// fn replicate(handle: &Handle, sid: Sid, mut frames: &[&[u8]]) -> Result<(), SendError> {
    ///     while !frames.is_empty() {
    ///         match handle.to_send_all(sid, frames) {
    ///             Ok(taken) => frames = &frames[taken..],
    ///             Err(SendError::Full) => {
    ///                 handle.wait_for_room(sid, Duration::MAX)?;
    ///             }
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn to_send_all(&self, sid: Sid, frames: &[&[u8]]) -> Result<usize, SendError> {
        self.shared.to_send_all(sid, frames)
    }

    /// A sender of many small frames to `sid`, which costs less for each than [`to_send_slice`](Self::to_send_slice).
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`] if there is no such peer.
    pub fn sender(&self, sid: Sid) -> Result<Sender, SendError> {
        Sender::new(Arc::clone(&self.shared), sid)
    }

    /// Finds this peer once, for many calls. [`PeerHandle`] has them.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`] if there is no such peer. This server is no peer of itself.
    pub fn peer(&self, sid: Sid) -> Result<PeerHandle, SendError> {
        let peer = self.shared.peer(sid)?;
        Ok(PeerHandle::new(Arc::clone(&self.shared), peer))
    }

    /// Makes these servers the members, in one step. Links of members that stay as they are are not touched. Returns what has changed.
    ///
    /// What this returns is true at once: a frame for a server that has joined is taken, and one for a server that has left is refused. The loop
    /// follows in its next turn.
    ///
    /// - A server that joins is dialed as [`Dial`](crate::Dial) says ([`Event::Joined`](crate::Event::Joined)). One that was
    ///   [admitted](crate::Unknown::Admit) before keeps its link.
    /// - A member with other addresses ([`Event::Moved`](crate::Event::Moved)): a link whose far end is at one of the new addresses stays.
    ///   Another one ends when a new one is there. While that cannot be made, the old one stays, and [`renew`](Self::renew) tries again.
    /// - This server, if its own addresses change: it listens at the old ones until it listens at all new ones. While none of the new ones can be
    ///   opened, the old ones stay.
    /// - A server that leaves ([`Event::Left`](crate::Event::Left)): new frames for it are refused. Those that wait are discarded, or written
    ///   first, as [`Leave`] says. Then its link ends with [`Reason::Removed`](crate::Reason::Removed), and its later connections are those of
    ///   an unknown server: refused with [`Reason::UnknownSid`](crate::Reason::UnknownSid), or admitted ([`Unknown`](crate::Unknown)).
    /// - A sid that comes back is another peer. No frame that was meant for the old one is sent to it.
    ///
    /// Versions order the steps, so that each server may be told several times, and late. With the version of the members now and the same
    /// servers, nothing changes. The version of the members at the start is 0.
    ///
    /// May be called on any thread, also by a handler, and before the first turn.
    ///
    /// # Errors
    ///
    /// A [`ReconfigureError`] if the servers cannot be the members, or if the version is older. Nothing has changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use quorum_cnx::{CnxManager, Config, Leave, Members, Sid};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0").server(Sid(2), "127.0.0.1:3182");
    /// let manager = CnxManager::start(config.build()?)?;
    /// manager.to_send(Sid(2), "you are removed")?;
    /// let members = Members::new(7)
    ///     .server(Sid(1), "127.0.0.1:0")
    ///     .server(Sid(3), "127.0.0.1:3183")
    ///     .leave(Leave::After(Duration::from_secs(5)));
    /// let changes = manager.reconfigure(members)?;
    /// assert_eq!((changes.joined, changes.left), (vec![Sid(3)], vec![Sid(2)]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn reconfigure(&self, members: Members) -> Result<Changes, ReconfigureError> {
        self.shared.reconfigure(members)
    }

    /// Adds a server to the members, or gives a member other addresses: one step, as [`reconfigure`](Self::reconfigure) makes it, to the
    /// next version. If the server is a member with these addresses, nothing changes, and the version stays.
    ///
    /// Use either versions of your own or these two calls. With TLS, a server that is added has the hosts of its addresses as names: only
    /// [`reconfigure`](Self::reconfigure) gives it others, also if it had some before it was removed.
    ///
    /// # Errors
    ///
    /// A [`ReconfigureError`]. Nothing has changed then.
    pub fn set_server(
        &self,
        sid: Sid,
        addresses: impl Into<String>,
    ) -> Result<Changes, ReconfigureError> {
        self.shared.set_server(sid, addresses.into())
    }

    /// Removes a server from the members, as [`set_server`](Self::set_server) adds one. If it is no member, nothing changes. But one that
    /// leaves already has no more time than this call gives it.
    ///
    /// # Errors
    ///
    /// A [`ReconfigureError`]. Nothing has changed then.
    pub fn remove_server(&self, sid: Sid, leave: Leave) -> Result<Changes, ReconfigureError> {
        self.shared.remove_server(sid, leave)
    }

    /// Blocks until there is room for a frame to `sid`: until the slot is empty; or until the queue, if there is one, is at most
    /// half full, and has room for the longest frame that was refused with [`SendError::Full`] since it was empty. Another thread may
    /// take the room before the next send. For the own sid: until the inbox has room, which an inbox that drops always has
    /// ([`InboxFull::DropOldest`](crate::InboxFull::DropOldest)). Returns `false` if `timeout` has passed.
    ///
    /// Never blocks on the loop's own thread, since only that thread could make room. That is the thread that turns the
    /// [`EventLoop`](crate::EventLoop), and before the first turn the thread that has made it.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`]. After the loop has halted this returns `true`, and [`to_send`](Self::to_send) returns
    /// [`SendError::Halted`].
    pub fn wait_for_room(&self, sid: Sid, timeout: Duration) -> Result<bool, SendError> {
        self.shared.wait_for_room(sid, timeout)
    }

    /// Does what [`wait_for_room`](Self::wait_for_room) does in a task, without blocking a thread. The task waits even if its thread
    /// turns the loop, which makes room when it is turned. To wait for a limited time, drop the future.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`]. After the loop has halted this returns, and [`to_send`](Self::to_send) returns
    /// [`SendError::Halted`].
    pub async fn wait_for_room_async(&self, sid: Sid) -> Result<(), SendError> {
        self.shared.wait_for_room_async(sid).await
    }

    /// Discards the frames that wait for `sid`, for instance after the peer was away for so long that they are of no use. Returns
    /// their number, which [`SendStats::discarded`] counts. While there is a link, the frames that are being written are
    /// not discarded: up to 1 MiB of them. With [`Outbox::Lanes`](crate::Outbox::Lanes) both lanes are emptied.
    ///
    /// [`SendStats::discarded`]: crate::SendStats::discarded
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn discard(&self, sid: Sid) -> Result<u64, SendError> {
        self.shared.discard(sid)
    }

    /// Wakes the loop. In the next turn it asks [`Handler::is_ready`](crate::Handler::is_ready) again for the links that it does not
    /// read.
    pub fn wake(&self) {
        self.shared.wake_flag.notify();
    }

    /// Asks the loop for a link to `sid`. If there is none and the loop is not dialing, it dials at once, also while it would wait because of
    /// [`backoff`](crate::ConfigBuilder::backoff). If that dial fails, the wait after it is as long as after any other. A peer with a
    /// larger sid that was just asked to dial back has 250 ms for that first.
    ///
    /// A frame that waits for `sid` asks for a link as well, and for the next dial when it is due: call this only when the peer may have become
    /// reachable.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn connect_one(&self, sid: Sid) -> Result<(), SendError> {
        self.ask(sid, LoopRequest::CONNECT)
    }

    /// Asks the loop for a link to every peer, as [`connect_one`](Self::connect_one) does.
    pub fn connect_all(&self) {
        for peer in self.shared.peers() {
            // Refused only where there is no loop.
            let _ = self.shared.ask(&peer, LoopRequest::CONNECT);
        }
    }

    /// Dials `sid` even if it is linked. The new connection replaces the old one, and the last frame is sent once more over it. A
    /// server with a larger sid is asked by a knock to dial, which it ignores if the link is younger than
    /// a second.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn initiate_connection(&self, sid: Sid) -> Result<(), SendError> {
        self.ask(sid, LoopRequest::INITIATE)
    }

    /// Asks the loop to close the link to `sid`, if there is one. The link is closed when [`Event::Down`](crate::Event::Down) is
    /// reported, with [`Reason::Dropped`](crate::Reason::Dropped). Frames that wait stay in the outbox. If the loop was also asked for a
    /// link and has not made one yet, it does so after this, whichever call came first. The peer is linked again as
    /// [`Dial`](crate::Dial) says: with [`Dial::Eager`](crate::Dial::Eager) at once, or after the backoff if the link was younger than a second.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], or [`SendError::Halted`].
    pub fn disconnect(&self, sid: Sid) -> Result<(), SendError> {
        self.ask(sid, LoopRequest::DISCONNECT)
    }

    /// Replaces the link of each peer by a new one, one peer after the other, as
    /// [`initiate_connection`](Self::initiate_connection) does. A link ends when the new one is there. A peer that gets no new link
    /// within 2 seconds does not hold up the others, and is tried again after them, 16 times in all: a peer with a larger sid does not
    /// replace a link that is younger than a second, or that was replaced shortly before.
    ///
    /// A peer whose dials were refused is dialed at once. New links have what was changed meanwhile, for example another certificate. A ZooKeeper with a larger sid closes the old link
    /// before it dials the new one.
    ///
    /// A link between servers with [native](crate::InitialMessageVersion::Native) initial messages loses no frame: it is *retired*. Each end
    /// finishes the frame that it writes, and reads the old link to its end. Meanwhile, for a round trip or as long as the peer takes to
    /// read, frames wait. If the old link breaks before that or brings nothing for 30 s, and on any other link, those that are under way are
    /// lost: [`Event::Down`](crate::Event::Down) says how many at most.
    pub fn renew(&self) {
        self.shared.order(&self.shared.renew_links);
    }

    /// Replaces the certificate of this server, its key, the roots and the revocation lists. The names of the peers stay. New connections
    /// use them at once; links whose far ends would be refused now end with [`Reason::Tls`](crate::Reason::Tls), and the others go on
    /// with the keys that they have. The loop reports [`Event::TlsReloaded`](crate::Event::TlsReloaded).
    ///
    /// [`renew`](Self::renew) afterwards, so that the peers see the new certificate of this server.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadOption`] if the loop was started without TLS.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn set_tls(&self, tls: Tls) -> Result<(), ConfigError> {
        if self.shared.set_tls(tls) {
            return Ok(());
        }
        Err(ConfigError::BadOption {
            option: "tls",
            why: "this server was started without it".to_owned(),
        })
    }

    /// Watches these files, and calls `load` after each change of their contents, on a thread that ends with the loop. What it returns
    /// is used as by [`set_tls`](Self::set_tls). If it fails or panics, the loop reports
    /// [`Event::TlsReloadFailed`](crate::Event::TlsReloadFailed), and the old certificates stay in use. It is then called every 5 seconds
    /// until it succeeds. The same failure is reported again only after a change.
    ///
    /// The files are read at once, and then every 5 seconds. A change between the application's own load and this call is not seen. The
    /// files may be written one after the other: a certificate without its key is an error, and the key that follows is the next
    /// change.
    ///
    /// # Errors
    ///
    /// The error of the system if it provides no thread.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn watch_tls_files(
        &self,
        files: impl IntoIterator<Item = PathBuf>,
        load: impl Fn() -> Result<Tls, ConfigError> + Send + 'static,
    ) -> io::Result<()> {
        watch(Arc::clone(&self.shared), files.into_iter().collect(), load)
    }

    fn ask(&self, sid: Sid, request: LoopRequest) -> Result<(), SendError> {
        if self.shared.life() != Life::Running {
            return Err(SendError::Halted);
        }
        let peer = self.shared.peer(sid)?;
        // `life` has asked for the process id, so that it is not asked for again.
        self.shared.ask_here(&peer, request);
        Ok(())
    }

    /// Whether no frame waits for any peer: each accepted frame was written, replaced or discarded. This does not mean that a peer has
    /// received it.
    #[must_use]
    pub fn have_delivered(&self) -> bool {
        self.shared.have_delivered()
    }

    /// Whether `sid` is linked.
    #[must_use]
    pub fn connected_to_peer(&self, sid: Sid) -> bool {
        self.shared.find(sid).is_some_and(|peer| peer.is_linked())
    }

    /// The linked peers, sorted by sid. Their number is `getThreadCount() / 2` of the original.
    #[must_use]
    pub fn linked_peers(&self) -> Vec<Sid> {
        self.shared
            .peers()
            .iter()
            .filter(|peer| peer.is_linked())
            .map(|peer| peer.sid)
            .collect()
    }

    /// Blocks until at least `count` other members are linked, or until `timeout` has passed. Returns whether so many are linked.
    /// Observers and admitted servers do not count. Returns at once if the loop has ended, and on the thread that turns the loop.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn f(manager: &quorum_cnx::CnxManager) {
    /// // Three of five servers: this one and two peers.
    /// if !manager.wait_linked(2, std::time::Duration::from_secs(30)) {
    ///     eprintln!("only {:?} are linked", manager.linked_peers());
    /// }
    /// # }
    /// ```
    pub fn wait_linked(&self, count: usize, timeout: Duration) -> bool {
        // A timeout beyond the range of the clock means for ever.
        let deadline = Instant::now().checked_add(timeout);
        self.shared.wait_linked(count, deadline)
    }

    /// Does what [`wait_linked`](Self::wait_linked) does in a task, without blocking a thread. Returns `false` only if the loop has
    /// ended. The task waits even if its thread turns the loop. To wait for a limited time, drop the future.
    pub async fn wait_linked_async(&self, count: usize) -> bool {
        self.shared.wait_linked_async(count).await
    }

    /// The state of each listening socket. Empty once halted.
    #[must_use]
    pub fn listening(&self) -> Vec<Listening> {
        self.shared.listening()
    }

    /// All counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Closes all links and keeps running: peers are linked again as [`Dial`](crate::Dial) says.
    pub fn soft_halt(&self) {
        self.shared.order(&self.shared.drop_links);
    }

    /// Asks the loop to halt once the peers have read what was sent to them, or after `within`, without waiting for it. From now on no frame is
    /// accepted for a peer, and the members do not change. Frames are received until the loop halts.
    ///
    /// As with [`Leave::After`], what waits is written. A peer that is not linked is dialed for it. Then this server closes its direction of
    /// the link, and the link ends when the peer has closed the other one ([`Event::Left`](crate::Event::Left)), which it does after it
    /// has read everything. So go on receiving: while the inbox is full and drops nothing, links are not read, and their ends are not
    /// seen. What a peer was not sent in time is counted as discarded. New connections are refused.
    ///
    /// A later call can shorten the time, and [`request_halt`](Self::request_halt) ends it. More than a day (24 hours) is taken as a day.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use quorum_cnx::{CnxManager, Config, SendError, Sid};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0").server(Sid(2), "127.0.0.1:3182");
    /// let manager = CnxManager::start(config.build()?)?;
    /// manager.request_shutdown(Duration::from_secs(2));
    /// assert_eq!(manager.to_send(Sid(2), "too late"), Err(SendError::Halted));
    /// while let Ok(message) = manager.recv() {
    ///     println!("{message:?}");
    /// }
    /// assert!(manager.is_halted());
    /// # Ok(())
    /// # }
    /// ```
    pub fn request_shutdown(&self, within: Duration) {
        self.shared.request_shutdown(within);
    }

    /// Asks the loop to halt, without waiting for it. From now on no frame is accepted, and no received frame is delivered.
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
    /// Without the peers and their frames: payloads are not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("sid", &self.sid())
            .finish_non_exhaustive()
    }
}
