//! Why a connection ends, and who is at fault.
//!
//! Nothing here logs or retries. The code that detects a failure decides that.

use std::{error, fmt, io};

use super::{
    initial_message::InitialMessageError, refusal::Refusal, sid::Sid, tls_failure::TlsFailure,
};

/// Which side caused a connection to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The far end broke the protocol or closed the connection.
    Peer,
    /// The network, or a machine on the path, stopped carrying bytes.
    Network,
    /// This side ended it, because of its rules or on request.
    Ours,
}

/// Why a connection ended or was refused. The connection manager continues after each of them except [`Halted`](Self::Halted).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The far end closed the connection between two frames.
    Closed,
    /// The far end closed a link that this server had dialed, before it had sent a byte or a second had passed. Most likely it
    /// refuses this server, and its log says why: it does not know this server, its configuration differs, or it does not believe the
    /// certificate. If this server sends native initial messages, the far end has not answered one, and may not understand it.
    ClosedAtOnce,
    /// The far end closed the connection inside a frame, an initial message or a TLS handshake. A ZooKeeper without TLS does the last.
    ClosedEarly,
    /// The kernel reported an error, for example a reset.
    Io(io::ErrorKind),
    /// The kernel reported an error that has no [`io::ErrorKind`] of its own, for example that no descriptors are left. The value
    /// is its number (`errno(3)`).
    Os(i32),
    /// For `peer_dead_after`, the peer accepted none of the bytes that were sent to it, or answered no probe. Its machine is down
    /// or cannot be reached, or the peer has stopped reading.
    Dead,
    /// A frame claimed this length in bytes; only 1 to 524288 are legal.
    BadLength(i32),
    /// The initial message cannot be understood.
    BadInitialMessage(InitialMessageError),
    /// The far end has not answered the native initial message. It has sent something that begins with this number.
    BadAnswer(i64),
    /// The far end has answered that it refuses this server, or another server has answered.
    Refused(Refusal),
    /// The far end has dialed another server, this one, and has reached this server.
    WrongServer(Sid),
    /// The far end has another [cluster id](crate::ConfigBuilder::cluster_id).
    WrongCluster,
    /// The initial message is one of ZooKeeper, and this server is [`native_only`](crate::ConfigBuilder::native_only).
    NotNative,
    /// The connection claims the sid of a peer, and the link of that peer, which is alive, belongs to another process. Two processes
    /// have one sid. If both come from the addresses of the peer, or prove with one certificate to be it, neither is refused: they replace each
    /// other ([`Event::Flapping`](crate::Event::Flapping)).
    DuplicateSid,
    /// TLS has refused the connection, or the far end has refused it with an alert.
    Tls(TlsFailure),
    /// No whole initial message, or no answer to a native one, arrived in time.
    HandshakeTimeout,
    /// The connection had not sent its initial message, and newer connections needed its place.
    Evicted,
    /// No server with this sid is configured, and it is not admitted either.
    UnknownSid(Sid),
    /// The far end claims this server's own sid.
    OwnSid,
    /// As many observers as `observers_max` allows are connected.
    ObserversFull,
    /// As many unconfigured servers as `Unknown::Admit` allows are known and connected.
    AdmittedFull,
    /// A newer connection of the same peer took its place. If this server has dialed it with a native initial message, the peer may have
    /// ended the old link before its answer arrived: then [`Event::Up`](crate::Event::Up) follows with the answer.
    Replaced,
    /// The connection claimed the sid of a peer whose older link is alive.
    OlderLinkAlive,
    /// The connection claimed the sid of a linked peer, but another claim is already waiting for that peer.
    ContenderWaiting,
    /// `connect(2)` did not finish in time.
    ConnectTimeout,
    /// No address is known for any of these names. The answer of the resolver follows each name in parentheses, and the whole text
    /// is cut to 2 KiB. If it is empty, the peer is an admitted server that has advertised
    /// no address.
    NoAddress(String),
    /// The link was dialed while the names of the peer were being looked up, and the names no longer resolve to its address.
    /// Another server may answer there now. The peer is dialed again.
    Moved,
    /// The connection is no longer needed: another connection became the link of the peer first.
    Superfluous,
    /// The application asked to drop all links.
    Dropped,
    /// The peer is no longer a member: see [`Handle::reconfigure`](crate::Handle::reconfigure).
    Removed,
    /// The manager halted.
    Halted,
    /// The loop has died, by an error of the system or a panic of a handler.
    Died,
}

