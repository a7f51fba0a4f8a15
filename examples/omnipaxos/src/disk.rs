//! What a node finds again after it was killed: its log and its ballots. Here in memory, and never compacted.

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use omnipaxos::{
    ballot_leader_election::Ballot,
    storage::{NoSnapshot, StopSign, Storage, StorageOp, StorageResult},
};

use crate::counter::Request;

/// The storage of one node. A clone is the same storage.
#[derive(Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    log: Vec<Request>,
    promise: Option<Ballot>,
    accepted_round: Option<Ballot>,
    decided: usize,
    stop_sign: Option<StopSign>,
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No call of this program leads here: it neither trims the log nor takes snapshots.
fn never_compacted<T>() -> StorageResult<T> {
    Err(Box::<dyn Error>::from("the log is never compacted"))
}

impl Storage<Request> for Disk {
    fn write_atomically(&mut self, operations: Vec<StorageOp<Request>>) -> StorageResult<()> {
        let mut state = self.lock();
        for operation in operations {
            match operation {
                StorageOp::AppendEntry(entry) => state.log.push(entry),
                StorageOp::AppendEntries(entries) => state.log.extend(entries),
                StorageOp::AppendOnPrefix(from, entries) => {
                    state.log.truncate(from);
                    state.log.extend(entries);
                }
                StorageOp::SetPromise(ballot) => state.promise = Some(ballot),
                StorageOp::SetDecidedIndex(index) => state.decided = index,
                StorageOp::SetAcceptedRound(ballot) => state.accepted_round = Some(ballot),
                StorageOp::SetStopsign(stop_sign) => state.stop_sign = stop_sign,
                StorageOp::SetCompactedIdx(_) | StorageOp::Trim(_) | StorageOp::SetSnapshot(_) => {
                    return never_compacted();
                }
            }
        }
        Ok(())
    }

    fn append_entry(&mut self, entry: Request) -> StorageResult<()> {
        self.lock().log.push(entry);
        Ok(())
    }

    fn append_entries(&mut self, entries: Vec<Request>) -> StorageResult<()> {
        self.lock().log.extend(entries);
        Ok(())
    }

    fn append_on_prefix(&mut self, from: usize, entries: Vec<Request>) -> StorageResult<()> {
        self.write_atomically(vec![StorageOp::AppendOnPrefix(from, entries)])
    }

    fn set_promise(&mut self, ballot: Ballot) -> StorageResult<()> {
        self.lock().promise = Some(ballot);
        Ok(())
    }

    fn set_decided_idx(&mut self, index: usize) -> StorageResult<()> {
        self.lock().decided = index;
        Ok(())
    }

    fn get_decided_idx(&self) -> StorageResult<usize> {
        Ok(self.lock().decided)
    }

    fn set_accepted_round(&mut self, ballot: Ballot) -> StorageResult<()> {
        self.lock().accepted_round = Some(ballot);
        Ok(())
    }

    fn get_accepted_round(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.lock().accepted_round)
    }

    fn get_entries(&self, from: usize, to: usize) -> StorageResult<Vec<Request>> {
        Ok(self.lock().log.get(from..to).unwrap_or_default().to_vec())
    }

    fn get_log_len(&self) -> StorageResult<usize> {
        Ok(self.lock().log.len())
    }

    fn get_suffix(&self, from: usize) -> StorageResult<Vec<Request>> {
        Ok(self.lock().log.get(from..).unwrap_or_default().to_vec())
    }

    fn get_promise(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.lock().promise)
    }

    fn set_stopsign(&mut self, stop_sign: Option<StopSign>) -> StorageResult<()> {
        self.lock().stop_sign = stop_sign;
        Ok(())
    }

    fn get_stopsign(&self) -> StorageResult<Option<StopSign>> {
        Ok(self.lock().stop_sign.clone())
    }

    fn trim(&mut self, _: usize) -> StorageResult<()> {
        never_compacted()
    }

    fn set_compacted_idx(&mut self, _: usize) -> StorageResult<()> {
        never_compacted()
    }

    fn get_compacted_idx(&self) -> StorageResult<usize> {
        Ok(0)
    }

    fn set_snapshot(&mut self, _: Option<NoSnapshot>) -> StorageResult<()> {
        never_compacted()
    }

    fn get_snapshot(&self) -> StorageResult<Option<NoSnapshot>> {
        Ok(None)
    }
}
