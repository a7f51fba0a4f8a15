//! Renews the links of all peers, one after the other.
//!
//! Nothing here dials: the loop does.

use std::{collections::VecDeque, time::Instant};

use crate::{
    limits::{RENEWAL_TRIES, RENEWAL_WAIT},
    proto::{ConnectionKey, PeerId},
};

/// The peers whose links are still to be renewed.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    /// In the order in which they are renewed. Each peer is there once at most.
    waiting: VecDeque<Waiting>,
    current: Option<Renewal>,
    /// When the renewal of all peers was last asked for.
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    peer: PeerId,
    /// True exactly when its peer has moved, and its link is as good as a new one otherwise.
    is_move: bool,
    /// The tries so far and the link that they have not replaced, if there were any.
    tried: Option<(u32, ConnectionKey)>,
}

/// The renewal that is under way.
#[derive(Debug)]
struct Renewal {
    peer: PeerId,
    /// As in [`Waiting`].
    is_move: bool,
    /// The link that is to be replaced.
    link: ConnectionKey,
    /// This try is one of them.
    tries: u32,
    /// When the next peer is renewed, whether this one has a new link or not.
    due: Instant,
}

/// What is to be done about the link of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renew {
    Dial(PeerId),
    /// All tries have left the link as it is. It stays.
    GiveUp(PeerId),
}

impl Renewals {
    /// Adds a peer. One whose renewal is under way is renewed once more: its new link may have been begun before what has changed.
    pub(super) fn add(&mut self, peer: PeerId) {
        self.insert(peer, false);
    }

    /// Adds a peer that has moved, as [`add`](Self::add) does.
    pub(super) fn add_moved(&mut self, peer: PeerId) {
        self.insert(peer, true);
    }

    /// The peer has moved back to the address of its link, which stays. Returns whether a new one was to be made only because it had moved.
    pub(super) fn withdraw(&mut self, peer: PeerId) -> bool {
        let count = self.waiting.len();
        self.waiting.retain(|one| one.peer != peer || !one.is_move);
        match &self.current {
            Some(renewal) if renewal.peer == peer && !renewal.is_move => false,
            Some(renewal) if renewal.peer == peer => self.current.take().is_some(),
            _ => self.waiting.len() < count,
        }
    }

    fn insert(&mut self, peer: PeerId, is_move: bool) {
        let tried = None;
        match self.waiting.iter_mut().find(|one| one.peer == peer) {
            Some(waiting) => {
                waiting.tried = tried;
                waiting.is_move &= is_move;
            }
            None => self.waiting.push_back(Waiting {
                peer,
                is_move,
                tried,
            }),
        }
    }

    /// Adds all peers, at once: `add` looks for each among those that wait.
    pub(super) fn add_all(&mut self, peers: impl Iterator<Item = PeerId>, now: Instant) {
        self.asked = Some(now);
        let all = peers.map(|peer| Waiting {
            peer,
            is_move: false,
            tried: None,
        });
        self.waiting = all.collect();
    }

    /// A link comes up whose connection was begun at `since`. If the renewal of all peers was asked for after that, the link does not have
    /// what has changed, and is renewed as well. Returns whether that is so.
    pub(super) fn on_up(&mut self, peer: PeerId, since: Instant) -> bool {
        let is_old = self.asked.is_some_and(|asked| since < asked);
        if is_old {
            self.add(peer);
        }
        is_old
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    /// The next thing to do, once the peer before has a new link or none, or has had its time. `link`: the current link of a peer, if a
    /// dial can replace it.
    pub(super) fn next(
        &mut self,
        now: Instant,
        link: impl Fn(PeerId) -> Option<ConnectionKey>,
    ) -> Option<Renew> {
        if let Some(renewal) = self.current.take() {
            let (peer, is_move, tries) = (renewal.peer, renewal.is_move, renewal.tries);
            let is_old = link(peer) == Some(renewal.link);
            if is_old && renewal.due > now {
                self.current = Some(renewal);
                return None;
            }
            let is_added = self.waiting.iter().any(|one| one.peer == peer);
            if is_old && !is_added {
                if tries == RENEWAL_TRIES {
                    return Some(Renew::GiveUp(peer));
                }
                // The peer has ignored the knock: its link was too young, or it was knocked at too often.
                let tried = Some((tries, renewal.link));
                self.waiting.push_back(Waiting {
                    peer,
                    is_move,
                    tried,
                });
            }
        }
        loop {
            let Waiting {
                peer,
                is_move,
                tried,
            } = self.waiting.pop_front()?;
            // A peer without a link needs no new one: its next link is new.
            let Some(link) = link(peer) else { continue };
            let tries = match tried {
                Some((_, old)) if link != old => continue,
                Some((tries, _)) => tries + 1,
                None => 1,
            };
            let due = now + RENEWAL_WAIT;
            self.current = Some(Renewal {
                peer,
                is_move,
                link,
                tries,
                due,
            });
            return Some(Renew::Dial(peer));
        }
    }

    /// When the next peer is renewed at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.current.as_ref().map(|renewal| renewal.due)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn key(index: u32) -> ConnectionKey {
        let generation = 0;
        ConnectionKey { index, generation }
    }

