//! One node of OmniPaxos with its counter: what it is told, what it applies, and what it has to say.
//!
//! Nothing here sends, waits, or looks at a clock.

use omnipaxos::{
    ClusterConfig, OmniPaxos, ServerConfig, errors::ConfigError, messages::Message, util::LogEntry,
};

use crate::{
    counter::{Counter, Request},
    disk::Disk,
};

/// A node that was not heard of for so many ticks is not alive.
const ELECTION_TICKS: u64 = 5;

/// After so many ticks, some messages are sent again if they have no answer.
const RESEND_TICKS: u64 = 20;

/// What a node tells its clients. Every node says so, in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request that was applied.
    pub request: Request,
    /// The counter after it.
    pub value: u64,
}

/// A node of OmniPaxos and its counter.
pub struct Replica {
    paxos: OmniPaxos<Request, Disk>,
    counter: Counter,
    applied: usize,
    answers: Vec<Answer>,
}

impl Replica {
    /// The node `own` of these members, with what is on its disk.
    ///
    /// # Errors
    ///
    /// Those of [`ClusterConfig::build_for_server`].
    pub fn new(own: u64, members: Vec<u64>, disk: Disk) -> Result<Self, ConfigError> {
        let cluster = ClusterConfig {
            configuration_id: 1,
            nodes: members,
            flexible_quorum: None,
        };
        let server = ServerConfig {
            pid: own,
            election_tick_timeout: ELECTION_TICKS,
            resend_message_tick_timeout: RESEND_TICKS,
            ..ServerConfig::default()
        };
        Ok(Self {
            paxos: cluster.build_for_server(server, disk)?,
            counter: Counter::default(),
            applied: 0,
            answers: Vec::new(),
        })
    }

    /// Whether this node takes itself for the leader.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.paxos.get_current_leader() == Some((self.paxos.get_pid(), true))
    }

    /// Proposes this request. It may be lost: the client repeats it until it is answered.
    pub fn request(&mut self, request: Request) {
        // Refused only after a reconfiguration.
        let _ = self.paxos.append(request);
    }

    /// The answers since the last call.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        self.paxos.tick();
    }

    /// A message of another node has arrived.
    pub fn step(&mut self, message: Message<Request>) {
        self.paxos.handle_incoming(message);
    }

    /// Messages to and from this node may have been lost, and new ones will arrive.
    pub fn on_reconnected(&mut self, peer: u64) {
        self.paxos.reconnected(peer);
    }

    /// Applies what is decided, and returns the messages to be sent.
    pub fn advance(&mut self) -> Vec<Message<Request>> {
        let decided = self.paxos.read_decided_suffix(self.applied);
        for entry in decided.into_iter().flatten() {
            self.applied += 1;
            // The log has no other entries, since it is neither compacted nor reconfigured.
            let LogEntry::Decided(request) = entry else {
                continue;
            };
            if let Some(value) = self.counter.apply(request) {
                self.answers.push(Answer { request, value });
            }
        }
        let mut messages = Vec::new();
        self.paxos.take_outgoing_messages(&mut messages);
        messages
    }
}
