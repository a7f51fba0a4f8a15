//! The follower's side of the leader's port: a connection that ends when the leader does.
//!
//! A leader closes the connection of a follower that is silent for `initLimit` ticks, and logs an error with a stack. So the
//! beginning of a packet is sent, and one more byte of it every third of that time: the leader waits for the rest, which never
//! comes. It never becomes a follower in the leader's eyes, is brought up to date by nothing, and acknowledges nothing. The
//! error is logged once, when the connection ends, as it is for every follower.
//!
//! Nothing here blocks. What is wrong on this side (no descriptor, no thread, no answer of the name server) is told, tried
//! again, and never taken for the end of the leader.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use quorum_cnx::Address;

use crate::{
    leader_port::Word,
    names::{Names, Places},
};

/// Attempts before a leader that was never reached is given up: it may take a little longer to know of its election.
const TRIES: u32 = 7;

/// After the first attempt; after each one it is twice as long, so that all of them take about half a second.
const PAUSE: Duration = Duration::from_millis(10);

/// After something that is wrong on this side.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// After a connection that the leader has closed before `initLimit` ticks were over; each time twice as long: it may speak
/// TLS, or want to be told a password.
const HANG_UP_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long connecting may take at one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads of a connection before other things get their turn.
const READS_MAX: usize = 16;

/// How often something is said while a leader waits for it once.
const SAYINGS: u32 = 3;

/// The length of a packet's data that a leader believes, and that takes days to be sent byte by byte.
const DATA_BYTES: u32 = 64 << 10;

/// `FOLLOWERINFO`, the packet with which a follower begins.
const KIND: i32 = 11;

pub(crate) struct LeaderWatch {
    addresses: Vec<Address>,
    /// How often it may fail yet.
    tries: u32,
    step: Step,
    /// How long a leader waits for a follower to say something.
    patience: Duration,
    hang_up_pause: Duration,
    /// What the failures of this attempt say.
    verdict: Verdict,
    /// What was told last of what is wrong on this side.
    told: String,
}

enum Step {
    /// Waits for the next attempt.
    Resting {
        until: Duration,
    },
    /// Waits for the addresses behind names.
    Naming,
    Dialing {
        stream: TcpStream,
        place: SocketAddr,
        until: Duration,
        rest: VecDeque<SocketAddr>,
    },
    Reached(Reached),
}

/// Whether an attempt has failed because of the leader, or of the way to it.
#[derive(Default)]
struct Verdict {
    /// True exactly when nobody was found at one address at least.
    is_refused: bool,
    /// True exactly when one address could not be tried for want of something on this side.
    is_untried: bool,
}

impl Verdict {
    fn add(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => self.is_refused = true,
            // This machine does not speak IPv6, for instance, and the leader does, among others.
            ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => {}
            _ => self.is_untried = true,
        }
    }
}

struct Reached {
    stream: TcpStream,
    since: Duration,
    /// True exactly when the last look did not come to an end.
    unread: bool,
    /// When the next byte is said.
    say_at: Duration,
    /// Bytes of the packet's data that may still be said.
    left: u32,
}

impl LeaderWatch {
    /// Watches the port of a leader at these addresses, which waits for so long for a follower to say something.
    pub(crate) fn new(addresses: Vec<Address>, patience: Duration, now: Duration) -> Self {
        Self {
            addresses,
            tries: TRIES,
            step: Step::Resting { until: now },
            patience,
            hang_up_pause: HANG_UP_PAUSE.0,
            verdict: Verdict::default(),
            told: String::new(),
        }
    }

