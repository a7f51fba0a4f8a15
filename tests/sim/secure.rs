//! What becomes of the certificates of a mesh with TLS: which steps the hosts take, one after the other.
//!
//! The certificates are in `tls`.

use quorum_cnx::{Sid, simulation::limits::RENEWAL_TRIES};

use crate::{
    plan::{GUESTS, Plan},
    rng::Rng,
    simulation::Simulation,
    tls,
};

/// How a mesh uses TLS.
#[derive(Clone, Debug)]
pub struct Secure {
    pub change: Change,
    /// How many steps of the change each host has taken.
    pub steps: Vec<usize>,
    /// The hosts that speak TLS 1.2 only.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only `tls` reads it"))]
    pub older: Vec<bool>,
}

/// What changes while the mesh runs. Every host takes a step before the first one takes the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// Another CA: it is believed too, it has signed the own certificate, only it is believed.
    Authority,
    /// From a mesh without TLS to one that refuses all else: the steps of `Plaintext`.
    Upgrade,
    /// The certificate of this host is revoked. As the last one, this host gets another one.
    Revocation(usize),
}

impl Secure {
    pub fn new(rng: &mut Rng, hosts: usize, without_faults: bool) -> Self {
        let revoked = rng.below(hosts);
        let change = *rng.pick(&[
            Change::Nothing,
            Change::Authority,
            Change::Upgrade,
            Change::Revocation(revoked),
        ]);
        let older = *rng.pick(&[0, 0, 50, 100]);
        Self {
            change: if without_faults {
                Change::Nothing
            } else {
                change
            },
            steps: vec![0; hosts],
            older: (0..hosts).map(|_| rng.percent(older)).collect(),
        }
    }

    fn steps_max(&self) -> usize {
        match self.change {
            Change::Nothing => 0,
            Change::Authority | Change::Upgrade => 3,
            Change::Revocation(_) => 1,
        }
    }

    /// The host that takes the next step.
    fn next(&self, rng: &mut Rng) -> Option<usize> {
        let least = *self.steps.iter().min()?;
        if least == self.steps_max() {
            return None;
        }
        let mut hosts: Vec<usize> = (0..self.steps.len())
            .filter(|&host| self.steps[host] == least)
            .collect();
        if let (Change::Revocation(revoked), 2..) = (self.change, hosts.len()) {
            hosts.retain(|&host| host != revoked);
        }
        Some(*rng.pick(&hosts))
    }

    /// Whether this host takes only those for a server that have proved to be it.
    pub fn requires_proof(&self, me: usize) -> bool {
        self.change != Change::Upgrade || self.steps[me] == 3
    }

    pub fn always_proves(&self) -> bool {
        self.change != Change::Upgrade
    }

    /// Whether every certificate is believed by every host, so that no link may end because of TLS.
    fn is_steady(&self) -> bool {
        match self.change {
            Change::Nothing => true,
            // A link may be older than the certificate.
            Change::Authority => self.steps.iter().all(|&steps| steps < 3),
            Change::Upgrade | Change::Revocation(_) => false,
        }
    }
}

impl Plan {
    /// The host whose certificate this host does not believe.
    pub fn refused_by(&self, me: usize) -> Option<Sid> {
        let secure = self.secure.as_ref()?;
        let Change::Revocation(revoked) = secure.change else {
            return None;
        };
        let steps = |host: usize| secure.steps.get(host).copied();
        let is_refused = me != revoked && steps(me) == Some(1) && steps(revoked) == Some(0);
        is_refused.then(|| self.hosts[revoked].sid)
    }
}

impl Simulation {
    /// Tells the oracle what the certificates are now. A host that runs uses its new ones from its next turn on.
    pub fn note_certificates(&self) {
        let oracle = &mut *self.oracle.borrow_mut();
        let is_steady = |secure: &Secure| secure.is_steady();
        oracle.is_steady &= self.plan.secure.as_ref().is_some_and(is_steady);
        for (host, record) in oracle.hosts.iter_mut().enumerate() {
            record.next_rules.requires_proof = self.plan.requires_proof(host);
            record.next_rules.refuses = self.plan.refused_by(host);
            // Once its certificate is a new one, it may be believed at once.
            if record.next_rules.refuses.is_none() {
                record.rules.refuses = None;
            }
        }
    }

    /// One of the hosts takes the next step. Returns the host, or `None` if nothing is left to do.
    pub fn change_certificates(&mut self) -> Option<usize> {
        let secure = self.plan.secure.as_mut()?;
        let host = secure.next(&mut self.fault_rng)?;
        let had_none = secure.change == Change::Upgrade && secure.steps[host] == 0;
        secure.steps[host] += 1;
        let (change, steps) = (secure.change, secure.steps[host]);
        let renews = self.fault_rng.percent(30);
        self.kernel()
            .note(host, || format!("takes step {steps} of {change:?}"));
        self.note_certificates();
        if !self.is_up(host) {
            return Some(host);
        }
        if had_none {
            self.crash(host);
            self.start(host);
            return Some(host);
        }
        let handle = self.hosts[host].handle.as_ref().expect("it runs");
        tls::reload(handle, &self.plan, host);
        if renews {
            handle.renew();
            // The links of guests too: those that there are, and those whose connection was begun before.
            let guests = GUESTS + self.plan.pending_max;
            self.oracle.borrow_mut().hosts[host].guest_dials_max +=
                guests as u64 * u64::from(RENEWAL_TRIES);
        }
        Some(host)
    }
}
