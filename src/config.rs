//! Who this server is, where its peers live, and the knobs; checked once, before anything starts.
//!
//! Nothing here opens a socket or resolves a name. Addresses are compared by their text.

use std::{
    collections::HashMap,
    net::{IpAddr, TcpListener},
    path::Path,
    time::Duration,
};

use crate::{
    error::ConfigError,
    limits,
    proto::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, Address, Challenge, Sid, parse_list},
    share::{InboxFull, Room},
    zoo_cfg::ZooCfg,
};

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

/// A server of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) sid: Sid,
    pub(crate) addresses: Vec<Address>,
}

/// A checked configuration, from [`Config::builder`] or [`Config::from_zoo_cfg`].
#[derive(Debug)]
pub struct Config {
    pub(crate) own: Sid,
    /// This server's advertised addresses.
    pub(crate) own_addresses: Vec<Address>,
    /// Where to listen: `own_addresses` unless told otherwise.
    pub(crate) listen: Vec<Address>,
    pub(crate) listeners: Vec<TcpListener>,
    /// All others, sorted by sid.
    pub(crate) members: Vec<Server>,
    pub(crate) knobs: Knobs,
}

#[derive(Clone, Debug)]
pub(crate) struct Knobs {
    pub(crate) challenge: Challenge,
    pub(crate) dial: Dial,
    pub(crate) replace: Replace,
    pub(crate) unknown: Unknown,
    pub(crate) idle: Idle,
    pub(crate) outbox: Outbox,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) peer_dead_after: Duration,
    pub(crate) listen_tries: u32,
    pub(crate) listen_pause: Duration,
    pub(crate) inbox_full: InboxFull,
    pub(crate) inbox_frames: usize,
    pub(crate) inbox_bytes: usize,
    pub(crate) observers_max: usize,
    pub(crate) pending_max: usize,
    pub(crate) unsent_limit: Option<u32>,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) congestion_control: Option<String>,
    pub(crate) dial_from: Option<IpAddr>,
    pub(crate) seed: Option<u64>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            challenge: Challenge::default(),
            dial: Dial::default(),
            replace: Replace::default(),
            unknown: Unknown::default(),
            idle: Idle::default(),
            outbox: Outbox::default(),
            connect_timeout: limits::CONNECT_TIMEOUT,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            backoff_min: limits::BACKOFF_MIN,
            backoff_max: limits::BACKOFF_MAX,
            peer_dead_after: limits::PEER_DEAD_AFTER,
            listen_tries: 0,
            listen_pause: limits::LISTEN_PAUSE,
            inbox_full: InboxFull::DropOldest,
            inbox_frames: limits::INBOX_FRAMES,
            inbox_bytes: limits::INBOX_BYTES,
            observers_max: 0,
            pending_max: limits::PENDING_MAX,
            unsent_limit: None,
            receive_buffer: None,
            congestion_control: None,
            dial_from: None,
            seed: None,
        }
    }
}

impl Knobs {
    pub(crate) fn inbox_room(&self) -> Room {
        Room {
            items: self.inbox_frames,
            bytes: self.inbox_bytes,
        }
    }
}

impl Config {
    /// Starts a configuration for the server `own`.
    ///
    /// # Examples
    ///
    /// ```
    /// use quorum_cnx::{Config, Sid};
    ///
    /// let config = Config::builder(Sid(2))
    ///     .server(Sid(1), "127.0.0.1:3181")
    ///     .server(Sid(2), "127.0.0.1:3182")
    ///     .build()?;
    /// # Ok::<(), quorum_cnx::ConfigError>(())
    /// ```
    pub fn builder(own: Sid) -> ConfigBuilder {
        ConfigBuilder {
            own,
            servers: Vec::new(),
            listen: None,
            listeners: Vec::new(),
            listen_on_all_ips: false,
            unsent_limit: None,
            inbox: InboxGiven::default(),
            knobs: Knobs::default(),
        }
    }

