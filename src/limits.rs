//! Every constant that bounds something, with its reason.
//!
//! What an application may want to change is an option of [`ConfigBuilder`](crate::ConfigBuilder) that starts from one of these.

#![allow(
    unreachable_pub,
    reason = "the feature `simulation` shows all of them, the crate root a few"
)]

use std::time::Duration;

/// The longest frame payload, in bytes: ZooKeeper's `PACKETMAXSIZE` since 3.4.6 (ZOOKEEPER-1808). A longer or
/// non-positive length ends the link that claimed it.
pub const FRAME_BYTES_MAX: usize = 512 << 10;

/// Bytes of the length prefix in front of every payload.
pub const PREFIX_BYTES: usize = 4;

/// Messages that wait for the application before the oldest is dropped (`RECV_CAPACITY`). With the longest frames the inbox holds
/// 100 x 512 KiB = 50 MiB.
pub const INBOX_FRAMES: usize = 100;

/// Memory that these messages may hold before the oldest are dropped, in bytes. It matters for an inbox of more messages.
pub const INBOX_BYTES: usize = 64 << 20;

/// Memory that the messages of one read take in the inbox beside their payloads, in bytes.
pub const PLACE_BYTES: usize = 256;

/// Messages that wait for the application before peers are [slowed](crate::InboxFull::PushBack): the largest number that can be
/// configured, since their memory is the bound.
pub const PUSH_BACK_FRAMES: usize = 1 << 20;

/// Memory that these messages may hold, in bytes: several reads of every peer of a small mesh, so that a stream does not wait for
/// the application to be scheduled, and little enough for the cache of a large processor.
pub const PUSH_BACK_BYTES: usize = 4 << 20;

/// Events that wait for the application before the oldest is dropped. Each takes less than 200 bytes, and up to 2 KiB more if it
/// lists names of a peer that have no address.
pub const EVENTS_MAX: usize = 1024;

/// Shortest time between two [reports](crate::Event::Dropped) of dropped messages.
pub const DROPS_TOLD_EVERY: Duration = Duration::from_secs(1);

/// Senders named in such a report.
pub const DROPPED_SENDERS_MAX: usize = 16;

/// Bytes of the read buffer that all links share. Large enough that one read takes what a socket holds in a busy turn, small
/// enough to stay in the second-level cache.
pub const READ_BUFFER_BYTES: usize = 256 << 10;

/// Bytes after which a link is not read again in this turn: its budget. The last read may exceed it by almost
/// [`READ_BUFFER_BYTES`].
pub const TURN_BYTES: usize = 256 << 10;

/// Bytes read from a link after its write half has failed, before it ends: more than a socket holds unless
/// [`receive_buffer`](crate::ConfigBuilder::receive_buffer) says so, in which case twice that many are read. The bound is for a
/// peer that goes on sending and cannot be answered.
pub const DRAIN_BYTES_MAX: usize = 64 << 20;

/// Bytes of the addresses in an initial message: ZooKeeper's `maxBuffer` (ZOOKEEPER-2186).
pub const ADDRESS_BYTES_MAX: usize = 2048;

/// Bytes of an initial message: those in front of the addresses, 64 in a native one, then the addresses.
pub const INITIAL_MESSAGE_BYTES_MAX: usize = 64 + ADDRESS_BYTES_MAX;

/// Addresses in an initial message. No real server has more, and each may cost the reader a lookup and a dial.
pub const ADDRESSES_MAX: usize = 32;

/// Bytes of one read from a connection that has not sent its initial message. Such a message has at most 2112 bytes, and the bytes
/// behind it must be kept if the connection waits as a contender.
pub const INITIAL_MESSAGE_READ_BYTES: usize = 4 << 10;

/// How far a frame's own buffer grows ahead of the bytes that arrived for it.
pub const GROW_BYTES: usize = 64 << 10;

/// Remainder of a frame from which on it is worth reading straight into the frame's own buffer.
pub const DIRECT_READ_BYTES: usize = 16 << 10;

