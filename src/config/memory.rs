//! Computes the most memory that a configuration can take: one sum over everything that can grow.
//!
//! Nothing here allocates or measures. `tests/memory.rs` measures, and compares with this sum.

use super::{
    options::{Config, Listens},
    policy::{Outbox, Unknown},
};
#[cfg(feature = "tls")]
use crate::limits::{TLS_AHEAD_BYTES, TLS_HANDSHAKE_BYTES_MAX, TLS_SCRATCH_BYTES};
use crate::{
    limits::{
        ACCEPTS_PER_TURN, ADDRESSES_MAX, BUFFER_POOL_BYTES, DIALS_AT_ONCE, EVENTS_MAX,
        FRAME_BYTES_MAX, LOOKUPS_WAITING_MAX, NAME_ADDRESSES_MAX, PLACE_BYTES, QUEUE_RUN_BYTES,
        READ_BUFFER_BYTES, TURN_BYTES,
    },
    proto::Address,
};

/// The loop itself: the read buffer, the chunks that it packs for the inbox, and the pool of buffers for chunks.
const LOOP_BYTES: usize = 8 << 20;

/// A queued event, with the names in it.
const EVENT_BYTES: usize = 5 << 9;

/// What one turn reads from one peer, in chunks that are up to half empty. A buffer from the pool may be larger; it counts as part
/// of the pool.
const BURST_BYTES: usize = 1 << 20;

/// The table entries of one peer.
const PEER_BYTES: usize = 2 << 10;

/// The table entries of one connection, and the bytes that arrived with its initial message.
const CONNECTION_BYTES: usize = 6 << 10;

/// An address, the IP addresses of its name, and the lookup of the name.
const ADDRESS_BYTES: usize = 2 << 10;

/// The table entries of a listening socket, and its state as the application reads it.
const LISTENER_BYTES: usize = 1 << 10;

/// A queued name lookup whose requester may be gone.
const LOOKUP_BYTES: usize = 512;

/// Frames of one peer in a slot: the last one written, one that is written in part, one that waits.
const SLOT_FRAMES: usize = 3;

/// A TLS connection whose handshake has ended: what rustls holds, in which the chain of the far end is twice (7 KB and 121 KB were
/// measured with rustls 0.23.46 and a chain of 60 KB); ciphertext that has not left; a record that has arrived, and its plaintext.
#[cfg(feature = "tls")]
const TLS_LINK_BYTES: usize =
    (8 << 10) + 2 * TLS_HANDSHAKE_BYTES_MAX + TLS_AHEAD_BYTES + (2 << 10) + 2 * (19 << 10);

/// A TLS connection in its handshake: what rustls holds, a message that has arrived in part, and what TLS 1.2 keeps of all messages for
/// the signature at the end.
#[cfg(feature = "tls")]
const TLS_HANDSHAKE_BYTES: usize = (8 << 10) + 4 * TLS_HANDSHAKE_BYTES_MAX;

/// TLS of the loop: the buffer of all links, and what one step of a handshake allocates and frees again (six times the chain).
#[cfg(feature = "tls")]
const TLS_LOOP_BYTES: usize = TLS_SCRATCH_BYTES + 8 * TLS_HANDSHAKE_BYTES_MAX;

#[cfg(feature = "tls")]
const _: () = assert!(
    TLS_LINK_BYTES >= TLS_HANDSHAKE_BYTES,
    "a connection that was dialed is counted as a link during its handshake"
);

/// Buffers of runs in a queue, beyond the frames that wait in it and the spare ones: one that is being filled, one that the end of a
/// link has cut off.
const RUNS: usize = 2;

const _: () = assert!(
    BURST_BYTES >= 2 * (TURN_BYTES + READ_BUFFER_BYTES),
    "a turn may end with a full read"
);
const _: () = assert!(
    LOOP_BYTES >= READ_BUFFER_BYTES + 2 * BURST_BYTES + 2 * FRAME_BYTES_MAX + BUFFER_POOL_BYTES,
    "a burst is handed over while another goes, and a frame moves while it grows"
);

