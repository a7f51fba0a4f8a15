//! Follows the configuration of the ensemble: the servers, which of them vote, and their addresses change while this program runs.
//!
//! A newer configuration comes in the notifications of other servers, or from the operator. Notifications are believed only if
//! `reconfigEnabled` is true, as in ZooKeeper, and only those of servers that are members already. Without TLS, a member is whoever
//! sends its id: see the terms of the library.

use std::sync::Arc;

use quorum_cnx::{Changes, Sid, ZooCfg};
use serde_json::json;

use super::Member;
use crate::{notification::configuration, quorum::Quorum};

impl Member {
    /// A notification carries this configuration, which is that of its sender.
    pub(super) fn on_configuration(&mut self, from: Sid, text: &[u8]) {
        // What a server says that may be anyone is not even parsed.
        if text == self.configuration.as_bytes() || self.server(from).is_none() {
            return;
        }
        if let Err(why) = self.take_configuration(from, text) {
            self.malformed += 1;
            // A server sends the same text in each of its notifications.
            if self.misconfigured.insert(from) {
                self.report_malformed(from, &format!("its configuration: {why}"));
            }
        } else {
            self.misconfigured.remove(&from);
        }
    }

    fn take_configuration(&mut self, from: Sid, text: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        let found = ZooCfg::parse_dynamic(text).map_err(|error| error.to_string())?;
        if found.version <= self.newest {
            return Ok(());
        }
        if self.cfg.reconfig_enabled {
            return self.reconfigure(&found, Some(from));
        }
        self.newest = found.version;
        let version = format!("{:x}", found.version);
        let line = json!({ "from": from.0, "version": version, "configuration": text });
        self.event_log
            .event("newer-configuration", self.role.own, line);
        Ok(())
    }

    /// The operator has a configuration, perhaps a newer one.
    pub(super) fn on_file(&mut self, found: &ZooCfg) {
        let (version, present) = (found.version, self.cfg.version);
        let taken = match version > present {
            true => self.reconfigure(found, None),
            false => Err(format!(
                "its version {version:x} is not newer than {present:x}, which is in use"
            )),
        };
        if let Err(why) = taken {
            let message = format!("the configuration file is not used: {why}");
            self.event_log.error(self.role.own, &message);
        }
    }

    /// Makes this the configuration of this server, or changes nothing.
    fn reconfigure(&mut self, found: &ZooCfg, from: Option<Sid>) -> Result<(), String> {
        let quorum = Quorum::of(found)?;
        // The other keys are those of the file at the start: a notification has none.
        let mut cfg = ZooCfg::clone(&self.cfg);
        cfg.servers.clone_from(&found.servers);
        cfg.groups.clone_from(&found.groups);
        cfg.weights.clone_from(&found.weights);
        cfg.version = found.version;
        if !is_in(&cfg, self.role.own) {
            // It was removed. As in ZooKeeper, it goes on without a vote, so that it learns when it is added again.
            cfg.servers.extend(self.server(self.role.own).cloned());
        }
        let members = cfg.members();
        let members = self.role.tls.name_members(members, |sid| is_in(&cfg, sid));
        let changes = self.event_loop.handle().reconfigure(members);
        let changes = changes.map_err(|error| error.to_string())?;
        let leader = self.election.current().vote.leader;
        let before = self.quorum_addresses(leader);
        self.cfg = Arc::new(cfg);
        // Without the own server, if it was removed: others do not have it either.
        self.configuration = configuration(found);
        self.newest = found.version;
        self.quorum = quorum;
        self.unlinked.retain(|sid| self.quorum.is_voter(*sid));
        self.misconfigured.clear();
        self.report_reconfigured(found, &changes, from);
        let now = self.event_log.now();
        if self.election.reconfigure(self.quorum.clone()) {
            self.look("the voters have changed");
        } else if let Some(tenure) = &mut self.tenure {
            tenure.reconfigure(self.quorum.clone(), now);
            if self.role.follows_port && before != self.quorum_addresses(leader) {
                self.go_to_port(self.election.current().state, leader);
            }
        }
        Ok(())
    }

    fn report_reconfigured(&self, found: &ZooCfg, changes: &Changes, from: Option<Sid>) {
        let sids = |sids: &[Sid]| sids.iter().map(|sid| sid.0).collect::<Vec<_>>();
        let mut line = self.role.describe(found, &self.quorum);
        line["version"] = format!("{:x}", found.version).into();
        line["from"] = from.map(|sid| sid.0).into();
        line["joined"] = sids(&changes.joined).into();
        line["left"] = sids(&changes.left).into();
        line["moved"] = sids(&changes.moved).into();
        self.event_log.event("reconfigured", self.role.own, line);
    }
}

fn is_in(cfg: &ZooCfg, sid: Sid) -> bool {
    cfg.servers.iter().any(|server| server.sid == sid)
}
