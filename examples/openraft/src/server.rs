//! Hands the requests of other nodes to this node's Raft, and collects the chunks of a snapshot.
//!
//! Nothing here is stored on a disk.

use std::{
    error::Error,
    io::{self, Cursor},
    mem,
};

use bytes::{Buf, Bytes};
use openraft::{Raft, RaftTypeConfig, Snapshot, storage::RaftStateMachine};
use quorum_cnx::Sid;

use crate::{rpc::Links, wire};

/// The longest snapshot that a node accepts: it is in memory until it is installed. There is one at a time.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// Handles the requests of other nodes until the links have halted. The network of this node works only while this runs.
///
/// # Errors
///
/// Those of [`Links::serve`].
pub async fn serve<C, SM>(links: Links, raft: Raft<C, SM>) -> io::Result<()>
where
    C: RaftTypeConfig<NodeId = u64>,
    SM: RaftStateMachine<C, SnapshotData = Cursor<Vec<u8>>>,
{
    let mut incoming = Incoming::default();
    let handle = |from, mut body: Bytes| {
        let kind = body.try_get_u8().unwrap_or_default();
        // Here, before the next request is looked at: chunks stay in order.
        let data = match kind {
            wire::CHUNK => incoming.add(from, body.clone()),
            wire::INSTALL if incoming.from == Some(from) => Ok(mem::take(&mut incoming.data)),
            _ => Ok(Vec::new()),
        };
        let raft = raft.clone();
        async move {
            let reply = answer(&raft, kind, &body, data).await;
            reply.unwrap_or_else(|error| wire::reply(Err::<(), _>(error)))
        }
    };
    links.serve(handle).await
}

/// Returns the reply. An error is sent as one.
async fn answer<C, SM>(
    raft: &Raft<C, SM>,
    kind: u8,
    body: &[u8],
    data: Result<Vec<u8>, &'static str>,
) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>
where
    C: RaftTypeConfig<NodeId = u64>,
    SM: RaftStateMachine<C, SnapshotData = Cursor<Vec<u8>>>,
{
    let data = data?;
    Ok(match kind {
        wire::APPEND => wire::reply(raft.append_entries(wire::parse(body)?).await),
        wire::VOTE => wire::reply(raft.vote(wire::parse(body)?).await),
        wire::PRE_VOTE => wire::reply(raft.pre_vote(wire::parse(body)?).await),
        wire::TRANSFER_LEADER => wire::reply(raft.handle_transfer_leader(wire::parse(body)?).await),
        wire::CHUNK => wire::reply(Ok::<_, String>(())),
        wire::INSTALL => {
            let (vote, meta, bytes): (_, _, usize) = wire::parse(body)?;
            if data.len() != bytes {
                return Err("the snapshot is not complete".into());
            }
            let snapshot = Cursor::new(data);
            let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot });
            wire::reply(installed.await)
        }
        _ => return Err("there is no such request".into()),
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
    fn add(&mut self, from: Sid, mut chunk: Bytes) -> Result<Vec<u8>, &'static str> {
        let offset = chunk.try_get_u64().map_err(|_| "a chunk has no offset")?;
        if offset == 0 {
            (self.from, self.data) = (Some(from), Vec::new());
        }
        if self.from != Some(from) || offset != self.data.len() as u64 {
            return Err("a chunk of another snapshot is expected");
        }
        if self.data.len() + chunk.len() > SNAPSHOT_BYTES_MAX {
            *self = Self::default();
            return Err("the snapshot is too long");
        }
        self.data.extend_from_slice(&chunk);
        Ok(Vec::new())
    }
}