impl Reason {
    /// The reason without its details.
    #[must_use]
    pub fn kind(&self) -> ReasonKind {
        match self {
            Self::Closed => ReasonKind::Closed,
            Self::ClosedAtOnce => ReasonKind::ClosedAtOnce,
            Self::ClosedEarly => ReasonKind::ClosedEarly,
            Self::Io(_) | Self::Os(_) => ReasonKind::Io,
            Self::Dead => ReasonKind::Dead,
            Self::BadLength(_) => ReasonKind::BadLength,
            Self::BadInitialMessage(_) => ReasonKind::BadInitialMessage,
            Self::BadAnswer(_) => ReasonKind::BadAnswer,
            Self::Refused(refusal) => ReasonKind::of_refusal(*refusal),
            Self::WrongServer(_) => ReasonKind::WrongServer,
            Self::WrongCluster => ReasonKind::WrongCluster,
            Self::NotNative => ReasonKind::NotNative,
            Self::DuplicateSid => ReasonKind::DuplicateSid,
            Self::Tls(failure) => ReasonKind::of_tls(failure),
            Self::HandshakeTimeout => ReasonKind::HandshakeTimeout,
            Self::Evicted => ReasonKind::Evicted,
            Self::UnknownSid(_) => ReasonKind::UnknownSid,
            Self::OwnSid => ReasonKind::OwnSid,
            Self::ObserversFull => ReasonKind::ObserversFull,
            Self::AdmittedFull => ReasonKind::AdmittedFull,
            Self::Replaced => ReasonKind::Replaced,
            Self::OlderLinkAlive => ReasonKind::OlderLinkAlive,
            Self::ContenderWaiting => ReasonKind::ContenderWaiting,
            Self::ConnectTimeout => ReasonKind::ConnectTimeout,
            Self::NoAddress(_) => ReasonKind::NoAddress,
            Self::Moved => ReasonKind::Moved,
            Self::Superfluous => ReasonKind::Superfluous,
            Self::Dropped => ReasonKind::Dropped,
            Self::Removed => ReasonKind::Removed,
            Self::Halted => ReasonKind::Halted,
            Self::Died => ReasonKind::Died,
        }
    }