    /// Reads the servers and knobs out of the text of a ZooKeeper `zoo.cfg`, for the server `own`.
    ///
    /// Taken are the `server.N` lines (their election addresses; observers are peers as well), `cnxTimeout`,
    /// `quorumCnxnTimeoutMs` or else `tickTime` x `syncLimit` as the handshake timeout, `electionPortBindRetry`,
    /// `quorumListenOnAllIPs` and `multiAddress.enabled`. `initLimit`, `portUnification` and `tcpKeepAlive` are checked and
    /// otherwise ignored: keepalive is always on, derived from [`peer_dead_after`](ConfigBuilder::peer_dead_after).
    /// `sslQuorum` and SASL between servers are refused, since neither is spoken here. Other keys are ignored.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and what is wrong in it.
    pub fn from_zoo_cfg(text: &str, own: Sid) -> Result<ConfigBuilder, ConfigError> {
        Ok(ZooCfg::parse(text)?.builder(own))
    }

    /// Reads a `zoo.cfg` file, and the dynamic configuration file that it names, as [`ZooCfg::read`] does.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and what is wrong in it, or with line 0 if a file cannot be read, and for a
    /// line of the dynamic file, which is named together with it.
    pub fn from_zoo_cfg_file(
        path: impl AsRef<Path>,
        own: Sid,
    ) -> Result<ConfigBuilder, ConfigError> {
        Ok(ZooCfg::read(path)?.builder(own))
    }
}

impl ZooCfg {
    /// The configuration of the server `own` among these, as [`Config::from_zoo_cfg`] makes it.
    pub fn builder(&self, own: Sid) -> ConfigBuilder {
        of_zoo_cfg(self, own)
    }
}

fn of_zoo_cfg(file: &ZooCfg, own: Sid) -> ConfigBuilder {
    let mut builder = Config::builder(own);
    for server in &file.servers {
        builder
            .servers
            .push((server.sid, Given::Addresses(server.election.clone())));
    }
    let ticks = file
        .tick_time
        .zip(file.sync_limit)
        .and_then(|(tick, limit)| tick.checked_mul(limit));
    if let Some(timeout) = file.quorum_cnxn_timeout.or(ticks) {
        builder = builder.handshake_timeout(timeout);
    }
    if let Some(timeout) = file.cnx_timeout {
        builder = builder.connect_timeout(timeout);
    }
    let tries = file.election_port_bind_retry;
    builder = builder.listen_tries(tries.unwrap_or(limits::LISTEN_TRIES));
    if file.multi_address_enabled {
        builder = builder.challenge(Challenge::V2);
    }
    builder
        .observers_max(limits::OBSERVERS_MAX)
        .listen_on_all_ips(file.quorum_listen_on_all_ips)
}

#[derive(Clone, Debug)]
enum Given {
    Text(String),
    Addresses(Vec<Address>),
}

/// Collects a configuration; [`ConfigBuilder::build`] checks it.
#[derive(Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct ConfigBuilder {
    own: Sid,
    servers: Vec<(Sid, Given)>,
    listen: Option<Vec<String>>,
    listeners: Vec<TcpListener>,
    listen_on_all_ips: bool,
    /// `None`: as the outbox needs it.
    unsent_limit: Option<Option<u32>>,
    inbox: InboxGiven,
    knobs: Knobs,
}

/// What was said of the inbox; the rest is as the outbox needs it.
#[derive(Clone, Copy, Debug, Default)]
struct InboxGiven {
    full: Option<InboxFull>,
    frames: Option<usize>,
    bytes: Option<usize>,
}

impl ConfigBuilder {
    /// Adds a server of the quorum, this one included, by its election addresses: `"host:port"`, or several joined by
    /// `|`. IPv6 literals stand in brackets.
    ///
    /// A name may have several addresses: a peer is dialed at each, and this server listens on each, with a socket of its own,
    /// [32](limits::ROUTES_MAX) at most. For port 0 the kernel chooses; the sockets of one name share the port that the
    /// first of them got.
    pub fn server(mut self, sid: Sid, addresses: impl Into<String>) -> Self {
        self.servers.push((sid, Given::Text(addresses.into())));
        self
    }

    /// Listens on these addresses instead of the own ones, which stay what is advertised. May be called repeatedly. Goes
    /// before [`listen_on_all_ips`](Self::listen_on_all_ips).
    pub fn listen_on(mut self, address: impl Into<String>) -> Self {
        self.listen.get_or_insert_default().push(address.into());
        self
    }

