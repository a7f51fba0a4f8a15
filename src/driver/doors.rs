//! The listening sockets: one for each own address, tried again when it cannot be opened, paused when it cannot accept.
//!
//! An accepted connection never closes its listening socket, and a lost one never ends the process.

use std::{
    collections::BTreeMap,
    mem,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use super::net::Net;
use crate::{
    handler::Event,
    limits::{ACCEPT_PAUSE, LOOKUP_TIMEOUT, ROUTES_MAX},
    proto::{Address, PeerId},
    shared::Listening,
};

#[derive(Debug)]
pub(super) struct Doors {
    doors: Vec<Door>,
    /// When it was last known of all doors who had come.
    looked: Instant,
    /// How the last link of each peer that dials this server has come.
    kept: BTreeMap<PeerId, Arrival>,
    tries_max: u32,
    pause: Duration,
}

#[derive(Debug)]
struct Door {
    address: Address,
    state: State,
    /// How often it could not be opened. Once open it stays so.
    tries: u32,
    /// Where its name pointed to when it was last looked up, with ports that mean nothing.
    known: Vec<SocketAddr>,
    /// True exactly when its name is being looked up, be it for an earlier try: a lookup may outlast several.
    asking: bool,
    /// Since when connections may wait to be accepted, if they may.
    knocked: Option<Instant>,
    /// Connections accepted so far.
    accepted: u64,
}

/// How a connection has come: as which one at which door, and between which times.
///
/// Connections are accepted in the order in which they have come to one door. At another door one may have waited for longer,
/// while this process stood still or was out of descriptors, and its dialer may have given it up since, of which not every
/// network tells. What it brings is older then than what has come over its successor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    door: usize,
    nth: u64,
    after: Instant,
    before: Instant,
}

impl Arrival {
    /// Whether this connection has certainly come later.
    fn is_later_than(&self, other: &Self) -> bool {
        if self.door == other.door {
            self.nth > other.nth
        } else {
            self.after > other.before
        }
    }
}

#[derive(Debug)]
enum State {
    /// To be opened at this time.
    Waiting {
        until: Instant,
    },
    /// Its name is being looked up.
    Looking {
        until: Instant,
    },
    Open {
        resting: Option<Instant>,
    },
    Lost,
}

/// What the doors want of the loop.
#[derive(Debug)]
pub(super) enum Wish {
    Tell(Event),
    Note(usize, Listening),
    Lookup(usize, String),
}

impl Doors {
    pub(super) fn new(
        addresses: Vec<Address>,
        tries_max: u32,
        pause: Duration,
        now: Instant,
    ) -> Self {
        let doors = addresses
            .into_iter()
            .map(|address| Door {
                address,
                state: State::Waiting { until: now },
                tries: 0,
                known: Vec::new(),
                asking: false,
                knocked: None,
                accepted: 0,
            })
            .collect();
        Self {
            doors,
            looked: now,
            kept: BTreeMap::new(),
            tries_max,
            pause,
        }
    }

    /// What is to be known of the doors before any is opened.
    pub(super) fn all_trying(&self) -> Vec<Wish> {
        let trying = |door: &Door| Listening::Trying(door.address.clone());
        self.doors
            .iter()
            .map(trying)
            .enumerate()
            .map(|(door, state)| Wish::Note(door, state))
            .collect()
    }

    /// Takes listening sockets that are bound already.
    pub(super) fn adopt<N: Net>(
        &mut self,
        net: &mut N,
        listeners: Vec<TcpListener>,
    ) -> std::io::Result<Vec<Wish>> {
        let mut wishes = Vec::new();
        for listener in listeners {
            let door = self.doors.len();
            let at = net.adopt(door, listener)?;
            self.doors.push(Door {
                address: Address::new(at.ip().to_string(), at.port()),
                state: State::Open { resting: None },
                tries: 0,
                known: Vec::new(),
                asking: false,
                knocked: Some(self.looked),
                accepted: 0,
            });
            wishes.extend([
                Wish::Note(door, Listening::Open(at)),
                Wish::Tell(Event::Listening { addr: at }),
            ]);
        }
        Ok(wishes)
    }

    /// Connections wait at this door, which have come since the doors were looked at last.
    pub(super) fn on_knocked(&mut self, door: usize) {
        if let Some(door) = self.doors.get_mut(door) {
            door.knocked.get_or_insert(self.looked);
        }
    }