impl Config {
    /// Returns the most memory, in bytes, that the library keeps allocated with this configuration, whatever peers and strangers
    /// do. It is the sum of these bounds:
    ///
    /// | for each | at most |
    /// |---|---|
    /// | server: the loop, with its read buffer of 256 KiB, what it reads in a turn, and a buffer pool of 4 MiB | 8 MiB |
    /// | server: 1024 queued events of 2.5 KiB | 2.5 MiB |
    /// | server: received messages that wait, the smaller of [`inbox_bytes`](crate::ConfigBuilder::inbox_bytes) and [`inbox_frames`](crate::ConfigBuilder::inbox_frames) x 512.25 KiB; and what one turn reads from a peer | that + 1 MiB |
    /// | peer: a frame that has arrived in part | 512 KiB |
    /// | peer with [`Outbox::Latest`]: the last frame, one that is being written, one that waits | 3 x 512 KiB |
    /// | peer with [`Outbox::Queue`]: buffers of frames, up to half empty; as many bytes of spare ones; two more of 256 KiB | 3 x `bytes` + 0.5 MiB |
    /// | peer with [`Outbox::Lanes`]: both | 3 x `bytes` + 2 MiB |
    /// | peer: its table entries | 2 KiB |
    /// | connection: its table entries, and what it sends first | 6 KiB |
    /// | address of a server, and the IP addresses of its name | 2 KiB |
    /// | name that is listened on: a socket for each of 32 addresses | 32 KiB |
    /// | server that listens on its own addresses: 64 names to which these may change | 2.1 MiB |
    /// | server with TLS: a buffer of 256 KiB, and one step of a handshake | 512 KiB |
    /// | connection with TLS: certificates, and records that have not left or arrived whole | 176 KiB |
    /// | connection with TLS that has not sent its initial message, instead | 136 KiB |
    /// | server that [admits](Unknown::Admit) others: 16 384 queued name lookups | 8 MiB |
    ///
    /// The peers are as many other members as [`members_max`](crate::ConfigBuilder::members_max) allows, and as many admitted peers as
    /// [`Unknown::Admit`] allows, with 32 addresses each, and
    /// [`observers_max`](crate::ConfigBuilder::observers_max) observers. The connections are
    ///
    /// - five for each such member and each admitted peer (link, three of a dial, contender),
    /// - one for each observer,
    /// - [`pending_max`](crate::ConfigBuilder::pending_max),
    /// - 8 that are accepted while others are closed.
    ///
    /// Spare buffers of a queue, and those of the pool, are freed one to two seconds after they were last used.
    ///
    /// A frame counts with its length. [`Bytes`](bytes::Bytes) that are a part of a larger allocation, as
    /// [`slice`](bytes::Bytes::slice) makes them, keep the whole allocation, and only the application knows its size. Not in the
    /// sum are
    ///
    /// - what the application keeps: messages and batches that it has taken, one frame for each thread that is just sending, a buffer
    ///   of 256 KiB for each [`Sender`](crate::Sender), and with TLS one of 66 KiB for each thread that has sent;
    /// - what the system takes: socket buffers ([`unsent_limit`](crate::ConfigBuilder::unsent_limit),
    ///   [`receive_buffer`](crate::ConfigBuilder::receive_buffer)), the stacks of the loop's thread and of at most
    ///   8 threads that look names up, and what its resolver allocates;
    /// - what the allocator wastes.
    ///
    /// # Examples
    ///
    /// ```
    /// use quorum_cnx::{Config, Sid};
    ///
    /// let servers = |observers| {
    ///     let builder = Config::builder(Sid(1)).observers_max(observers);
    ///     (1..=3).fold(builder, |builder, n| builder.server(Sid(n), format!("zk{n}:3888")))
    /// };
    /// // Most of it is the inbox. Each of the six servers that may join, and each of 64 observers, can add 2 MiB.
    /// assert_eq!(servers(0).build()?.max_memory() >> 20, 81);
    /// assert_eq!(servers(64).build()?.max_memory() >> 20, 210);
    /// # Ok::<(), quorum_cnx::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_memory(&self) -> u64 {
        let options = &self.options;
        let admitted = match options.unknown {
            Unknown::Reject => 0,
            Unknown::Admit { max } => max,
        };
        let members = options.members_max.saturating_sub(1);
        let servers = members + admitted;
        let slot = SLOT_FRAMES * FRAME_BYTES_MAX;
        let queue = |bytes| 3 * bytes + RUNS * 2 * QUEUE_RUN_BYTES;
        let outbox = match options.outbox {
            Outbox::Latest => slot,
            Outbox::Queue { bytes } => queue(bytes),
            Outbox::Lanes { bytes } => slot + queue(bytes),
        };
        let inbox = sum(&[(options.inbox_frames, FRAME_BYTES_MAX + PLACE_BYTES)]);
        let inbox = inbox.min(options.inbox_bytes as u64);
        let listening = self.listen.len() + self.own_addresses.len() + self.sockets.0.len();
        let sockets = |address: &Address| address.ip().map_or(NAME_ADDRESSES_MAX, |_| 1);
        let sockets = self.sockets.0.len() + self.listen.iter().map(sockets).sum::<usize>();
        // Those at the start, and when the own addresses change twice, those before and those after the last change.
        let (listening, sockets) = match options.listens {
            _ if !self.sockets.0.is_empty() => (listening, sockets),
            Listens::Elsewhere => (listening, sockets),
            Listens::OnOwn | Listens::OnAllIps => (
                listening + 2 * ADDRESSES_MAX,
                sockets + 2 * ADDRESSES_MAX * NAME_ADDRESSES_MAX,
            ),
        };
        let lookups = if admitted == 0 {
            0
        } else {
            LOOKUPS_WAITING_MAX
        };
        // The link, the contender, and those of a dial.
        let linked = (2 + DIALS_AT_ONCE) * servers + options.observers_max;
        let connections = linked + options.pending_max + ACCEPTS_PER_TURN;
        inbox
            + sum(&[
                (1, LOOP_BYTES),
                (EVENTS_MAX, EVENT_BYTES),
                (1, BURST_BYTES),
                (
                    servers + options.observers_max,
                    FRAME_BYTES_MAX + outbox + PEER_BYTES,
                ),
                (connections, CONNECTION_BYTES),
                (listening + servers * ADDRESSES_MAX, ADDRESS_BYTES),
                // Those that were members at the start stay in a table.
                (self.members.len(), PEER_BYTES),
                (sockets, LISTENER_BYTES),
                (lookups, LOOKUP_BYTES),
            ])
            + self.tls_memory(linked)
    }

    /// What TLS adds, with this many connections besides those that have not sent their initial message.
    #[cfg(feature = "tls")]
    fn tls_memory(&self, links: usize) -> u64 {
        if self.options.tls.is_none() {
            return 0;
        }
        let pending = self.options.pending_max + ACCEPTS_PER_TURN;
        sum(&[
            (1, TLS_LOOP_BYTES),
            (links, TLS_LINK_BYTES),
            (pending, TLS_HANDSHAKE_BYTES),
        ])
    }

    #[cfg(not(feature = "tls"))]
    fn tls_memory(&self, _links: usize) -> u64 {
        0
    }
}

/// Adds the number times the size of each part. The ranges of the options keep the sum far below 2^64.
fn sum(parts: &[(usize, usize)]) -> u64 {
    parts
        .iter()
        .map(|(count, bytes)| *count as u64 * *bytes as u64)
        .sum()
}
