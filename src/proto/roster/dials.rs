//! Dials: which peer is dialed, and when.
//!
//! Nothing here decides which of two connections is kept; see `claims`.

use std::time::{Duration, Instant};

use super::{
    super::{
        reason::Reason,
        standing::{Brought, Doubt, Sound},
    },
    Action, Attempt, ConnectionKey, FarEnd, Kind, PeerId, Roster,
};
use crate::limits::{DIAL_BACK_WAIT, REFUSED_PAUSE_MAX};

impl Roster {
    /// The loop has started.
    pub(crate) fn on_start(&mut self, now: Instant, todo: &mut Vec<Action>) {
        if !self.rules.eager {
            return;
        }
        let members: Vec<PeerId> = self.by_sid.values().copied().collect();
        for peer in members {
            self.want(peer, now, todo);
        }
    }

    /// Requests a link to this peer: it is dialed at once, or when its backoff has passed.
    pub(crate) fn want(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // An observer always has a link, so that it is never dialed below.
        if peer.link.is_some() {
            return;
        }
        peer.wanted = true;
        if peer.attempt == Attempt::Rest {
            match peer.retry_not_before.filter(|until| *until > now) {
                Some(until) => peer.attempt = Attempt::Waiting { until },
                None => {
                    peer.attempt = Attempt::Underway { since: now };
                    todo.push(Action::Dial { peer: id });
                }
            }
        }
        self.reschedule(id);
    }

    /// The link of this peer, if a dial can replace it. One that is retired needs no dial: it is about to be replaced.
    pub(crate) fn renewable(&self, id: PeerId) -> Option<ConnectionKey> {
        let peer = self.peers.get(&id).filter(|peer| peer.can_be_dialed())?;
        if peer
            .contender
            .as_ref()
            .is_some_and(|it| it.retires.is_some())
        {
            return None;
        }
        Some(peer.link.as_ref()?.key)
    }

    /// Dials this peer now, linked or not, because the application asks for it.
    pub(crate) fn initiate(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            // Also if an attempt is underway already: the link that it brings is the one that was asked for.
            peer.asked = true;
        }
        self.dial(id, now, todo);
    }

    /// Dials this peer now if it has no link, because the application asks for it.
    pub(crate) fn connect(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.link.is_none()) else {
            return;
        };
        if peer.dial_back_until.is_some_and(|until| until > now) {
            // A second knock would have ZooKeeper close the link that it is about to dial.
            return self.want(id, now, todo);
        }
        self.dial(id, now, todo);
    }

    pub(super) fn dial(&mut self, id: PeerId, now: Instant, todo: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !peer.can_be_dialed() || peer.attempt.is_underway() {
            return;
        }
        // Beside a link nothing is wanted: if the dial fails, the link is still there.
        peer.wanted |= peer.link.is_none();
        peer.attempt = Attempt::Underway { since: now };
        todo.push(Action::Dial { peer: id });
        self.reschedule(id);
    }

    /// A dial of a peer with a smaller sid is connected, and the initial message is written. If it is a native one, the peer has accepted
    /// it, and has this incarnation.
    pub(crate) fn on_linked(
        &mut self,
        id: PeerId,
        link: ConnectionKey,
        incarnation: Option<u64>,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        if self.knocks(id) {
            // The link of this pair is the one that the larger sid dials.
            todo.push(Action::Close {
                link,
                reason: Reason::Superfluous,
            });
            return;
        }
        let far_end = FarEnd {
            source: None,
            incarnation,
        };
        self.establish(id, link, far_end, now, todo);
    }

    /// A dial is connected, and nothing is written to it yet. Returns whether it is given up: it was started because the link was
    /// silent, and the link has brought something since then.
    pub(crate) fn is_moot(&mut self, id: PeerId, brought: Brought, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.asked) else {
            return false;
        };
        let doubt = peer.doubt.as_mut().filter(|doubt| doubt.is_answered());
        if doubt.is_none_or(|doubt| doubt.on_look(now, brought) != Sound::Heard) {
            return false;
        }
        (peer.doubt, peer.attempt) = (None, Attempt::Rest);
        self.reschedule(id);
        true
    }

    /// Whether the peer is dialed because its link was silent, and not because a new link is planned.
    pub(crate) fn is_in_doubt(&self, id: PeerId) -> bool {
        let peer = self.peers.get(&id).filter(|peer| !peer.asked);
        let doubt = peer.and_then(|peer| peer.doubt.as_ref());
        doubt.is_some_and(Doubt::is_answered)
    }

    /// The link of this peer is retired for a dial, or has just ended so. The dial is about to be answered: a knock that arrives now has merely
    /// crossed it, however long the dial has waited.
    pub(crate) fn on_retired(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            if let Attempt::Underway { since } = &mut peer.attempt {
                *since = now;
            }
        }
    }

    /// A knock was delivered. The peer has time to dial back before the next knock.
    pub(crate) fn on_knocked(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.dial_back_until = Some(now + DIAL_BACK_WAIT);
        }
        self.retry(id, now, DIAL_BACK_WAIT);
    }

    /// No address of the peer could be reached, or none has accepted this server. `lasts`: for a reason that only an operator changes.
    pub(crate) fn on_dial_failed(
        &mut self,
        id: PeerId,
        lasts: bool,
        now: Instant,
        todo: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.kind == Kind::Admitted && peer.link.is_none() {
            // The address of an admitted peer came from a stranger, so that each request causes only one dial.
            self.part(id, todo);
            return;
        }
        // The duration of the attempt counts as backoff. A network that was silent is thus tried as often as one that refuses.
        let since = match peer.attempt {
            Attempt::Underway { since } => since,
            Attempt::Rest | Attempt::Waiting { .. } => now,
        };
        let at_least = if lasts {
            let pause = peer.refused_pause.map(|pause| pause * 2);
            let pause = pause.unwrap_or(self.rules.backoff_min);
            *peer.refused_pause.insert(pause.min(REFUSED_PAUSE_MAX))
        } else {
            Duration::ZERO
        };
        self.retry(id, since, at_least);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let (Some(_), Some(until)) = (&peer.link, peer.retry_not_before) {
            peer.renewals.on_dial_failed(until);
            if let Some(doubt) = &mut peer.doubt {
                doubt.on_dial_failed(until);
            }
            self.reschedule(id);
        }
    }

    /// The reasons for which dials were refused may be gone: the refused peers are dialed at once.
    pub(crate) fn retry_refused(&mut self, now: Instant, todo: &mut Vec<Action>) {
        let refused = self.peers.iter_mut().filter_map(|(id, peer)| {
            peer.refused_pause.take()?;
            peer.retry_not_before = None;
            peer.wanted.then_some(*id)
        });
        for id in refused.collect::<Vec<_>>() {
            self.dial(id, now, todo);
        }
    }

    /// A link or an attempt has ended. The backoff begins at `from` and lasts for `at_least` this time. The peer is dialed after it if a
    /// link is wanted.
    pub(super) fn retry(&mut self, id: PeerId, from: Instant, at_least: Duration) {
        // The side with the larger sid dials first, so that its dial and a knock seldom cross.
        let head_start = if self.knocks(id) {
            self.rules.backoff_min
        } else {
            Duration::ZERO
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let until = from + head_start + peer.backoff.next(&mut self.rng);
        let until = until.max(from + at_least);
        // Kept also if nothing is wanted now: a request that comes sooner waits until then.
        peer.retry_not_before = Some(until);
        peer.attempt = if peer.wanted {
            Attempt::Waiting { until }
        } else {
            Attempt::Rest
        };
        self.reschedule(id);
    }
}
