//! Claims: a connection says that it is a peer, and a link ends. Which connection is kept?
//!
//! Nothing here decides when a peer is dialed; see `dials`.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    super::{
        Sid,
        reason::Reason,
        standing::{Brought, Doubt, Origin, Renewals, Silence, Sound},
    },
    Action, Attempt, Claim, ConnectionKey, Contender, FarEnd, Kind, Link, PeerId, Roster, Start,
    Verdict,
};
use crate::limits::{KNOCK_CROSSING, PROVEN_AFTER, RENEWAL_PAUSE_MAX, RETIRING_MAX};

impl Roster {
    /// An accepted connection has sent its initial message.
    pub(crate) fn on_initial_message(
        &mut self,
        claim: &Claim<'_>,
        now: Instant,
        todo: &mut Vec<Action>,
    ) -> Verdict {
        let Claim {
            sid,
            link,
            source,
            addresses,
            native,
            ..
        } = *claim;
        if let Err(reason) = self.rules.check(sid, native) {
            return Verdict::Reject(reason);
        }
        if sid == self.rules.own {
            return Verdict::Reject(Reason::OwnSid);
        }
        let far_end = FarEnd {
            source: Some(source),
            incarnation: native.map(|native| native.incarnation),
        };
        if sid == Sid::OBSERVER {
            return self.on_observer(link, far_end, now, todo);
        }
        let id = match self.by_sid.get(&sid) {
            // This server assigns the negative sids to observers, so that no connection can claim one.
            Some(id) if sid.0 >= 0 => *id,
            _ => match self.admit(sid, !addresses.is_empty(), todo) {
                Ok(id) => id,
                Err(reason) => return Verdict::Reject(reason),
            },
        };
        // The addresses of a member come from the configuration, those of an admitted peer from its latest initial message.
        let Some(peer) = self.peers.get(&id) else {
            return Verdict::Reject(Reason::UnknownSid(sid));
        };
        if peer.kind == Kind::Left {
            return Verdict::Reject(Reason::UnknownSid(sid));
        }
        if peer.kind == Kind::Admitted && peer.link.is_none() && !addresses.is_empty() {
            let addresses = addresses.to_vec();
            todo.push(Action::AddressesLearned {
                peer: id,
                addresses,
            });
        }
        let trusted = source.at_home || self.rules.newest;
        // The names of an admitted peer prove nothing: it has sent them itself. The addresses of a member decide whether its link
        // withstands the next claim.
        if !trusted && peer.kind != Kind::Admitted {
            todo.push(Action::Resolve { peer: id });
        }
        // Whatever else is known of it: the smaller sid never dials for a link.
        if sid < self.rules.own {
            return self.on_knock(id, claim, trusted, now, todo);
        }
        let stands =
            |older: &Link| older.is_home() || older.source.is_none_or(|is| is.ip != source.ip);
        let replaces = trusted || !peer.link.as_ref().is_some_and(stands);
        if replaces && !(claim.retires && peer.link.is_some()) {
            self.establish(id, link, far_end, now, todo);
            return Verdict::Keep(id);
        }
        if !replaces && peer.contender.is_some() {
            return Verdict::Reject(Reason::ContenderWaiting);
        }
        self.contend(id, claim, replaces, now, todo);
        match replaces {
            true => Verdict::Retire(id),
            false => Verdict::Wait(id),
        }
    }

    /// Lets this connection wait for the end of the peer's link. `retires`: it would replace that at once, but the two ends finish it in
    /// order.
    fn contend(
        &mut self,
        id: PeerId,
        claim: &Claim<'_>,
        retires: bool,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        // This is how long the kernel is given to find the older link dead.
        let until = now + self.rules.contender_timeout;
        let (brought, incarnation) = (claim.brought, claim.native.map(|it| it.incarnation));
        if let Some(peer) = self.peers.get_mut(&id) {
            // Neither the link nor the claim comes from home: what the link brings decides. A link from home yields to no
            // silence, and neither does one that is retired, since it may bring nothing while the far end reads it.
            let is_equal = peer.link.as_ref().is_some_and(|link| !link.is_home());
            peer.incarnations.on_heard(incarnation, brought, now);
            let older = peer.contender.replace(Contender {
                key: claim.link,
                source: claim.source,
                incarnation,
                until: until.max(now + RETIRING_MAX * u32::from(retires)),
                silence: (is_equal && !retires).then(|| Silence::new(now, brought)),
                retires: retires.then_some(brought),
            });
            todo.extend(older.map(Contender::close));
        }
        self.reschedule(id);
    }

