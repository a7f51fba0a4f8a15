//! What the library's loop and the leader's port tell a member: links, listening sockets, the leader.
//!
//! Nothing here reads a message of an election.

use std::io;

use quorum_cnx::{Event, Listening, Reason, Sid};
use serde_json::json;

use super::{End, Member};
use crate::leader_port::Word;

impl Member {
    pub(super) fn on_event(&mut self, event: &Event) {
        let own = self.role.own;
        match event {
            Event::Listening { addr, .. } => {
                let line = json!({ "addr": addr.to_string() });
                self.journal.tell("listening", own, line);
            }
            Event::ListenFailed { address, error, .. } => {
                let message = format!("cannot listen on {address}, and will try again: {error}");
                self.journal.error(own, &message);
            }
            Event::ListenerLost { address, .. } => {
                let message = format!(
                    "gave up listening on {address}: servers with a larger id cannot reach this one there"
                );
                self.journal.error(own, &message);
                let listening = self.event_loop.handle().listening();
                let is_lost = |one: &Listening| matches!(one, Listening::Lost(_));
                if listening.iter().all(is_lost) {
                    self.end = End::Deaf;
                    self.event_loop.handle().request_halt();
                }
            }
            Event::Up { sid, dialed, .. } => {
                let line = json!({ "sid": sid.0, "dialed": dialed });
                self.journal.tell("up", own, line);
                self.unlinked.remove(sid);
                if self.role.observes {
                    self.ask(*sid);
                }
            }
            Event::Down { sid, reason, .. } => {
                let line = json!({ "sid": sid.0, "reason": reason.kind().name() });
                self.journal.tell("down", own, line);
                // Those who only join come and go under any id.
                if self.quorum.is_voter(*sid) {
                    self.unlinked.insert(*sid);
                }
                self.election.on_unlinked(*sid);
            }
            Event::DialFailed { sid, reason, .. } => {
                let is_refused = *reason == Reason::Io(io::ErrorKind::ConnectionRefused);
                if is_refused && self.unlinked.remove(sid) {
                    self.on_gone(*sid);
                }
            }
            // Of no interest to an election; the log has it.
            _ => {}
        }
    }

    /// There is something to tell of the leader's port.
    pub(super) fn on_word(&mut self, word: Word) {
        let own = self.role.own;
        match word {
            Word::Reached => self.journal.tell("leader-reached", own, json!({})),
            Word::Gone(why) => self.on_loss(&why),
            Word::Listening(at) => {
                let line = json!({ "addr": at.to_string() });
                self.journal.tell("leader-listening", own, line);
            }
            Word::Trouble(message) => self.journal.error(own, &message),
        }
    }

    /// A server was linked and is not any more, and nobody listens where it was: its process has ended.
    fn on_gone(&mut self, sid: Sid) {
        let now = self.journal.now();
        let word = self.tenure.as_mut().map(|tenure| tenure.on_gone(now, sid));
        if let Some(Err(loss)) = word {
            self.on_end_of_tenure(loss);
        }
    }
}