/// Accepted connections that have not sent their initial message, at one time. One more evicts the oldest that does not come from an
/// address of a member, or the oldest of all if there is none. So strangers cannot lock a member out: a member sends its initial
/// message as soon as it is connected, or, with TLS, two round trips later.
pub const PENDING_MAX: usize = 256;

/// How long the renewal of one link may hold up that of the next, if the peer does not take part in it.
pub const RENEWAL_WAIT: Duration = Duration::from_secs(2);

/// How long a new native link waits for the one before it, which is retired: both ends read all of it first. Most of it is in the buffers of
/// the sockets, a few MiB, and a slow path or a slow application needs that long. If the old link has brought nothing in this time, the new
/// one replaces it. Otherwise the old one is still read to its end, and the new one is refused and dialed again.
pub const RETIRING_MAX: Duration = Duration::from_secs(30);

/// How often the renewal of a link is tried, [`RENEWAL_WAIT`] apart at least. A peer with a larger sid ignores a knock at a link that is
/// younger than [`KNOCK_CROSSING`], and one that comes too soon after another one. A peer that can no longer be reached keeps its link.
pub const RENEWAL_TRIES: u32 = 16;

/// Plaintext in one TLS record, at most (RFC 8446, section 5.1).
#[cfg(feature = "tls")]
pub const TLS_RECORD_BYTES: usize = 16 << 10;

/// Plaintext that is encrypted before the socket is asked whether it takes it. One system call for several records; what the socket
/// does not take is kept for as long as the link.
#[cfg(feature = "tls")]
pub const TLS_AHEAD_BYTES: usize = 64 << 10;

/// Bytes of one read during a TLS handshake. The messages of one side are shorter as a rule.
#[cfg(feature = "tls")]
pub const TLS_HANDSHAKE_READ_BYTES: usize = 4 << 10;

/// After each time this many records, a TLS 1.2 link is replaced by a new one. Its keys may encrypt 2^24 records with AES-GCM (RFC 8446,
/// section 5.5); half of that leaves time for the new link. TLS 1.3 changes its keys itself.
#[cfg(feature = "tls")]
pub const TLS_RENEWED_EVERY_RECORDS: u64 = 1 << 23;

/// How often the loop looks whether the own certificate expires soon. The clock of the system can be set at any time.
#[cfg(feature = "tls")]
pub const TLS_EXPIRY_CHECKED_EVERY: Duration = Duration::from_secs(60 * 60);

/// How often the files of certificates are read. A certificate is replaced days before it expires.
#[cfg(feature = "tls")]
pub const TLS_FILES_READ_EVERY: Duration = Duration::from_secs(5);

/// How long a dialer waits for the session ticket by which a TLS 1.3 server shows that it has accepted the certificate. A server that
/// sends none is linked after this time. ZooKeeper sends one.
#[cfg(feature = "tls")]
pub const TLS_TICKET_WAIT: Duration = Duration::from_secs(1);

/// Steps of handshakes, such as those of TLS, in one turn. A step takes 0.1 to 0.9 ms of asymmetric cryptography, and the links are read
/// once in each turn. So a flood of handshakes adds the time of one step to a round trip, not that of all of them.
pub const HANDSHAKES_PER_TURN: usize = 1;

/// Names that the certificates of one server may have: as many as it may have addresses, which are its names by default.
#[cfg(feature = "tls")]
pub const PEER_NAMES_MAX: usize = ADDRESSES_MAX;

/// Bytes received on a connection in its TLS handshake, after which it is ended. A handshake with a chain of two certificates has 2 KiB,
/// one with a chain of three ML-DSA certificates 16 KiB. rustls alone accepts 64 KiB in each message, from a stranger too, and holds up
/// to four times what it has received.
#[cfg(feature = "tls")]
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 32 << 10;

/// Bytes of the buffer into which all TLS links of a loop receive ciphertext: as much as [`READ_BUFFER_BYTES`], so that a read takes no
/// more system calls than without TLS.
#[cfg(feature = "tls")]
pub const TLS_SCRATCH_BYTES: usize = READ_BUFFER_BYTES;