    /// It is known of all doors who has come.
    pub(super) fn on_looked(&mut self, now: Instant) {
        self.looked = now;
    }

    /// A connection was accepted.
    pub(super) fn on_accepted(&mut self, index: usize, now: Instant) -> Arrival {
        let door = &mut self.doors[index];
        door.accepted += 1;
        Arrival {
            door: index,
            nth: door.accepted,
            after: door.knocked.unwrap_or(self.looked),
            before: now,
        }
    }

    /// Whether a connection has come later than the one that was kept last for this peer.
    pub(super) fn is_latest(&self, peer: PeerId, arrival: &Arrival) -> bool {
        let kept = self.kept.get(&peer);
        kept.is_none_or(|kept| arrival.is_later_than(kept))
    }

    pub(super) fn keep(&mut self, peer: PeerId, arrival: Arrival) {
        self.kept.insert(peer, arrival);
    }

    /// A peer is not known any more.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.kept.remove(&peer);
    }

    /// The doors at which connections may wait.
    pub(super) fn knocked(&self) -> impl Iterator<Item = usize> + '_ {
        let ready = |door: &Door| {
            door.knocked.is_some() && matches!(door.state, State::Open { resting: None })
        };
        self.doors
            .iter()
            .enumerate()
            .filter(move |(_, door)| ready(door))
            .map(|(index, _)| index)
    }

    /// All that waited at this door were accepted.
    pub(super) fn on_empty(&mut self, door: usize) {
        self.doors[door].knocked = None;
    }

    /// A connection could not be accepted for want of descriptors or memory: the door rests, since the edge that
    /// announced the connection will not come again.
    pub(super) fn on_exhausted(&mut self, door: usize, now: Instant) {
        self.doors[door].state = State::Open {
            resting: Some(now + ACCEPT_PAUSE),
        };
    }

    /// Where this door is, as it was configured.
    pub(super) fn address(&self, door: usize) -> &Address {
        &self.doors[door].address
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.doors.iter().filter_map(|door| door.due()).min()
    }

    /// Opens what is due.
    pub(super) fn tick<N: Net>(&mut self, net: &mut N, now: Instant, wishes: &mut Vec<Wish>) {
        for index in 0..self.doors.len() {
            if self.doors[index].due().is_none_or(|at| at > now) {
                continue;
            }
            match self.doors[index].state {
                State::Open { .. } => self.doors[index].state = State::Open { resting: None },
                State::Waiting { .. } => match self.doors[index].address.ip() {
                    Some(ip) => {
                        self.open(net, index, &[SocketAddr::new(ip, 0)], now, wishes);
                    }
                    None => {
                        self.doors[index].state = State::Looking {
                            until: now + LOOKUP_TIMEOUT,
                        };
                        if !mem::replace(&mut self.doors[index].asking, true) {
                            let host = self.doors[index].address.host().to_owned();
                            wishes.push(Wish::Lookup(index, host));
                        }
                    }
                },
                State::Looking { .. } => {
                    let known = self.doors[index].known.clone();
                    self.open(net, index, &known, now, wishes);
                }
                State::Lost => {}
            }
        }
    }

    /// The name of this door was looked up.
    pub(super) fn on_found<N: Net>(
        &mut self,
        net: &mut N,
        door: usize,
        mut addresses: Vec<SocketAddr>,
        now: Instant,
        wishes: &mut Vec<Wish>,
    ) {
        self.doors[door].asking = false;
        if !addresses.is_empty() {
            addresses.truncate(ROUTES_MAX);
            addresses.shrink_to_fit();
            self.doors[door].known = addresses;
        }
        if matches!(self.doors[door].state, State::Looking { .. }) {
            let known = self.doors[door].known.clone();
            self.open(net, door, &known, now, wishes);
        }
    }

    /// Binds the first of the addresses that can be bound.
    fn open<N: Net>(
        &mut self,
        net: &mut N,
        index: usize,
        addresses: &[SocketAddr],
        now: Instant,
        wishes: &mut Vec<Wish>,
    ) {
        let (tries_max, pause) = (self.tries_max, self.pause);
        let door = &mut self.doors[index];
        let mut error = "its name has no address".to_owned();
        for mut at in addresses.iter().copied() {
            at.set_port(door.address.port());
            match net.listen(index, at) {
                Ok(at) => {
                    // Whoever connected since the socket was opened is announced by no edge that we can rely on.
                    door.knocked = Some(self.looked);
                    door.state = State::Open { resting: None };
                    wishes.extend([
                        Wish::Note(index, Listening::Open(at)),
                        Wish::Tell(Event::Listening { addr: at }),
                    ]);
                    return;
                }
                Err(why) => error = why.to_string(),
            }
        }
        door.tries = door.tries.saturating_add(1);
        let address = door.address.clone();
        wishes.push(Wish::Tell(Event::ListenFailed {
            address: address.clone(),
            error,
        }));
        if tries_max != 0 && door.tries >= tries_max {
            door.state = State::Lost;
            wishes.push(Wish::Note(index, Listening::Lost(address.clone())));
            wishes.push(Wish::Tell(Event::ListenerLost { address }));
        } else {
            door.state = State::Waiting { until: now + pause };
            wishes.push(Wish::Note(index, Listening::Trying(address)));
        }
    }
}

