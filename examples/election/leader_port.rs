//! The port at which a leader is found by its followers: held open by a leader, watched by a follower. When it is closed,
//! the leader is gone.
//!
//! Nothing is ever said there, and nothing that is said is listened to. Nothing here blocks the caller: names are looked up,
//! and connections made, on a thread for each attempt, of which there is one at a time.

use std::{
    collections::VecDeque,
    io::{self, Read as _},
    net::{TcpStream as Blocking, ToSocketAddrs as _},
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    thread,
    time::Duration,
};

use mio::{
    Interest, Registry, Token, Waker,
    net::{TcpListener, TcpStream},
};
use quorum_cnx::Address;

/// Attempts before a leader that was never reached is given up: it may take a little longer to know of its election.
const TRIES: u32 = 7;

/// After the first attempt; after each one it is twice as long, so that all of them take about half a second.
const PAUSE: Duration = Duration::from_millis(10);

/// How long one attempt may take at one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Followers whose connection a leader holds; one more, and the oldest goes, who will come again.
const HELD_MAX: usize = 64;

/// Reads of a connection before other things get their turn.
const READS_MAX: usize = 16;

/// What is to be told of a port that somebody watches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The leader is there.
    Reached,
    /// Nobody is there any more.
    Gone(String),
}

pub(crate) struct LeaderPort {
    registry: Registry,
    waker: Arc<Waker>,
    token: Token,
    state: State,
}

enum State {
    Unused,
    /// This server leads.
    Held {
        listeners: Vec<TcpListener>,
        followers: VecDeque<TcpStream>,
    },
    /// It follows, and waits for an attempt to end.
    Reaching {
        addresses: Vec<Address>,
        tries: u32,
        attempt: Receiver<io::Result<Blocking>>,
    },
    /// It follows, and waits for the next attempt.
    Resting {
        addresses: Vec<Address>,
        tries: u32,
        until: Duration,
    },
    /// It follows who is there.
    Reached {
        addresses: Vec<Address>,
        stream: TcpStream,
        /// True exactly when the last look did not come to an end.
        unread: bool,
    },
}

impl LeaderPort {
    /// Events come with this token.
    pub(crate) fn new(registry: Registry, waker: Arc<Waker>, token: Token) -> Self {
        Self {
            registry,
            waker,
            token,
            state: State::Unused,
        }
    }

    /// Opens the port: this server leads.
    pub(crate) fn hold(&mut self, addresses: &[Address]) -> io::Result<()> {
        self.leave();
        let mut listeners = Vec::new();
        for address in addresses {
            let failed = |error: io::Error| {
                let why = format!("cannot listen as leader on {address}: {error}");
                io::Error::new(error.kind(), why)
            };
            let listener = std::net::TcpListener::bind((address.host(), address.port()));
            let listener = listener.map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let mut listener = TcpListener::from_std(listener);
            let interest = Interest::READABLE;
            self.registry
                .register(&mut listener, self.token, interest)
                .map_err(failed)?;
            listeners.push(listener);
        }
        self.state = State::Held {
            listeners,
            followers: VecDeque::new(),
        };
        Ok(())
    }

    /// Watches the port of a leader at these addresses.
    pub(crate) fn watch(&mut self, addresses: Vec<Address>) {
        self.leave();
        self.reach(addresses, TRIES);
    }

    /// Closes everything.
    pub(crate) fn leave(&mut self) {
        self.state = State::Unused;
    }

    /// When time alone changes something, if it does.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Resting { until, .. } => Some(until),
            State::Reached { unread: true, .. } => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// Looks what has happened. Costs little when nothing has.
    pub(crate) fn look(&mut self, now: Duration) -> Option<Word> {
        match std::mem::replace(&mut self.state, State::Unused) {
            State::Unused => None,
            State::Held {
                listeners,
                mut followers,
            } => {
                for listener in &listeners {
                    // Anything that is wrong with a connection, or with descriptors, leaves the port open all the same.
                    while let Ok((follower, _)) = listener.accept() {
                        followers.push_back(follower);
                        if followers.len() > HELD_MAX {
                            followers.pop_front();
                        }
                    }
                }
                self.state = State::Held {
                    listeners,
                    followers,
                };
                None
            }
            State::Reaching {
                addresses,
                tries,
                attempt,
            } => match attempt.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.state = State::Reaching {
                        addresses,
                        tries,
                        attempt,
                    };
                    None
                }
                Ok(Ok(stream)) => self.on_stream(addresses, stream),
                Ok(Err(error)) => self.on_failure(now, addresses, tries, &error),
                Err(TryRecvError::Disconnected) => {
                    let error = io::Error::other("the attempt ended without a result");
                    self.on_failure(now, addresses, tries, &error)
                }
            },
            State::Resting {
                addresses,
                tries,
                until,
            } => {
                if until <= now {
                    self.reach(addresses, tries);
                } else {
                    self.state = State::Resting {
                        addresses,
                        tries,
                        until,
                    };
                }
                None
            }
            State::Reached {
                addresses,
                mut stream,
                ..
            } => {
                match is_open(&mut stream) {
                    Some(unread) => {
                        self.state = State::Reached {
                            addresses,
                            stream,
                            unread,
                        };
                    }
                    // A leader hangs up on who says nothing, and is there all the same for who comes again.
                    None => self.reach(addresses, 1),
                }
                None
            }
        }
    }

    fn reach(&mut self, addresses: Vec<Address>, tries: u32) {
        let (sender, attempt) = sync_channel(1);
        let (places, waker) = (addresses.clone(), Arc::clone(&self.waker));
        thread::spawn(move || {
            // Fails when nobody waits for it any more.
            let _ = sender.send(connect(&places));
            let _ = waker.wake();
        });
        self.state = State::Reaching {
            addresses,
            tries,
            attempt,
        };
    }

    fn on_stream(&mut self, addresses: Vec<Address>, stream: Blocking) -> Option<Word> {
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE;
        if let Err(error) = self.registry.register(&mut stream, self.token, interest) {
            return Some(Word::Gone(format!("it cannot be watched: {error}")));
        }
        self.state = State::Reached {
            addresses,
            stream,
            unread: true,
        };
        Some(Word::Reached)
    }

    fn on_failure(
        &mut self,
        now: Duration,
        addresses: Vec<Address>,
        tries: u32,
        error: &io::Error,
    ) -> Option<Word> {
        if tries <= 1 {
            return Some(Word::Gone(error.to_string()));
        }
        self.state = State::Resting {
            addresses,
            tries: tries - 1,
            until: now + PAUSE * (1 << TRIES.saturating_sub(tries)),
        };
        None
    }
}

/// A connection to the first of these that takes one, within its time.
fn connect(addresses: &[Address]) -> io::Result<Blocking> {
    let mut failure = io::Error::other("it has no address");
    for address in addresses {
        let found = (address.host(), address.port()).to_socket_addrs();
        let stream = found.and_then(|mut places| {
            let place = places.next().ok_or(io::ErrorKind::NotFound)?;
            Blocking::connect_timeout(&place, CONNECT_TIMEOUT)
        });
        match stream.and_then(|stream| stream.set_nonblocking(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                let why = format!("no connection to its quorum port {address}: {error}");
                failure = io::Error::new(error.kind(), why);
            }
        }
    }
    Err(failure)
}

/// Whether a connection is open; if so, whether there may be more to read.
fn is_open(stream: &mut TcpStream) -> Option<bool> {
    let mut unheard = [0; 4096];
    for _ in 0..READS_MAX {
        match stream.read(&mut unheard) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(true)
}
