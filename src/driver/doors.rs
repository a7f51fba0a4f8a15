//! The listening sockets: one for each own address, tried again when it cannot be opened, paused when it cannot accept.
//!
//! An accepted connection never closes its listening socket, and a lost one never ends the process.

use std::{
    mem,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use super::net::Net;
use crate::{
    handler::Event,
    limits::{ACCEPT_PAUSE, LOOKUP_TIMEOUT, ROUTES_MAX},
    proto::Address,
    shared::Listening,
};

#[derive(Debug)]
pub(super) struct Doors {
    doors: Vec<Door>,
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
    /// True exactly when connections may wait to be accepted.
    knocked: bool,
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
                knocked: false,
            })
            .collect();
        Self {
            doors,
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
                knocked: true,
            });
            wishes.extend([
                Wish::Note(door, Listening::Open(at)),
                Wish::Tell(Event::Listening { addr: at }),
            ]);
        }
        Ok(wishes)
    }

    /// Connections wait at this door.
    pub(super) fn on_knocked(&mut self, door: usize) {
        if let Some(door) = self.doors.get_mut(door) {
            door.knocked = true;
        }
    }

    /// The doors at which connections may wait.
    pub(super) fn knocked(&self) -> impl Iterator<Item = usize> + '_ {
        let ready =
            |door: &Door| door.knocked && matches!(door.state, State::Open { resting: None });
        self.doors
            .iter()
            .enumerate()
            .filter(move |(_, door)| ready(door))
            .map(|(index, _)| index)
    }

    /// All that waited at this door were accepted.
    pub(super) fn on_empty(&mut self, door: usize) {
        self.doors[door].knocked = false;
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
                    door.knocked = true;
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