/// Ciphertext that one read takes, at most, beyond [`TLS_OVERHEAD_FACTOR_MAX`] times its plaintext. A peer that sends more is ended. More
/// than a handshake, whose messages are no plaintext.
#[cfg(feature = "tls")]
pub const TLS_OVERHEAD_BYTES_MAX: usize = 2 * TLS_HANDSHAKE_BYTES_MAX;

/// A record of one byte has 30 bytes at most. ZooKeeper on old versions of Java sends the length of a frame in four of them.
#[cfg(feature = "tls")]
pub const TLS_OVERHEAD_FACTOR_MAX: usize = 64;

/// Bytes of a text about a certificate or an error of TLS that are kept and reported. A certificate may have thousands of names.
#[cfg(feature = "tls")]
pub const TLS_TEXT_BYTES_MAX: usize = 256;

/// Connections accepted in one turn, so that a flood of them leaves time for the links: each takes about 45 us until it is
/// refused.
pub const ACCEPTS_PER_TURN: usize = 8;

/// Turns in a row in which a spinning loop may read the most recently active link without asking the kernel for events and
/// without looking at its timers.
pub const HOT_TURNS_MAX: u32 = 16;

/// Reads of that link in a row that find nothing before the kernel is asked for events: two or three microseconds.
pub const HOT_READS: usize = 8;

/// How long no thread may turn the loop of a manager that spins, once the receiver that has turned it returns with a message: between
/// this time and twice this time, plus what the scheduler adds. Then the loop's thread takes it. Until then the receiver may come
/// back without a hand-over, which takes longer than a message. While receivers turn the loop, the loop's thread wakes once in this
/// time, which delays a message by 20 us if it has the same processor.
pub const LOAN_GRACE: Duration = Duration::from_millis(1);

/// How far apart the times are that are recorded of received frames: precise enough to see which peer is silent.
pub const RECEIVED_PRECISION: Duration = Duration::from_millis(1);

/// Events taken from the kernel in one turn. If there may be more, the next turn begins at once.
pub const EVENTS_PER_TURN: usize = 1024;

/// Frames that one call of `to_send` writes, those of other threads included, before it leaves the rest to the loop.
pub const WRITER_FRAMES_MAX: usize = 16;

/// The same for a queue, in batches of up to [`BATCH_BYTES`].
pub const WRITER_BATCHES_MAX: usize = 1;

/// The same for lanes, in runs of up to [`LANES_RUN_BYTES`] and frames of the slot: as many bytes of the queue.
pub const WRITER_RUNS_MAX: usize = BATCH_BYTES / LANES_RUN_BYTES;

/// Bytes of a queue that are written together with [`Outbox::Lanes`](crate::Outbox::Lanes), or one frame that is longer: so much may
/// leave before the frame in the slot. 0.1 ms of a network of 10 Gbit/s.
pub const LANES_RUN_BYTES: usize = QUEUE_RUN_BYTES;

/// Bytes that wait for one peer with [`Outbox::QUEUE`](crate::Outbox::QUEUE) before a send fails with
/// [`Full`](crate::SendError::Full): two milliseconds of a network of 10 Gbit/s, and twice what is written together.
pub const QUEUE_BYTES: usize = 2 << 20;

/// Bytes of a buffer in which a queue collects small frames. One call takes no more under one lock.
pub const QUEUE_RUN_BYTES: usize = 128 << 10;

/// Bytes that wait in a queue from which on the sender writes them itself; until then the loop is asked to. A receiver that sleeps
/// between two writes must be woken for each, which costs the sender as much as to send 50 KiB. In parts of 128 KiB, 512 KiB and 1 MiB,
/// frames of 64 KiB had 0.6, 0.75 and 0.9 of the rate of bare sockets (AMD EPYC, a loop that the application turns).
pub const QUEUE_WRITE_BYTES: usize = 1 << 20;

/// Bytes of a queue that one call writes together, before it leaves the rest to the loop. That takes 150 us over loopback.
pub const BATCH_BYTES: usize = 1 << 20;