    /// Which side caused it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Closed
            | Self::ClosedAtOnce
            | Self::ClosedEarly
            | Self::BadLength(_)
            | Self::BadInitialMessage(_)
            | Self::BadAnswer(_)
            | Self::Refused(_)
            | Self::WrongServer(_)
            | Self::WrongCluster
            | Self::NotNative
            | Self::DuplicateSid
            | Self::Tls(_)
            | Self::HandshakeTimeout
            | Self::UnknownSid(_)
            | Self::OwnSid
            | Self::OlderLinkAlive
            | Self::ContenderWaiting => Fault::Peer,
            Self::Io(_) | Self::Dead | Self::ConnectTimeout | Self::NoAddress(_) => Fault::Network,
            Self::Os(_)
            | Self::Evicted
            | Self::ObserversFull
            | Self::AdmittedFull
            | Self::Replaced
            | Self::Moved
            | Self::Superfluous
            | Self::Dropped
            | Self::Removed
            | Self::Halted
            | Self::Died => Fault::Ours,
        }
    }

    /// Whether a dial that has failed for this reason fails again until an operator changes something.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Refused(refusal) => matches!(
                refusal,
                Refusal::WrongServer(_) | Refusal::WrongCluster | Refusal::UnknownSid
            ),
            _ => false,
        }
    }

    /// What the far end of a native handshake is told, if it is refused for this reason by the server `own`.
    pub(crate) fn refusal(&self, own: Sid) -> Refusal {
        match self {
            Self::WrongServer(_) => Refusal::WrongServer(own),
            Self::WrongCluster => Refusal::WrongCluster,
            Self::UnknownSid(_) => Refusal::UnknownSid,
            Self::OwnSid | Self::DuplicateSid => Refusal::DuplicateSid,
            Self::OlderLinkAlive | Self::ContenderWaiting => Refusal::OlderLinkAlive,
            Self::ObserversFull | Self::AdmittedFull => Refusal::NoRoom,
            _ => Refusal::Other,
        }
    }

    /// The reason that an error of a connection stands for. A layer above the socket, such as TLS, puts its `Reason` into the error.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        if let Some(reason) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>())
        {
            return reason.clone();
        }
        // The kind of errors without a kind of their own is unstable and cannot be named. An impossible number has that kind.
        let nameless = io::Error::from_raw_os_error(i32::MAX).kind();
        match error.raw_os_error() {
            Some(number) if error.kind() == nameless => Self::Os(number),
            _ => Self::of_kind(error.kind()),
        }
    }

    /// The same for a kind. The kernel reports a dead far end as `ETIMEDOUT`.
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
                "closed by the far end at once: most likely it refuses this server, and its log says why",
            ),
            Self::ClosedEarly => {
                f.write_str("closed by the far end inside a message or a handshake")
            }
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Os(number) => io::Error::from_raw_os_error(*number).fmt(f),
            Self::Dead => f.write_str("took nothing in time: it is dead, stopped or unreachable"),
            Self::BadLength(len) => write!(f, "a frame claims a length of {len} bytes"),
            Self::BadInitialMessage(why) => write!(f, "initial message: {why}"),
            Self::BadAnswer(begin) => {
                write!(f, "did not answer the initial message, but sent something that begins with {begin}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::WrongServer(meant) => {
                write!(f, "meant for server {meant}, whose address leads to this server")
            }
            Self::WrongCluster => f.write_str("belongs to another cluster"),
            Self::NotNative => f.write_str("sent no native initial message, which is required here"),
            Self::DuplicateSid => {
                f.write_str("another process with this id is linked and alive: is an id used twice?")
            }
            Self::Tls(failure) => write!(f, "TLS: {failure}"),
            Self::HandshakeTimeout => f.write_str("did not say who it is in time"),
            Self::Evicted => f.write_str("was silent while newer connections needed the place"),
            // No sid looks like this. A TLS record begins so, and its version.
            Self::UnknownSid(sid) if sid.0 >> 48 == 0x1603 => {
                f.write_str("speaks TLS, which is not configured here")
            }
            Self::UnknownSid(sid) => {
                write!(f, "claims to be server {sid}, which is not configured")
            }
            Self::OwnSid => f.write_str("claims to be this very server: is an id used twice?"),
            Self::ObserversFull => f.write_str("no more observers are served"),
            Self::AdmittedFull => f.write_str("no more unconfigured servers are admitted"),
            Self::Replaced => f.write_str("replaced by a newer connection of the same peer"),
            Self::OlderLinkAlive => f.write_str("claims a peer whose older link is alive"),
            Self::ContenderWaiting => f.write_str("claims a peer for which another claim is waiting"),
            Self::ConnectTimeout => f.write_str("did not answer the connect in time"),
            Self::NoAddress(names) if names.is_empty() => {
                f.write_str("no address is known, it has advertised none")
            }
            Self::NoAddress(names) => write!(f, "no address is known for {names}"),
            Self::Moved => f.write_str("its name leads elsewhere by now"),
            Self::Superfluous => f.write_str("no longer needed, the peer came first"),
            Self::Dropped => f.write_str("dropped by the application"),
            Self::Removed => f.write_str("no longer a member"),
            Self::Halted => f.write_str("the connection manager has halted"),
            Self::Died => f.write_str("the loop of the connection manager has died"),
        }
    }
}

