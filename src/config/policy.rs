//! The options that are a choice between several rules.
//!
//! Nothing here carries out a rule. Each variant says what the rule is.

use std::time::Duration;

use crate::limits;

/// When the loop dials peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dial {
    /// The loop links all peers from the start, and again whenever a link has ended.
    #[default]
    Eager,
    /// The first frame for a peer, or a request, makes the loop dial it, as in ZooKeeper. After a link has ended, the peer is not
    /// dialed again before the next frame.
    OnDemand,
}

/// What happens when a second connection claims the sid of a peer that is already linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Replace {
    /// A connection from one of the peer's own addresses replaces the link at once. Only the IP address is checked: any process on
    /// a machine of the peer, or behind its NAT or proxy, can replace the link. A peer whose name has got another address is
    /// recognized: a connection that claims its sid makes the loop look the name up again, at most once a second.
    ///
    /// A connection from another address (a contender) waits, unread, and takes over when the older link ends. So no process at
    /// another address can cut a link that came from one of the peer's own addresses.
    ///
    /// A link that itself came from another address is not protected like this. The peer may be behind a TCP proxy (a sidecar,
    /// HAProxy, `docker-proxy`, `ssh -L`), which goes on acknowledging for a machine that is dead. A connection from the same
    /// address as the link replaces it at once. A connection from a third address replaces it as soon as the link has brought no
    /// byte for a second.
    ///
    /// A peer with a smaller sid cannot connect, and *knocks* instead. A knock can make the loop dial the peer while its link is
    /// up, always at the configured address. The new connection then replaces the link. The rules are similar:
    ///
    /// - A knock from one of the peer's own addresses has this effect, but less and less often while the knocks go on
    ///   (a minute).
    /// - Knocks from another address have it once the link has brought no byte for `SILENT_AFTER`. They never have it if the peer
    ///   has knocked from one of its own addresses before. If this server has not yet heard a knock that shows where the peer's
    ///   knocks come from, they have it at most once in 10 seconds.
    #[default]
    Proven,
    /// The newest connection replaces the link at once, wherever it comes from, as in ZooKeeper. Anyone who can reach the port can
    /// take the link of any member.
    Newest,
}

/// What happens to servers that claim a sid that is not configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unknown {
    /// They are refused.
    #[default]
    Reject,
    /// Up to `max` of them become peers. They are dialed back at the address that they advertise, like servers that join a
    /// ZooKeeper ensemble. The address is not verified: anyone who can reach the port can make this server dial an address.
    #[non_exhaustive]
    Admit {
        /// How many are known at one time, 1 to 65 536. One that has no link is removed for a new one.
        max: usize,
    },
}

impl Unknown {
    /// [`Admit`](Self::Admit) with this `max`.
    #[must_use]
    pub const fn admit(max: usize) -> Self {
        Self::Admit { max }
    }
}

/// What the loop does while there is nothing to do, and a thread in [`recv`](crate::CnxManager::recv) while there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Idle {
    /// Blocks until something happens.
    #[default]
    Block,
    /// Polls for a while, yields the processor between two polls, and then blocks. This saves the time of a wake-up, but keeps a
    /// processor busy.
    ///
    /// With [`Outbox::Latest`], a thread in [`recv`](crate::CnxManager::recv) that spins turns the loop itself, so that no message
    /// crosses from one spinning thread to another. Its [`recv_timeout`](crate::CnxManager::recv_timeout) may end late by one turn,
    /// and log lines of the loop come from its thread. When it returns with a message and does not come back, the loop's thread goes
    /// on after 1 to 2 ms, or at once if the loop is asked for something, or if another receiver blocks.
    #[non_exhaustive]
    Spin {
        /// How long to poll after the last thing that happened, at most 60 s.
        for_at_most: Duration,
    },
}

impl Idle {
    /// [`Spin`](Self::Spin) with this `for_at_most`.
    #[must_use]
    pub const fn spin(for_at_most: Duration) -> Self {
        Self::Spin { for_at_most }
    }
}

/// Which frames wait for a peer while its socket is full or it is not linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Outbox {
    /// One frame, the newest. It is written on the thread that sends it if the socket takes it. The last frame that was written is
    /// written once more over the next link.
    #[default]
    Latest,
    /// All frames in order, up to `bytes`, in which each frame counts with its prefix of 4 bytes. When the queue is full, a send
    /// fails with [`SendError::Full`](crate::SendError::Full), and the sender decides what to do.
    ///
    /// Many frames are written with one system call, by the loop, or by the sender once 1 MiB waits, or half of what the queue may hold.
    /// Each frame is written once. What the kernel had taken when a link ended may be lost; the rest is sent over the next link.
    #[non_exhaustive]
    Queue {
        /// The limit for each peer. One frame of the greatest length must fit: 512 KiB and 4 bytes. At most 1 GiB.
        bytes: usize,
    },
    /// Both over one link: a slot as that of [`Latest`](Self::Latest), for
    /// [`to_send_latest`](crate::Handle::to_send_latest), and a queue as that of [`Queue`](Self::Queue), for all other calls. The frame
    /// in the slot never waits for the queue: at most 128 KiB of the queue, or one frame that is longer, are written before it, and
    /// what the kernel holds ([`unsent_limit`](crate::ConfigBuilder::unsent_limit)). After it, as much of the queue is written, if some
    /// waits.
    ///
    /// Each lane is in order; between the two there is no order. A receiver that is slower than the queue delays the slot as well: TCP
    /// has one stream, and the kernel of the receiver may hold megabytes of it. A bounded
    /// [`receive_buffer`](crate::ConfigBuilder::receive_buffer) of the receiver limits that, and the rate of the queue with it: to about so
    /// many bytes in each round trip.
    #[non_exhaustive]
    Lanes {
        /// The limit of the queue for each peer, as that of [`Queue`](Self::Queue).
        bytes: usize,
    },
}

impl Outbox {
    /// A queue of the default size, [`QUEUE_BYTES`](crate::QUEUE_BYTES).
    pub const QUEUE: Self = Self::queue(limits::QUEUE_BYTES);

    /// [`Queue`](Self::Queue) with this limit in `bytes`.
    #[must_use]
    pub const fn queue(bytes: usize) -> Self {
        Self::Queue { bytes }
    }

    /// Lanes with a queue of the default size, [`QUEUE_BYTES`](crate::QUEUE_BYTES).
    pub const LANES: Self = Self::lanes(limits::QUEUE_BYTES);

    /// [`Lanes`](Self::Lanes) with a queue of this limit in `bytes`.
    #[must_use]
    pub const fn lanes(bytes: usize) -> Self {
        Self::Lanes { bytes }
    }
}
