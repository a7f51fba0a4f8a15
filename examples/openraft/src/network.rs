//! What openraft calls to reach another node: each method is one request, and a snapshot is one for each chunk.
//!
//! Nothing here is tried again: openraft does.

use std::{io::Cursor, sync::Arc, time::Duration};

use openraft::{
    OptionalSend, RaftTypeConfig,
    entry::RaftEntry,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::{SnapshotOf, VoteOf},
};
use quorum_cnx::{SendError, Sid};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    rpc::{BODY_BYTES_MAX, CallError, Rpc},
    wire::{self, kind},
};

/// The longest chunk of a snapshot. Other requests wait behind one chunk at most.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// The factory that openraft asks for the network to each node. The address of a node is in the configuration of the manager.
#[derive(Clone)]
pub struct Network {
    rpc: Arc<Rpc>,
}

impl Network {
    /// A factory whose networks share the links of `rpc`.
    pub fn new(rpc: Arc<Rpc>) -> Self {
        Self { rpc }
    }
}

impl<C: RaftTypeConfig<NodeId = u64>> RaftNetworkFactory<C> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &C::Node) -> Peer {
        let rpc = Arc::clone(&self.rpc);
        Peer { rpc, target }
    }
}

/// The network to one node.
pub struct Peer {
    rpc: Arc<Rpc>,
    target: u64,
}

impl Peer {
    async fn call<C, T>(
        &self,
        action: RPCTypes,
        body: &[u8],
        timeout: Duration,
    ) -> Result<T, RPCError<C>>
    where
        C: RaftTypeConfig<NodeId = u64>,
        T: DeserializeOwned,
    {
        // An id that is no sid is unknown to the manager, and so has no link.
        let sid = Sid(self.target as i64);
        let reply = match self.rpc.call(sid, body, timeout).await {
            Ok(reply) => reply,
            Err(CallError::TimedOut) => {
                return Err(RPCError::Timeout(Timeout {
                    action,
                    id: self.rpc.manager().sid().0 as u64,
                    target: self.target,
                    timeout,
                }));
            }
            // What does not go away at once: openraft waits before it tries again.
            Err(error @ (CallError::NotLinked | CallError::NotSent(SendError::TooLarge(_)))) => {
                return Err(RPCError::Unreachable(Unreachable::new(&error)));
            }
            Err(error) => return Err(RPCError::Network(NetworkError::new(&error))),
        };
        let reply: Result<T, String> =
            wire::parse(&reply).map_err(|error| NetworkError::new(&error))?;
        reply.map_err(|error| RPCError::Unreachable(Unreachable::from_string(error)))
    }

    async fn request<C, T>(
        &self,
        action: RPCTypes,
        kind: u8,
        request: &impl Serialize,
        option: &RPCOption,
    ) -> Result<T, RPCError<C>>
    where
        C: RaftTypeConfig<NodeId = u64>,
        T: DeserializeOwned,
    {
        let body = wire::request(kind, request).map_err(|error| Unreachable::new(&error))?;
        self.call(action, &body, option.soft_ttl()).await
    }
}

impl<C: RaftTypeConfig<NodeId = u64>> RaftNetworkV2<C> for Peer {
    type SnapshotData = Cursor<Vec<u8>>;

    /// Sends the first entries only, if all of them are too long for one request.
    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let all = rpc.entries.len();
        let body = loop {
            let body =
                wire::request(kind::APPEND, &rpc).map_err(|error| Unreachable::new(&error))?;
            if body.len() <= BODY_BYTES_MAX || rpc.entries.len() < 2 {
                break body;
            }
            rpc.entries.truncate(rpc.entries.len() / 2);
        };
        let response = self
            .call(RPCTypes::AppendEntries, &body, option.soft_ttl())
            .await?;
        Ok(match (response, rpc.entries.last()) {
            (AppendEntriesResponse::Success, Some(last)) if rpc.entries.len() < all => {
                AppendEntriesResponse::PartialSuccess(Some(last.log_id()))
            }
            (response, _) => response,
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.request(RPCTypes::Vote, kind::VOTE, &rpc, &option)
            .await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.request(RPCTypes::Vote, kind::PRE_VOTE, &rpc, &option)
            .await
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let action = RPCTypes::TransferLeader;
        self.request(action, kind::TRANSFER_LEADER, &rpc, &option)
            .await
    }

    /// Sends one chunk after the other, each when the one before is acknowledged, and then the request to install them.
    async fn full_snapshot(
        &mut self,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, Self::SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let action = RPCTypes::InstallSnapshot;
        let chunk_bytes = option.snapshot_chunk_size().unwrap_or(CHUNK_BYTES_MAX);
        let chunk_bytes = chunk_bytes.clamp(1, CHUNK_BYTES_MAX);
        let data = snapshot.snapshot.into_inner();
        let send = async {
            // An empty snapshot has one chunk, too: it replaces what the node may hold of another one.
            for offset in (0..data.len().max(1)).step_by(chunk_bytes) {
                let end = data.len().min(offset + chunk_bytes);
                let chunk = wire::chunk(offset, &data[offset..end]);
                self.call::<C, ()>(action, &chunk, option.soft_ttl())
                    .await?;
            }
            let install = (vote, snapshot.meta, data.len());
            self.request(action, kind::INSTALL, &install, &option).await
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            installed = send => Ok(installed?),
        }
    }
}