    /// A lookup has shown that this address is one of the peer's own.
    pub(crate) fn on_home(&mut self, id: PeerId, ip: IpAddr, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.origin == Origin::Abroad(ip) {
            // From now on, knocks from other addresses are a stranger's.
            (peer.origin, peer.doubt) = (Origin::Home, None);
        }
        let link = peer.link.as_mut().and_then(|link| link.source.as_mut());
        if let Some(source) = link.filter(|source| source.ip == ip) {
            source.at_home = true;
            // However silent a link from home is, the contender waits for its end.
            if let Some(contender) = &mut peer.contender {
                contender.silence = None;
            }
        }
        let contender = peer.contender.as_mut().filter(|is| is.source.ip == ip);
        if let Some(contender) = contender {
            contender.source.at_home = true;
            let (key, far_end) = (contender.key, contender.far_end());
            // The end of a link that is retired is awaited.
            if contender.retires.is_none() {
                return self.establish(id, key, far_end, now, todo);
            }
        }
        self.reschedule(id);
    }

    /// A connection that the roster knows as the link or the contender of the peer has ended. `demand`: something waits to be sent
    /// to the peer.
    pub(crate) fn on_down(
        &mut self,
        id: PeerId,
        key: ConnectionKey,
        demand: bool,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        let eager = self.rules.eager;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer
            .contender
            .as_ref()
            .is_some_and(|contender| contender.key == key)
        {
            peer.contender = None;
            self.reschedule(id);
            return;
        }
        // Neither of the two: the link was replaced before its end was reported.
        let Some(link) = peer.link.take_if(|link| link.key == key) else {
            return;
        };
        // Neither a connect nor a frame resets the backoff: only a link that has lasted. Two servers with one sid, for example, replace each other's
        // links forever, and each new link begins with a frame.
        if now.saturating_duration_since(link.since) >= PROVEN_AFTER.min(self.rules.backoff_max) {
            peer.backoff.reset();
            peer.refused_pause = None;
        }
        // Knocks at the ended link say nothing about the next link.
        peer.renewals = Renewals::new();
        peer.doubt = None;
        if let Some(contender) = peer.contender.take() {
            self.establish(id, contender.key, contender.far_end(), now, todo);
            return;
        }
        match peer.kind {
            Kind::Member | Kind::Admitted => {}
            Kind::Leaving if demand => {}
            Kind::Leaving => {
                // A dial beside the link may be underway.
                self.stop(id, todo);
                return self.part(id, todo);
            }
            Kind::Left | Kind::Observer => return self.part(id, todo),
        }
        // For an admitted peer, for one that leaves, and with `Dial::OnDemand`, frames that wait are the only reason to dial.
        peer.wanted = demand || (eager && peer.kind == Kind::Member);
        // An attempt that was begun beside the link goes on, and is as good as a new one.
        if peer.attempt == Attempt::Rest {
            self.retry(id, now, Duration::ZERO);
        } else {
            self.reschedule(id);
        }
    }