    fn dial(peer: u64) -> Option<Renew> {
        Some(Renew::Dial(PeerId(peer)))
    }

    #[test]
    fn peers_are_renewed_one_after_the_other() {
        let now = Instant::now();
        let mut renewals = Renewals::default();
        renewals.add_all([1, 2, 3].into_iter().map(PeerId), now);
        renewals.add(PeerId(1));
        let old = |PeerId(peer)| (peer != 2).then_some(key(peer as u32));
        assert_eq!(renewals.next(now, old), dial(1));
        assert_eq!(renewals.next(now, old), None);
        // 1 has a new link. 2 has none, so that it needs no renewal.
        let new = |PeerId(peer)| (peer != 2).then_some(key(10 + peer as u32));
        assert_eq!(renewals.next(now, new), dial(3));
        let late = now + RENEWAL_WAIT - Duration::from_nanos(1);
        assert_eq!(renewals.next(late, new), None);
        assert_eq!(renewals.deadline(), Some(now + RENEWAL_WAIT));
        let newer = |PeerId(peer)| Some(key(20 + peer as u32));
        assert_eq!(renewals.next(late, newer), None);
        assert_eq!(renewals.deadline(), None);
    }

    #[test]
    fn renewal_without_effect_is_tried_again_after_the_others() {
        let mut now = Instant::now();
        let mut renewals = Renewals::default();
        renewals.add(PeerId(1));
        renewals.add(PeerId(2));
        let old = |PeerId(peer)| Some(key(peer as u32));
        assert_eq!(renewals.next(now, old), dial(1));
        now += RENEWAL_WAIT;
        assert_eq!(renewals.next(now, old), dial(2));
        // 2 has a new link, and 1 has none.
        let new = |PeerId(peer)| Some(key(if peer == 1 { 1 } else { 12 }));
        for _ in 1..RENEWAL_TRIES {
            assert_eq!(renewals.next(now, new), dial(1));
            assert_eq!(renewals.next(now, new), None);
            now += RENEWAL_WAIT;
        }
        assert_eq!(renewals.next(now, new), Some(Renew::GiveUp(PeerId(1))));
        assert_eq!(renewals.next(now, new), None);
        assert_eq!(renewals.deadline(), None);
    }

    #[test]
    fn peer_that_gets_a_new_link_meanwhile_is_not_renewed() {
        let now = Instant::now();
        let mut renewals = Renewals::default();
        renewals.add(PeerId(1));
        renewals.add(PeerId(2));
        let old = |PeerId(peer)| Some(key(peer as u32));
        assert_eq!(renewals.next(now, old), dial(1));
        assert_eq!(renewals.next(now + RENEWAL_WAIT, old), dial(2));
        // While 1 waits for its second try.
        let new = |PeerId(peer)| Some(key(10 + peer as u32));
        assert_eq!(renewals.next(now + RENEWAL_WAIT, new), None);
        assert_eq!(renewals.deadline(), None);
    }

    #[test]
    fn link_of_a_connection_that_was_begun_before_is_renewed() {
        let asked = Instant::now();
        let (peer, before) = (PeerId(1), asked - Duration::from_millis(1));
        let mut renewals = Renewals::default();
        assert!(!renewals.on_up(peer, before));
        renewals.add_all([peer].into_iter(), asked);
        assert_eq!(renewals.next(asked, |_| None), None, "it has no link yet");
        assert!(renewals.on_up(peer, before));
        assert_eq!(renewals.next(asked, |_| Some(key(1))), dial(1));
        assert!(!renewals.on_up(peer, asked));
        assert_eq!(renewals.next(asked, |_| Some(key(2))), None);
    }

    #[test]
    fn peer_that_is_added_during_its_renewal_is_renewed_once_more() {
        let now = Instant::now();
        let mut renewals = Renewals::default();
        renewals.add(PeerId(1));
        let old = |PeerId(peer)| Some(key(peer as u32));
        assert_eq!(renewals.next(now, old), dial(1));
        renewals.add(PeerId(1));
        assert_eq!(renewals.next(now, old), None);
        let new = |PeerId(peer)| Some(key(10 + peer as u32));
        assert_eq!(renewals.next(now, new), dial(1));
    }

    #[test]
    fn peer_that_moves_back_is_renewed_only_if_that_was_asked_for() {
        let now = Instant::now();
        let [one, two, three] = [1, 2, 3].map(PeerId);
        let mut renewals = Renewals::default();
        let old = |PeerId(peer)| Some(key(peer as u32));
        renewals.add_all([three].into_iter(), now);
        for peer in [one, two, three] {
            renewals.add_moved(peer);
        }
        assert_eq!(renewals.next(now, old), dial(3));
        assert!(renewals.withdraw(one) && !renewals.withdraw(one));
        renewals.add_moved(three);
        assert!(!renewals.withdraw(three), "its renewal is under way");
        assert_eq!(renewals.next(now + RENEWAL_WAIT, old), dial(2));
        assert!(renewals.withdraw(two), "its renewal is under way");
        assert_eq!(renewals.next(now + RENEWAL_WAIT, old), dial(3));
        let later = now + RENEWAL_WAIT * 2;
        assert_eq!(renewals.next(later, |_| Some(key(7))), None);
    }
}
