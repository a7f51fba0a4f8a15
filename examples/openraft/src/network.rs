//! What openraft calls to reach another node: each method is one request, and a snapshot is one for each chunk.
//!
//! Nothing here is tried again: openraft does.

use std::{io::Cursor, sync::Arc};

use openraft::{
    OptionalSend, RaftTypeConfig,
    entry::RaftEntry,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::{SnapshotOf, VoteOf},
};
use quorum_cnx::{SendError, Sid};
use serde::de::DeserializeOwned;

use crate::{
    rpc::{BODY_BYTES_MAX, CallError, Rpc},
    wire,
};

/// The longest chunk of a snapshot. Other requests wait behind one chunk at most.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// The factory that openraft asks for the network to each node. All of them share these links. The address of a node is in the
/// configuration of the links.
pub struct Network(pub Arc<Rpc>);

impl<C: RaftTypeConfig<NodeId = u64>> RaftNetworkFactory<C> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &C::Node) -> Peer {
        let rpc = Arc::clone(&self.0);
        Peer { rpc, target }
    }
}

/// The network to one node.
pub struct Peer {
    rpc: Arc<Rpc>,
    target: u64,
}

impl Peer {
    /// Sends a request, and returns what the node replies.
    async fn call<C, T>(&self, body: &[u8], option: &RPCOption) -> Result<T, RPCError<C>>
    where
        C: RaftTypeConfig<NodeId = u64>,
        T: DeserializeOwned,
    {
        let to = Sid::try_from(self.target).map_err(|error| Unreachable::new(&error))?;
        let called = self.rpc.call(to, body, option.soft_ttl()).await;
        let reply = called.map_err(|error| match error {
            // What does not go away at once: openraft waits before it tries again.
            CallError::NotLinked | CallError::NotSent(SendError::TooLarge(_)) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
            _ => RPCError::Network(NetworkError::new(&error)),
        })?;
        let reply: Result<T, String> =
            wire::parse(&reply).map_err(|error| NetworkError::new(&error))?;
        reply.map_err(|error| RPCError::Unreachable(Unreachable::from_string(error)))
    }
}

impl<C: RaftTypeConfig<NodeId = u64>> RaftNetworkV2<C> for Peer {
    type SnapshotData = Cursor<Vec<u8>>;

    /// Sends the first entries only, if all of them are too long for one request. openraft sends the rest then.
    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let all = rpc.entries.len();
        let mut body = wire::request(wire::APPEND, &rpc)?;
        while body.len() > BODY_BYTES_MAX && rpc.entries.len() > 1 {
            rpc.entries.truncate(rpc.entries.len() / 2);
            body = wire::request(wire::APPEND, &rpc)?;
        }
        let response: AppendEntriesResponse<C> = self.call(&body, &option).await?;
        if response.is_success() && rpc.entries.len() < all {
            let sent = rpc.entries.last().map(RaftEntry::log_id);
            return Ok(AppendEntriesResponse::PartialSuccess(sent));
        }
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let body = wire::request(wire::VOTE, &rpc)?;
        self.call(&body, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let body = wire::request(wire::PRE_VOTE, &rpc)?;
        self.call(&body, &option).await
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let body = wire::request(wire::TRANSFER_LEADER, &rpc)?;
        self.call(&body, &option).await
    }

    /// Sends one chunk after the other, each when the one before is acknowledged, and then the request to install them.
    async fn full_snapshot(
        &mut self,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, Self::SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let chunk_bytes = option.snapshot_chunk_size().unwrap_or(CHUNK_BYTES_MAX);
        let chunk_bytes = chunk_bytes.clamp(1, CHUNK_BYTES_MAX);
        let data = snapshot.snapshot.into_inner();
        let send = async {
            for (n, chunk) in data.chunks(chunk_bytes).enumerate() {
                let chunk = wire::chunk(n * chunk_bytes, chunk);
                self.call::<C, ()>(&chunk, &option).await?;
            }
            let install = (vote, snapshot.meta, data.len());
            let install = wire::request(wire::INSTALL, &install)?;
            self.call(&install, &option).await
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            installed = send => Ok(installed?),
        }
    }
}
