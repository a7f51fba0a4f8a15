//! The peer connection manager of a quorum. Every server runs one. Together they maintain exactly one live TCP connection between
//! each pair of servers, and each server sends its latest message to every peer over it.
//!
//! This crate does what ZooKeeper's `QuorumCnxManager` does, with one event loop instead of two threads per peer. It uses the same
//! protocol, so that it can take part in the election mesh of real ZooKeeper servers (3.4, 3.5 and later).
//!
//! ```text
//!                  any thread                          the loop's thread
//!
//!   to_send(sid) --> outbox: one slot, newest wins       sockets <--> links (a slab)
//!        |              |                                             |
//!        |              +-- written at once if the socket takes it    |
//!        |                                                            v
//!        +-- own sid --> inbox, bounded  <--------------------- frames, handler
//!                           |                                         |
//!   recv() <----------------+        roster: which peers are linked, dialed, or backed off
//! ```
//!
//! The page [How to](how_to) has a short program for each task.
//!
//! # Example
//!
//! ```
//! use std::{net::TcpListener, time::Duration};
//! use quorum_cnx::{CnxManager, Config, Event, Sid};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Two servers in one process. With sockets that are bound already, no port is fixed.
//! let sockets = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
//! let [one, two] = [sockets[0].local_addr()?.to_string(), sockets[1].local_addr()?.to_string()];
//! let mut managers = Vec::new();
//! for (sid, socket) in (1..).map(Sid).zip(sockets) {
//!     let config = Config::builder(sid).server(Sid(1), &one).server(Sid(2), &two);
//!     managers.push(CnxManager::start(config.listener(socket).build()?)?);
//! }
//!
//! managers[0].to_send(Sid(2), "vote for 2")?; // waits in the slot until the link is up
//! let message = managers[1].recv_timeout(Duration::from_secs(10))?;
//! assert_eq!((message.from, &message.payload[..]), (Sid(1), &b"vote for 2"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! 1. [`to_send`](Handle::to_send) never waits for the network, a name lookup or another peer. It returns what happened to the
//!    frame.
//! 2. One slot per peer, newest wins: a newer frame replaces one that waits. Each replaced frame is counted as superseded. If it is
//!    replaced while it waits, the send that replaces it returns [`SendOutcome::Superseded`]. A frame that was written in part is
//!    finished first, as long as the link lasts: the receiver never sees a torn frame.
//! 3. When a link comes up and the slot is empty, the last frame that was written to that peer is sent once more, since it may
//!    have been lost with the old link. So the newest frame for a reachable peer arrives at least once. Duplicates of it are
//!    normal. An older frame never arrives after a newer one from the same sender.
//! 4. A frame for the own sid goes straight to the inbox.
//! 5. Received messages wait in one bounded inbox. When it is full, the peer that has most messages in it loses its oldest one,
//!    which is counted and reported ([`Event::Dropped`]). So a peer that has no more than its share of the inbox loses no message
//!    because of what another peer sends. With a queue nothing is dropped. Instead, such a peer is not read until there is
//!    room, so that TCP slows it ([`InboxFull`]).
//! 6. A frame with a length below 1 or above 524 288 bytes ends its link. Nothing that arrives from the network ends the loop, a
//!    listener or the process.
//! 7. Every accepted frame is accounted for: `accepted = written + superseded + discarded + waiting` ([`SendStats`]). So are
//!    accepted connections and links ([`Stats::balances`]).
//! 8. [`halt`](CnxManager::halt) returns when the port is free, all sockets are closed and the loop's thread has ended. It needs no
//!    cooperation from any peer. [`request_shutdown`](Handle::request_shutdown) first lets the peers read what was sent to them.
//!
//! The members may change while all of this holds ([`Handle::reconfigure`]). A frame is for the peer that has the sid when the frame is
//! accepted: if the sid is that of another server later, the frame is not sent to it. A frame that waits for a removed server is written in
//! the time that it is given, or counted as discarded.
//!
//! # What is not promised
//!
//! - No queue, unless you ask for [`Outbox::Queue`] or [`Outbox::Lanes`]: of the frames for a slow or absent peer, only the newest
//!   arrives. With a queue, frames are sent in order, each at most once. This replaces promises 2 and 3. With lanes, those promises hold for
//!   the frames of [`to_send_latest`](Handle::to_send_latest), and there is no order between the slot and the queue.
//! - No acknowledgement: [`SendOutcome::Written`] means that the kernel has the frame, not that the peer has it.
//! - No order between peers, and none between a frame and an [`Event`] on another thread. The number of the link
//!   ([`Message::link`], [`Event::Up`], [`Event::Down`]) says which messages came before and after a reconnect.
//! - No secrecy and no authentication without TLS: see [TLS](#tls). Any configured sid is believed:
//!   - By default ([`Replace::Proven`]), a connection from another address cannot end or take over a live link of a member that is
//!     known at its own addresses. Any process on the member's machine or behind its NAT can.
//!   - Behind a TCP proxy or a NAT, members come from the address of the proxy. A link is then safe only while it brings a byte
//!     each second: whoever reaches the proxy can end it.
//!   - A silent link to a member with a smaller sid that has not knocked yet is renewed when a stranger knocks with its sid:
//!     seldom, and always at the configured address.
//!   - Whoever reaches the port can take the place of a member that is away.
//!   - A [native](InitialMessageVersion::Native) handshake finds mistakes: an address that leads to another server, another cluster, an
//!     id that is used twice. It proves nothing against a stranger, who can send and answer the same bytes.
//! - No SASL. A `zoo.cfg` that asks for it is refused, and so is one that asks for TLS without the feature `tls-ring`.
//! - No replay of a queue: frames that the kernel had taken when a link ended may be lost. [`Event::Down`] gives an upper bound of
//!   their number. A protocol that may lose no frame acknowledges what it has read, and sends the rest again. A native link that is
//!   replaced as planned ([`renew`](Handle::renew)) loses none.
//! - No dependence on the time of day, except for the validity of certificates: all clocks are monotonic.
//!
//! # TLS
//!
//! With the feature `tls` or `tls-ring` and `ConfigBuilder::tls`, all connections use TLS 1.3 or 1.2, with certificates on both sides.
//! `docs/tls.md` in the repository says how to make, rotate and debug them. All promises above hold. These points differ:
//!
//! - A sid is believed only with a certificate that is valid and has one of the names of this sid. A member cannot take the place of
//!   another one, wherever it connects from. A connection with such a certificate counts as one from an address of the member.
//! - A frame counts as written when the kernel has all of its ciphertext. A frame of which a record is encrypted has begun, and is not
//!   replaced in its slot any more: up to 64 KiB of it may wait encrypted for the socket.
//! - A dialed link is up when the acceptor has accepted the certificate: its chain and its validity. The name is checked later, when
//!   the sid is known. A server whose name is wrong sees a link that comes up and ends at once.
//! - A stranger costs a step of a handshake, 0.1 to 0.9 ms of the loop. A turn takes one step, after all that is cheap, so that a flood of
//!   strangers adds the time of one step to a round trip. A handshake must end within
//!   [`handshake_timeout`](ConfigBuilder::handshake_timeout), and takes 32 KiB at most.
//! - Validity depends on the time of day, and nothing else does.
//! - With `Plaintext::Accept` or `Plaintext::Dial`, for the time of an upgrade, whoever connects without TLS is believed as above.
//!
//! # Observers
//!
//! An observer without an id of its own (ZOOKEEPER-599) is refused unless [`observers_max`](ConfigBuilder::observers_max) allows
//! some. A `zoo.cfg` allows 64. Whoever reaches the port can connect as an observer. It can
//!
//! - hold one of those places for as long as it likes,
//! - send frames of any content, which are received with a negative [`Sid`],
//! - receive what the application sends to that sid.
//!
//! It cannot take the place of a member, make this server dial, end the loop, or displace a member's messages or events. All
//! observers and admitted servers together have one share of the inbox and of the event queue.
//!
//! # Processes
//!
//! All descriptors are closed by `execve(2)`, so that a program that is started inherits none of them. A process that was made by
//! `fork(2)` without `execve(2)` has copies of the handles and shares the sockets, but has no loop. In that process
//!
//! - sending fails with [`SendError::Halted`], and receiving with [`RecvError::Halted`], except that calls that do not block may return
//!   [`TryRecvError::Empty`];
//! - [`halt`](CnxManager::halt) and dropping a manager return at once;
//! - nothing is written to a socket, so that the links of the parent go on.
//!
//! A lock that another thread of the parent held when it forked is locked in the child for ever. [`halt`](CnxManager::halt),
//! [`request_halt`](Handle::request_halt) and dropping a manager take no lock there. Any other call may wait without end: make none, or fork
//! before the manager is started.
//!
//! A send whose frame would only wait, because the socket was full or the loop was already asked to write, may succeed in the child;
//! that frame is never sent. On a thread that itself turns an [`EventLoop`] nothing is checked, since the check is a system call:
//! do not use a handle in a child that was forked by such a thread.
//!
//! # Terms
//!
//! | term | meaning |
//! |---|---|
//! | peer | a member, an admitted server or an observer, named by its [`Sid`] |
//! | link | the one TCP connection to a peer |
//! | initial message | the first bytes of a connection, in which the dialer says its sid |
//! | native | of this library: a native initial message names the server that is meant, and is answered |
//! | ping, pong | a control frame that the loop sends over a native link, and the answer of the loop at the far end. No application sees them |
//! | retired | of a native link: replaced as planned. Both ends finish it with an end frame, and read it to that, before the new one is up |
//! | incarnation | a random number that a server chooses when it starts, and says in a native handshake |
//! | knock | a connection by which a server asks a server with a larger sid to dial back; it carries an initial message and nothing else |
//! | contender | a second connection that claims the sid of a linked peer, and must wait until the link ends or is found silent |
//! | frame | one message: a payload of 1 to 524 288 bytes. On the wire a 4-byte big-endian length stands before it |
//! | member | a server of the configuration, or of the set that has replaced it; others are *unknown*, and may be *admitted* or observers |
//! | outbox | what waits for one peer: in a slot (newest wins), in a queue, or in both, which are *lanes* |
//! | inbox | received messages that wait for the application; a batch of them can be taken at once |
//! | roster | the rules: which peers are linked or dialed, and which connection is kept |
//! | turn | one iteration of the event loop |
//! | read | what the loop takes from a link at a time, usually once a turn, with one or more system calls: what has arrived, up to the *budget* of 256 KiB, which the last system call may exceed |
//! | message, payload | a payload is the content of a frame; a message is a payload in the inbox, with its sender |
//! | probation | a new link after one that ended at once: nothing of an outbox with a queue is written to it before it is *proven* by a byte or a second |
//!
//! # On the wire
//!
//! | message | bytes |
//! |---|---|
//! | initial message, [`InitialMessageVersion::Bare`] | sid (8) |
//! | initial message, [`InitialMessageVersion::V1`] | -65536 (8), sid (8), n (4), `host:port` (n) |
//! | initial message, [`InitialMessageVersion::V2`] | -65535 (8), sid (8), n (4), <code>host:port&#124;host:port...</code> (n) |
//! | initial message, [`InitialMessageVersion::Native`] | -65533 (8), sid (8), -1 (4), sid that is meant (8), [cluster](ConfigBuilder::cluster_id) (16), incarnation (8), features (8), n (4), as V2 (n) |
//! | answer to a native one | -65533 (8), sid (8), incarnation (8), features (8), code (4) |
//! | frame | length (4), payload (length) |
//! | ping, pong | -1 or -2 (4), number (8): only between servers of which both have said feature 1 |
//! | end frame | -3 (4), 0 (8): only over a link that is retired. Nothing follows it |
//!
//! All integers are signed and big-endian. An initial message of ZooKeeper is not answered, and frames may follow it at once. The text of the
//! addresses is not trusted: only hosts that can be dialed are used and shown.
//!
//! The dialer of a native connection waits for the answer before it sends a frame. Code 0 accepts a link or a knock; frames may follow at
//! once. Any other code refuses it, and the connection is closed: 2 wrong server, 3 wrong cluster, 4 unknown sid, 5 duplicate sid,
//! 6 older link alive, 7 no room, others without a reason ([`Refusal`]). In a native message n may be 0. The features are a set of bits:
//! 1 says that pings are understood and answered. 2 is said by a dialer that has a link to the far end, and asks for it to be retired: the
//! acceptor writes its end frame over that link, the dialer then writes its own, and the acceptor ends the link and answers. It may also
//! answer at once, and end the older link without an end frame. Bits that are not known are ignored. The -1 makes ZooKeeper 3.4 refuse the message, which checks no version.
//!
//! # Limits
//!
//! Everything that can grow has a bound with a name and a reason. The file `src/limits.rs` has those of the loop and the queues; the
//! grammars and the checks of options have theirs beside them. [`ConfigBuilder`] says which can be changed, and [`Config::max_memory`] is their sum in bytes. Those that an application may need:
//!
//! | bound | value |
//! |---|---|
//! | [`FRAME_BYTES_MAX`] | a payload: 512 KiB |
//! | [`INBOX_FRAMES`], [`INBOX_BYTES`] | messages that wait for the application: 100, 64 MiB; with a queue 1 048 576, 4 MiB |
//! | [`QUEUE_BYTES`] | frames that wait in a queue: 2 MiB |
//! | [`EVENTS_MAX`] | events that wait for the application: 1024 |
//! | [`members_max`](ConfigBuilder::members_max), [`MEMBERS_MAX`] | members, with those that leave: twice as many as are configured, at least 9; at most 16 384 |
//! | [`handshake_timeout`](ConfigBuilder::handshake_timeout) | an initial message, or the hang-up of a knock: 5 s. The answer of a native link: 7 s, since the far end may wait for an older link to end; 31 s while that is retired |
//! | a dial | the next address is tried after 100 ms beside the others, at most 3 at a time; each has [`connect_timeout`](ConfigBuilder::connect_timeout): 5 s |
//! | [`PEER_DEAD_AFTER`], [`PEER_DEAD_AFTER_MIN`] | time after which a silent peer is dead: 5 s, at least 2 s |
//!
//! # Several addresses
//!
//! A peer may have several addresses, in the configuration (`host:port|host:port`), behind its name, or in its own initial message. A
//! dial and a knock try them as RFC 8305 says, so that a dead one costs 100 ms and not the connect timeout:
//!
//! - First the address of the last link that brought a byte or lasted for a second, then in the order of the configuration, with IPv4
//!   and IPv6 in turn. Names are looked up at the same time; addresses that are known are not delayed by that.
//! - The next one is tried after 100 ms, beside those that have not answered, and at once after an error. At most three are tried at a
//!   time.
//! - The first one that is connected is used, with TLS the first one whose handshake has ended. The others are closed before the
//!   initial message is sent: the peer sees them end ([`Event::Rejected`] with [`Reason::ClosedEarly`]), and there is one link. If the
//!   peer refuses that connection, the others are tried again.
//!
//! # Three outboxes
//!
//! - [`Outbox::Latest`]: one slot, for votes, heartbeats and other state of which only the newest counts. A frame is written at
//!   once, on the thread that sends it, if the socket takes it.
//! - [`Outbox::Queue`]: a stream. Frames are collected in a buffer, and hundreds are written with one system call. The loop writes
//!   them when it is notified, or the sender writes them itself once 1 MiB is collected. [`to_send_all`](Handle::to_send_all)
//!   sends many frames at once, a [`Sender`] collects them one by one (with
//!   [`feed_with`](Sender::feed_with), without a copy), and [`recv_all`](CnxManager::recv_all) takes all messages that
//!   have arrived.
//!   - If the queue is full, [`SendError::Full`] is returned. A slow receiver slows its senders.
//!   - After a link that ended within a second and had brought no byte, the next link is on probation: nothing of the queue is written
//!     to it before it has brought a byte or lasted for a second. If this server had dialed it and the peer closed it, the reason is
//!     [`Reason::ClosedAtOnce`].
//!   - [`discard`](Handle::discard) drops the frames for a peer that was away for too long.
//!
//! - [`Outbox::Lanes`]: both over one link, for heartbeats and votes beside a stream. [`to_send_latest`](Handle::to_send_latest) puts a
//!   frame into the slot, all other calls into the queue. The frame in the slot never waits for the queue: what is being written is
//!   finished, at most 128 KiB of the queue or one longer frame, and then it leaves. After it, a part of the queue follows. The kernel
//!   holds 128 KiB unsent instead of megabytes ([`unsent_limit`](ConfigBuilder::unsent_limit)); a smaller limit makes the slot faster
//!   and the stream slower. A receiver that does not read delays both lanes.
//!
//! With each of them, [`wait_for_room`](Handle::wait_for_room) blocks a sender until there is room: in the queue, if there is one.
//!
//! # Two ways to use it
//!
//! - [`CnxManager`]: the loop has a thread of its own, and messages arrive in the inbox. Threads wait for them, or tasks
//!   ([`recv_async`](CnxManager::recv_async)).
//! - [`EventLoop`]: a thread of the application turns the loop, alone or inside another event loop (it is
//!   [`AsFd`](std::os::fd::AsFd)). A [`Handler`] is called on that thread for each decoded frame. An answer that it sends is
//!   written in the same turn: a round trip takes two thread switches instead of six.
//!
//! # Low latency
//!
//! - Answer in a [`Handler`]. If the loop has a processor to itself, let it spin ([`Idle::Spin`]). A receiver of a [`CnxManager`]
//!   that spins turns the loop itself.
//! - Make sure that it has one. A loop that shares its processor with a busy thread waits for it, on Linux for milliseconds. Strangers
//!   that flood the port cause such load, too. A real-time policy (`chrt --fifo`) or isolated processors prevent that;
//!   [`on_loop_start`](ConfigBuilder::on_loop_start) runs on the thread of a manager's loop, to pin or prioritise it.
//! - Set [`congestion_control("reno")`](ConfigBuilder::congestion_control) where the system paces packets (`bbr`).
//!
//! For throughput, use [`Outbox::Queue`], [`to_send_all`](Handle::to_send_all) or a [`Sender`], and a [`Handler`] or
//! [`recv_all`](CnxManager::recv_all).
//!
//! # Failure detection
//!
//! The kernel finds out that a peer is dead. The library sends no heartbeats: ZooKeeper's election protocol has none. The pings of
//! [`ping_every`](ConfigBuilder::ping_every) end no link.
//! [`peer_dead_after`](ConfigBuilder::peer_dead_after), here `T`, is the only setting. On Linux:
//!
//! | the link | what the kernel does | the link ends |
//! |---|---|---|
//! | is idle | sends keepalive probes: the first 0.4 `T` after the last sign of life, then one each second (more seldom if `T` is above 3 minutes) | `T` after the last sign of life |
//! | has a frame on its way | sends the frame again and again; `TCP_USER_TIMEOUT` is `T` - 0.9 s, and 0.9 s is left for the first retransmission, which starts it | `T` after the first frame that is not acknowledged |
//!
//! While a frame is on its way, Linux sends no keepalive probes, and the time for which probes were not answered does not count.
//! If the first frame is sent at time `t` after the network was cut, the link ends at `t + T`, and `t` is less than `T`. So
//! **the link ends within twice `T` after the cut**, except with `bbr` (see below). If you need a bound that counts from the cut,
//! set half of it.
//!
//! Seconds from the cut to the end of the link, measured between network namespaces of one machine (Linux 6.18; both the end
//! that dialed and the end that accepted; frames each 5 ms to 1 s):
//!
//! | | `T` = 2 s | `T` = 5 s |
//! |---|---|---|
//! | idle | 1.9 | 5.0 |
//! | frames all the time, both ways, each 5 to 200 ms | 1.3 to 2.0 | 4.3 to 5.0 |
//! | first frame at `t` = `T` / 2 | 2.3 to 2.8 | 6.8 to 7.4 |
//! | first frame just before the probes would end the link | 3.3 to 3.7 | 9.2 to 9.7 |
//! | the three rows above, with `bbr` | at most 5.7, 7.1, 8.0 | at most 10.0, 11.5, 13.9 |
//!
//! - With `bbr` the end can be later than twice `T`, if both ends have sent frames each 10 to 100 ms. Each new frame puts off the
//!   first retransmission until the congestion window is full. `reno` and `cubic` reduce an unused window to ten packets,
//!   `bbr` does not. Set [`congestion_control`](ConfigBuilder::congestion_control), or switch tail loss probes off
//!   (`sysctl net.ipv4.tcp_early_retrans=0`), with which `bbr` was as fast as `reno`.
//! - If round trips are long, or a packet of the TCP handshake was lost, the first retransmission comes later, and so does the
//!   end.
//! - A process that is stopped is not found dead while nothing waits for it, since its kernel answers the probes. When its
//!   receive buffer is full it has `T` to read on (Linux 5.11 and later). If a peer may pause for longer than `T` while frames
//!   wait for it, set a longer time.
//! - Other systems have the keepalive probes only: see [Platforms](#platforms).
//!
//! # Platforms
//!
//! | target | what is checked |
//! |---|---|
//! | `x86_64-unknown-linux-gnu` | every test runs |
//! | `x86_64-apple-darwin`, `aarch64-apple-darwin` | compiles; the repository's workflow runs the unit tests and a part of the others on macOS |
//! | `aarch64-unknown-linux-gnu`, `aarch64-linux-android`, `x86_64-unknown-freebsd`, `x86_64-unknown-netbsd` | compiles without a warning; no test runs |
//!
//! The code also has the numbers and options of OpenBSD and DragonFly BSD, for which Rust ships no standard library, so that nothing is
//! checked there. Every other system is refused when compiling, Windows too.
//!
//! | option | Linux | Android | macOS | FreeBSD | NetBSD |
//! |---|---|---|---|---|---|
//! | [`peer_dead_after`](ConfigBuilder::peer_dead_after), idle link: keepalive probes | yes | yes | yes | yes | yes |
//! | the same, bytes under way: `TCP_USER_TIMEOUT` | yes | yes | no: the system's own time, minutes | no | no |
//! | [`unsent_limit`](ConfigBuilder::unsent_limit): `TCP_NOTSENT_LOWAT` | yes | yes | no effect | no effect | no effect |
//! | [`congestion_control`](ConfigBuilder::congestion_control): `TCP_CONGESTION` | yes | no effect, warning | no effect, warning | yes | no effect, warning |
//! | no `SIGPIPE`, by | `MSG_NOSIGNAL` | `MSG_NOSIGNAL` | `SO_NOSIGPIPE` | `MSG_NOSIGNAL` | `MSG_NOSIGNAL` |
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `futures` | off | [`RecvStream`] is a `futures_core::Stream`; needs `futures-core`, which has no dependencies |
//! | `simulation` | off | the module `simulation`: a network and a clock in memory, on which tests of an application run the real [`EventLoop`]; no further dependency |
//! | `tls` | off | TLS between the servers (`Tls`, `PeerName`), with rustls and a provider of cryptography that the application chooses |
//! | `tls-ring` | off | the same with the provider ring, PEM files, and the TLS keys of a zoo.cfg; needs a C compiler |
//!
//! # Architecture
//!
//! Each folder imports only what stands below it, and no files import each other in a circle, which a test checks.
//!
//! ```text
//! simulation       with the feature of this name: a network in memory, to test applications on the loop
//! manager          CnxManager: the thread of the loop, the inbox and the events of the application
//! event_loop       the turn: accept, handshake, read, write, dial, and what other threads ask for
//! handler          what the loop calls on its thread         zoo_cfg   the files of a ZooKeeper server
//! handle           what any thread calls                     net       sockets, resolver
//! shared           peers, counters, life of the loop
//! config           options, checked once
//! tls              with the feature of this name: configurations of rustls, which certificate may be which server
//! inbox            received messages and events              outbox    what waits for one peer
//! message, event, error
//! proto            rules, grammars, reasons: no clock, no socket, no thread
//! sync, limits     locks and what threads and tasks wait for; every bound with its reason
//! file             files of the configuration, read up to a bound
//! ```
//!
//! A payload on its way out, in a slot ([`Handle::to_send`]):
//!
//! 1. `Shared::to_send` (`shared::send`) checks for a halt and the length, and finds the peer: a member by a binary search without a
//!    lock, another one under a read lock. `PeerOutbox::put` (`outbox`) chooses the kind of outbox.
//! 2. `Writer::put_latest` (`outbox::slot`) takes the lock and counts the frame. If there is a link, no thread writes and the socket is
//!    not full, this thread becomes the writer (`State::acquire`, `outbox::state`) and releases the lock. Else the frame waits in the
//!    slot, where it replaces an older one, and the first frame without a link asks the loop for one (`Shared::ask`).
//! 3. `Writer::write` (`outbox::writer`) has the frame written by `PartialFrame::write_to` (`outbox::slot`), usually with one system call
//!    (`MioStream::write`, `net::mio`), without the lock.
//! 4. `State::on_wrote` takes the lock again. A frame that was written whole is counted and kept as the last one, and a newer one is
//!    written next. After 16 frames the rest is left to the loop.
//! 5. If the socket is full (`Blocked`), the loop learns when it is writable: `EventLoop::write` (`event_loop::write`) calls
//!    `Writer::resume`. A frame that was written in part is finished first; one of which no byte was written is back in the slot, unless
//!    a newer one is there.
//! 6. If the socket is broken (`Failed`), the loop is asked to end the link. `EventLoop::give_up` reads what has arrived first.
//! 7. When the link ends, `Writer::detach` takes back what was not written whole. A thread that is in its system call returns it when
//!    that ends. `Writer::attach` of the next link writes the frame in the slot from its start, or else the last frame once more.
//!
//! In a queue, steps 2 to 4 are these:
//!
//! 1. `Writer::put_all` (`outbox::queue`) takes the lock, and copies the frames into a buffer. (`Writer::put` does not
//!    copy a frame of 16 KiB or more that it was given as `Bytes`.)
//! 2. The first frame of many asks the loop to write: `EventLoop::handle_requests` (`event_loop::requests`) calls `Writer::resume`. A
//!    reply to a single frame, and the request after such a reply, would wait for the loop to wake: while it blocks, their sender calls
//!    `Writer::resume` itself (`Shared::writes_here`). If the link is idle and 1 MiB waits, the sender writes them itself (`write_here`),
//!    while they are in its cache.
//! 3. `Batch::write_to` (`outbox::batch`) writes up to 1 MiB with one system call. What it has not written returns to the front.
//!
//! With lanes, `outbox::lanes` chooses whether a frame of its slot or a run of its queue is next.
//!
//! A frame on its way in:
//!
//! 1. `EventLoop::poll` learns that a socket is readable; `EventLoop::note` puts the connection into the list to be read, which
//!    `EventLoop::read` works off (`event_loop::read`).
//! 2. `EventLoop::read_link` asks [`Handler::is_ready`]. A manager with [`InboxFull::PushBack`] whose inbox has no room for the peer
//!    says no; then the link is paused, and TCP slows the peer.
//! 3. `read_frames` (`event_loop::read_stream`) reads up to 256 KiB at a time into the one read buffer of the loop, or the rest of a
//!    large frame straight into its own buffer.
//! 4. `Assembler` (`proto::frame`) finds the frames. One that arrived in one read is a slice of the read buffer, without a copy, a lock
//!    or an allocation. One that is cut is assembled; if the link ends before it is whole, it is dropped ([`Reason::ClosedEarly`]).
//! 5. [`Handler::on_frame`] is called with it. `InboxHandler` of a manager (`manager::inbox_handler`) copies frames below 16 KiB into a
//!    chunk, and others into buffers of their own (`inbox::chunk`).
//! 6. After the frames of one link, [`Handler::on_read_complete`] puts the chunks into the inbox (`Inbox::push_all`,
//!    `inbox::fair_queue`) under one lock, and wakes at most as many threads, and as many tasks, as there are messages. An inbox that
//!    drops does it here.
//! 7. [`CnxManager::recv_all`] takes everything under one lock: payloads are slices of the chunks, whose buffers return to the loop.
//!    [`CnxManager::recv`] takes one message. If it is less than half of its chunk it is copied, so that it does not hold the buffer of
//!    many.
//!    With [`Idle::Spin`], this thread borrows the loop (`manager::lent_loop`, `sync::loan`) and does steps 1 to 6 itself.
//! 8. If links are paused and half of what waited has been taken, the receiver wakes the loop, which reads them in its next turn.
//!
//! The comments at the top of `outbox/writer.rs`, `outbox/state.rs` and `outbox/backlog.rs` have the rules by which threads share a link.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod copy;
mod error;
mod event;
mod event_loop;
mod file;
mod handle;
mod handler;
mod inbox;
mod limits;
mod manager;
mod message;
#[cfg_attr(
    not(feature = "simulation"),
    allow(
        unnameable_types,
        unreachable_pub,
        reason = "only the module `simulation` exports the traits below the loop"
    )
)]
mod net;
#[cfg_attr(
    not(feature = "simulation"),
    allow(
        unnameable_types,
        unreachable_pub,
        reason = "only the module `simulation` exports `Wire`"
    )
)]
mod outbox;
mod peer_handle;
mod proto;
mod sender;
mod shared;
#[cfg(feature = "simulation")]
#[cfg_attr(docsrs, doc(cfg(feature = "simulation")))]
pub mod simulation;
mod sync;
#[cfg(feature = "tls")]
#[cfg_attr(
    not(feature = "simulation"),
    allow(
        unnameable_types,
        unreachable_pub,
        reason = "only the module `simulation` exports `TlsContext`"
    )
)]
mod tls;
#[cfg(feature = "tls")]
mod watch_files;
mod zoo_cfg;

