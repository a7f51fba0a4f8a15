//! What a configuration may come to hold in memory: one sum over all that can grow.
//!
//! Nothing here allocates or measures; `tests/memory.rs` does, and compares.

use super::{
    options::Config,
    policy::{Outbox, Unknown},
};
use crate::{
    limits::{
        ACCEPTS_PER_TURN, BUFFER_POOL_BYTES, EVENTS_MAX, FRAME_BYTES_MAX, LOOKUPS_WAITING_MAX,
        NAME_ADDRESSES_MAX, PLACE_BYTES, QUEUE_RUN_BYTES, READ_BUFFER_BYTES, TURN_BYTES,
    },
    proto::{ADDRESSES_MAX, Address},
};

/// The loop itself: the read buffer, what one turn takes out of it on its way to the inbox, and buffers to spare for that.
const LOOP_BYTES: usize = 5 << 20;

/// An event that waits, its names included.
const EVENT_BYTES: usize = 5 << 9;

/// What was read in one go, in buffers that are up to half empty. Spare ones may be larger than that; they count as such.
const BURST_BYTES: usize = 1 << 20;

/// What the tables say about one peer.
const PEER_BYTES: usize = 2 << 10;

/// What they say about one connection, and what came with its initial message.
const CONNECTION_BYTES: usize = 6 << 10;

/// An address with what its name points to, and the question for it.
const ADDRESS_BYTES: usize = 2 << 10;

/// A listening socket: its places in the tables, and its state as the application asks for it.
const LISTENER_BYTES: usize = 1 << 10;

/// A question that waits for a thread to ask it, when nobody may want the answer any more.
const LOOKUP_BYTES: usize = 512;

/// Frames of one peer in a slot's outbox: the last one, one that has begun to leave, one that waits.
const SLOT_FRAMES: usize = 3;

/// Buffers of runs in a queue beyond what waits in it: two to spare, one that is being filled, one cut off by the end of a
/// link.
const RUNS: usize = 4;

const _: () = assert!(
    BURST_BYTES >= 2 * (TURN_BYTES + READ_BUFFER_BYTES),
    "a turn may end with a full read"
);
const _: () = assert!(
    LOOP_BYTES >= READ_BUFFER_BYTES + 2 * BURST_BYTES + 2 * FRAME_BYTES_MAX + BUFFER_POOL_BYTES,
    "a burst is handed over while another goes, and a frame moves while it grows"
);

impl Config {
    /// The most that the library keeps allocated for this configuration, in bytes, whatever peers and strangers do: a sum
    /// of bounds.
    ///
    /// | for each | at most |
    /// |---|---|
    /// | server: the loop, with its read buffer of 256 KiB, what it reads in a turn, and 1 MiB of buffers to spare | 5 MiB |
    /// | server: events that wait, [1024](crate::limits::EVENTS_MAX) of 2.5 KiB | 2.5 MiB |
    /// | server: received messages that wait, the smaller of [`inbox_bytes`](crate::ConfigBuilder::inbox_bytes) and [`inbox_frames`](crate::ConfigBuilder::inbox_frames) x 512.25 KiB; one burst | that + 1 MiB |
    /// | peer: a frame of which a part has come | 512 KiB |
    /// | peer with [`Outbox::Latest`]: the last frame, one that leaves, one that waits | 3 x 512 KiB |
    /// | peer with [`Outbox::Queue`]: buffers of frames are up to half empty; four more of 256 KiB | 2 x `bytes` + 1 MiB |
    /// | peer: its places in the tables | 2 KiB |
    /// | connection: its places in the tables, and what it says at first | 6 KiB |
    /// | address of a server, and what its name points to | 2 KiB |
    /// | name that is listened on: a socket for each of [32](crate::limits::NAME_ADDRESSES_MAX) addresses | 32 KiB |
    /// | server that [admits](Unknown::Admit) others: names to look up, [16 384](crate::limits::LOOKUPS_WAITING_MAX) | 8 MiB |
    ///
    /// Peers are the other members, as many guests as [`Unknown::Admit`] says, with 32 addresses each, and
    /// [`observers_max`](crate::ConfigBuilder::observers_max) observers. Connections are three for a member or a guest
    /// (link, dial, contender), one for an observer, [`pending_max`](crate::ConfigBuilder::pending_max), and
    /// [8](crate::limits::ACCEPTS_PER_TURN) that come while others go.
    ///
    /// A frame counts by its length: [`Bytes`](bytes::Bytes) that are a small part of a larger allocation, as
    /// [`slice`](bytes::Bytes::slice) makes them, hold all of it, and only who made them can know. Not in the sum:
    ///
    /// - what the application keeps: messages and batches that it has taken, and the frame in the hands of each thread that
    ///   is just sending;
    /// - what the system takes: socket buffers ([`unsent_limit`](crate::ConfigBuilder::unsent_limit),
    ///   [`receive_buffer`](crate::ConfigBuilder::receive_buffer)), the stacks of the loop's thread and of at most
    ///   [8](crate::limits::LOOKUPS_MAX) that look names up, and what its resolver allocates;
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
    /// // Mostly the inbox; and what 64 observers could make it hold.
    /// assert_eq!(servers(0).build()?.max_memory() >> 20, 64);
    /// assert_eq!(servers(64).build()?.max_memory() >> 20, 192);
    /// # Ok::<(), quorum_cnx::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_memory(&self) -> u64 {
        let options = &self.options;
        let guests = match options.unknown {
            Unknown::Reject => 0,
            Unknown::Admit { max } => max,
        };
        let servers = self.members.len() + guests;
        let outbox = match options.outbox {
            Outbox::Latest => SLOT_FRAMES * FRAME_BYTES_MAX,
            Outbox::Queue { bytes } => 2 * bytes + RUNS * 2 * QUEUE_RUN_BYTES,
        };
        let inbox = sum(&[(options.inbox_frames, FRAME_BYTES_MAX + PLACE_BYTES)]);
        let inbox = inbox.min(options.inbox_bytes as u64);
        let named: usize = self.members.iter().map(|one| one.addresses.len()).sum();
        let listening = self.listen.len() + self.own_addresses.len() + self.listeners.len();
        let sockets = |address: &Address| address.ip().map_or(NAME_ADDRESSES_MAX, |_| 1);
        let sockets = self.listeners.len() + self.listen.iter().map(sockets).sum::<usize>();
        let lookups = if guests == 0 { 0 } else { LOOKUPS_WAITING_MAX };
        let connections =
            3 * servers + options.observers_max + options.pending_max + ACCEPTS_PER_TURN;
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
                (named + listening + guests * ADDRESSES_MAX, ADDRESS_BYTES),
                (sockets, LISTENER_BYTES),
                (lookups, LOOKUP_BYTES),
            ])
    }
}

/// So many of each size. The limits of the configuration keep it far below 2^64.
fn sum(parts: &[(usize, usize)]) -> u64 {
    parts
        .iter()
        .map(|(count, bytes)| *count as u64 * *bytes as u64)
        .sum()
}
