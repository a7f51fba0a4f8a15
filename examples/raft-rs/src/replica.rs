//! One node of raft with its counter: what it is told, what it stores, and what it has to say.
//!
//! Nothing here sends, waits, or looks at a clock.

use raft::{
    Config, RawNode, Result, SnapshotStatus, StateRole, StorageError,
    eraftpb::{Entry, Message, Snapshot},
};
use serde::Serialize;
use slog::{Discard, Logger, o};

use crate::{
    counter::{Counter, Request},
    disk::Disk,
};

/// A leader sends heartbeats in each second tick; followers start an election after 10 to 19 ticks without one.
const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 10;

/// The bytes of entries in one message. A message is one frame, which has room for 512 KiB.
const APPEND_BYTES: u64 = 32 << 10;

/// Messages with entries on their way to one follower. Together with the heartbeats they fit into its queue of 2 MiB, so that
/// usually raft stops before the queue is full.
const APPENDS_MAX: usize = 32;

/// The bytes of entries that are proposed and not committed. A leader refuses more.
const UNCOMMITTED_BYTES: u64 = 1 << 20;

/// After so many entries a snapshot is taken. The log has at most twice as many.
const SNAPSHOT_ENTRIES: u64 = 1_000;

/// What a node tells its clients: increments that were applied, which every node says in the same order, and reads that were asked for at
/// this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request.
    pub request: Request,
    /// The counter after the increment, or at some time since the read was asked for.
    pub value: u64,
}

/// A node of raft and its counter.
pub struct Replica {
    node: RawNode<Disk>,
    disk: Disk,
    counter: Counter,
    applied: u64,
    /// Reads that are answered when the entry with this index is applied.
    reads: Vec<(u64, Request)>,
    answers: Vec<Answer>,
}

impl Replica {
    /// The node with what is on its disk.
    ///
    /// # Errors
    ///
    /// Those of [`RawNode::new`], or if the disk has a snapshot that is not one of this program.
    pub fn new(own: u64, disk: Disk) -> Result<Self> {
        let snapshot = disk.last_snapshot();
        let applied = snapshot.get_metadata().index;
        let config = Config {
            id: own,
            applied,
            heartbeat_tick: HEARTBEAT_TICKS,
            election_tick: ELECTION_TICKS,
            // A node that was away does not disturb the others when it returns, and a leader without a majority steps down.
            pre_vote: true,
            check_quorum: true,
            batch_append: true,
            max_size_per_msg: APPEND_BYTES,
            max_inflight_msgs: APPENDS_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            ..Config::default()
        };
        Ok(Self {
            node: RawNode::new(&config, disk.clone(), &Logger::root(Discard, o!()))?,
            disk,
            counter: restored(&snapshot)?,
            applied,
            reads: Vec::new(),
            answers: Vec::new(),
        })
    }

    /// Whether this node takes itself for the leader.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Proposes this increment, or asks for the counter. It is lost, for example, if there is no leader: the client repeats it until it is
    /// answered.
    pub fn request(&mut self, request: Request) {
        if request.is_increment {
            let _ = self.node.propose(Vec::new(), encoded(&request));
        } else {
            self.node.read_index(encoded(&request));
        }
    }

    /// The answers since the last call.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        self.node.tick();
    }

    /// A message of another node has arrived. An error means that it is not a message for this node in its present state.
    pub fn step(&mut self, message: Message) {
        let _ = self.node.step(message);
    }

    /// A message to this node was not sent, or those without an answer may be lost: raft does not wait for answers any more. With
    /// `lost_snapshot` it also sends a snapshot anew, if it was sending one.
    pub fn on_lost(&mut self, peer: u64, lost_snapshot: bool) {
        if lost_snapshot {
            self.node.report_snapshot(peer, SnapshotStatus::Failure);
        }
        self.node.report_unreachable(peer);
    }

    /// Stores what is new, applies what is committed, and returns the messages to be sent.
    ///
    /// # Errors
    ///
    /// If the disk fails, or if a leader has sent a snapshot that is not one of this program. The node is of no use then.
    pub fn advance(&mut self) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            // A leader could send these before it has stored its entries.
            messages.append(&mut ready.take_messages());
            if !ready.snapshot().is_empty() {
                // Before it is on the disk: what this program cannot read must not replace what it can.
                self.counter = restored(ready.snapshot())?;
                self.disk.install(ready.snapshot())?;
                self.applied = ready.snapshot().get_metadata().index;
            }
            self.disk.append(ready.entries())?;
            if let Some(state) = ready.hs() {
                self.disk.set_hard_state(state);
            }
            messages.append(&mut ready.take_persisted_messages());
            for state in ready.take_read_states() {
                let read = postcard::from_bytes(&state.request_ctx);
                self.reads.extend(read.map(|read| (state.index, read)));
            }
            self.apply(ready.take_committed_entries());
            let mut rest = self.node.advance(ready);
            if let Some(index) = rest.commit_index() {
                self.disk.set_commit(index);
            }
            messages.append(&mut rest.take_messages());
            self.apply(rest.take_committed_entries());
            self.node.advance_apply();
        }
        self.answer_reads();
        if self.applied - self.disk.snapshot_index() >= SNAPSHOT_ENTRIES {
            self.disk.compact(self.applied, encoded(&self.counter))?;
        }
        Ok(messages)
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.applied = entry.index;
            // A new leader commits an empty entry.
            let Ok(request) = postcard::from_bytes(&entry.data) else {
                continue;
            };
            if let Some(value) = self.counter.apply(request) {
                self.answers.push(Answer { request, value });
            }
        }
    }

    fn answer_reads(&mut self) {
        let (applied, value) = (self.applied, self.counter.value());
        self.reads.retain(|&(index, request)| {
            if index <= applied {
                self.answers.push(Answer { request, value });
            }
            index > applied
        });
    }
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("a vector takes everything")
}

/// The counter of this snapshot, or a new one if there is no snapshot.
fn restored(snapshot: &Snapshot) -> Result<Counter> {
    if snapshot.is_empty() {
        return Ok(Counter::default());
    }
    let counter = postcard::from_bytes(snapshot.get_data());
    counter.map_err(|error| StorageError::Other(error.into()).into())
}
