//! One listening socket: where it stands, who may be waiting at it, and how it rests when it cannot accept.
//!
//! Nothing here opens or closes anything.

use std::{
    io, mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    event::Event,
    limits::{ACCEPT_ERRORS_MAX, ACCEPT_PAUSE, ACCEPT_PAUSE_MAX, ACCEPT_REPORT_PAUSE},
    proto::Address,
};

#[derive(Debug)]
pub(super) struct Listener {
    /// The configured address that it belongs to, by its index.
    pub(super) own: usize,
    pub(super) state: State,
    /// Since when connections may wait to be accepted, if they may.
    pub(super) pending_since: Option<Instant>,
    /// Connections accepted so far.
    accepted: u64,
    trouble: Trouble,
}

/// Where a listening socket stands.
///
/// ```text
///   Vacant --its name has this address--> Trying --bound--> Open
///     ^---- its name has it no more ---------'
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// No address is known for it.
    Vacant,
    /// It is to be bound here. The last error, if it was told.
    Trying {
        at: SocketAddr,
        told: Option<(io::ErrorKind, Option<i32>)>,
    },
    /// It is bound here, and stays so. `resting`: no connection is accepted before that time.
    Open {
        at: SocketAddr,
        resting: Option<Instant>,
    },
}

/// The errors of `accept(2)` on one listening socket.
#[derive(Debug, Default)]
struct Trouble {
    /// Errors in a row, over all turns, of those that may have their cause in the socket itself.
    in_a_row: u32,
    /// Rests in a row.
    rests: u32,
    /// Errors that no event has told of yet, and the last of them.
    untold: u64,
    error: String,
    /// When the last event told of some.
    told: Option<Instant>,
}

impl Listener {
    pub(super) fn new(own: usize, state: State) -> Self {
        Self {
            own,
            state,
            pending_since: None,
            accepted: 0,
            trouble: Trouble::default(),
        }
    }

    /// Where it is bound.
    pub(super) fn open_at(&self) -> Option<SocketAddr> {
        match self.state {
            State::Open { at, .. } => Some(at),
            State::Vacant | State::Trying { .. } => None,
        }
    }

    /// Whether whoever connects to this address comes here: `::` takes IPv4 as well.
    pub(super) fn takes(&self, at: SocketAddr) -> bool {
        self.open_at().is_some_and(|open| {
            let is_any = open.ip().is_unspecified() && (open.is_ipv6() || at.is_ipv4());
            open.port() == at.port() && (is_any || is_same_host(&open, &at))
        })
    }

    /// Whether a connection may be accepted now.
    pub(super) fn is_ready(&self) -> bool {
        self.pending_since.is_some() && matches!(self.state, State::Open { resting: None, .. })
    }

    /// When there is something to do without an event.
    pub(super) fn due(&self) -> Option<Instant> {
        let State::Open { resting, .. } = self.state else {
            return None;
        };
        resting.into_iter().chain(self.trouble.report_at()).min()
    }

    /// Ends a rest that has lasted long enough.
    pub(super) fn wake(&mut self, now: Instant) {
        if let State::Open { resting, .. } = &mut self.state {
            *resting = resting.filter(|until| *until > now);
        }
    }

    /// The errors since the last event, if it is time for the next one.
    pub(super) fn report(&mut self, now: Instant, address: &Address) -> Option<Event> {
        self.trouble.report(now, address)
    }

    /// A connection was accepted.
    pub(super) fn on_accepted(
        &mut self,
        listener: usize,
        looked: Instant,
        now: Instant,
    ) -> Arrival {
        self.trouble.end();
        self.accepted += 1;
        Arrival {
            listener,
            nth: self.accepted,
            after: self.pending_since.unwrap_or(looked),
            before: now,
        }
    }

    /// All that waited were accepted.
    pub(super) fn on_empty(&mut self) {
        self.trouble.end();
        self.pending_since = None;
    }

    /// A connection could not be accepted. Returns whether the socket rests, since the edge that announced the connection will
    /// not come again.
    pub(super) fn on_failed(
        &mut self,
        error: &io::Error,
        is_exhausted: bool,
        now: Instant,
    ) -> bool {
        let trouble = &mut self.trouble;
        trouble.untold += 1;
        trouble.error = error.to_string();
        let pause = if is_exhausted {
            // Others may give some back at any time.
            ACCEPT_PAUSE
        } else if is_of_one_connection(error) {
            return false;
        } else if trouble.in_a_row + 1 < ACCEPT_ERRORS_MAX {
            trouble.in_a_row += 1;
            return false;
        } else {
            trouble.next_pause()
        };
        if let State::Open { resting, .. } = &mut self.state {
            *resting = Some(now + pause);
        }
        true
    }
}

/// Whether an error of accept(2) concerns a connection that is gone already, and is gone with it: the next one may be there.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut
    )
}

impl Trouble {
    fn next_pause(&mut self) -> Duration {
        let pause = doubled(ACCEPT_PAUSE, self.rests).min(ACCEPT_PAUSE_MAX);
        self.rests = self.rests.saturating_add(1);
        self.in_a_row = 0;
        pause
    }

    fn end(&mut self) {
        (self.in_a_row, self.rests) = (0, 0);
    }

    fn report_at(&self) -> Option<Instant> {
        let told = self.told.filter(|_| self.untold > 0)?;
        Some(told + ACCEPT_REPORT_PAUSE)
    }

    fn report(&mut self, now: Instant, address: &Address) -> Option<Event> {
        let is_early = self.report_at().is_some_and(|at| at > now);
        if self.untold == 0 || is_early {
            return None;
        }
        self.told = Some(now);
        Some(Event::AcceptFailed {
            address: address.clone(),
            error: mem::take(&mut self.error),
            count: mem::take(&mut self.untold),
        })
    }
}

/// How a connection has come: as which one at which listening socket, and between which times.
///
/// Connections are accepted in the order in which they have come to one socket. At another one may have waited for longer,
/// while this process stood still or was out of descriptors, and its dialer may have given it up since, of which not every
/// network tells. What it brings is older then than what has come over its successor.
#[derive(Clone, Copy, Debug)]
pub(in crate::event_loop) struct Arrival {
    listener: usize,
    nth: u64,
    after: Instant,
    before: Instant,
}

impl Arrival {
    /// Whether this connection has certainly come later.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        if self.listener == other.listener {
            self.nth > other.nth
        } else {
            self.after > other.before
        }
    }
}

/// The same address of the same interface, whatever the ports.
pub(super) fn is_same_host(one: &SocketAddr, other: &SocketAddr) -> bool {
    let scope = |at: &SocketAddr| match at {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(at) => at.scope_id(),
    };
    one.ip() == other.ip() && scope(one) == scope(other)
}

/// A pause, doubled so often.
pub(super) fn doubled(pause: Duration, times: u32) -> Duration {
    pause.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}