/// Payload bytes from which on a frame has a buffer of its own, in a queue ([`to_send`](crate::Handle::to_send) only) and in the inbox: copying it to others would cost more
/// than one more buffer for `writev(2)`.
pub const WHOLE_FRAME_BYTES: usize = 16 << 10;

/// Bytes of a buffer in which the inbox collects shorter received frames, if many arrive at a time.
pub const CHUNK_BYTES: usize = 40 << 10;

/// Bytes of the buffers that [`recv_all`](crate::CnxManager::recv_all) returns to the loop at most: those of a full inbox, which the
/// application takes as one batch.
pub const BUFFER_POOL_BYTES: usize = PUSH_BACK_BYTES;

/// How often the loop looks for buffers of queues and of the pool that were not used since the last look, and frees them. A stream
/// pauses for less, and new buffers would cost a page fault for each 4 KiB.
pub const BUFFERS_KEPT: Duration = Duration::from_secs(1);

/// First upper bound of the random wait after a failed attempt.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Last upper bound of it: less than the time that an election waits for an answer.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Longest pause after a dial that was refused for a reason that only an operator changes. Each such dial writes 2 to 4 KB to the log of a
/// ZooKeeper: 1 MB an hour with this pause, and 20 MB with [`BACKOFF_MAX`]. An operator who has mended the cause waits no longer than this.
pub const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(10);

/// A link that has lasted this long is proven: its probation ends. If it has lasted this long, or for the last bound of the backoff if
/// that is shorter, the backoff starts at its first bound again when it ends.
pub const PROVEN_AFTER: Duration = Duration::from_secs(1);

/// How long one `connect(2)` may take (`zookeeper.cnxTimeout`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a dial waits for an address to be connected before it tries the next one beside it. RFC 8305 recommends 250 ms on the
/// internet, and no less than 100 ms; servers of a quorum are near each other. A packet that is lost costs 1 s.
pub const DIAL_STAGGER: Duration = Duration::from_millis(100);

/// Connections of one dial under way at one time. Two paths of a peer may be dead; a peer that is off costs no more descriptors and
/// packets than this.
pub const DIALS_AT_ONCE: usize = 3;

/// How long an accepted connection may take to send its initial message, and the far end of a knock to close it. ZooKeeper:
/// `tickTime` x `syncLimit`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer that acknowledges no frame, or answers no keepalive probe, for this long is dead.
pub const PEER_DEAD_AFTER: Duration = Duration::from_secs(5);

/// Subtracted from `peer_dead_after` to obtain `TCP_USER_TIMEOUT`. Linux counts that timeout from the first retransmission after
/// a retransmission timeout. On a local network this comes 0.2 to 0.9 s after a frame was lost (measured, `reno` and `cubic`):
/// the timeout is 200 ms at least (`TCP_RTO_MIN`), a tail loss probe comes first, and each new frame puts it off, until the
/// congestion window of ten packets is full.
pub const RESENT_AFTER: Duration = Duration::from_millis(900);

/// The smallest `peer_dead_after`: the kernel counts keepalive in whole seconds, one idle and one probe at least.
pub const PEER_DEAD_AFTER_MIN: Duration = Duration::from_secs(2);

/// Tries to listen on an address of a `zoo.cfg` before it is given up, if the file does not say (`electionPortBindRetry`). What
/// is configured otherwise is tried for ever.
pub const LISTEN_TRIES: u32 = 3;

/// Time between two of these tries.
pub const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Connections in the backlog of a listening socket. The kernel caps this at `net.core.somaxconn`.
pub const LISTEN_BACKLOG: i32 = 1024;

/// Addresses to listen on, and listening sockets that are handed over. Each of the former may be a name with as many addresses
/// as [`NAME_ADDRESSES_MAX`], and a socket for each.
pub const LISTEN_ADDRESSES_MAX: usize = 1 << 10;

