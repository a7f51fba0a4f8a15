//! The voters, and which sets of them are a quorum: more than half, or by groups and weights.

use std::collections::{BTreeMap, BTreeSet};

use quorum_cnx::{Sid, ZooCfg};

/// The voters of an ensemble, and when some of them are a quorum.
#[derive(Clone, Debug)]
pub(crate) struct Quorum {
    voters: BTreeSet<Sid>,
    hierarchy: Option<Hierarchy>,
}

/// Groups of servers with weights: a quorum has more than half of the weight in more than half of the groups.
#[derive(Clone, Debug)]
struct Hierarchy {
    /// Without the groups that have no weight, which do not count.
    groups: Vec<Vec<Sid>>,
    weights: BTreeMap<Sid, i64>,
}

impl Quorum {
    /// A quorum is more than half of these.
    pub(crate) fn majority(voters: impl IntoIterator<Item = Sid>) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            hierarchy: None,
        }
    }

    /// From the configuration; an error if no server could ever be elected by it.
    pub(crate) fn of(cfg: &ZooCfg) -> Result<Self, String> {
        let voters = cfg.servers.iter().filter(|server| !server.observer);
        let mut quorum = Self::majority(voters.map(|server| server.sid));
        if quorum.voters.is_empty() {
            return Err(
                "no server votes: there is no `server.N` line, or all are observers".into(),
            );
        }
        if !cfg.groups.is_empty() || !cfg.weights.is_empty() {
            quorum.hierarchy = Some(Hierarchy::of(cfg, &quorum.voters)?);
        }
        Ok(quorum)
    }

    pub(crate) fn voters(&self) -> impl Iterator<Item = Sid> + '_ {
        self.voters.iter().copied()
    }

    pub(crate) fn is_voter(&self, sid: Sid) -> bool {
        self.voters.contains(&sid)
    }

    pub(crate) fn is_hierarchical(&self) -> bool {
        self.hierarchy.is_some()
    }

    /// Whether the vote of a server counts, so that it may be elected.
    pub(crate) fn has_weight(&self, sid: Sid) -> bool {
        match &self.hierarchy {
            Some(hierarchy) => hierarchy.weight(sid) > 0,
            None => true,
        }
    }

    /// Whether these are a quorum. Servers that do not vote do not count.
    pub(crate) fn is_met_by(&self, sids: &BTreeSet<Sid>) -> bool {
        let voters: BTreeSet<Sid> = self.voters.intersection(sids).copied().collect();
        match &self.hierarchy {
            Some(hierarchy) => hierarchy.is_met_by(&voters),
            None => voters.len() > self.voters.len() / 2,
        }
    }
}

impl Hierarchy {
    fn of(cfg: &ZooCfg, voters: &BTreeSet<Sid>) -> Result<Self, String> {
        if cfg.groups.is_empty() {
            return Err(
                "there are `weight.N` lines and no `group.N` line, so nobody could ever be \
                        elected: put every voter into a group"
                    .into(),
            );
        }
        let mut weights = cfg.weights.clone();
        for sid in voters {
            if !cfg.groups.values().any(|group| group.contains(sid)) {
                return Err(format!("server {sid} votes and is in no `group.N` line"));
            }
            weights.entry(*sid).or_insert(1);
        }
        for (group, sids) in &cfg.groups {
            if let Some(sid) = sids.iter().find(|sid| !weights.contains_key(sid)) {
                return Err(format!(
                    "group.{group}: server {sid} does not vote and has no `weight.{sid}` line"
                ));
            }
        }
        let mut hierarchy = Self {
            groups: Vec::new(),
            weights,
        };
        for group in cfg.groups.values() {
            if hierarchy.weigh(group) > 0 {
                hierarchy.groups.push(group.clone());
            }
        }
        if hierarchy.groups.is_empty() {
            return Err("no group has any weight, so nobody could ever be elected".into());
        }
        Ok(hierarchy)
    }

    fn weight(&self, sid: Sid) -> i64 {
        self.weights.get(&sid).copied().unwrap_or(0)
    }

    fn weigh<'a>(&self, sids: impl IntoIterator<Item = &'a Sid>) -> i64 {
        sids.into_iter().map(|sid| self.weight(*sid)).sum()
    }

    fn is_met_by(&self, sids: &BTreeSet<Sid>) -> bool {
        let is_won = |group: &&Vec<Sid>| {
            let present = self.weigh(group.iter().filter(|sid| sids.contains(sid)));
            present > self.weigh(*group) / 2
        };
        self.groups.iter().filter(is_won).count() > self.groups.len() / 2
    }
}