#[doc = include_str!("how_to.md")]
pub mod how_to {}

/// The TLS library, of which some types are in the interface of this crate.
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use rustls;

pub use config::{Config, ConfigBuilder, Dial, Idle, Leave, Members, Outbox, Replace, Unknown};
pub use error::{ConfigError, ReconfigureError, RecvError, SendError, TryRecvError};
pub use event::Event;
pub use event_loop::EventLoop;
pub use handle::Handle;
pub use handler::Handler;
pub use inbox::{Batch, BatchIter, InboxFull, MessageRef};
pub use limits::{
    EVENTS_MAX, FRAME_BYTES_MAX, INBOX_BYTES, INBOX_FRAMES, MEMBERS_MAX, PEER_DEAD_AFTER,
    PEER_DEAD_AFTER_MIN, QUEUE_BYTES,
};
pub use manager::{CnxManager, Events, Received, RecvStream};
pub use message::{Frame, Message};
pub use outbox::SendOutcome;
pub use peer_handle::PeerHandle;
pub use proto::{
    Address, AddressError, Fault, InitialMessageError, InitialMessageVersion, Reason, ReasonKind,
    Refusal, Sid, TlsFailure,
};
pub use sender::Sender;
pub use shared::{
    Changes, Histogram, LinkStats, Listening, PeerStats, QueueStats, ReceiveStats, SendStats, Stats,
};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use tls::{PeerName, Plaintext, Tls, TlsBuilder};
pub use zoo_cfg::{ZooCfg, ZooCfgReader, ZooServer};