impl Door {
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Looking { until } => Some(until),
            State::Open { resting } => resting,
            State::Lost => None,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Config, Sid, driver::mio_net::MioNet};

    fn net() -> MioNet {
        let builder = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0");
        MioNet::new(&builder.build().unwrap().knobs).unwrap()
    }

    #[test]
    fn who_waits_at_a_door_that_rests_is_accepted_after_it_without_another_knock() {
        let (mut net, start) = (net(), Instant::now());
        let address = "127.0.0.1:0".parse().unwrap();
        let mut doors = Doors::new(vec![address], 0, Duration::ZERO, start);
        doors.tick(&mut net, start, &mut Vec::new());
        doors.on_empty(0);
        doors.on_knocked(0);
        assert_eq!(doors.knocked().collect::<Vec<_>>(), [0]);
        doors.on_exhausted(0, start);
        let over = start + ACCEPT_PAUSE;
        assert_eq!((doors.knocked().count(), doors.deadline()), (0, Some(over)));
        doors.tick(&mut net, over, &mut Vec::new());
        assert_eq!(doors.knocked().collect::<Vec<_>>(), [0]);
        assert_eq!(doors.deadline(), None);
    }

    #[test]
    fn a_name_that_is_not_answered_in_time_is_tried_again_and_asked_once() {
        let (mut net, start) = (net(), Instant::now());
        let pause = Duration::from_millis(300);
        let address = "silent.example:1".parse().unwrap();
        let mut doors = Doors::new(vec![address], 0, pause, start);
        let mut wishes = Vec::new();
        doors.tick(&mut net, start, &mut wishes);
        assert!(matches!(wishes[..], [Wish::Lookup(0, _)]), "{wishes:?}");
        let late = start + LOOKUP_TIMEOUT;
        assert_eq!(doors.deadline(), Some(late));
        wishes.clear();
        doors.tick(&mut net, late, &mut wishes);
        assert!(
            matches!(wishes[0], Wish::Tell(Event::ListenFailed { .. })),
            "{wishes:?}"
        );
        assert_eq!(doors.deadline(), Some(late + pause));
        wishes.clear();
        doors.tick(&mut net, late + pause, &mut wishes);
        assert!(wishes.is_empty(), "its name is still being looked up");
    }

    #[test]
    fn who_may_have_waited_longer_at_another_door_is_not_the_latest() {
        let at = |millis| {
            static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
            *START + Duration::from_millis(millis)
        };
        let peer = PeerId(0);
        let addresses = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
        let mut doors = Doors::new(addresses.to_vec(), 0, Duration::ZERO, at(0));
        // Somebody comes to the first door, which rests, and later to the second.
        doors.on_knocked(0);
        doors.on_looked(at(10));
        doors.on_knocked(1);
        doors.on_looked(at(20));
        let kept = doors.on_accepted(1, at(20));
        assert!(doors.is_latest(peer, &kept));
        doors.keep(peer, kept);
        let waited = doors.on_accepted(0, at(30));
        assert!(!doors.is_latest(peer, &waited));
        // Who comes there when nobody waits any more has come later, and so has whoever is behind at the same door.
        doors.on_empty(0);
        doors.on_looked(at(40));
        doors.on_knocked(0);
        let later = doors.on_accepted(0, at(50));
        let behind = doors.on_accepted(0, at(50));
        assert!(doors.is_latest(peer, &later));
        doors.keep(peer, behind);
        assert!(!doors.is_latest(peer, &later));
        doors.forget(peer);
        assert!(doors.is_latest(peer, &waited));
    }
}
