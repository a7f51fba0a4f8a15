//! Handles the events of the library's loop and of the leader's port: links, listening sockets, the leader.

use std::io;

use quorum_cnx::{Event, Listening, Reason, Sid};
use serde_json::json;

use super::{End, Member};
use crate::leader_port::PortEvent;

impl Member {
    pub(super) fn on_event(&mut self, event: &Event) {
        let own = self.role.own;
        match event {
            Event::Listening { addr, .. } => {
                let line = json!({ "addr": addr.to_string() });
                self.event_log.event("listening", own, line);
            }
            Event::ListenFailed { address, error, .. } => {
                let message = format!("cannot listen on {address}, and will try again: {error}");
                self.event_log.error(own, &message);
            }
            Event::ListenerLost { address, .. } => {
                let message = format!(
                    "gave up listening on {address}: servers with a larger id cannot reach this one there"
                );
                self.event_log.error(own, &message);
                let listening = self.event_loop.handle().listening();
                let is_lost = |one: &Listening| matches!(one, Listening::Lost(_));
                if listening.iter().all(is_lost) {
                    self.end = End::NotListening;
                    self.event_loop.handle().request_halt();
                }
            }
            Event::Up { sid, dialed, .. } => {
                let line = json!({ "sid": sid.0, "dialed": dialed });
                self.event_log.event("up", own, line);
                self.unlinked.remove(sid);
                if self.role.observes {
                    self.ask(*sid);
                }
            }
            Event::Down { sid, reason, .. } => {
                let line = json!({ "sid": sid.0, "reason": reason.kind().name() });
                self.event_log.event("down", own, line);
                // Servers that are not configured may use any id; only voters are remembered.
                if self.quorum.is_voter(*sid) {
                    self.unlinked.insert(*sid);
                }
                self.election.on_unlinked(*sid);
            }
            Event::DialFailed { sid, reason, .. } => {
                let is_refused = *reason == Reason::Io(io::ErrorKind::ConnectionRefused);
                if is_refused && self.unlinked.remove(sid) {
                    self.on_process_gone(*sid);
                }
            }
            Event::TlsReloaded => self.event_log.event("tls-reloaded", own, json!({})),
            Event::TlsReloadFailed { .. } | Event::CertificateExpires { .. } => {
                self.event_log.error(own, &event.to_string());
            }
            // Other events are in the log only.
            _ => {}
        }
    }

    /// Handles an event of the leader's port.
    pub(super) fn on_port_event(&mut self, event: PortEvent) {
        let own = self.role.own;
        match event {
            PortEvent::Reached => self.event_log.event("leader-reached", own, json!({})),
            PortEvent::Gone(why) => self.on_loss(&why),
            PortEvent::Listening(at) => {
                let line = json!({ "addr": at.to_string() });
                self.event_log.event("leader-listening", own, line);
            }
            PortEvent::Trouble(message) => self.event_log.error(own, &message),
        }
    }

    /// The link of a server has ended, and its address refuses connections: its process has ended.
    fn on_process_gone(&mut self, sid: Sid) {
        let now = self.event_log.now();
        let kept = self.tenure.as_mut().map(|tenure| tenure.on_gone(now, sid));
        if let Some(Err(loss)) = kept {
            self.on_end_of_tenure(loss);
        }
    }
}
