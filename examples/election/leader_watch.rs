//! The follower's side of the quorum port: a connection to the leader that ends when the leader does.
//!
//! A leader closes the connection of a follower that is silent for `initLimit` ticks, and logs an error with a stack trace. So
//! this side sends the beginning of a packet, and one more byte of it each third of that time. The packet is never completed.
//! The leader never treats the connection as a follower's: it sends no data, and gets no acknowledgement. The error is logged
//! once, when the connection ends, as for every follower.
//!
//! Nothing here blocks. A failure on this side (no descriptor, no thread, no answer of the name server) is reported and tried
//! again. It never counts as the end of the leader.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use quorum_cnx::Address;

use crate::{
    leader_port::PortEvent,
    names::{Names, Resolved},
};

/// Attempts before a leader that was never reached is given up. It may learn of its election a little later.
const TRIES: u32 = 7;

/// Pause after the first attempt. It doubles after each one, so that all of them take about half a second.
const PAUSE: Duration = Duration::from_millis(10);

/// Pause after a failure on this side.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// Shortest and longest pause after a connection that the leader closed early. It doubles each time: the leader may require TLS or a
/// password.
const HANG_UP_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Timeout of `connect` for each address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads of the connection in one call of [`look`](LeaderWatch::look).
const READS_MAX: usize = 16;

/// Bytes that are sent in the time for which a leader waits for one.
const SENDS_PER_TIMEOUT: u32 = 3;

/// Announced length of the packet's data. A leader accepts it, and byte by byte it takes days to send.
const DATA_BYTES: u32 = 64 << 10;

/// `FOLLOWERINFO`, the first packet of a follower.
const KIND: i32 = 11;

pub(crate) struct LeaderWatch {
    addresses: Vec<Address>,
    /// Attempts that are left.
    tries: u32,
    step: Step,
    /// How long a leader waits for bytes of a follower.
    follower_timeout: Duration,
    hang_up_pause: Duration,
    /// The failures of this attempt.
    verdict: Verdict,
    /// The last failure on this side that was reported.
    reported: String,
}

enum Step {
    /// Waits for the next attempt.
    Waiting {
        until: Duration,
    },
    /// Waits for the addresses of names.
    Resolving,
    Dialing {
        stream: TcpStream,
        addr: SocketAddr,
        until: Duration,
        rest: VecDeque<SocketAddr>,
    },
    Reached(Reached),
}

/// Whether an attempt failed at the leader, or on this side.
#[derive(Default)]
struct Verdict {
    /// True exactly when at least one address could not be reached.
    is_refused: bool,
    /// True exactly when at least one address could not be tried, because of a failure on this side.
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
            // For instance, this machine has no IPv6, and the leader has addresses of both kinds.
            ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => {}
            _ => self.is_untried = true,
        }
    }
}

struct Reached {
    stream: TcpStream,
    since: Duration,
    /// True exactly when more bytes may wait to be read.
    maybe_more: bool,
    /// When the next byte is sent.
    send_at: Duration,
    /// Bytes of the packet's data that are not sent yet.
    left: u32,
}

impl LeaderWatch {
    /// Watches the port of a leader at these addresses. The leader waits for bytes of a follower for `follower_timeout`.
    pub(crate) fn new(addresses: Vec<Address>, follower_timeout: Duration, now: Duration) -> Self {
        Self {
            addresses,
            tries: TRIES,
            step: Step::Waiting { until: now },
            follower_timeout,
            hang_up_pause: HANG_UP_PAUSE.0,
            verdict: Verdict::default(),
            reported: String::new(),
        }
    }

