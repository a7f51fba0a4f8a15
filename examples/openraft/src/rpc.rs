//! Requests and replies over the links of an event loop. Their content is the business of the caller.
//!
//! Nothing here is sent twice: after an error it is not known whether the peer has handled the request, unless nothing was sent.

use std::{
    collections::HashMap,
    error::Error,
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use quorum_cnx::{
    ConfigBuilder, Event, EventLoop, FRAME_BYTES_MAX, Frame, Handle, Handler,
    InitialMessageVersion, Outbox, SendError, Sid,
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
/// Requests of one peer that are handled at the same time: those that wait for a reply there, and as many that do not any more. Each may hold
/// [`BODY_BYTES_MAX`] bytes: 64 MiB for each peer.
pub const SERVED_MAX: usize = 2 * PENDING_MAX;

/// Sends requests. They are written, and their replies read, by the [`Links`] that were made with it.
pub struct Rpc {
    handle: Handle,
    next_id: AtomicU64,
    calls: Calls,
}

/// The links of a node, until [`serve`](Self::serve) turns their loop.
pub struct Links(EventLoop<Incoming>);

impl Rpc {
    /// Listens and dials with this configuration, and with the settings that requests need: a queue instead of the slot, since a newer
    /// request does not replace an older one, and native handshakes, which refuse nodes of other clusters.
    ///
    /// # Errors
    ///
    /// Those of [`ConfigBuilder::build`] and [`EventLoop::new`].
    pub fn start(config: ConfigBuilder) -> Result<(Self, Links), Box<dyn Error + Send + Sync>> {
        let config = config
            .outbox(Outbox::QUEUE)
            .initial_message(InitialMessageVersion::Native)
            .native_only(true);
        let incoming = Incoming::default();
        let calls = incoming.calls.clone();
        let event_loop = EventLoop::new(config.build()?, incoming)?;
        let rpc = Self {
            handle: event_loop.handle().clone(),
            // Random, so that no late reply to the process that had this sid before answers a request of this one.
            next_id: AtomicU64::new(RandomState::new().hash_one(0)),
            calls,
        };
        Ok((rpc, Links(event_loop)))
    }

    /// The handle of the loop: its statistics, its links, and to halt it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sends a request, and returns the reply. The future can be dropped at any time.
    ///
    /// # Errors
    ///
    /// A [`CallError`]: at once if the request cannot be sent, and as soon as the link ends. All others come from the peer or from the
    /// deadline.
    pub async fn call(&self, to: Sid, body: &[u8], timeout: Duration) -> Result<Bytes, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) & !REPLY;
        let reply = self.calls.add(to, id)?;
        // After the registration: if the link ends from here on, the loop finds this call and fails it.
        if !self.handle.connected_to_peer(to) {
            return Err(CallError::NotLinked);
        }
        self.handle.to_send(to, frame(id, body))?;
        match time::timeout(timeout, reply).await {
            Ok(Ok(reply)) if reply.is_empty() => Err(CallError::Refused),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(CallError::LinkEnded),
            Err(_) => Err(CallError::TimedOut),
        }
    }
}

impl Links {
    /// Turns the loop on the thread of the runtime until it has halted ([`Handle::request_halt`]). `handle` answers requests with at least
    /// one byte. It is called for one request after the other, in the order of each peer. The futures that it returns run as tasks at the
    /// same time. Dropping this future aborts them, closes the links and fails all calls.
    ///
    /// # Errors
    ///
    /// Those of [`EventLoop::turn`], or if the runtime cannot watch the descriptor of the loop.
    pub async fn serve<F>(self, mut handle: impl FnMut(Sid, Bytes) -> F) -> io::Result<()>
    where
        F: Future<Output = Vec<u8>> + Send + 'static,
    {
        let links = self.0.handle().clone();
        let mut served: HashMap<Sid, JoinSet<()>> = HashMap::new();
        let after_turn = |incoming: &mut Incoming| {
            served.retain(|_, tasks| {
                while tasks.try_join_next().is_some() {}
                !tasks.is_empty()
            });
            for (from, id, body) in incoming.requests.drain(..) {
                let tasks = served.entry(from).or_default();
                if tasks.len() < SERVED_MAX {
                    let (links, work) = (links.clone(), handle(from, body));
                    tasks.spawn(async move { reply(&links, from, id, &work.await) });
                } else {
                    reply(&links, from, id, &[]);
                }
            }
        };
        on_tokio::turn(self.0, after_turn).await?;
        Ok(())
    }
}

/// What the loop calls.
#[derive(Default)]
struct Incoming {
    calls: Calls,
    /// Those of this turn, with their ids. A turn reads 256 KiB or one frame of each peer.
    requests: Vec<(Sid, u64, Bytes)>,
}

impl Handler for Incoming {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let mut body = frame.into_bytes();
        match body.try_get_u64() {
            Ok(id) if id & REPLY == 0 => self.requests.push((from, id, body)),
            Ok(id) => self.calls.end(from, id ^ REPLY, body),
            Err(_) => {
                // It has no id: no node of this cluster sends it. An error means that the loop halts.
                let _ = handle.disconnect(from);
            }
        }
    }

    /// What waits for a peer is of no use on the next link: the peer has failed its calls, too.
    fn on_event(&mut self, event: &Event, handle: &Handle) {
        if let Event::Down { sid, .. } = event {
            // Before the calls: each request that is discarded fails. An error means that there is no such peer.
            let _ = handle.discard(*sid);
            self.calls.lock().retain(|(to, _), _| to != sid);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.calls.lock().clear();
    }
}

/// The calls that wait for a reply, by peer and id: a peer can only answer what it was asked.
type Pending = HashMap<(Sid, u64), oneshot::Sender<Bytes>>;

/// A clone has the same calls.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Pending>>);

impl Calls {
    fn add(&self, to: Sid, id: u64) -> Result<oneshot::Receiver<Bytes>, CallError> {
        let mut calls = self.lock();
        // Callers that have failed or were dropped wait no more.
        calls.retain(|_, call| !call.is_closed());
        if calls.keys().filter(|(sid, _)| *sid == to).count() >= PENDING_MAX {
            return Err(CallError::TooMany);
        }
        let (sender, receiver) = oneshot::channel();
        calls.insert((to, id), sender);
        Ok(receiver)
    }

    fn end(&self, from: Sid, id: u64, reply: Bytes) {
        let call = self.lock().remove(&(from, id));
        // Without a call it is late: the call has failed before.
        if let Some(call) = call {
            let _ = call.send(reply);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().expect("nothing panics while it is locked")
    }
}

fn frame(id: u64, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), body].concat()
}

fn reply(handle: &Handle, to: Sid, id: u64, body: &[u8]) {
    if let Err(error) = handle.to_send(to, frame(id | REPLY, body)) {
        // Not a warning: how many of these there are is up to the peer, which sees its request fail.
        tracing::debug!("no reply to node {to}, whose request fails at its deadline: {error}");
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
    /// The outbox has not taken the frame, for instance because the queue is full. Nothing was sent.
    #[error("the request was not sent: {0}")]
    NotSent(#[from] SendError),
    /// The link has ended.
    #[error("the link ended before the reply")]
    LinkEnded,
    /// The peer handles [`SERVED_MAX`] requests of this node, and has not handled this one.
    #[error("the node handles too many requests of this one")]
    Refused,
    /// There was no reply in time.
    #[error("there was no reply in time")]
    TimedOut,
}
