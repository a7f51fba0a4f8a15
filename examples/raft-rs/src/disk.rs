//! What a node finds again after it was killed: its log, its hard state and its last snapshot. Here in memory.
//!
//! `MemStorage` of raft-rs keeps no data of snapshots, so they are here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::{
    GetEntriesContext, RaftState, Result, Storage, StorageError,
    eraftpb::{Entry, HardState, Snapshot},
    storage::MemStorage,
};

/// The storage of one node. A clone is the same storage.
#[derive(Clone)]
pub struct Disk {
    log: MemStorage,
    snapshot: Arc<Mutex<Snapshot>>,
}

impl Disk {
    /// Empty storage of a node whose group has these members from its beginning.
    #[must_use]
    pub fn new(members: Vec<u64>) -> Self {
        Self {
            log: MemStorage::new_with_conf_state((members, vec![])),
            snapshot: Arc::default(),
        }
    }

    /// The last entry that is in the snapshot. 0 if there is no snapshot.
    #[must_use]
    pub fn snapshot_index(&self) -> u64 {
        self.saved().get_metadata().index
    }

    pub(crate) fn append(&self, entries: &[Entry]) -> Result<()> {
        self.log.wl().append(entries)
    }

    pub(crate) fn set_hard_state(&self, state: &HardState) {
        self.log.wl().set_hardstate(state.clone());
    }

    pub(crate) fn set_commit(&self, index: u64) {
        self.log.wl().mut_hard_state().set_commit(index);
    }

    pub(crate) fn last_snapshot(&self) -> Snapshot {
        self.saved().clone()
    }

    /// Replaces the log by a snapshot that the leader has sent.
    pub(crate) fn install(&self, snapshot: &Snapshot) -> Result<()> {
        self.log.wl().apply_snapshot(snapshot.clone())?;
        self.saved().clone_from(snapshot);
        Ok(())
    }

    /// Takes a snapshot with this data. The entries since the one before it stay, for followers that are a little behind.
    pub(crate) fn compact(&self, applied: u64, data: Vec<u8>) -> Result<()> {
        let mut snapshot = Snapshot::default();
        snapshot.set_data(data.into());
        let metadata = snapshot.mut_metadata();
        metadata.index = applied;
        metadata.term = self.log.term(applied)?;
        metadata.set_conf_state(self.log.initial_state()?.conf_state);
        let before = std::mem::replace(&mut *self.saved(), snapshot);
        self.log.wl().compact(before.get_metadata().index)
    }

    fn saved(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Disk {
    fn initial_state(&self) -> Result<RaftState> {
        self.log.initial_state()
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        self.log.entries(low, high, max_size, context)
    }

    fn term(&self, index: u64) -> Result<u64> {
        self.log.term(index)
    }

    fn first_index(&self) -> Result<u64> {
        self.log.first_index()
    }

    fn last_index(&self) -> Result<u64> {
        self.log.last_index()
    }

    fn snapshot(&self, request_index: u64, _: u64) -> Result<Snapshot> {
        if self.snapshot_index() < request_index.max(1) {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.last_snapshot())
    }
}