    /// Does what is due. `brought` returns what the link of a peer has brought. It is called only if a claim or knocks put that
    /// link in doubt, or were refused because of it.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        mut brought: impl FnMut(PeerId, ConnectionKey) -> Brought,
        todo: &mut Vec<Action>,
    ) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            let Some(peer) = self.peers.get_mut(&id) else {
                self.timers.remove(&(at, id));
                continue;
            };
            let looks = [peer.claim_due(), peer.doubt_due()];
            // Only a peer with a link has one of the two (`is_sound`), and `examine` moves or ends what is due, so that this loop ends.
            if looks.into_iter().flatten().any(|at| at <= now) {
                if let Some(link) = peer.link.as_ref().map(|link| link.key) {
                    let brought = brought(id, link);
                    self.examine(id, brought, now, todo);
                }
                // The other timers of this peer are handled when this check is settled.
                continue;
            }
            // The older link was not found dead in the time that was given for that.
            if let Some(contender) = peer.contender.take_if(|contender| contender.until <= now) {
                let link = peer.link.as_ref().map(|link| link.key);
                let brought = link.map_or(Brought::More, |link| brought(id, link));
                // A link that is retired and brings nothing is stuck, for example because a proxy acknowledges for a dead path.
                if matches!(brought, Brought::Bytes(_)) && contender.retires == Some(brought) {
                    self.establish(id, contender.key, contender.far_end(), now, todo);
                    continue;
                }
                let two = peer
                    .incarnations
                    .on_heard(contender.incarnation, brought, now);
                todo.push(contender.expire(two));
            }
            if let Attempt::Waiting { until } = peer.attempt {
                if until <= now {
                    peer.attempt = Attempt::Underway { since: now };
                    todo.push(Action::Dial { peer: id });
                }
            }
            self.reschedule(id);
        }
    }

    /// Checks whether the link of this peer is silent, because of a contender or of knocks. If it is, the contender replaces it, or
    /// the peer is dialed again.
    pub(super) fn examine(
        &mut self,
        id: PeerId,
        brought: Brought,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let is_due = |due: Option<Instant>| due.is_some_and(|at| at <= now);
        let (claim, doubt) = (peer.claim_due(), peer.doubt_due());
        if let Some(contender) = peer.contender.as_mut().filter(|_| is_due(claim)) {
            let (key, far_end) = (contender.key, contender.far_end());
            let silence = contender.silence.as_mut();
            // A link that brings nothing is given up for a connection that may be the peer's.
            if silence.is_some_and(|silence| silence.on_look(now, brought) == Sound::Silent) {
                return self.establish(id, key, far_end, now, todo);
            }
        }
        if let Some(mut doubt) = peer.doubt.take_if(|_| is_due(doubt)) {
            match doubt.on_look(now, brought) {
                Sound::Unclear => peer.doubt = Some(doubt),
                // If only a proxy keeps the link alive after all, the peer knocks again.
                Sound::Heard => {}
                Sound::Silent => {
                    // `None` cannot be here: for a peer that knocks from home there is no doubt.
                    let least = peer.origin.pause().unwrap_or(RENEWAL_PAUSE_MAX);
                    if !doubt.is_stale(now) && peer.renewals.admit(now, least) {
                        doubt.on_dial();
                        peer.doubt = Some(doubt);
                        return self.dial(id, now, todo);
                    }
                }
            }
        }
        self.reschedule(id);
    }

    /// A peer with a smaller sid knocks: it says that it has no link to this server. If another process with its sid is known to be
    /// linked, it is told so. The knock has its effect nevertheless: which of the two is the peer is not known.
    pub(super) fn on_knock(
        &mut self,
        id: PeerId,
        claim: &Claim<'_>,
        trusted: bool,
        now: Instant,
        todo: &mut Vec<Action>,
    ) -> Verdict {
        let incarnation = claim.native.map(|native| native.incarnation);
        let linked = self.peers.get_mut(&id).filter(|peer| peer.link.is_some());
        let two =
            linked.is_some_and(|peer| peer.incarnations.on_heard(incarnation, claim.brought, now));
        self.act_on_knock(id, claim, trusted, now, todo);
        match two {
            true => Verdict::Reject(Reason::DuplicateSid),
            false => Verdict::Knock,
        }
    }

    fn act_on_knock(
        &mut self,
        id: PeerId,
        claim: &Claim<'_>,
        trusted: bool,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // Not by now: its handshake may take long, above all one of TLS over a slow path.
        let is_young = |since| claim.since.saturating_duration_since(since) < KNOCK_CROSSING;
        // The knock began before a link as young as that existed: the two merely crossed each other.
        let stands = peer.link.as_ref().is_some_and(|link| !is_young(link.since));
        // A young link that has replaced another one does not count as a first link. If knocks continue although the peer was
        // dialed again because of them, a stranger has sent them.
        let open = !stands && peer.link.as_ref().is_none_or(|link| !link.renews);
        peer.origin.on_knock(claim.source, open);
        if peer.origin == Origin::Home {
            peer.doubt = None;
        }
        if peer.link.is_some() {
            if !stands {
                return;
            }
            peer.renewals.on_knock(now);
            if !trusted {
                // A stranger can send this knock too.
                if peer.origin != Origin::Home {
                    match &mut peer.doubt {
                        Some(doubt) => doubt.on_knock(now, claim.brought),
                        None => peer.doubt = Some(Doubt::new(now, claim.brought)),
                    }
                }
                return self.reschedule(id);
            }
        }
        if let Attempt::Underway { since } = peer.attempt {
            // A young dial merely crossed the knock. An older one was started while the peer could not be reached, and the kernel
            // may wait long before it sends the next packet.
            if !trusted || is_young(since) {
                return;
            }
        } else if stands {
            if peer.renewals.admit(now, KNOCK_CROSSING) {
                self.dial(id, now, todo);
            }
            return;
        }
        if let Some(until) = peer.ignore_knock_until.filter(|until| *until > now) {
            if peer.link.is_none() {
                peer.wanted = true;
                // A dial that waits already keeps its time.
                if peer.attempt == Attempt::Rest {
                    peer.attempt = Attempt::Waiting { until };
                }
                self.reschedule(id);
            }
            return;
        }
        // The pause grows with the backoff, so that knocks cause no more dials than failures do.
        peer.ignore_knock_until =
            Some(now + self.rules.backoff_min.max(peer.backoff.next(&mut self.rng)));
        if peer.attempt.is_underway() {
            peer.attempt = Attempt::Underway { since: now };
            todo.push(Action::TryNextAddress { peer: id });
        } else {
            self.dial(id, now, todo);
        }
    }

    /// Makes `link` the link of the peer. It replaces an older link, and ends an attempt to get one.
    pub(super) fn establish(
        &mut self,
        id: PeerId,
        link: ConnectionKey,
        far_end: FarEnd,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        let knocks = self.knocks(id);
        let peer = self.peers.get_mut(&id);
        let Some(peer) = peer.filter(|peer| peer.kind != Kind::Left) else {
            let reason = Reason::Superfluous;
            return todo.push(Action::Close { link, reason });
        };
        let start = peer.incarnations.on_up(far_end.incarnation, now);
        let older = peer.link.replace(Link {
            key: link,
            since: now,
            source: far_end.source,
            renews: peer.link.is_some(),
        });
        if let Some(older) = older.filter(|older| older.key != link) {
            // A link that the application has asked to renew is no sign of two servers with one sid.
            if !peer.asked && peer.flaps.on_replaced(now) {
                let duplicate = start == Start::Duplicate;
                todo.push(Action::ReportFlapping {
                    peer: id,
                    duplicate,
                });
            }
            // Before `Up`: what the older link has received is delivered first, and what it has not sent goes back to the
            // outbox.
            todo.push(Action::Close {
                link: older.key,
                reason: Reason::Replaced,
            });
        }
        let contender = peer.contender.take();
        let contender = contender.filter(|contender| contender.key != link);
        todo.extend(contender.map(Contender::close));
        if let (Attempt::Underway { since }, true) = (peer.attempt, knocks) {
            // The kernel retransmits a knock that is lost. It could arrive so late that the peer no longer takes it for a knock
            // that has merely crossed the link.
            let late = now.saturating_duration_since(since) >= KNOCK_CROSSING / 2;
            todo.push(Action::Cancel { peer: id, late });
        }
        peer.attempt = Attempt::Rest;
        peer.wanted = false;
        peer.asked = false;
        peer.doubt = None;
        todo.push(Action::Up {
            peer: id,
            link,
            restarted: start != Start::Same,
        });
        self.reschedule(id);
    }
}