    /// Takes a listening socket that is bound already (socket activation, or a test that wants a free port) instead
    /// of binding the own addresses. May be called repeatedly. Such a socket is never bound anew. Goes before all other
    /// ways to say where to listen.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Listens on the wildcard address with each own port (`quorumListenOnAllIPs`): `::`, which takes IPv4 as well, or
    /// `0.0.0.0` if all own addresses are IPv4 literals. Off by default.
    pub fn listen_on_all_ips(mut self, yes: bool) -> Self {
        self.listen_on_all_ips = yes;
        self
    }

    /// The form in which this server names itself. [`Challenge::V1`] by default. It is [`Challenge::Bare`] all the same as
    /// long as no own address can be dialed: wildcards, and port 0 before the socket is open.
    pub fn challenge(mut self, form: Challenge) -> Self {
        self.knobs.challenge = form;
        self
    }

    /// When peers are dialed. [`Dial::Eager`] by default.
    pub fn dial(mut self, dial: Dial) -> Self {
        self.knobs.dial = dial;
        self
    }

    /// What a second connection does to a link. [`Replace::Proven`] by default.
    pub fn replace(mut self, replace: Replace) -> Self {
        self.knobs.replace = replace;
        self
    }

    /// What becomes of servers that are not configured. [`Unknown::Reject`] by default.
    pub fn unknown(mut self, unknown: Unknown) -> Self {
        self.knobs.unknown = unknown;
        self
    }

