//! What an application chooses between.
//!
//! Nothing here is decided twice: each choice says what it means.

use std::time::Duration;

use crate::limits;

/// When peers are dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dial {
    /// The mesh is kept up from the start.
    #[default]
    Eager,
    /// The first frame for a peer, or a request, dials it, as ZooKeeper does. A link that ends is not dialed again
    /// before the next frame.
    OnDemand,
}

/// What a second connection does to the link that its peer has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Replace {
    /// A connection from one of the peer's own addresses replaces the link at once. Trust goes by the IP address alone: any
    /// process on a machine of the peer, or behind its NAT or proxy, can replace its link. A peer that comes back with another
    /// address behind its name is recognized: whoever claims to be it has the name looked up anew, once a second at most.
    ///
    /// A connection from another address waits, unread, and takes over when the older link ends. So nobody at another address
    /// can cut a link that came from one of the peer's own.
    ///
    /// A link that itself came from another address has no such right, since the peer may be behind a TCP proxy (a sidecar,
    /// HAProxy, `docker-proxy`, `ssh -L`), which goes on acknowledging for a machine that is dead. A connection from the same
    /// address replaces it at once, one from a third address as soon as the link has brought no byte for
    /// [`SILENT_AFTER`](crate::limits::SILENT_AFTER).
    ///
    /// The same holds for a peer with a smaller sid, which cannot connect and *knocks* instead. A knock from one of its own
    /// addresses has the peer dialed beside its link, less and less often while somebody goes on knocking
    /// ([`RENEWAL_PAUSE_MAX`](crate::limits::RENEWAL_PAUSE_MAX)). Knocks from another address do so when the link has brought no
    /// byte for `SILENT_AFTER`; but never if a knock has come from one of the peer's own addresses, and after
    /// [`UNHEARD_RENEWAL_PAUSE`](crate::limits::UNHEARD_RENEWAL_PAUSE) at least if this server has heard no knock from which it
    /// could tell. It is always the configured address that is dialed.
    #[default]
    Proven,
    /// It replaces the link at once wherever it comes from, as ZooKeeper does: whoever reaches the port can take the link of
    /// any member.
    Newest,
}

/// What becomes of servers that claim a sid which is not configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unknown {
    /// They are refused.
    #[default]
    Reject,
    /// Up to `max` of them are peers, dialed back to the address they advertise, as joiners of a ZooKeeper ensemble
    /// are. The address is not verified: anyone who reaches the port can make this server dial an address.
    Admit {
        /// How many are known at one time; an unlinked one gives way to a newcomer.
        max: usize,
    },
}

/// What the loop, and a thread in [`recv`](crate::CnxManager::recv), does while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Idle {
    /// Sleeps until something happens.
    #[default]
    Block,
    /// Asks again and again for a while, yielding in between, then sleeps: saves the time of a wake-up and burns a
    /// processor for it.
    Spin {
        /// How long after the last thing that happened.
        for_at_most: Duration,
    },
}

/// What waits for each peer while its socket is full or it is not linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Outbox {
    /// One frame, the newest. It is written on the thread that sends it if the socket takes it, and once more over the next
    /// link.
    #[default]
    Latest,
    /// All frames in order, up to `bytes` with their prefixes of 4 bytes; then the sender is told
    /// ([`SendError::Full`](crate::SendError::Full)) and decides. Many are written with one system call, by the loop or by
    /// whoever sends the last of [many](limits::QUEUE_RUN_BYTES), and each only once: what the kernel had taken when a link ended may be lost, the rest goes over the next link.
    Queue {
        /// For each peer; at least one frame of the greatest length must fit.
        bytes: usize,
    },
}

impl Outbox {
    /// A queue of [`QUEUE_BYTES`](limits::QUEUE_BYTES).
    pub const QUEUE: Self = Self::Queue {
        bytes: limits::QUEUE_BYTES,
    };
}