impl error::Error for Reason {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::BadInitialMessage(why) => Some(why),
            Self::Tls(failure) => Some(failure),
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// A [`Reason`] without its details: what counters are kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ReasonKind {
    /// [`Reason::Closed`].
    Closed,
    /// [`Reason::ClosedAtOnce`].
    ClosedAtOnce,
    /// [`Reason::ClosedEarly`].
    ClosedEarly,
    /// [`Reason::Io`], or [`Reason::Os`].
    Io,
    /// [`Reason::Dead`].
    Dead,
    /// [`Reason::BadLength`].
    BadLength,
    /// [`Reason::BadInitialMessage`].
    BadInitialMessage,
    /// [`Reason::BadAnswer`].
    BadAnswer,
    /// [`Refusal::WrongServer`].
    RefusedWrongServer,
    /// [`Refusal::WrongCluster`].
    RefusedWrongCluster,
    /// [`Refusal::UnknownSid`].
    RefusedUnknownSid,
    /// [`Refusal::DuplicateSid`].
    RefusedDuplicateSid,
    /// [`Refusal::OlderLinkAlive`].
    RefusedOlderLinkAlive,
    /// [`Refusal::NoRoom`].
    RefusedNoRoom,
    /// [`Refusal::Other`].
    RefusedOther,
    /// [`Reason::WrongServer`].
    WrongServer,
    /// [`Reason::WrongCluster`].
    WrongCluster,
    /// [`Reason::NotNative`].
    NotNative,
    /// [`Reason::DuplicateSid`].
    DuplicateSid,
    /// [`TlsFailure::NoCertificate`].
    TlsNoCertificate,
    /// [`TlsFailure::UnknownIssuer`].
    TlsUnknownIssuer,
    /// [`TlsFailure::Expired`].
    TlsExpired,
    /// [`TlsFailure::NotYetValid`].
    TlsNotYetValid,
    /// [`TlsFailure::Revoked`].
    TlsRevoked,
    /// [`TlsFailure::BadCertificate`].
    TlsBadCertificate,
    /// [`TlsFailure::WrongName`].
    TlsWrongName,
    /// [`TlsFailure::Plaintext`].
    TlsPlaintext,
    /// [`TlsFailure::Alert`].
    TlsAlert,
    /// [`TlsFailure::Protocol`].
    TlsProtocol,
    /// [`Reason::HandshakeTimeout`].
    HandshakeTimeout,
    /// [`Reason::Evicted`].
    Evicted,
    /// [`Reason::UnknownSid`].
    UnknownSid,
    /// [`Reason::OwnSid`].
    OwnSid,
    /// [`Reason::ObserversFull`].
    ObserversFull,
    /// [`Reason::AdmittedFull`].
    AdmittedFull,
    /// [`Reason::Replaced`].
    Replaced,
    /// [`Reason::OlderLinkAlive`].
    OlderLinkAlive,
    /// [`Reason::ContenderWaiting`].
    ContenderWaiting,
    /// [`Reason::ConnectTimeout`].
    ConnectTimeout,
    /// [`Reason::NoAddress`].
    NoAddress,
    /// [`Reason::Moved`].
    Moved,
    /// [`Reason::Superfluous`].
    Superfluous,
    /// [`Reason::Dropped`].
    Dropped,
    /// [`Reason::Removed`].
    Removed,
    /// [`Reason::Halted`].
    Halted,
    /// [`Reason::Died`].
    Died,
}

