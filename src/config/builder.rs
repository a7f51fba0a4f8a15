//! Who this server is, where its peers live, and the options: collected, then checked once.
//!
//! Nothing here opens a socket or resolves a name. Addresses are compared by their text.

use std::{
    net::{IpAddr, TcpListener},
    time::Duration,
};

use super::{
    options::{Config, Options, Server},
    policy::{Dial, Idle, Outbox, Replace, Unknown},
    validate::{check_addresses, check_options, refuse_shared_addresses},
};
use crate::{
    error::ConfigError,
    inbox::InboxFull,
    limits,
    proto::{Address, InitialMessageVersion, Sid, parse_list},
};

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
            options: Options::default(),
        }
    }
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
    options: Options,
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
    /// [32](limits::NAME_ADDRESSES_MAX) at most. For port 0 the kernel chooses; the sockets of one name share the port that the
    /// first of them got.
    pub fn server(mut self, sid: Sid, addresses: impl Into<String>) -> Self {
        self.servers.push((sid, Given::Text(addresses.into())));
        self
    }

    /// The same, with addresses that are parsed already.
    pub(crate) fn server_at(mut self, sid: Sid, addresses: Vec<Address>) -> Self {
        self.servers.push((sid, Given::Addresses(addresses)));
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

    /// The form in which this server names itself. [`InitialMessageVersion::V1`] by default. It is [`InitialMessageVersion::Bare`] all the same as
    /// long as no own address can be dialed: wildcards, and port 0 before the socket is open.
    pub fn initial_message(mut self, form: InitialMessageVersion) -> Self {
        self.options.initial_message = form;
        self
    }

    /// When peers are dialed. [`Dial::Eager`] by default.
    pub fn dial(mut self, dial: Dial) -> Self {
        self.options.dial = dial;
        self
    }

    /// What a second connection does to a link. [`Replace::Proven`] by default.
    pub fn replace(mut self, replace: Replace) -> Self {
        self.options.replace = replace;
        self
    }

    /// What becomes of servers that are not configured. [`Unknown::Reject`] by default.
    pub fn unknown(mut self, unknown: Unknown) -> Self {
        self.options.unknown = unknown;
        self
    }

    /// What the loop does while there is nothing to do. [`Idle::Block`] by default.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.options.idle = idle;
        self
    }

    /// What waits for each peer. [`Outbox::Latest`] by default.
    pub fn outbox(mut self, outbox: Outbox) -> Self {
        self.options.outbox = outbox;
        self
    }

    /// How long one `connect(2)` may take (`cnxTimeout`). 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long an accepted connection may take to name itself, and a knock to be hung up. 5 s by default.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options.handshake_timeout = timeout;
        self
    }

    /// The first and the last upper bound of the random wait after a failed attempt. 50 ms and
    /// 1 s by default. The last one belongs below the election timeout of what runs on top.
    pub fn backoff(mut self, first: Duration, last: Duration) -> Self {
        self.options.backoff_min = first;
        self.options.backoff_max = last;
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
        self.options.peer_dead_after = timeout;
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
        self.options.listen_tries = tries;
        self
    }

    /// Time between two tries to listen while nothing is open. 1 s by default.
    pub fn listen_pause(mut self, pause: Duration) -> Self {
        self.options.listen_pause = pause;
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
        self.options.observers_max = observers;
        self
    }

    /// Accepted connections that may be unnamed at one time; one more evicts the oldest. 256 by default.
    pub fn pending_max(mut self, connections: usize) -> Self {
        self.options.pending_max = connections;
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
        self.options.receive_buffer = bytes;
        self
    }

    /// How each link adapts to the network (`TCP_CONGESTION`; Linux and FreeBSD, elsewhere a warning says that it has no
    /// effect). On Linux `reno`, which every kernel has, or a name out of `/proc/sys/net/ipv4/tcp_allowed_congestion_control`; on
    /// FreeBSD a name out of `sysctl net.inet.tcp.cc.available`. The system's default by default. Where that is `bbr`, another
    /// one notices dead peers sooner ([Failure detection](crate#failure-detection)), and does not pace what stays in one data
    /// centre.
    pub fn congestion_control(mut self, name: impl Into<String>) -> Self {
        self.options.congestion_control = Some(name.into());
        self
    }

    /// The source address of outgoing connections. The kernel chooses by default. Set it where a host has several
    /// addresses and peers know this server by one of them: a connection from a peer's own address is trusted sooner
    /// ([`Replace::Proven`]).
    pub fn dial_from(mut self, ip: IpAddr) -> Self {
        self.options.dial_from = Some(ip);
        self
    }

    /// Seed of the jitter in the backoff, for tests that want the same times again. Random by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names what cannot work.
    pub fn build(mut self) -> Result<Config, ConfigError> {
        self.options.unsent_limit = self.unsent_limit.unwrap_or(match self.options.outbox {
            Outbox::Latest => Some(limits::UNSENT_LIMIT),
            // All of a queue is to arrive: nothing in it grows stale.
            Outbox::Queue { .. } => None,
        });
        self.options.inbox_full = self.inbox.full.unwrap_or(match self.options.outbox {
            Outbox::Latest => InboxFull::DropOldest,
            // All of a queue is to arrive.
            Outbox::Queue { .. } => InboxFull::PushBack,
        });
        let (frames, bytes) = match self.options.inbox_full {
            InboxFull::DropOldest => (limits::INBOX_FRAMES, limits::INBOX_BYTES),
            InboxFull::PushBack => (limits::PUSH_BACK_FRAMES, limits::PUSH_BACK_BYTES),
        };
        self.options.inbox_frames = self.inbox.frames.unwrap_or(frames);
        self.options.inbox_bytes = self.inbox.bytes.unwrap_or(bytes);
        check_options(&self.options)?;
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
            options: self.options,
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
    check_addresses(sid, &addresses)?;
    Ok(addresses)
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
