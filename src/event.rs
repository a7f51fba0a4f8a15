//! Events: what happens to the mesh, as it is reported to the application.
//!
//! Nothing here writes to the log. The loop does, with the text that an event displays.

use std::{fmt, net::SocketAddr, time::SystemTime};

use crate::proto::{Address, Reason, Sid};

/// Something that happened to the mesh, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A listening socket is open.
    #[non_exhaustive]
    Listening {
        /// The address that it is bound to, with the port that the kernel chose if 0 was configured.
        addr: SocketAddr,
    },
    /// A try to open a listening socket failed. Another try follows, unless an [`Event::ListenerLost`] follows. Each address of a
    /// name fails by itself. While another address of the name is listened on, the same failure is reported once.
    #[non_exhaustive]
    ListenFailed {
        /// The address that was tried: as it was configured, or an IP address of a configured name.
        address: Address,
        /// The error of the system, with the name that has this address; or the error of the resolver, if the name has no address.
        error: String,
    },
    /// Connections could not be accepted. Either they had ended before, or descriptors or memory are short, and then accepting
    /// pauses for a moment. The listening socket stays open. Reported at most
    /// once a second for each listening socket.
    #[non_exhaustive]
    AcceptFailed {
        /// The configured address of the listening socket.
        address: Address,
        /// The last error of the system.
        error: String,
        /// The number of errors since the last such event of this listening socket.
        count: u64,
    },
    /// The tries to listen on a configured address are used up, and none of its IP addresses is listened on. Peers with a larger
    /// sid cannot reach this server there.
    #[non_exhaustive]
    ListenerLost {
        /// The address as it was configured.
        address: Address,
    },
    /// A peer is linked.
    #[non_exhaustive]
    Up {
        /// The peer.
        sid: Sid,
        /// Whether this side opened the connection.
        dialed: bool,
        /// The address of the far end.
        addr: SocketAddr,
        /// The number of this link. No other link of this manager has the same number, and later links have larger numbers.
        /// Messages that arrive over the link carry it ([`Message::link`](crate::Message::link)).
        link: u64,
        /// True exactly when the peer is known to have started since its last link: it has another
        /// [incarnation](crate::PeerStats::incarnation). Without [native](crate::InitialMessageVersion::Native) handshakes this is
        /// not known.
        restarted: bool,
    },
    /// The link of a peer has ended. If a newer connection replaces it, an [`Event::Up`] follows at once.
    #[non_exhaustive]
    Down {
        /// The peer.
        sid: Sid,
        /// Why the link has ended.
        reason: Reason,
        /// The number of the link that has ended.
        link: u64,
        /// The number of frames that were written to this link. It is an upper bound of the frames that were lost with the link:
        /// the kernel had taken them, and it is not known how many of them the peer has read. With
        /// [`Outbox::Queue`](crate::Outbox::Queue) none of them is sent again. With [`Outbox::Latest`](crate::Outbox::Latest)
        /// the last one is, unless a newer one waits. With a native link that was [renewed](crate::Handle::renew) the peer has read all of
        /// them.
        written: u64,
    },
    /// A server has become a member ([`Handle::reconfigure`](crate::Handle::reconfigure)).
    #[non_exhaustive]
    Joined {
        /// The server.
        sid: Sid,
    },
    /// A member has other addresses now. If the link is not at one of them, a new one replaces it. With the own sid: this server.
    #[non_exhaustive]
    Moved {
        /// The member.
        sid: Sid,
    },
    /// A server that was removed from the members has left: it has no link any more. The same for each peer, if this server
    /// [shuts down](crate::Handle::request_shutdown).
    #[non_exhaustive]
    Left {
        /// The server.
        sid: Sid,
        /// The frames that waited for it and were discarded.
        discarded: u64,
    },
    /// Received messages were dropped, because the application takes them more slowly than they arrive and the inbox is full.
    /// Reported at once and then once a second, with the numbers since the last report. Never reported with
    /// [`InboxFull::PushBack`](crate::InboxFull::PushBack).
    #[non_exhaustive]
    Dropped {
        /// The number of dropped messages.
        messages: u64,
        /// The senders of these messages and the number from each, the largest number first. At most
        /// 16 senders. [`Sid::OBSERVER`] stands for all peers that are not configured.
        senders: Vec<(Sid, u64)>,
    },
    /// The links of a peer replace each other again and again, 4 times within
    /// 10 seconds. Two servers may have this sid, or a stranger knocks with it. Reported once a
    /// minute.
    #[non_exhaustive]
    Flapping {
        /// The peer.
        sid: Sid,
        /// True exactly when it is known that two live processes have this sid: links of both, made with
        /// [native](crate::InitialMessageVersion::Native) handshakes, replace each other.
        duplicate: bool,
    },
    /// All addresses of a peer were tried, and none could be reached. The address and the reason are those of the last one that failed,
    /// but of the last one that has refused this server, or is the wrong server, if there was one. The next attempt follows after the backoff, or
    /// after such a refusal: see [`ConfigBuilder::backoff`](crate::ConfigBuilder::backoff).
    #[non_exhaustive]
    DialFailed {
        /// The peer.
        sid: Sid,
        /// The address that has failed. `None` if there was none; the reason is then [`Reason::NoAddress`].
        addr: Option<SocketAddr>,
        /// Why this address failed.
        reason: Reason,
    },
    /// An accepted connection was refused and closed.
    #[non_exhaustive]
    Rejected {
        /// The address of the far end.
        addr: SocketAddr,
        /// The sid that it claimed, if it had sent one.
        sid: Option<Sid>,
        /// Why it was refused.
        reason: Reason,
    },
    /// One turn of the loop took longer than 100 ms: a handler has blocked it, or its thread got no processor. With
    /// [`Idle::Spin`](crate::Idle::Spin), a turn that only reads frames of the most recently active link is not measured.
    #[non_exhaustive]
    SlowTurn {
        /// How long the turn took.
        took: std::time::Duration,
    },
    /// New connections use the certificates that were loaded. Links whose far ends would be refused now end with
    /// [`Reason::Tls`].
    TlsReloaded,
    /// Certificates could not be loaded. Those that were loaded before stay in use.
    #[non_exhaustive]
    TlsReloadFailed {
        /// What is wrong, with the name of the file.
        error: String,
    },
    /// The certificate of this server, or one in its chain, expires soon or has expired. Reported when less than 30 days, 7 days and
    /// one day are left.
    #[non_exhaustive]
    CertificateExpires {
        /// When it is not valid any more.
        not_after: SystemTime,
    },
    /// The loop has halted. No event follows.
    Halted,
}