impl ReasonKind {
    fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::WrongServer(_) => Self::RefusedWrongServer,
            Refusal::WrongCluster => Self::RefusedWrongCluster,
            Refusal::UnknownSid => Self::RefusedUnknownSid,
            Refusal::DuplicateSid => Self::RefusedDuplicateSid,
            Refusal::OlderLinkAlive => Self::RefusedOlderLinkAlive,
            Refusal::NoRoom => Self::RefusedNoRoom,
            Refusal::Other => Self::RefusedOther,
        }
    }

    fn of_tls(failure: &TlsFailure) -> Self {
        match failure {
            TlsFailure::NoCertificate => Self::TlsNoCertificate,
            TlsFailure::UnknownIssuer => Self::TlsUnknownIssuer,
            TlsFailure::Expired => Self::TlsExpired,
            TlsFailure::NotYetValid => Self::TlsNotYetValid,
            TlsFailure::Revoked => Self::TlsRevoked,
            TlsFailure::BadCertificate(_) => Self::TlsBadCertificate,
            TlsFailure::WrongName { .. } => Self::TlsWrongName,
            TlsFailure::Plaintext => Self::TlsPlaintext,
            TlsFailure::Alert(_) => Self::TlsAlert,
            TlsFailure::Protocol(_) => Self::TlsProtocol,
        }
    }

    /// Its name in kebab case, for metrics and machine-readable output. A name never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClosedAtOnce => "closed-at-once",
            Self::ClosedEarly => "closed-early",
            Self::Io => "io",
            Self::Dead => "dead",
            Self::BadLength => "bad-length",
            Self::BadInitialMessage => "bad-initial-message",
            Self::BadAnswer => "bad-answer",
            Self::RefusedWrongServer => "refused-wrong-server",
            Self::RefusedWrongCluster => "refused-wrong-cluster",
            Self::RefusedUnknownSid => "refused-unknown-sid",
            Self::RefusedDuplicateSid => "refused-duplicate-sid",
            Self::RefusedOlderLinkAlive => "refused-older-link-alive",
            Self::RefusedNoRoom => "refused-no-room",
            Self::RefusedOther => "refused-other",
            Self::WrongServer => "wrong-server",
            Self::WrongCluster => "wrong-cluster",
            Self::NotNative => "not-native",
            Self::DuplicateSid => "duplicate-sid",
            Self::TlsNoCertificate => "tls-no-certificate",
            Self::TlsUnknownIssuer => "tls-unknown-issuer",
            Self::TlsExpired => "tls-expired",
            Self::TlsNotYetValid => "tls-not-yet-valid",
            Self::TlsRevoked => "tls-revoked",
            Self::TlsBadCertificate => "tls-bad-certificate",
            Self::TlsWrongName => "tls-wrong-name",
            Self::TlsPlaintext => "tls-plaintext",
            Self::TlsAlert => "tls-alert",
            Self::TlsProtocol => "tls-protocol",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::Evicted => "evicted",
            Self::UnknownSid => "unknown-sid",
            Self::OwnSid => "own-sid",
            Self::ObserversFull => "observers-full",
            Self::AdmittedFull => "admitted-full",
            Self::Replaced => "replaced",
            Self::OlderLinkAlive => "older-link-alive",
            Self::ContenderWaiting => "contender-waiting",
            Self::ConnectTimeout => "connect-timeout",
            Self::NoAddress => "no-address",
            Self::Moved => "moved",
            Self::Superfluous => "superfluous",
            Self::Dropped => "dropped",
            Self::Removed => "removed",
            Self::Halted => "halted",
            Self::Died => "died",
        }
    }
}

impl fmt::Display for ReasonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn os_errors_become_reasons_with_a_clear_message() {
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
            assert_eq!(of.kind(), reason.kind());
        }
    }

    #[test]
    fn names_are_the_variants_in_kebab_case() {
        let lines = include_str!("reason.rs").lines();
        let mut count = 0;
        for (variant, name) in lines.filter_map(|line| {
            let arm = line.trim().strip_prefix("Self::")?;
            arm.strip_suffix("\",")?.split_once(" => \"")
        }) {
            let mut kebab = String::new();
            for letter in variant.chars() {
                if letter.is_ascii_uppercase() && !kebab.is_empty() {
                    kebab.push('-');
                }
                kebab.push(letter.to_ascii_lowercase());
            }
            assert_eq!(name, kebab);
            count += 1;
        }
        assert!(count > 40, "{count}");
    }

    #[test]
    fn tls_at_a_server_without_it_is_said_in_words() {
        // The beginnings of records with a ClientHello.
        for record in [[0x16, 3, 1, 2, 0, 1, 0, 1], [0x16, 3, 3, 0, 200, 1, 0, 0]] {
            let claimed = Reason::UnknownSid(Sid(i64::from_be_bytes(record)));
            assert_eq!(
                claimed.to_string(),
                "speaks TLS, which is not configured here"
            );
        }
        let claimed = Reason::UnknownSid(Sid(0x1604 << 48));
        assert!(
            claimed.to_string().contains("claims to be server 15"),
            "{claimed}"
        );
    }
}