    /// What the loop does while there is nothing to do. [`Idle::Block`] by default.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.knobs.idle = idle;
        self
    }

    /// What waits for each peer. [`Outbox::Latest`] by default.
    pub fn outbox(mut self, outbox: Outbox) -> Self {
        self.knobs.outbox = outbox;
        self
    }

    /// How long one `connect(2)` may take (`cnxTimeout`). 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.knobs.connect_timeout = timeout;
        self
    }

    /// How long an accepted connection may take to name itself, and a knock to be hung up. 5 s by default.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.knobs.handshake_timeout = timeout;
        self
    }

    /// The first and the last ceiling of the random time that a peer is left alone after a failed attempt. 50 ms and
    /// 1 s by default. The last one belongs below the election timeout of what runs on top.
    pub fn backoff(mut self, first: Duration, last: Duration) -> Self {
        self.knobs.backoff_min = first;
        self.knobs.backoff_max = last;
        self
    }

    /// Time without a sign of life after which a peer is dead, and its link ends with [`Reason::Dead`](crate::Reason::Dead).
    /// 5 s by default, at least 2 s. Sets `TCP_USER_TIMEOUT` and the keepalive options of each link.
    ///
    /// An idle link ends within this time after the network was cut. The first frame that is sent after the cut starts this time
    /// anew, so that the link ends within twice the time. Measured with 5 s, after the cut: 5.0 s at most if the link is idle or
    /// always in use, 9.7 s at most if sending begins later, with `reno` and `cubic`; up to 13.9 s with `bbr`. See
    /// [Failure detection](crate#failure-detection).
    pub fn peer_dead_after(mut self, timeout: Duration) -> Self {
        self.knobs.peer_dead_after = timeout;
        self
    }

    /// Tries to listen on a configured address before it is given up (`electionPortBindRetry`); 0, the default, means for
    /// ever. After [`Config::from_zoo_cfg`] it is what the file says, or [3](limits::LISTEN_TRIES), as in ZooKeeper, if the
    /// file says nothing: whoever runs with that should end the process, or raise an alarm, at
    /// [`Event::ListenerLost`](crate::Event::ListenerLost), since peers with a larger sid cannot reach this server any more.
    ///
    /// A name is looked up anew for each try. A try fails if none of its addresses can be bound. Once one is open it stays
    /// so, and the tries end: the other addresses, and those that the name gets later, are tried for ever, after a pause that
    /// doubles up to [a minute](limits::LISTEN_LOOKUP_PAUSE).
    pub fn listen_tries(mut self, tries: u32) -> Self {
        self.knobs.listen_tries = tries;
        self
    }

    /// Time between two tries to listen while nothing is open. 1 s by default.
    pub fn listen_pause(mut self, pause: Duration) -> Self {
        self.knobs.listen_pause = pause;
        self
    }

    /// What becomes of received messages when the inbox is full. [`InboxFull::DropOldest`] by default with
    /// [`Outbox::Latest`], as in ZooKeeper; [`InboxFull::PushBack`] with [`Outbox::Queue`].
    pub fn inbox_full(mut self, full: InboxFull) -> Self {
        self.inbox.full = Some(full);
        self
    }

    /// Received messages that may wait for the application. By default 100 if messages are
    /// [dropped](InboxFull::DropOldest), and 1 048 576 if peers are [slowed](InboxFull::PushBack).
    pub fn inbox_frames(mut self, frames: usize) -> Self {
        self.inbox.frames = Some(frames);
        self
    }

    /// Memory that received messages may hold while they wait for the application, in bytes. By default 64 MiB if messages are
    /// [dropped](InboxFull::DropOldest), which the default of [`inbox_frames`](Self::inbox_frames) never reaches, and 4 MiB if
    /// peers are [slowed](InboxFull::PushBack). Small messages that were read together are held together, and dropped together.
    pub fn inbox_bytes(mut self, bytes: usize) -> Self {
        self.inbox.bytes = Some(bytes);
        self
    }

    /// Observers without an id that are served at one time. 0 by default, which refuses them; 64 with a zoo.cfg. Anybody who
    /// reaches the port can come as an observer: it is a peer for as long as it is connected, what it sends is received like any
    /// message, and frames sent to its [`Sid`], which is negative, go to it.
    pub fn observers_max(mut self, observers: usize) -> Self {
        self.knobs.observers_max = observers;
        self
    }

    /// Accepted connections that may be unnamed at one time; one more evicts the oldest. 256 by default.
    pub fn pending_max(mut self, connections: usize) -> Self {
        self.knobs.pending_max = connections;
        self
    }

    /// Bytes that the kernel may hold unsent in front of the newest frame (`TCP_NOTSENT_LOWAT`; Linux and Android).
    /// 16 KiB by default with [`Outbox::Latest`]; `None`, the default with [`Outbox::Queue`], leaves it to the kernel, which then
    /// takes megabytes.
    pub fn unsent_limit(mut self, bytes: Option<u32>) -> Self {
        self.unsent_limit = Some(bytes);
        self
    }

    /// Size of the receive buffer of each link (`SO_RCVBUF`), in bytes. The kernel tunes it itself by default.
    pub fn receive_buffer(mut self, bytes: Option<usize>) -> Self {
        self.knobs.receive_buffer = bytes;
        self
    }

    /// How each link adapts to the network (`TCP_CONGESTION`; Linux and FreeBSD, elsewhere a warning says that it has no
    /// effect). On Linux `reno`, which every kernel has, or a name out of `/proc/sys/net/ipv4/tcp_allowed_congestion_control`; on
    /// FreeBSD a name out of `sysctl net.inet.tcp.cc.available`. The system's default by default. Where that is `bbr`, another
    /// one notices dead peers sooner ([Failure detection](crate#failure-detection)), and does not pace what stays in one data
    /// centre.
    pub fn congestion_control(mut self, name: impl Into<String>) -> Self {
        self.knobs.congestion_control = Some(name.into());
        self
    }

    /// The source address of outgoing connections. The kernel chooses by default. Set it where a host has several
    /// addresses and peers know this server by one of them: a connection from a peer's own address is trusted sooner
    /// ([`Replace::Proven`]).
    pub fn dial_from(mut self, ip: IpAddr) -> Self {
        self.knobs.dial_from = Some(ip);
        self
    }

    /// Seed of the jitter in the backoff, for tests that want the same times again. Random by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.knobs.seed = Some(seed);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names what cannot work.
    pub fn build(mut self) -> Result<Config, ConfigError> {
        self.knobs.unsent_limit = self.unsent_limit.unwrap_or(match self.knobs.outbox {
            Outbox::Latest => Some(limits::UNSENT_LIMIT),
            // All of a queue is to arrive: nothing in it grows stale.
            Outbox::Queue { .. } => None,
        });
        self.knobs.inbox_full = self.inbox.full.unwrap_or(match self.knobs.outbox {
            Outbox::Latest => InboxFull::DropOldest,
            // All of a queue is to arrive.
            Outbox::Queue { .. } => InboxFull::PushBack,
        });
        let (frames, bytes) = match self.knobs.inbox_full {
            InboxFull::DropOldest => (limits::INBOX_FRAMES, limits::INBOX_BYTES),
            InboxFull::PushBack => (limits::PUSH_BACK_FRAMES, limits::PUSH_BACK_BYTES),
        };
        self.knobs.inbox_frames = self.inbox.frames.unwrap_or(frames);
        self.knobs.inbox_bytes = self.inbox.bytes.unwrap_or(bytes);
        check_knobs(&self.knobs)?;
        let mut members = Vec::with_capacity(self.servers.len());
        for (sid, given) in self.servers {
            members.push(Server {
                sid,
                addresses: addresses_of(sid, given)?,
            });
        }
        members.sort_by_key(|server| server.sid);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].sid == pair[1].sid) {
            return Err(ConfigError::DuplicateSid(pair[0].sid));
        }
        if members.len() > limits::MEMBERS_MAX {
            let why = format!(
                "{} servers, at most {} are served",
                members.len(),
                limits::MEMBERS_MAX
            );
            return Err(ConfigError::BadOption {
                option: "server",
                why,
            });
        }
        refuse_shared_addresses(&members)?;
        let own = self.own;
        let Some(index) = members.iter().position(|server| server.sid == own) else {
            return Err(ConfigError::OwnSidMissing(own));
        };
        let own_addresses = members.remove(index).addresses;
        for server in &members {
            // Only a listening socket can have its port, or its address, chosen by the kernel.
            let useless = |address: &&Address| address.port() == 0 || address.is_wildcard();
            if let Some(address) = server.addresses.iter().find(useless) {
                let why = format!("server {} cannot be dialed at {address}", server.sid);
                return Err(ConfigError::BadOption {
                    option: "server",
                    why,
                });
            }
        }
        let listen = match self.listen {
            Some(texts) => {
                let mut listen = Vec::new();
                for text in texts {
                    listen.extend(addresses_of(own, Given::Text(text))?);
                }
                listen
            }
            None if self.listen_on_all_ips => wildcards(&own_addresses),
            None => own_addresses.clone(),
        };
        for (option, count) in [
            ("listen_on", listen.len()),
            ("listener", self.listeners.len()),
        ] {
            if count > limits::LISTEN_ADDRESSES_MAX {
                let why = format!("{count} of them, at most {}", limits::LISTEN_ADDRESSES_MAX);
                return Err(ConfigError::BadOption { option, why });
            }
        }
        Ok(Config {
            own,
            own_addresses,
            listen,
            listeners: self.listeners,
            members,
            knobs: self.knobs,
        })
    }
}

