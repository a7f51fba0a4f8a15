//! Why a connection ends, and who is at fault.
//!
//! Nothing here is logged or retried; that is decided where the failure is seen.

use std::{fmt, io};

use super::{initial_message::InitialMessageError, sid::Sid};

/// Who brought a connection to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The far end broke the protocol or hung up.
    Peer,
    /// The network, or a machine on the way, stopped carrying bytes.
    Network,
    /// This side decided so, by its rules or on request.
    Ours,
}

/// Why a connection ended or was refused. The mesh survives each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The far end closed the connection between two frames.
    Closed,
    /// The far end closed a link that this server had dialed, before it had sent a byte or a second had passed: it does not know
    /// this server, or its configuration differs.
    ClosedAtOnce,
    /// The far end closed the connection inside a frame or an initial message.
    ClosedEarly,
    /// The kernel reported an error, a reset for instance.
    Io(io::ErrorKind),
    /// The kernel reported an error that has no [`io::ErrorKind`] of its own, by this number (`errno(3)`): out of
    /// descriptors, for instance.
    Os(i32),
    /// The peer took nothing of what was sent to it for `peer_dead_after`, or answered no probe: its machine is gone or
    /// cannot be reached, or it has stopped reading.
    Dead,
    /// A frame claimed this length in bytes; only 1 to 524288 are legal.
    BadLength(i32),
    /// The initial message cannot be understood.
    BadInitialMessage(InitialMessageError),
    /// The connection did not name itself within the handshake timeout.
    HandshakeTimeout,
    /// Newer connections needed the place of this one, which had not yet named itself.
    Evicted,
    /// Nobody with this sid is configured, and none is admitted.
    UnknownSid(Sid),
    /// The far end claims this server's own sid.
    OwnSid,
    /// As many observers as `observers_max` allows are connected.
    ObserversFull,
    /// As many unconfigured servers as `Unknown::Admit` allows are known and connected.
    GuestsFull,
    /// A newer connection of the same peer took its place.
    Replaced,
    /// It claimed the sid of a peer whose older link is alive.
    OlderLives,
    /// It claimed the sid of a linked peer for which another claim is already waiting.
    ClaimWaiting,
    /// `connect(2)` did not finish in time.
    ConnectTimeout,
    /// No address is known for any of these names; without one, the peer was admitted and has advertised no address. What the resolver said stands in parentheses after each; in all it is cut to
    /// [2 KiB](crate::limits::NO_ADDRESS_BYTES_MAX).
    NoAddress(String),
    /// It was dialed while the names of the peer were being looked up, and they do not lead there any more: whoever answers
    /// there now may be somebody else. The peer is dialed anew.
    Moved,
    /// The connection is no longer needed: the peer came on another one first.
    Superfluous,
    /// The application dropped its links.
    Dropped,
    /// The manager halted.
    Halted,
}

impl Reason {
    /// A short name without details, in kebab case, for counters and machine-readable output.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClosedAtOnce => "closed-at-once",
            Self::ClosedEarly => "closed-early",
            Self::Io(_) | Self::Os(_) => "io",
            Self::Dead => "dead",
            Self::BadLength(_) => "bad-length",
            Self::BadInitialMessage(_) => "bad-challenge",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::Evicted => "evicted",
            Self::UnknownSid(_) => "unknown-sid",
            Self::OwnSid => "own-sid",
            Self::ObserversFull => "observers-full",
            Self::GuestsFull => "guests-full",
            Self::Replaced => "replaced",
            Self::OlderLives => "older-lives",
            Self::ClaimWaiting => "claim-waiting",
            Self::ConnectTimeout => "connect-timeout",
            Self::NoAddress(_) => "no-address",
            Self::Moved => "moved",
            Self::Superfluous => "superfluous",
            Self::Dropped => "dropped",
            Self::Halted => "halted",
        }
    }

    /// Who brought it about.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Closed
            | Self::ClosedAtOnce
            | Self::ClosedEarly
            | Self::BadLength(_)
            | Self::BadInitialMessage(_)
            | Self::HandshakeTimeout
            | Self::UnknownSid(_)
            | Self::OwnSid
            | Self::OlderLives
            | Self::ClaimWaiting => Fault::Peer,
            Self::Io(_) | Self::Dead | Self::ConnectTimeout | Self::NoAddress(_) => Fault::Network,
            Self::Os(_)
            | Self::Evicted
            | Self::ObserversFull
            | Self::GuestsFull
            | Self::Replaced
            | Self::Moved
            | Self::Superfluous
            | Self::Dropped
            | Self::Halted => Fault::Ours,
        }
    }

    /// The reason behind an error of the socket.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        // The kind of whatever has none cannot be named here, but no number is this large.
        let nameless = io::Error::from_raw_os_error(i32::MAX).kind();
        match error.raw_os_error() {
            Some(number) if error.kind() == nameless => Self::Os(number),
            _ => Self::of_kind(error.kind()),
        }
    }

    /// The same. `ETIMEDOUT` is how the kernel says that the far end is dead.
    pub(crate) fn of_kind(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::TimedOut => Self::Dead,
            kind => Self::Io(kind),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the far end"),
            Self::ClosedAtOnce => f.write_str(
                "closed by the far end at once: it does not know this server, or its configuration differs",
            ),
            Self::ClosedEarly => f.write_str("closed by the far end before its message was whole"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Os(number) => io::Error::from_raw_os_error(*number).fmt(f),
            Self::Dead => f.write_str("took nothing in time: it is dead, stopped or unreachable"),
            Self::BadLength(len) => write!(f, "a frame claims a length of {len} bytes"),
            Self::BadInitialMessage(why) => write!(f, "initial message: {why}"),
            Self::HandshakeTimeout => f.write_str("did not say who it is in time"),
            Self::Evicted => f.write_str("was silent while newer connections needed the place"),
            Self::UnknownSid(sid) => {
                write!(f, "claims to be server {sid}, which is not configured")
            }
            Self::OwnSid => f.write_str("claims to be this very server: is an id used twice?"),
            Self::ObserversFull => f.write_str("no more observers are served"),
            Self::GuestsFull => f.write_str("no more unconfigured servers are admitted"),
            Self::Replaced => f.write_str("replaced by a newer connection of the same peer"),
            Self::OlderLives => f.write_str("claims a peer whose older link is alive"),
            Self::ClaimWaiting => f.write_str("claims a peer for which another claim is waiting"),
            Self::ConnectTimeout => f.write_str("did not answer the connect in time"),
            Self::NoAddress(names) if names.is_empty() => {
                f.write_str("no address is known, it has advertised none")
            }
            Self::NoAddress(names) => write!(f, "no address is known for {names}"),
            Self::Moved => f.write_str("its name leads elsewhere by now"),
            Self::Superfluous => f.write_str("no longer needed, the peer came first"),
            Self::Dropped => f.write_str("dropped by the application"),
            Self::Halted => f.write_str("the connection manager has halted"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_keeps_what_an_operator_needs() {
        for (number, reason, said) in [
            (
                libc::ECONNREFUSED,
                Reason::Io(io::ErrorKind::ConnectionRefused),
                "connection refused",
            ),
            (
                libc::EMFILE,
                Reason::Os(24),
                "Too many open files (os error 24)",
            ),
            (
                libc::ETIMEDOUT,
                Reason::Dead,
                "took nothing in time: it is dead, stopped or unreachable",
            ),
        ] {
            let of = Reason::of_io(&io::Error::from_raw_os_error(number));
            assert_eq!((&of, of.to_string().as_str()), (&reason, said));
        }
    }
}
