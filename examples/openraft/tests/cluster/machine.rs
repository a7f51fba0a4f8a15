//! A state machine that remembers all commands in their order, on a disk of the test.

use std::{
    io::{self, Cursor},
    sync::{Arc, Mutex, MutexGuard},
};

use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership,
    storage::{EntryResponder, RaftStateMachine},
    type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf},
};
use openraft_memstore::{ClientResponse, TypeConfig};

type Snapshot = SnapshotOf<TypeConfig, Cursor<Vec<u8>>>;

#[derive(Default)]
struct State {
    applied: Option<LogIdOf<TypeConfig>>,
    membership: StoredMembershipOf<TypeConfig>,
    /// Client, serial number and value of each command.
    commands: Vec<(String, u64, String)>,
    snapshot: Option<(SnapshotMetaOf<TypeConfig>, Vec<u8>)>,
    /// The lengths of the snapshots of other nodes.
    installed: Vec<usize>,
}

/// Clones share the state: it survives a restart.
#[derive(Clone, Default)]
pub(crate) struct Machine(Arc<Mutex<State>>);

impl Machine {
    pub(crate) fn commands(&self) -> Vec<(String, u64, String)> {
        self.state().commands.clone()
    }

    pub(crate) fn installed(&self) -> Vec<usize> {
        self.state().installed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn snapshot(meta: &SnapshotMetaOf<TypeConfig>, data: &[u8]) -> Snapshot {
    Snapshot {
        meta: meta.clone(),
        snapshot: Cursor::new(data.to_vec()),
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let mut state = self.state();
        let data = serde_json::to_vec(&state.commands)?;
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: state.applied,
            last_membership: state.membership.clone(),
        };
        let built = snapshot(&meta, &data);
        state.snapshot = Some((meta, data));
        Ok(built)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut state = self.state();
            state.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => {
                    let command = (command.client, command.serial, command.status);
                    state.commands.push(command);
                }
                EntryPayload::Membership(membership) => {
                    let membership = StoredMembership::new(Some(entry.log_id), membership);
                    state.membership = membership;
                }
            }
            if let Some(responder) = responder {
                responder.send(ClientResponse(None));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: Cursor<Vec<u8>>,
    ) -> Result<(), io::Error> {
        let data = snapshot.into_inner();
        let mut state = self.state();
        state.commands = serde_json::from_slice(&data)?;
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.installed.push(data.len());
        state.snapshot = Some((meta.clone(), data));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let state = self.state();
        let current = state.snapshot.as_ref();
        Ok(current.map(|(meta, data)| snapshot(meta, data)))
    }
}
