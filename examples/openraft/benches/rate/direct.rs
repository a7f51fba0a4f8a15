//! The measure: no network at all. Each request is a call of the other node's Raft, in the same process.

use std::{
    collections::BTreeMap,
    io::Cursor,
    sync::{Arc, Mutex},
};

use openraft::{
    OptionalSend,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::{SnapshotOf, VoteOf},
};
use openraft_memstore::TypeConfig;

use crate::Raft;

/// All nodes that have started.
#[derive(Clone, Default)]
pub(crate) struct Direct {
    pub(crate) nodes: Arc<Mutex<BTreeMap<u64, Raft>>>,
}

pub(crate) struct Peer {
    nodes: Direct,
    target: u64,
}

impl RaftNetworkFactory<TypeConfig> for Direct {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, (): &()) -> Peer {
        Peer {
            nodes: self.clone(),
            target,
        }
    }
}

impl Peer {
    fn node(&self) -> Result<Raft, Unreachable<TypeConfig>> {
        let nodes = self
            .nodes
            .nodes
            .lock()
            .expect("nothing panics while it is locked");
        let node = nodes.get(&self.target);
        node.cloned()
            .ok_or_else(|| Unreachable::from_string("not started yet"))
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let response = self.node()?.append_entries(rpc).await;
        Ok(response.map_err(|error| Unreachable::new(&error))?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let response = self.node()?.vote(rpc).await;
        Ok(response.map_err(|error| Unreachable::new(&error))?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Cursor<Vec<u8>>>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let response = self.node()?.install_full_snapshot(vote, snapshot).await;
        Ok(response.map_err(|error| Unreachable::new(&error))?)
    }
}
