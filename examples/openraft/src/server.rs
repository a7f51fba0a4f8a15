//! Hands the requests of other nodes to this node's Raft, and collects the chunks of a snapshot.
//!
//! Nothing here is stored on a disk.

use std::{fmt::Display, io::Cursor, pin::Pin};

use bytes::{Buf, Bytes};
use openraft::{
    Raft, RaftTypeConfig, Snapshot,
    storage::RaftStateMachine,
    type_config::alias::{SnapshotMetaOf, VoteOf},
};
use quorum_cnx::Sid;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    rpc::Rpc,
    wire::{self, kind},
};

/// The longest snapshot that a node accepts: it is in memory until it is installed. There is one at a time.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

type Reply = Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;

/// Handles the requests of other nodes until the manager has halted. The network of this node works only while this runs.
pub async fn serve<C, SM>(rpc: &Rpc, raft: Raft<C, SM>)
where
    C: RaftTypeConfig<NodeId = u64>,
    SM: RaftStateMachine<C, SnapshotData = Cursor<Vec<u8>>>,
{
    let mut incoming = Incoming::default();
    rpc.serve(|from, body| handle(&raft, &mut incoming, from, body))
        .await;
}

/// Chunks are stored here, before the next request is looked at. All else is left to the future.
fn handle<C, SM>(raft: &Raft<C, SM>, incoming: &mut Incoming, from: Sid, mut body: Bytes) -> Reply
where
    C: RaftTypeConfig<NodeId = u64>,
    SM: RaftStateMachine<C, SnapshotData = Cursor<Vec<u8>>>,
{
    let raft = raft.clone();
    match body.try_get_u8() {
        Ok(kind::APPEND) => answer(body, async move |rpc| raft.append_entries(rpc).await),
        Ok(kind::VOTE) => answer(body, async move |rpc| raft.vote(rpc).await),
        Ok(kind::PRE_VOTE) => answer(body, async move |rpc| raft.pre_vote(rpc).await),
        Ok(kind::TRANSFER_LEADER) => answer(body, async move |rpc| {
            raft.handle_transfer_leader(rpc).await
        }),
        Ok(kind::CHUNK) => {
            let reply = wire::reply(incoming.add(from, body));
            Box::pin(async { reply })
        }
        Ok(kind::INSTALL) => {
            let data = incoming.take(from);
            answer(body, async move |request| {
                let (vote, meta, bytes): (VoteOf<C>, SnapshotMetaOf<C>, usize) = request;
                if data.len() != bytes {
                    return Err("the snapshot is not complete".to_owned());
                }
                let snapshot = Snapshot {
                    meta,
                    snapshot: Cursor::new(data),
                };
                let installed = raft.install_full_snapshot(vote, snapshot).await;
                installed.map_err(|error| error.to_string())
            })
        }
        _ => Box::pin(async { wire::reply(Err::<(), _>("there is no such request")) }),
    }
}

fn answer<Q, R, E, F>(body: Bytes, handle: impl FnOnce(Q) -> F + Send + 'static) -> Reply
where
    Q: DeserializeOwned + Send,
    R: Serialize,
    E: Display,
    F: Future<Output = Result<R, E>> + Send,
{
    Box::pin(async move {
        match wire::parse(&body) {
            Ok(request) => wire::reply(handle(request).await),
            Err(error) => wire::reply(Err::<(), _>(error)),
        }
    })
}

/// The chunks of one snapshot: another one replaces it, since a cluster has one leader at a time.
#[derive(Default)]
struct Incoming {
    from: Option<Sid>,
    data: Vec<u8>,
}

impl Incoming {
    /// Adds a chunk. It must begin where the last one of the same sender has ended, or at 0, which begins another snapshot.
    fn add(&mut self, from: Sid, mut chunk: Bytes) -> Result<(), &'static str> {
        let offset = wire::offset(&mut chunk).ok_or("a chunk has no offset")?;
        if offset == 0 {
            *self = Self {
                from: Some(from),
                data: Vec::new(),
            };
        }
        if self.from != Some(from) || offset != self.data.len() as u64 {
            return Err("a chunk of another snapshot is expected");
        }
        if self.data.len() + chunk.len() > SNAPSHOT_BYTES_MAX {
            *self = Self::default();
            return Err("the snapshot is too long");
        }
        self.data.extend_from_slice(&chunk);
        Ok(())
    }

    /// The snapshot that this node has sent, or an empty one.
    fn take(&mut self, from: Sid) -> Vec<u8> {
        match self.from == Some(from) {
            true => std::mem::take(self).data,
            false => Vec::new(),
        }
    }
}