/// How often an own name that is listened on is looked up again, to listen on addresses that it has got since. If one of its
/// addresses could not be bound, it is tried again sooner: after [`LISTEN_PAUSE`] or what is configured in its place, and
/// each time after twice as long, up to this.
pub const LISTEN_LOOKUP_PAUSE: Duration = Duration::from_secs(60);

/// How long a listening socket rests when the process or the machine is out of descriptors or memory, and at first when
/// accepting fails for other reasons.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Errors of `accept(2)` in a row, over all turns, after which a listening socket rests: each may concern one connection only,
/// all of them not. Those that certainly do, `ECONNABORTED` for instance, are not counted: each takes a connection out of the
/// backlog. The rests double up to [`ACCEPT_PAUSE_MAX`].
pub const ACCEPT_ERRORS_MAX: u32 = 8;

/// The longest rest of a listening socket that cannot accept.
pub const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Shortest time between two reports of `accept(2)` errors on one listening socket; a report has their number.
pub const ACCEPT_REPORT_PAUSE: Duration = Duration::from_secs(1);

/// How long a name lookup may take before the addresses known so far are used.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a dial that has tried every address it knows waits for names that are still being looked up. A name server that
/// answers does so in less; one that is silent delays the next attempt by no more than this.
pub const LOOKUP_GRACE: Duration = Duration::from_millis(100);

/// Bytes of a resolver's error message that are kept and reported.
pub const RESOLVER_WORDS_MAX: usize = 128;

/// Bytes of the text of [`Reason::NoAddress`](crate::Reason::NoAddress): as much as the names of a peer may have.
pub const NO_ADDRESS_BYTES_MAX: usize = 2 << 10;

/// Name lookups under way at one time, each on a thread of its own since `getaddrinfo(3)` cannot be given up.
pub const LOOKUPS_MAX: usize = 8;

/// Shortest time between two lookups of a peer's names that are made because a connection from an unknown address claims to be that
/// peer. A stranger may claim so all the time; the peer itself may be back with another address behind its name.
pub const RESOLVE_PAUSE: Duration = Duration::from_secs(1);

/// Name lookups that wait for one of those. One more fails at once, which its dial or its listener treats like a name that does not
/// exist. Enough for a name of each member; at most 5 MiB with the longest names.
pub const LOOKUPS_WAITING_MAX: usize = MEMBERS_MAX;

/// Addresses kept for one name, and tried in one dial, over all names of the peer.
pub const NAME_ADDRESSES_MAX: usize = 32;

/// Observers without an id that are served at one time by a server that is configured by a zoo.cfg.
pub const OBSERVERS_MAX: usize = 64;

/// Members of a configuration.
pub const MEMBERS_MAX: usize = 16 << 10;

/// Servers that fit by default, however few are configured: an ensemble of five, and four that replace others of it.
pub const MEMBERS_FIT: usize = 9;

/// The longest time that a removed server may take to leave. A longer one is most likely a mistake in the unit.
pub const LEAVE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Time between two looks whether frames still wait for a server that leaves. A thread of the application that writes the last one does not
/// tell the loop.
pub const LEAVE_RECHECK: Duration = Duration::from_millis(20);

/// Bytes that the kernel may hold unsent in front of the newest frame of a slot (`TCP_NOTSENT_LOWAT`).
pub const UNSENT_LIMIT: u32 = 16 << 10;

/// The same with [`Outbox::Lanes`](crate::Outbox::Lanes): as much as one run of the queue. A queue without a limit has megabytes in
/// the socket, and all of them are in front of the frame in the slot.
pub const LANES_UNSENT_LIMIT: u32 = LANES_RUN_BYTES as u32;

/// A knock at a link that is younger than this is ignored: the two crossed each other.
pub const KNOCK_CROSSING: Duration = Duration::from_secs(1);

/// How long a peer has to dial back after a knock has been delivered, before it is knocked at again; longer backoffs stay as they are.
/// ZooKeeper answers each knock with a new link, and closes the one that it has just dialed. Loaded machines and a round trip around the
/// world fit into this time.
pub const DIAL_BACK_WAIT: Duration = Duration::from_millis(250);