fn addresses_of(sid: Sid, given: Given) -> Result<Vec<Address>, ConfigError> {
    if sid.0 < 0 || sid == Sid::OBSERVER {
        return Err(ConfigError::ReservedSid(sid));
    }
    let addresses = match given {
        Given::Addresses(addresses) => addresses,
        Given::Text(text) if text.trim().is_empty() => return Err(ConfigError::NoAddress(sid)),
        Given::Text(text) => match parse_list(&text) {
            Ok(addresses) => addresses,
            Err(why) => return Err(ConfigError::BadAddress { sid, text, why }),
        },
    };
    if addresses.is_empty() {
        return Err(ConfigError::NoAddress(sid));
    }
    let bytes: usize = addresses
        .iter()
        // With the longest port: 0 is replaced by the one that the kernel chooses.
        .map(|address| address.host().len() + "[]:65535|".len())
        .sum();
    if addresses.len() > ADDRESSES_MAX || bytes > ADDRESS_BYTES_MAX {
        let why = format!(
            "server {sid} has {} addresses of {bytes} bytes, too many to be sent",
            addresses.len()
        );
        return Err(ConfigError::BadOption {
            option: "server",
            why,
        });
    }
    Ok(addresses)
}

/// Each address belongs to one server. A wildcard, or port 0, is no address that two servers could have in common.
fn refuse_shared_addresses(servers: &[Server]) -> Result<(), ConfigError> {
    let mut owners = HashMap::new();
    for server in servers {
        for address in &server.addresses {
            if address.port() == 0 || address.is_wildcard() {
                continue;
            }
            let first = *owners.entry(address.canonical()).or_insert(server.sid);
            if first != server.sid {
                return Err(ConfigError::SharedAddress {
                    first,
                    second: server.sid,
                    address: address.clone(),
                });
            }
        }
    }
    Ok(())
}

