//! One listening socket: its state, its pending connections, and its pause when it cannot accept.
//!
//! Nothing here opens or closes a socket.

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
    /// The index of the configured address that it belongs to.
    pub(super) own: usize,
    pub(super) state: State,
    /// Since when connections may wait to be accepted; `None` if none is known to wait.
    pub(super) pending_since: Option<Instant>,
    /// Connections accepted so far.
    accepted: u64,
    trouble: Trouble,
}

/// The state of a listener.
///
/// ```text
///   Vacant --its name has this address--> Trying --bound--> Open
///     ^---- its name has it no more ---------'
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// No address is known for it.
    Vacant,
    /// It is to be bound to this address. `told` is the last error that was reported.
    Trying {
        at: SocketAddr,
        told: Option<(io::ErrorKind, Option<i32>)>,
    },
    /// It is bound to this address, and stays bound. `resting`: no connection is accepted before that time.
    Open {
        at: SocketAddr,
        resting: Option<Instant>,
    },
}

/// The errors of `accept(2)` on one listening socket.
#[derive(Debug, Default)]
struct Trouble {
    /// Errors in a row, over all turns, whose cause may be the socket itself.
    in_a_row: u32,
    /// Pauses in a row.
    rests: u32,
    /// Errors that no event has reported yet, and the last of them.
    untold: u64,
    error: String,
    /// When the last event was emitted.
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

    /// The address to which it is bound.
    pub(super) fn open_at(&self) -> Option<SocketAddr> {
        match self.state {
            State::Open { at, .. } => Some(at),
            State::Vacant | State::Trying { .. } => None,
        }
    }

    /// Whether a connection to this address arrives at this listener. `::` takes IPv4 as well.
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

    /// When the next pause ends or the next report is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let State::Open { resting, .. } = self.state else {
            return None;
        };
        resting.into_iter().chain(self.trouble.report_at()).min()
    }

    /// Ends a pause whose time is over.
    pub(super) fn wake(&mut self, now: Instant) {
        if let State::Open { resting, .. } = &mut self.state {
            *resting = resting.filter(|until| *until > now);
        }
    }

    /// The errors since the last event, if the next event is due.
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
            // At the earliest when no connection was known to be pending here.
            after: self.pending_since.unwrap_or(looked),
            before: now,
        }
    }

    /// All pending connections were accepted.
    pub(super) fn on_empty(&mut self) {
        self.trouble.end();
        self.pending_since = None;
    }

    /// A connection could not be accepted. Returns whether the listener pauses. After a pause it must try again by itself, since
    /// the edge that announced the connection is not repeated.
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
            // Descriptors or memory may become free at any time, so this pause does not grow.
            ACCEPT_PAUSE
        // It is gone, and the next one may be well: no reason to pause, however many fail.
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

/// Whether an error of `accept(2)` concerns only one connection, which is gone. The next call may succeed.
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

/// When and where a connection arrived: its place in the order of one listener, and bounds of the arrival time.
///
/// One listener accepts connections in their arrival order. Across listeners the order is unknown: a connection may have waited
/// longer at another listener while this process was stopped or out of descriptors. Its dialer may have abandoned it since, which
/// not every network reports. Its frames are then older than those of the connection that followed it. So the bounds are compared.
#[derive(Clone, Copy, Debug)]
pub(in crate::event_loop) struct Arrival {
    listener: usize,
    nth: u64,
    after: Instant,
    before: Instant,
}

impl Arrival {
    /// Whether this connection has certainly arrived later.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        if self.listener == other.listener {
            // One backlog is a queue.
            self.nth > other.nth
        } else {
            self.after > other.before
        }
    }
}

/// Whether both are the same address of the same interface. Ports are ignored.
pub(super) fn is_same_host(one: &SocketAddr, other: &SocketAddr) -> bool {
    let scope = |at: &SocketAddr| match at {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(at) => at.scope_id(),
    };
    one.ip() == other.ip() && scope(one) == scope(other)
}

/// The pause, doubled this many times.
pub(super) fn doubled(pause: Duration, times: u32) -> Duration {
    pause.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}
