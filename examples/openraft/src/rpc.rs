//! Requests and replies over the links of a manager. Their content is the business of the caller.
//!
//! Nothing here is sent twice: after an error it is not known whether the peer has handled the request, unless nothing was sent.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
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

    /// The manager, for its events in the log, its counters, and to halt it.
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
        let (call, reply) = self.register(to)?;
        // After the registration: if the link ends from here on, `serve` finds this call and fails it.
        if !self.manager.connected_to_peer(to) {
            return Err(CallError::NotLinked);
        }
        let sent = self.manager.to_send(to, frame(call.id, body));
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
            tokio::select! {
                received = self.manager.recv_any_async() => match received {
                    Ok(Received::Message(message)) => self.on_message(message, &mut handle, &mut served),
                    Ok(Received::Event(Event::Down { sid, .. })) => self.on_down(sid),
                    Ok(_) => {}
                    Err(_) => break,
                },
                Some(_) = served.join_next() => {}
            }
        }
        self.pending().clear();
    }

    fn on_message<F>(
        &self,
        message: Message,
        handle: &mut impl FnMut(Sid, Bytes) -> F,
        served: &mut JoinSet<()>,
    ) where
        F: Future<Output = Vec<u8>> + Send + 'static,
    {
        let (from, mut body) = (message.from, message.payload);
        let Ok(id) = body.try_get_u64() else {
            tracing::warn!("a frame of node {from} has no id");
            return;
        };
        if id & REPLY != 0 {
            let mut pending = self.pending();
            let call = pending
                .get_mut(&from)
                .and_then(|calls| calls.remove(&(id ^ REPLY)));
            // Without a call it is late: the call has failed before.
            if let Some(call) = call {
                let _ = call.send(body);
            }
        } else if served.len() < SERVED_MAX {
            let work = handle(from, body);
            let manager = self.manager.handle();
            served.spawn(async move { send_reply(&manager, from, id, &work.await) });
        } else {
            send_reply(&self.manager.handle(), from, id, &[]);
        }
    }

    /// Fails all calls to this peer. What waits for it is of no use on the next link: the peer has failed its calls, too.
    fn on_down(&self, sid: Sid) {
        // Before the calls: each request that is discarded fails. An error means that there is no such peer.
        let _ = self.manager.handle().discard(sid);
        self.pending().remove(&sid);
    }

    fn register(&self, to: Sid) -> Result<(Call<'_>, oneshot::Receiver<Bytes>), CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) & !REPLY;
        let mut pending = self.pending();
        let calls = pending.entry(to).or_default();
        if calls.len() >= PENDING_MAX {
            return Err(CallError::TooMany);
        }
        let (sender, receiver) = oneshot::channel();
        calls.insert(id, sender);
        Ok((Call { rpc: self, to, id }, receiver))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending
            .lock()
            .expect("nothing panics while it is locked")
    }
}

/// A registered request. Dropping it forgets the request.
struct Call<'a> {
    rpc: &'a Rpc,
    to: Sid,
    id: u64,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.rpc.pending().get_mut(&self.to) {
            calls.remove(&self.id);
        }
    }
}

fn frame(id: u64, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), body].concat()
}

fn send_reply(manager: &Handle, to: Sid, id: u64, body: &[u8]) {
    if let Err(error) = manager.to_send(to, frame(id | REPLY, body)) {
        tracing::warn!("no reply to node {to}, whose request fails at its deadline: {error}");
    }
}

/// Why a request has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// There is no link to the peer. Nothing was sent.
    NotLinked,
    /// [`PENDING_MAX`] requests to this peer wait for a reply. Nothing was sent.
    TooMany,
    /// The manager has not taken the frame, for instance because the queue is full. Nothing was sent.
    NotSent(SendError),
    /// The link has ended.
    LinkEnded,
    /// The peer handles [`SERVED_MAX`] requests, and has not handled this one.
    Refused,
    /// There was no reply in time.
    TimedOut,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinked => f.write_str("there is no link to the node"),
            Self::TooMany => f.write_str("too many requests to the node wait for a reply"),
            Self::NotSent(error) => write!(f, "the request was not sent: {error}"),
            Self::LinkEnded => f.write_str("the link ended before the reply"),
            Self::Refused => f.write_str("the node handles too many requests"),
            Self::TimedOut => f.write_str("there was no reply in time"),
        }
    }
}

impl Error for CallError {}