    /// When time alone changes something, if it does.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.step {
            Step::Resting { until } | Step::Dialing { until, .. } => Some(*until),
            Step::Naming => None,
            Step::Reached(reached) if reached.unread => Some(Duration::ZERO),
            Step::Reached(reached) => Some(reached.say_at),
        }
    }

    /// Goes on as far as that is possible now. After [`Word::Gone`] nothing happens any more.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        names: &mut Names,
        poll: (&Registry, Token),
        words: &mut Vec<Word>,
    ) {
        let rest = Step::Resting { until: now };
        match std::mem::replace(&mut self.step, rest) {
            Step::Resting { until } if until <= now => {
                for address in &self.addresses {
                    names.look_up(address);
                }
                self.attempt(now, names, poll, words);
            }
            Step::Naming => self.attempt(now, names, poll, words),
            Step::Dialing {
                stream,
                place,
                until,
                rest,
            } => match is_connected(&stream) {
                Ok(true) => self.on_stream(now, stream, words),
                Ok(false) if now < until => {
                    self.step = Step::Dialing {
                        stream,
                        place,
                        until,
                        rest,
                    };
                }
                Ok(false) => {
                    let error = ErrorKind::TimedOut.into();
                    self.on_failure(now, place, &error, rest, poll, words);
                }
                Err(error) => self.on_failure(now, place, &error, rest, poll, words),
            },
            Step::Reached(mut reached) => match reached.look(now, self.patience) {
                true => self.step = Step::Reached(reached),
                false => self.on_hang_up(now, reached.since),
            },
            waiting @ Step::Resting { .. } => self.step = waiting,
        }
    }

    /// Dials all that is known of its addresses, one after the other.
    fn attempt(
        &mut self,
        now: Duration,
        names: &Names,
        poll: (&Registry, Token),
        words: &mut Vec<Word>,
    ) {
        let (mut places, mut failures, mut is_pending) = (VecDeque::new(), Vec::new(), false);
        for address in &self.addresses {
            match names.places(address) {
                Places::Known(known) => places.extend(known),
                Places::Pending => is_pending = true,
                Places::Unknown(why) => failures.push(format!("{address}: {why}")),
            }
        }
        self.verdict = Verdict::default();
        if !places.is_empty() {
            self.dial(now, places, poll, words);
        } else if is_pending {
            self.step = Step::Naming;
        } else {
            self.on_trouble(now, &failures.join(", "), words);
        }
    }

    fn dial(
        &mut self,
        now: Duration,
        mut rest: VecDeque<SocketAddr>,
        poll: (&Registry, Token),
        words: &mut Vec<Word>,
    ) {
        let Some(place) = rest.pop_front() else {
            return self.on_trouble(now, "it has no address", words);
        };
        let (registry, token) = poll;
        let stream = TcpStream::connect(place).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, token, interest)?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => {
                self.step = Step::Dialing {
                    stream,
                    place,
                    until: now + CONNECT_TIMEOUT,
                    rest,
                };
            }
            Err(error) => self.on_failure(now, place, &error, rest, poll, words),
        }
    }

    fn on_stream(&mut self, now: Duration, stream: TcpStream, words: &mut Vec<Word>) {
        let mut reached = Reached {
            stream,
            since: now,
            unread: true,
            say_at: now + pause(self.patience),
            left: DATA_BYTES - 1,
        };
        self.told.clear();
        self.tries = 1;
        words.push(Word::Reached);
        match reached.begin() {
            true => self.step = Step::Reached(reached),
            false => self.on_hang_up(now, now),
        }
    }

    /// One address could not be reached: the next one, if there is one.
    fn on_failure(
        &mut self,
        now: Duration,
        place: SocketAddr,
        error: &io::Error,
        rest: VecDeque<SocketAddr>,
        poll: (&Registry, Token),
        words: &mut Vec<Word>,
    ) {
        let why = format!("no connection to its quorum port {place}: {error}");
        self.verdict.add(error);
        if !rest.is_empty() {
            return self.dial(now, rest, poll, words);
        }
        if !self.verdict.is_refused || self.verdict.is_untried {
            return self.on_trouble(now, &why, words);
        }
        if self.tries <= 1 {
            return words.push(Word::Gone(why));
        }
        let pause = PAUSE * (1 << TRIES.saturating_sub(self.tries));
        self.tries -= 1;
        self.step = Step::Resting { until: now + pause };
    }

    /// Something is wrong on this side, which says nothing of the leader.
    fn on_trouble(&mut self, now: Duration, what: &str, words: &mut Vec<Word>) {
        if self.told != what {
            let message = format!("cannot watch the leader's port, and will try again: {what}");
            words.push(Word::Trouble(message));
            self.told = what.to_owned();
        }
        let until = now + TROUBLE_PAUSE;
        self.step = Step::Resting { until };
    }

    /// The connection has ended. When it lasted, this may be all that is to be known: whoever comes again, and finds nobody,
    /// knows more.
    fn on_hang_up(&mut self, now: Duration, since: Duration) {
        let mut until = now;
        if now.saturating_sub(since) < self.patience / 2 {
            until += self.hang_up_pause;
            self.hang_up_pause = (self.hang_up_pause * 2).min(HANG_UP_PAUSE.1);
        }
        self.step = Step::Resting { until };
    }
}

impl Reached {
    /// Sends the beginning of a packet; whether that was possible.
    fn begin(&mut self) -> bool {
        let mut head = KIND.to_be_bytes().to_vec();
        // The transaction, of which nothing is said.
        head.extend(0_i64.to_be_bytes());
        head.extend(DATA_BYTES.to_be_bytes());
        // A socket that was just connected has room for it.
        matches!(self.stream.write(&head), Ok(bytes) if bytes == head.len())
    }

    /// Whether the connection goes on.
    fn look(&mut self, now: Duration, patience: Duration) -> bool {
        if self.say_at <= now {
            self.say_at = now + pause(patience);
            self.left -= 1;
            match self.stream.write(&[0]) {
                // A leader that reads nothing, as this program does not, is no less there.
                Err(error) if error.kind() != ErrorKind::WouldBlock => return false,
                _ => {}
            }
        }
        // A whole packet would make it a follower.
        self.left > 0 && self.is_open()
    }

    fn is_open(&mut self) -> bool {
        let mut unheard = [0; 4096];
        for _ in 0..READS_MAX {
            match self.stream.read(&mut unheard) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unread = false;
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.unread = true;
        true
    }
}

/// Between two bytes that are said.
fn pause(patience: Duration) -> Duration {
    (patience / SAYINGS).max(PAUSE)
}

/// Whether `connect(2)` has come to an end, which may be an error.
fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