/// Two claims to be a peer come from elsewhere than its own addresses, and its link came from there as well, or its knocks
/// did: the link must bring a byte within this time, or the peer is believed to be back. A proxy acknowledges what a dead
/// machine does not.
pub const SILENT_AFTER: Duration = Duration::from_secs(1);

/// A peer with a smaller sid that has not knocked since this server started may be behind a proxy or not. Whoever knocks in its
/// name from elsewhere than its own addresses is believed once, and again after this time at least, and twice as much each time
/// up to [`RENEWAL_PAUSE_MAX`].
pub const UNHEARD_RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// When a link is looked at again, if names were being looked up that may say who the claimant is.
pub const SILENCE_RECHECK: Duration = Duration::from_millis(100);

/// Knocks that are farther apart than this do not confirm each other. A peer that knocks may spend its connect timeout (5 s by
/// default) on three of this server's addresses that answer nothing before it tries the next ones, so that a round of several fits.
pub const KNOCKS_APART_MAX: Duration = Duration::from_secs(30);

/// A knock at a link has its peer dialed beside it, [`KNOCK_CROSSING`] after the time before at first, and twice as much later
/// each time: up to this long. Anybody on a machine of the peer can knock all the time. When nobody has knocked for so long,
/// it begins anew.
pub const RENEWAL_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Links of one peer that replace each other within [`FLAP_WINDOW`], from which on [`Event::Flapping`](crate::Event::Flapping) reports it.
pub const FLAP_COUNT: usize = 4;

/// See [`FLAP_COUNT`].
pub const FLAP_WINDOW: Duration = Duration::from_secs(10);

/// Shortest time between two such reports of one peer.
pub const FLAP_PAUSE: Duration = Duration::from_secs(60);

/// How much longer than `peer_dead_after` a contender waits for the older link to die. If a frame keeps the older link for
/// longer (see "Failure detection" on the crate page), the contender is refused and dials again.
pub const CONTENDER_MARGIN: Duration = Duration::from_secs(1);

/// A turn that takes longer than this is reported: the handler has blocked the loop, or its thread got no processor. The links that
/// were not read in it are read first in the next one.
pub const SLOW_TURN: Duration = Duration::from_millis(100);

/// Log lines about one peer, about all unknown peers, or about this server, in each [`LOG_WINDOW`]. The next line says how many were
/// suppressed.
pub const LOG_LINES: u32 = 10;

/// See [`LOG_LINES`].
pub const LOG_WINDOW: Duration = Duration::from_secs(10);

const _: () = assert!(
    TURN_BYTES >= READ_BUFFER_BYTES,
    "one turn must be able to empty the read buffer"
);
const _: () = assert!(
    INBOX_FRAMES * (FRAME_BYTES_MAX + PLACE_BYTES) < INBOX_BYTES,
    "with the defaults the count alone decides"
);
const _: () = assert!(
    CHUNK_BYTES >= 2 * (WHOLE_FRAME_BYTES + PREFIX_BYTES),
    "a buffer is at least half full when the next one is begun"
);
const _: () = assert!(READ_BUFFER_BYTES > INITIAL_MESSAGE_READ_BYTES);
const _: () = assert!(
    INITIAL_MESSAGE_READ_BYTES > INITIAL_MESSAGE_BYTES_MAX,
    "an initial message must fit one read"
);
const _: () = assert!(
    ACCEPTS_PER_TURN > 0 && EVENTS_PER_TURN > ACCEPTS_PER_TURN,
    "accepting alone must not fill a turn"
);
const _: () = assert!(
    RESENT_AFTER.as_millis() * 2 < PEER_DEAD_AFTER_MIN.as_millis(),
    "most of the time a peer has to answer"
);
const _: () = assert!(
    SILENT_AFTER.as_millis() <= KNOCKS_APART_MAX.as_millis(),
    "two knocks are enough"
);
const _: () = assert!(
    BACKOFF_MIN.as_millis() <= BACKOFF_MAX.as_millis(),
    "the first bound is at most the last"
);
