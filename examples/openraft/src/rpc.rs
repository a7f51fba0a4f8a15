//! Requests and replies over the links of a manager. Their content is the business of the caller.
//!
//! Nothing here is sent twice: after an error it is not known whether the peer has handled the request, unless nothing was sent.

use std::{
    collections::HashMap,
    error::Error,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use quorum_cnx::{
    CnxManager, ConfigBuilder, Event, FRAME_BYTES_MAX, Handle, InitialMessageVersion, Message,
    Outbox, Received, SendError, Sid,
};
use tokio::{sync::oneshot, task::JoinSet, time};

/// The id in front of each request and reply.
const ID_BYTES: usize = 8;
/// The bit of an id that tells a reply from a request.
const REPLY: u64 = 1 << 63;

/// The longest request or reply: it has one frame.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - ID_BYTES;
/// Requests to one peer that wait for a reply. openraft has about four at a time: entries, a heartbeat, a vote, a snapshot.
pub const PENDING_MAX: usize = 64;
/// Requests of all peers that are handled at the same time. Each may hold [`BODY_BYTES_MAX`] bytes: 128 MiB in all.
pub const SERVED_MAX: usize = 256;

/// The requests that wait for a reply, by peer: a peer can only answer what it was asked.
type Pending = HashMap<Sid, HashMap<u64, oneshot::Sender<Bytes>>>;

/// Sends requests, and handles those of the peers while [`serve`](Self::serve) runs.
pub struct Rpc {
    manager: CnxManager,
    next_id: AtomicU64,
    pending: Mutex<Pending>,
}

impl Rpc {
    /// Starts a manager with this configuration, and with the settings that requests need: a queue instead of the slot, since a newer
    /// request does not replace an older one, and native handshakes, which refuse nodes of other clusters.
    ///
    /// # Errors
    ///
    /// Those of [`ConfigBuilder::build`] and [`CnxManager::start`].
    pub fn start(config: ConfigBuilder) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let config = config
            .outbox(Outbox::QUEUE)
            .initial_message(InitialMessageVersion::Native)
            .native_only(true);
        Ok(Self {
            manager: CnxManager::start(config.build()?)?,
            // Random, so that no late reply to the process that had this sid before answers a request of this one.
            next_id: AtomicU64::new(RandomState::new().hash_one(0)),
            pending: Mutex::default(),
        })
    }

    /// The manager: its statistics, its links, and to halt it. `serve` takes its messages and events.
    pub fn manager(&self) -> &CnxManager {
        &self.manager
    }

    /// Sends a request, and returns the reply. The future can be dropped at any time.
    ///
    /// # Errors
    ///
    /// A [`CallError`]: at once if the request cannot be sent, and as soon as the link ends. All others come from the peer or from the
    /// deadline.
    pub async fn call(&self, to: Sid, body: &[u8], timeout: Duration) -> Result<Bytes, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) & !REPLY;
        let reply = self.register(to, id)?;
        // After the registration: if the link ends from here on, `serve` finds this call and fails it.
        if !self.manager.connected_to_peer(to) {
            return Err(CallError::NotLinked);
        }
        let sent = self.manager.to_send(to, frame(id, body));
        sent.map_err(CallError::NotSent)?;
        match time::timeout(timeout, reply).await {
            Ok(Ok(reply)) if reply.is_empty() => Err(CallError::Refused),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(CallError::LinkEnded),
            Err(_) => Err(CallError::TimedOut),
        }
    }

    /// Receives until the manager has halted: replies for the calls of this node, and requests, which `handle` answers with at least one
    /// byte. It is called for one request after the other, in the order of each peer. The futures that it returns run as tasks at the
    /// same time. Dropping this future aborts them.
    pub async fn serve<F>(&self, mut handle: impl FnMut(Sid, Bytes) -> F)
    where
        F: Future<Output = Vec<u8>> + Send + 'static,
    {
        let mut served = JoinSet::new();
        loop {
            let received = tokio::select! {
                received = self.manager.recv_any_async() => received,
                Some(_) = served.join_next() => continue,
            };
            match received {
                Ok(Received::Message(message)) => {
                    let from = message.from;
                    let Some((id, body)) = self.on_message(message) else {
                        continue;
                    };
                    let manager = self.manager.handle();
                    if served.len() < SERVED_MAX {
                        let work = handle(from, body);
                        served.spawn(async move { reply(&manager, from, id, &work.await) });
                    } else {
                        reply(&manager, from, id, &[]);
                    }
                }
                Ok(Received::Event(Event::Down { sid, .. })) => self.on_down(sid),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.pending().clear();
    }

    /// Ends the call that a reply is for. Returns the id and the body of a request.
    fn on_message(&self, message: Message) -> Option<(u64, Bytes)> {
        let (from, mut body) = (message.from, message.payload);
        let Ok(id) = body.try_get_u64() else {
            tracing::warn!("a frame of node {from} has no id");
            return None;
        };
        if id & REPLY == 0 {
            return Some((id, body));
        }
        let mut pending = self.pending();
        let calls = pending.get_mut(&from);
        // Without a call it is late: the call has failed before.
        if let Some(call) = calls.and_then(|calls| calls.remove(&(id ^ REPLY))) {
            let _ = call.send(body);
        }
        None
    }

    /// Fails all calls to this peer. What waits for it is of no use on the next link: the peer has failed its calls, too.
    fn on_down(&self, sid: Sid) {
        // Before the calls: each request that is discarded fails. An error means that there is no such peer.
        let _ = self.manager.handle().discard(sid);
        self.pending().remove(&sid);
    }

    fn register(&self, to: Sid, id: u64) -> Result<oneshot::Receiver<Bytes>, CallError> {
        let mut pending = self.pending();
        let calls = pending.entry(to).or_default();
        // Callers that have failed or were dropped wait no more.
        calls.retain(|_, call| !call.is_closed());
        if calls.len() >= PENDING_MAX {
            return Err(CallError::TooMany);
        }
        let (sender, receiver) = oneshot::channel();
        calls.insert(id, sender);
        Ok(receiver)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending
            .lock()
            .expect("nothing panics while it is locked")
    }
}

fn frame(id: u64, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), body].concat()
}

fn reply(manager: &Handle, to: Sid, id: u64, body: &[u8]) {
    if let Err(error) = manager.to_send(to, frame(id | REPLY, body)) {
        tracing::warn!("no reply to node {to}, whose request fails at its deadline: {error}");
    }
}

/// Why a request has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no link to the peer. Nothing was sent.
    #[error("there is no link to the node")]
    NotLinked,
    /// [`PENDING_MAX`] requests to this peer wait for a reply. Nothing was sent.
    #[error("too many requests to the node wait for a reply")]
    TooMany,
    /// The manager has not taken the frame, for instance because the queue is full. Nothing was sent.
    #[error("the request was not sent: {0}")]
    NotSent(SendError),
    /// The link has ended.
    #[error("the link ended before the reply")]
    LinkEnded,
    /// The peer handles [`SERVED_MAX`] requests, and has not handled this one.
    #[error("the node handles too many requests")]
    Refused,
    /// There was no reply in time.
    #[error("there was no reply in time")]
    TimedOut,
}
