//! What happens to the mesh, as the application is told.
//!
//! Nothing here is written to the log; the loop does that, with these words.

use std::{fmt, net::SocketAddr};

use crate::proto::{Address, Reason, Sid};

/// What happened to the mesh, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A listening socket is open.
    Listening {
        /// Where it is bound, with the port that the kernel chose if 0 was asked for.
        addr: SocketAddr,
    },
    /// A try to open a listening socket failed; another follows unless a [`Event::ListenerLost`] does. Each address of a name
    /// fails alone. While another address of the name is listened on, the same failure is told once.
    ListenFailed {
        /// What was to be bound: an address as it was configured, or one that its name has, as a literal.
        address: Address,
        /// What the system said, and of which name it is an address; or what the resolver said, if the name has none.
        error: String,
    },
    /// Connections could not be accepted: they were gone already, or descriptors or memory are short, and accepting rests
    /// for a moment. The listening socket stays open. Told of each listening socket
    /// [once a second](crate::limits::ACCEPT_REPORT_PAUSE) at most.
    AcceptFailed {
        /// The configured address where they were to be accepted.
        address: Address,
        /// What the system said the last time.
        error: String,
        /// How often it said so since the last such event of this listening socket.
        count: u64,
    },
    /// The tries to listen on a configured address are used up, and none of the addresses that it means is listened on: peers
    /// with a larger sid cannot reach this server there.
    ListenerLost {
        /// The address as it was configured.
        address: Address,
    },
    /// A peer is linked.
    Up {
        /// Which one.
        sid: Sid,
        /// Whether this side opened the connection.
        dialed: bool,
        /// The far end.
        addr: SocketAddr,
        /// The number of this link: no other link of this manager has it, and later ones have larger ones. Messages that came
        /// over it carry it ([`Message::link`](crate::Message::link)).
        link: u64,
    },
    /// The link of a peer has ended. When a newer connection replaces it, an [`Event::Up`] follows at once.
    Down {
        /// Which one.
        sid: Sid,
        /// Why.
        reason: Reason,
        /// The number of the link that has ended.
        link: u64,
        /// Frames that were written to this link: as many may have been lost with it. The kernel had taken them, and nothing
        /// says how many of them the peer has read, so this is an upper bound of what was lost. With
        /// [`Outbox::Queue`](crate::Outbox::Queue) none of them is sent again; with [`Outbox::Latest`](crate::Outbox::Latest)
        /// the last one is.
        written: u64,
    },
    /// Received messages were dropped since the application takes them more slowly than they come and the inbox is full.
    /// Reported at once and then once a second, with the numbers since the last report. Never with [`InboxFull::PushBack`](crate::InboxFull::PushBack).
    Dropped {
        /// How many messages.
        messages: u64,
        /// Who had sent them, those with most first, and how many of each; [16](crate::limits::DROPPED_SENDERS_MAX) at most.
        /// [`Sid::OBSERVER`] stands for all who are not configured.
        senders: Vec<(Sid, u64)>,
    },
    /// The links of a peer replace each other again and again, [`FLAP_COUNT`](crate::limits::FLAP_COUNT) times within
    /// [`FLAP_WINDOW`](crate::limits::FLAP_WINDOW): two servers may have this id, or something knocks in its name. Told once in
    /// [`FLAP_PAUSE`](crate::limits::FLAP_PAUSE).
    Flapping {
        /// Whose.
        sid: Sid,
    },
    /// All addresses of a peer were tried and none could be reached. The next attempt follows after the backoff.
    DialFailed {
        /// Which one.
        sid: Sid,
        /// Which address was tried last; `None` if there was none, and the reason is [`Reason::NoAddress`].
        addr: Option<SocketAddr>,
        /// What it said.
        reason: Reason,
    },
    /// An accepted connection was refused and closed.
    Rejected {
        /// Where it came from.
        addr: SocketAddr,
        /// Whom it claimed to be, if it came so far.
        sid: Option<Sid>,
        /// Why.
        reason: Reason,
    },
    /// One turn of the loop took this long: a handler has blocked it. With [`Idle::Spin`](crate::Idle::Spin) the time is not
    /// taken of turns that bring frames of the link that spoke last and nothing else.
    SlowTurn {
        /// How long.
        took: std::time::Duration,
    },
    /// The loop has halted; nothing follows.
    Halted,
}

/// One line, as in the log: the peer first, what happened, and why.
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
                count: 1,
            } => write!(f, "cannot accept a connection on {address}: {error}"),
            Self::AcceptFailed {
                address,
                error,
                count,
            } => write!(
                f,
                "cannot accept connections on {address}: {error} ({count} times)"
            ),
            Self::ListenerLost { address } => write!(
                f,
                "given up listening on {address}: servers with a larger id cannot reach this one there; see listen_tries"
            ),
            Self::Up {
                sid,
                dialed: true,
                addr,
                ..
            } => write!(f, "peer {sid}: up, dialed at {addr}"),
            Self::Up {
                sid,
                dialed: false,
                addr,
                ..
            } => write!(f, "peer {sid}: up, accepted from {addr}"),
            Self::Down { sid, reason, .. } => write!(f, "peer {sid}: down, {reason}"),
            Self::Dropped { messages, senders } => {
                write!(
                    f,
                    "dropped {messages} received messages: the application takes them more slowly than they come, of "
                )?;
                for (n, (sid, count)) in senders.iter().enumerate() {
                    let comma = if n > 0 { ", " } else { "" };
                    match *sid {
                        Sid::OBSERVER => write!(f, "{comma}others ({count})")?,
                        sid => write!(f, "{comma}peer {sid} ({count})")?,
                    }
                }
                Ok(())
            }
            Self::Flapping { sid } => write!(
                f,
                "peer {sid}: its links replace each other again and again: two servers may have this id"
            ),
            Self::DialFailed {
                sid,
                addr: Some(addr),
                reason,
            } => write!(f, "peer {sid}: cannot be reached at {addr}, {reason}"),
            Self::DialFailed {
                sid,
                addr: None,
                reason,
            } => write!(f, "peer {sid}: cannot be reached, {reason}"),
            Self::Rejected {
                addr,
                sid: None,
                reason,
            } => write!(f, "refused a connection from {addr}: {reason}"),
            Self::Rejected {
                addr,
                sid: Some(sid),
                reason,
            } => {
                write!(
                    f,
                    "refused a connection from {addr} for peer {sid}: {reason}"
                )
            }
            Self::SlowTurn { took } => {
                write!(f, "one turn took {took:?}: a handler has blocked the loop")
            }
            Self::Halted => f.write_str("halted"),
        }
    }
}

const _: () = assert!(
    size_of::<Event>() < 200,
    "`EVENTS_MAX` bounds the memory of events by this"
);
