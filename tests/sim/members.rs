//! Hosts that change their members: each removes others, gives them another address, and takes them back, by itself. At the end of the
//! storm all hosts are members of each other again, and P1 demands links to the addresses that they have then.
//!
//! What is known of the name of a removed member is forgotten, which P2 forbids otherwise.
//!
//! - P12 what was meant for a member that was removed is not sent to the one that has its sid later

use std::time::Duration;

use quorum_cnx::{Changes, Leave, Members, Reason, ReconfigureError, SendError};

use crate::{
    oracle::{FrameHeader, Oracle},
    plan::PORT,
    rng::Rng,
    simulation::Simulation,
    tls,
};

/// A host is a member again.
#[derive(Clone, Copy, Debug)]
pub struct Rejoined {
    at: Duration,
    /// The number of the newest frame before that.
    newest: u64,
}

impl Simulation {
    /// A host changes its members by one step. Returns `false` if there is nothing to change.
    pub fn change_members(&self, host: usize, mut rng: Rng) -> bool {
        let others: Vec<usize> = (0..self.hosts.len()).filter(|&to| to != host).collect();
        let to = *rng.pick(&others);
        let is_removed = self.oracle.borrow().hosts[host].removed.contains(&to);
        let mut wanted = self.members_of(host);
        let (mut leave, mut moves) = (Leave::Now, None);
        match rng.below(100) {
            0..70 if is_removed => wanted.push(to),
            0..60 if !is_removed => {
                wanted.retain(|it| *it != to);
                if rng.percent(50) {
                    leave = Leave::After(rng.millis(0, 3000));
                }
            }
            60..80 if !is_removed => moves = Some((to, rng.percent(50))),
            _ => return false,
        }
        self.set_members(host, &wanted, leave, |it| {
            let own = self.plan.hosts[it].addresses();
            // No host and no stranger is there.
            let nobody = format!("10.8.0.{it}:{PORT}");
            match moves {
                Some((moved, true)) if moved == it => format!("{nobody}|{own}"),
                Some((moved, false)) if moved == it => format!("{own}|{nobody}"),
                _ => own,
            }
        });
        true
    }

    /// All hosts are members of this one again, each at the last one of its own addresses.
    pub fn restore_members(&self, host: usize) {
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        self.set_members(host, &all, Leave::Now, |it| self.plan.last_address(it));
    }

    /// The members of a host, itself included.
    pub fn members_of(&self, host: usize) -> Vec<usize> {
        let removed = &self.oracle.borrow().hosts[host].removed;
        let is_member = |it: &usize| !removed.contains(it);
        (0..self.hosts.len()).filter(is_member).collect()
    }

    /// `addresses`: those of the others.
    pub fn set_members(
        &self,
        host: usize,
        wanted: &[usize],
        leave: Leave,
        addresses: impl Fn(usize) -> String,
    ) {
        let handle = self.hosts[host].handle.clone().expect("it runs");
        let version = self.oracle.borrow().hosts[host].version + 1;
        let mut members = Members::new(version).leave(leave);
        for &it in wanted {
            let plan = &self.plan.hosts[it];
            let addresses = match it == host {
                true => plan.own_addresses(),
                false => addresses(it),
            };
            members = members.server(plan.sid, addresses);
            members = tls::name(members, &self.plan, host, it);
        }
        self.kernel()
            .note(host, || format!("sets its members: {members:?}"));
        let changes = match handle.reconfigure(members) {
            Ok(changes) => changes,
            Err(ReconfigureError::Halted) => return,
            Err(error) => panic!("host {host} cannot change its members: {error}"),
        };
        self.note_changes(host, &changes);
        if let Some(sid) = changes.left.first() {
            assert_eq!(
                handle.to_send(*sid, "late"),
                Err(SendError::UnknownPeer(*sid))
            );
        }
    }

    /// Notes what a step has changed.
    pub fn note_changes(&self, host: usize, changes: &Changes) {
        let oracle = &mut *self.oracle.borrow_mut();
        let (now, sids) = (oracle.now, oracle.sids.clone());
        let index = |sid| sids.iter().position(|host| *host == sid).expect("a host");
        let record = &mut oracle.hosts[host];
        record.version = changes.version;
        for &sid in &changes.left {
            let it = index(sid);
            record.removed.insert(it);
            // They need not arrive.
            record.newest_sent.retain(|(to, _), _| *to != it);
        }
        for &sid in &changes.joined {
            let (it, newest) = (index(sid), record.next);
            record.removed.remove(&it);
            let again = Rejoined { at: now, newest };
            record.rejoined.entry(it).or_default().push(again);
        }
        for sid in changes.joined.iter().chain(&changes.moved) {
            // It is dialed at once.
            record.unproven_dials.remove(sid);
        }
    }
}

impl Oracle {
    /// P12: a frame has arrived over a connection that was begun at this time.
    pub fn check_rejoined(&mut self, me: usize, from: usize, header: FrameHeader, begun: Duration) {
        let record = &self.hosts[from];
        if !header.is_of(record.incarnation) {
            return;
        }
        let mut again = record.rejoined.get(&me).into_iter().flatten();
        let last = again.rfind(|again| again.at <= begun).copied();
        if let Some(again) = last.filter(|again| header.number <= again.newest) {
            let what = format!("host {me} received {header:?} of before {again:?} as a new member");
            self.fail("P12", what);
        }
    }

    /// Whether hosts may take each other for unknown servers.
    pub fn is_of_members(&self, reason: &Reason) -> bool {
        let unknown = Reason::Refused(quorum_cnx::Refusal::UnknownSid);
        self.changes_members && *reason == unknown
    }
}