/// One wildcard address for each distinct port.
fn wildcards(own: &[Address]) -> Vec<Address> {
    let mut ports: Vec<u16> = own.iter().map(Address::port).collect();
    ports.sort_unstable();
    ports.dedup();
    // A name may point to either kind, and to another one tomorrow.
    let only_v4 = own
        .iter()
        .all(|address| matches!(address.ip(), Some(IpAddr::V4(_))));
    // A socket bound to `::` takes IPv4 as well.
    ports
        .into_iter()
        .map(|port| Address::new(if only_v4 { "0.0.0.0" } else { "::" }, port))
        .collect()
}

fn check_knobs(knobs: &Knobs) -> Result<(), ConfigError> {
    let bad = |option, why: String| Err(ConfigError::BadOption { option, why });
    let day = Duration::from_secs(24 * 60 * 60);
    for (option, value) in [
        ("connect_timeout", knobs.connect_timeout),
        ("handshake_timeout", knobs.handshake_timeout),
        ("listen_pause", knobs.listen_pause),
        ("backoff", knobs.backoff_min),
        ("backoff", knobs.backoff_max),
        ("peer_dead_after", knobs.peer_dead_after),
    ] {
        if value < Duration::from_millis(1) || value > day {
            return bad(option, format!("{value:?} is outside 1 ms to 24 h"));
        }
    }
    if knobs.backoff_min > knobs.backoff_max {
        return bad(
            "backoff",
            format!(
                "starts at {:?}, above its end {:?}",
                knobs.backoff_min, knobs.backoff_max
            ),
        );
    }
    if knobs.peer_dead_after < limits::PEER_DEAD_AFTER_MIN {
        let why = format!(
            "{:?} is less than {:?}",
            knobs.peer_dead_after,
            limits::PEER_DEAD_AFTER_MIN
        );
        return bad("peer_dead_after", why);
    }
    for (option, value, max) in [
        ("inbox_frames", knobs.inbox_frames, 1 << 20),
        ("pending_max", knobs.pending_max, 1 << 16),
    ] {
        if value == 0 || value > max {
            return bad(option, format!("{value} is outside 1 to {max}"));
        }
    }
    if knobs.inbox_bytes < limits::FRAME_BYTES_MAX {
        let why = format!(
            "{} bytes have no room for the longest frame, {} bytes",
            knobs.inbox_bytes,
            limits::FRAME_BYTES_MAX
        );
        return bad("inbox_bytes", why);
    }
    if knobs.observers_max > 1 << 16 {
        return bad(
            "observers_max",
            format!("{} is above {}", knobs.observers_max, 1 << 16),
        );
    }
    if let Unknown::Admit { max } = knobs.unknown {
        if max == 0 || max > 1 << 16 {
            return bad(
                "unknown",
                format!("admitting {max} servers is outside 1 to {}", 1 << 16),
            );
        }
    }
    if knobs.unsent_limit == Some(0) {
        return bad(
            "unsent_limit",
            "0 bytes would never let a frame leave, use None for no limit".into(),
        );
    }
    if knobs
        .receive_buffer
        .is_some_and(|bytes| bytes == 0 || bytes > 1 << 30)
    {
        return bad("receive_buffer", "outside 1 byte to 1 GiB".into());
    }
    if let Some(name) = &knobs.congestion_control {
        let is_name = (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if !is_name {
            let why = format!("{name:?} is not a name of 1 to 15 bytes of ASCII");
            return bad("congestion_control", why);
        }
    }
    if let Outbox::Queue { bytes } = knobs.outbox {
        let min = limits::PREFIX_BYTES + limits::FRAME_BYTES_MAX;
        if !(min..=1 << 30).contains(&bytes) {
            return bad(
                "outbox",
                format!("a queue of {bytes} bytes is outside {min} bytes to 1 GiB"),
            );
        }
    }
    if let Idle::Spin { for_at_most } = knobs.idle {
        if for_at_most > Duration::from_secs(60) {
            return bad(
                "idle",
                format!("spinning for {for_at_most:?} is above 60 s"),
            );
        }
    }
    Ok(())
}