    /// When [`look`](Self::look) must be called, if at all.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.step {
            Step::Waiting { until } | Step::Dialing { until, .. } => Some(*until),
            Step::Resolving => None,
            Step::Reached(reached) if reached.maybe_more => Some(Duration::ZERO),
            Step::Reached(reached) => Some(reached.send_at),
        }
    }

    /// Goes on as far as possible without blocking. After [`PortEvent::Gone`] it must not be called again.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        names: &mut Names,
        poll: (&Registry, Token),
        events: &mut Vec<PortEvent>,
    ) {
        let rest = Step::Waiting { until: now };
        match std::mem::replace(&mut self.step, rest) {
            Step::Waiting { until } if until <= now => {
                for address in &self.addresses {
                    names.look_up(address);
                }
                self.attempt(now, names, poll, events);
            }
            Step::Resolving => self.attempt(now, names, poll, events),
            Step::Dialing {
                stream,
                addr,
                until,
                rest,
            } => match is_connected(&stream) {
                Ok(true) => self.on_stream(now, stream, events),
                Ok(false) if now < until => {
                    self.step = Step::Dialing {
                        stream,
                        addr,
                        until,
                        rest,
                    };
                }
                Ok(false) => {
                    let error = ErrorKind::TimedOut.into();
                    self.on_failure(now, addr, &error, rest, poll, events);
                }
                Err(error) => self.on_failure(now, addr, &error, rest, poll, events),
            },
            Step::Reached(mut reached) => match reached.look(now, self.follower_timeout) {
                true => self.step = Step::Reached(reached),
                false => self.on_hang_up(now, reached.since),
            },
            waiting @ Step::Waiting { .. } => self.step = waiting,
        }
    }

    /// Dials all known addresses, one after the other.
    fn attempt(
        &mut self,
        now: Duration,
        names: &Names,
        poll: (&Registry, Token),
        events: &mut Vec<PortEvent>,
    ) {
        let (mut addrs, mut failures, mut is_pending) = (VecDeque::new(), Vec::new(), false);
        for address in &self.addresses {
            match names.resolved(address) {
                Resolved::Known(known) => addrs.extend(known),
                Resolved::Pending => is_pending = true,
                Resolved::Unknown(why) => failures.push(format!("{address}: {why}")),
            }
        }
        self.verdict = Verdict::default();
        if !addrs.is_empty() {
            self.dial(now, addrs, poll, events);
        } else if is_pending {
            self.step = Step::Resolving;
        } else {
            self.on_trouble(now, &failures.join(", "), events);
        }
    }

    fn dial(
        &mut self,
        now: Duration,
        mut rest: VecDeque<SocketAddr>,
        poll: (&Registry, Token),
        events: &mut Vec<PortEvent>,
    ) {
        let Some(addr) = rest.pop_front() else {
            return self.on_trouble(now, "it has no address", events);
        };
        let (registry, token) = poll;
        let stream = TcpStream::connect(addr).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, token, interest)?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => {
                self.step = Step::Dialing {
                    stream,
                    addr,
                    until: now + CONNECT_TIMEOUT,
                    rest,
                };
            }
            Err(error) => self.on_failure(now, addr, &error, rest, poll, events),
        }
    }

    fn on_stream(&mut self, now: Duration, stream: TcpStream, events: &mut Vec<PortEvent>) {
        let mut reached = Reached {
            stream,
            since: now,
            maybe_more: true,
            send_at: now + pause(self.follower_timeout),
            left: DATA_BYTES - 1,
        };
        self.reported.clear();
        self.tries = 1;
        events.push(PortEvent::Reached);
        match reached.begin() {
            true => self.step = Step::Reached(reached),
            false => self.on_hang_up(now, now),
        }
    }

    /// One address could not be reached: tries the next one, if there is one.
    fn on_failure(
        &mut self,
        now: Duration,
        addr: SocketAddr,
        error: &io::Error,
        rest: VecDeque<SocketAddr>,
        poll: (&Registry, Token),
        events: &mut Vec<PortEvent>,
    ) {
        let why = format!("no connection to its quorum port {addr}: {error}");
        self.verdict.add(error);
        if !rest.is_empty() {
            return self.dial(now, rest, poll, events);
        }
        if !self.verdict.is_refused || self.verdict.is_untried {
            return self.on_trouble(now, &why, events);
        }
        if self.tries <= 1 {
            return events.push(PortEvent::Gone(why));
        }
        let pause = PAUSE * (1 << TRIES.saturating_sub(self.tries));
        self.tries -= 1;
        self.step = Step::Waiting { until: now + pause };
    }

    /// A failure on this side, which says nothing about the leader.
    fn on_trouble(&mut self, now: Duration, what: &str, events: &mut Vec<PortEvent>) {
        if self.reported != what {
            let message = format!("cannot watch the leader's port, and will try again: {what}");
            events.push(PortEvent::Trouble(message));
            self.reported = what.to_owned();
        }
        let until = now + TROUBLE_PAUSE;
        self.step = Step::Waiting { until };
    }

    /// The connection has ended. After one that lasted, connects again at once: if that fails, the leader is gone.
    fn on_hang_up(&mut self, now: Duration, since: Duration) {
        let mut until = now;
        if now.saturating_sub(since) < self.follower_timeout / 2 {
            until += self.hang_up_pause;
            self.hang_up_pause = (self.hang_up_pause * 2).min(HANG_UP_PAUSE.1);
        }
        self.step = Step::Waiting { until };
    }
}

impl Reached {
    /// Sends the beginning of a packet. Returns whether that succeeded.
    fn begin(&mut self) -> bool {
        let mut head = KIND.to_be_bytes().to_vec();
        // The transaction: none.
        head.extend(0_i64.to_be_bytes());
        head.extend(DATA_BYTES.to_be_bytes());
        // The buffer of a new connection has room for it.
        matches!(self.stream.write(&head), Ok(bytes) if bytes == head.len())
    }

    /// Whether the connection goes on.
    fn look(&mut self, now: Duration, follower_timeout: Duration) -> bool {
        if self.send_at <= now {
            self.send_at = now + pause(follower_timeout);
            self.left -= 1;
            match self.stream.write(&[0]) {
                // A leader that does not read, such as this program, is alive all the same.
                Err(error) if error.kind() != ErrorKind::WouldBlock => return false,
                _ => {}
            }
        }
        // A complete packet would make this a connection of a follower.
        self.left > 0 && self.is_open()
    }

    fn is_open(&mut self) -> bool {
        let mut ignored = [0; 4096];
        for _ in 0..READS_MAX {
            match self.stream.read(&mut ignored) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.maybe_more = false;
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.maybe_more = true;
        true
    }
}

/// Time between two bytes that are sent.
fn pause(follower_timeout: Duration) -> Duration {
    (follower_timeout / SENDS_PER_TIMEOUT).max(PAUSE)
}

/// Whether `connect(2)` has succeeded; an error if it has failed.
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