/// Writes one line, as in the log: the peer first, then what happened, then why.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { addr } => write!(f, "listening on {addr}"),
            Self::ListenFailed { address, error } => {
                write!(f, "cannot listen on {address}: {error}")
            }
            Self::AcceptFailed {
                address,
                error,
                count,
            } => write_accept_failed(f, address, error, *count),
            Self::ListenerLost { address } => write!(
                f,
                "given up listening on {address}: servers with a larger id cannot reach this one there; see listen_tries"
            ),
            Self::Up {
                sid,
                dialed,
                addr,
                restarted,
                ..
            } => {
                let restarted = if *restarted { ", restarted" } else { "" };
                let how = how(*dialed);
                write!(f, "peer {sid}: up{restarted}, {how} {addr}")
            }
            Self::Down { sid, reason, .. } => write!(f, "peer {sid}: down, {reason}"),
            Self::Joined { sid } => write!(f, "peer {sid}: joined the members"),
            Self::Moved { sid } => write!(f, "peer {sid}: has other addresses now"),
            Self::Left { sid, discarded } => write_left(f, *sid, *discarded),
            Self::Dropped { messages, senders } => {
                write!(
                    f,
                    "dropped {messages} received messages: the application takes them more slowly than they come, of "
                )?;
                write_counts(f, senders)
            }
            Self::Flapping { sid, duplicate } => {
                let have = if *duplicate { "have" } else { "may have" };
                write!(
                    f,
                    "peer {sid}: its links replace each other again and again: two servers {have} this id"
                )
            }
            Self::DialFailed { sid, addr, reason } => {
                let at = addr.map_or_else(String::new, |addr| format!(" at {addr}"));
                write!(f, "peer {sid}: cannot be reached{at}, {reason}")
            }
            Self::Rejected { addr, sid, reason } => {
                let for_peer = sid.map_or_else(String::new, |sid| format!(" for peer {sid}"));
                write!(f, "refused a connection from {addr}{for_peer}: {reason}")
            }
            Self::SlowTurn { took } => {
                write!(
                    f,
                    "one turn took {took:?}: a handler blocks, or the loop gets no processor"
                )
            }
            Self::TlsReloaded => f.write_str("certificates reloaded"),
            Self::TlsReloadFailed { error } => {
                write!(
                    f,
                    "cannot reload the certificates, the old ones stay: {error}"
                )
            }
            Self::CertificateExpires { not_after } => write_expiry(f, *not_after),
            Self::Halted => f.write_str("halted"),
        }
    }
}

/// Writes how long the certificate of this server is valid.
fn write_expiry(f: &mut fmt::Formatter<'_>, not_after: SystemTime) -> fmt::Result {
    match not_after.duration_since(SystemTime::now()) {
        Ok(left) => {
            let hours = left.as_secs() / (60 * 60);
            let (days, hours) = (hours / 24, hours % 24);
            write!(
                f,
                "the certificate of this server expires in {days} days and {hours} hours"
            )
        }
        Err(_) => f.write_str("the certificate of this server has expired"),
    }
}

fn write_accept_failed(
    f: &mut fmt::Formatter<'_>,
    address: &Address,
    error: &str,
    count: u64,
) -> fmt::Result {
    let (what, times) = match count {
        1 => ("a connection", String::new()),
        count => ("connections", format!(" ({count} times)")),
    };
    write!(f, "cannot accept {what} on {address}: {error}{times}")
}

fn write_left(f: &mut fmt::Formatter<'_>, sid: Sid, discarded: u64) -> fmt::Result {
    match discarded {
        0 => write!(f, "peer {sid}: left the members"),
        count => write!(
            f,
            "peer {sid}: left the members, {count} frames for it were discarded"
        ),
    }
}

fn how(dialed: bool) -> &'static str {
    match dialed {
        true => "dialed at",
        false => "accepted from",
    }
}

/// Writes who has sent how many of the dropped messages.
fn write_counts(f: &mut fmt::Formatter<'_>, senders: &[(Sid, u64)]) -> fmt::Result {
    for (n, (sid, count)) in senders.iter().enumerate() {
        let comma = if n > 0 { ", " } else { "" };
        match *sid {
            Sid::OBSERVER => write!(f, "{comma}others ({count})")?,
            sid => write!(f, "{comma}peer {sid} ({count})")?,
        }
    }
    Ok(())
}

const _: () = assert!(
    size_of::<Event>() < 200,
    "`EVENTS_MAX` bounds the memory of events by this"
);
