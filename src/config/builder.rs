//! Collects the configuration of this server: its sid, the addresses of all servers, and the options. `build` checks them once.
//!
//! Nothing here opens a socket or resolves a name. Names are compared as text.

use std::{
    net::{IpAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "tls")]
use super::secure::TlsGiven;
use super::{
    members::Members,
    options::{Config, Listens, OnLoopStart, Options, Sockets},
    policy::{Dial, Idle, Outbox, Replace, Unknown},
    servers::{Given, addresses_of, check_servers, take_own},
    validate::check_options,
};
#[cfg(feature = "tls")]
use crate::tls::{PeerName, Tls};
use crate::{
    error::ConfigError,
    inbox::InboxFull,
    limits,
    proto::{Address, InitialMessageVersion, Sid},
};

impl Config {
    /// Begins the configuration of the server with the sid `own`.
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
            members: Members::new(0),
            listen: None,
            sockets: Sockets::default(),
            listen_on_all_ips: false,
            unsent_limit: None,
            inbox: InboxGiven::default(),
            members_max: None,
            #[cfg(feature = "tls")]
            tls: TlsGiven::default(),
            options: Options::default(),
        }
    }

    /// The sid of this server.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.own
    }
}

/// Collects a configuration. [`ConfigBuilder::build`] checks it.
///
/// A clone does not have the sockets that were handed over with [`listener`](Self::listener).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct ConfigBuilder {
    own: Sid,
    members: Members,
    listen: Option<Vec<String>>,
    sockets: Sockets,
    listen_on_all_ips: bool,
    /// `None` exactly when the application has not set it. `build` then chooses by the outbox.
    unsent_limit: Option<Option<u32>>,
    inbox: InboxGiven,
    members_max: Option<usize>,
    #[cfg(feature = "tls")]
    tls: TlsGiven,
    options: Options,
}

/// The inbox options that the application has set. `build` chooses the others: `full` by the outbox, the sizes by `full`.
#[derive(Clone, Copy, Debug, Default)]
struct InboxGiven {
    full: Option<InboxFull>,
    frames: Option<usize>,
    bytes: Option<usize>,
}

impl ConfigBuilder {
    /// Adds a server of the quorum with its election addresses: `"host:port"`, or several joined by `|`. An IPv6 literal is
    /// written in brackets. Call this for every server, this one included.
    ///
    /// A name may have several IP addresses, of which at most 32 are used. The loop dials a peer at
    /// each of them. It listens on each own one with a separate socket. If an own port is 0, the kernel chooses the port. The
    /// sockets of one name share the port that the first of them got.
    pub fn server(mut self, sid: Sid, addresses: impl Into<String>) -> Self {
        self.members = self.members.server(sid, addresses);
        self
    }

    /// Adds several servers, each as [`server`](Self::server) does.
    pub fn servers<A: Into<String>>(mut self, servers: impl IntoIterator<Item = (Sid, A)>) -> Self {
        self.members = self.members.servers(servers);
        self
    }

    /// The same, with addresses that are already parsed.
    pub(crate) fn server_at(mut self, sid: Sid, addresses: Vec<Address>) -> Self {
        self.members = self.members.server_at(sid, addresses);
        self
    }

    /// Listens on this address, or on several joined by `|`, instead of the own addresses. The own addresses are still
    /// advertised. May be called repeatedly, for at most 1024 addresses. Overrides
    /// [`listen_on_all_ips`](Self::listen_on_all_ips).
    ///
    /// Use it if peers reach this server at an address that its machine does not have, for instance behind a NAT.
    pub fn listen_on(mut self, address: impl Into<String>) -> Self {
        self.listen.get_or_insert_default().push(address.into());
        self
    }

    /// Accepts connections on this socket, which is already bound, instead of binding the own addresses. May be called
    /// repeatedly, for at most 1024 sockets. Such a socket is never bound again. Overrides all
    /// other options that say where to listen.
    ///
    /// Use it for socket activation, or for a test that needs a free port. A clone of the builder or of the configuration does not
    /// have the socket.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.sockets.0.push(listener);
        self
    }

    /// Listens on the wildcard address with each own port (`quorumListenOnAllIPs`). Off by default. The wildcard is `::`, which
    /// accepts IPv4 as well, or `0.0.0.0` if all own addresses are IPv4 literals.
    ///
    /// Use it if an own address is not an address of this machine, for instance in a container.
    pub fn listen_on_all_ips(mut self, yes: bool) -> Self {
        self.listen_on_all_ips = yes;
        self
    }

    /// Sets the version of the initial message that this server sends. Default: [`InitialMessageVersion::V1`]. See
    /// [`InitialMessageVersion`] for the releases of ZooKeeper that need another one.
    ///
    /// [`InitialMessageVersion::Bare`] is sent instead while no own address can be dialed: if all are wildcards, or have port 0 and
    /// the socket is not open yet. [`InitialMessageVersion::Native`] needs no address.
    pub fn initial_message(mut self, form: InitialMessageVersion) -> Self {
        self.options.initial_message = form;
        self
    }

    /// Sets the cluster of this server, any 16 bytes, for example a UUID. Default: all zero. Servers of different clusters refuse each
    /// other's [native](InitialMessageVersion::Native) initial messages. All servers of a mesh have the same value.
    pub fn cluster_id(mut self, id: [u8; 16]) -> Self {
        self.options.cluster_id = id;
        self
    }

    /// Refuses the initial messages of ZooKeeper, and so observers without an id, with
    /// [`Reason::NotNative`](crate::Reason::NotNative). Off by default. Needs
    /// [`InitialMessageVersion::Native`]: otherwise this server could not reach others with the same setting.
    ///
    /// A running mesh is moved to native handshakes with two restarts of each server, one after the other: first with
    /// [`initial_message`](Self::initial_message), then with this as well. Before that, all servers need a version of this library
    /// that understands native initial messages, and the [`cluster_id`](Self::cluster_id).
    pub fn native_only(mut self, yes: bool) -> Self {
        self.options.native_only = yes;
        self
    }

    /// Sets when peers are dialed. Default: [`Dial::Eager`].
    pub fn dial(mut self, dial: Dial) -> Self {
        self.options.dial = dial;
        self
    }

    /// Sets what happens when a second connection claims the sid of a linked peer. Default: [`Replace::Proven`].
    pub fn replace(mut self, replace: Replace) -> Self {
        self.options.replace = replace;
        self
    }

    /// Sets what happens to servers that are not configured. Default: [`Unknown::Reject`].
    pub fn unknown(mut self, unknown: Unknown) -> Self {
        self.options.unknown = unknown;
        self
    }

    /// Sets what the loop does while there is nothing to do. Default: [`Idle::Block`].
    pub fn idle(mut self, idle: Idle) -> Self {
        self.options.idle = idle;
        self
    }

    /// Sets which frames wait for a peer: the newest one, all in a queue, or both. Default: [`Outbox::Latest`].
    pub fn outbox(mut self, outbox: Outbox) -> Self {
        self.options.outbox = outbox;
        self
    }

    /// Sets how long one `connect(2)` may take (`cnxTimeout`). Default: 5 s. Range: 1 ms to 24 h.
    ///
    /// The loop tries the next address of a peer after 100 ms, beside those that do not answer, but three of them at most. Only a peer
    /// with more addresses waits for this time, and a dial fails after it if nothing answers.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// Sets how long an accepted connection may take to send its initial message, and the far end of a knock to answer or close it.
    /// Default: 5 s. Range: 1 ms to 24 h. The answer to a native initial message that is no knock may take as long, or 2 s longer than
    /// [`peer_dead_after`](Self::peer_dead_after) if that is more: for so long, the far end may wait for the end of an older link.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options.handshake_timeout = timeout;
        self
    }

    /// Sets the bounds of the random wait after a failed attempt to dial a peer. The upper bound of the wait is `first` at the
    /// beginning and doubles with each failure up to `last`. Defaults: 50 ms and 1 s. Range of both: 1 ms to 24 h. A peer that has been
    /// knocked at has 250 ms at least to dial back, before it is knocked at again.
    ///
    /// After a dial that TLS has refused, or a native answer because of a wrong server, a wrong cluster or an unknown sid, the wait is
    /// longer, since only an operator changes that: it is `first` at least, and doubles with each such dial in a row up to 10 s. A link that
    /// lasts for a second ends this. The peer is dialed at once when it knocks, when it gets other addresses, or when the application calls
    /// `set_tls` or [`renew`](crate::Handle::renew).
    ///
    /// [`connect_one`](crate::Handle::connect_one) and [`initiate_connection`](crate::Handle::initiate_connection) do not wait for it.
    ///
    /// Keep `last` below the election timeout of the protocol on top, so that a peer that is back is linked in time.
    pub fn backoff(mut self, first: Duration, last: Duration) -> Self {
        self.options.backoff_min = first;
        self.options.backoff_max = last;
        self
    }

    /// Sets the time without a sign of life after which a peer is considered dead. Its link then ends with
    /// [`Reason::Dead`](crate::Reason::Dead). Default: 5 s. Range: 2 s to 24 h. It determines `TCP_USER_TIMEOUT` and the keepalive
    /// options of each link.
    ///
    /// An idle link ends within this time after the network was cut. The first frame that is sent after the cut starts the time
    /// again, so that the link ends within twice the time. Measured from the cut, with 5 s:
    ///
    /// - at most 5.0 s, if the link is idle or always in use;
    /// - at most 9.7 s, if sending begins after the cut, with `reno` and `cubic`;
    /// - up to 13.9 s with `bbr`.
    ///
    /// If you need a bound that counts from the cut, set half of it. See [Failure detection](crate#failure-detection).
    pub fn peer_dead_after(mut self, timeout: Duration) -> Self {
        self.options.peer_dead_after = timeout;
        self
    }

    /// Measures the round-trip time of each link: the loop sends a ping over it in this interval, and the loop of the far end answers.
    /// [`LinkStats::round_trip`](crate::LinkStats::round_trip) has the result. By default no pings are sent. Range: 1 ms to 24 h.
    ///
    /// Only links with a [native](crate::InitialMessageVersion::Native) handshake have pings, and only if the far end understands them.
    /// Every server of this version answers them, whether it sends any or not. No application sees them, and they are no frames in the
    /// statistics. One is under way at a time: one that is not answered is followed by no other.
    ///
    /// A ping waits for what is being written when it is due, and both loops must have time for it. So it measures what a small frame
    /// would take. A link that is paused by [`InboxFull::PushBack`] answers none. Therefore a missing
    /// answer ends no link: [`peer_dead_after`](Self::peer_dead_after) does. An answer counts as a sign of life: a link that brings one
    /// each second is not silent ([`Replace::Proven`]).
    ///
    /// A ping for a server that has just halted resets the connection, as any frame for it does. The last frames of that server may be
    /// lost with it.
    pub fn ping_every(mut self, interval: Duration) -> Self {
        self.options.ping_every = Some(interval);
        self
    }

    /// Sets how many times the loop tries to listen on a configured address before it gives up (`electionPortBindRetry`).
    /// Default: 0, which means without end. [`Config::from_zoo_cfg`] takes the number from the file, or
    /// 3, as ZooKeeper does, if the file has none.
    ///
    /// When the tries are used up, [`Event::ListenerLost`](crate::Event::ListenerLost) is reported. Peers with a larger sid can
    /// then no longer reach this server, so the application should end the process or raise an alarm.
    ///
    /// A name is looked up again for each try. A try fails if none of its addresses can be bound. Once one is bound, the tries are
    /// over, and this socket stays open. The other addresses, and those that the name gets later, are tried without end, after a
    /// pause that doubles up to a minute.
    pub fn listen_tries(mut self, tries: u32) -> Self {
        self.options.listen_tries = tries;
        self
    }

    /// Sets the time between two tries to listen on an address of which nothing is open. Default: 1 s. Range: 1 ms to 24 h.
    pub fn listen_pause(mut self, pause: Duration) -> Self {
        self.options.listen_pause = pause;
        self
    }

    /// Sets what happens to received messages when the inbox is full. Default: [`InboxFull::DropOldest`] with
    /// [`Outbox::Latest`], as in ZooKeeper; [`InboxFull::PushBack`] with [`Outbox::Queue`] and
    /// [`Outbox::Lanes`].
    pub fn inbox_full(mut self, full: InboxFull) -> Self {
        self.inbox.full = Some(full);
        self
    }

    /// Sets how many received messages may wait for the application. Default: 100 with [`InboxFull::DropOldest`], 1 048 576 with
    /// [`InboxFull::PushBack`]. Range: 1 to 1 048 576.
    pub fn inbox_frames(mut self, frames: usize) -> Self {
        self.inbox.frames = Some(frames);
        self
    }

    /// Sets how much memory received messages may hold while they wait for the application, in bytes. Default: 64 MiB with
    /// [`InboxFull::DropOldest`], which the default of [`inbox_frames`](Self::inbox_frames) never reaches; 4 MiB with
    /// [`InboxFull::PushBack`]. At least 512 KiB.
    ///
    /// Small messages that were read together share a buffer. They hold it together, and this limit drops them together.
    pub fn inbox_bytes(mut self, bytes: usize) -> Self {
        self.inbox.bytes = Some(bytes);
        self
    }

    /// Sets how many observers without an id are served at one time. Default: 0, which refuses them; 64 with a zoo.cfg. Range: 0 to
    /// 65 536.
    ///
    /// Anyone who can reach the port can connect as an observer. An observer is a peer while it is connected. What it sends is
    /// received like any message, and it receives the frames that are sent to its [`Sid`], which is negative.
    pub fn observers_max(mut self, observers: usize) -> Self {
        self.options.observers_max = observers;
        self
    }

    /// Sets how many servers may be members at one time, this one included, with those that were removed and still leave
    /// ([`Handle::reconfigure`](crate::Handle::reconfigure)). Default: twice as many as are configured, and at least 9. Range: the number of those that are
    /// configured to 16 384. [`Config::max_memory`] counts all of them.
    ///
    /// A server that was removed counts until the loop has parted with it ([`Event::Left`](crate::Event::Left)), also with
    /// [`Leave::Now`](crate::Leave::Now): its link is there until the loop's next turn, and a loop that is blocked for long would have any number
    /// of them to part with. So a step that replaces a server needs room for both. Without that room, remove the old one first, and add the
    /// new one after `Event::Left`.
    pub fn members_max(mut self, servers: usize) -> Self {
        self.members_max = Some(servers);
        self
    }

    /// Sets how many accepted connections may be open that have not sent their initial message. One more evicts the oldest of them.
    /// Default: 256. Range: 1 to 65 536.
    pub fn pending_max(mut self, connections: usize) -> Self {
        self.options.pending_max = connections;
        self
    }

    /// Sets how many unsent bytes the kernel may hold for a link before a frame waits in the outbox instead (`TCP_NOTSENT_LOWAT`;
    /// Linux and Android). Default: 16 KiB with [`Outbox::Latest`], 128 KiB with [`Outbox::Lanes`], `None` with [`Outbox::Queue`]. 0
    /// is refused.
    ///
    /// With a small limit, the frame in a slot has few bytes in front of it. With `None` the kernel decides, and takes megabytes.
    pub fn unsent_limit(mut self, bytes: Option<u32>) -> Self {
        self.unsent_limit = Some(bytes);
        self
    }

    /// Sets the size of the receive buffer of each link (`SO_RCVBUF`), in bytes. Default: `None`, with which the kernel tunes the
    /// size itself. Range: 1 byte to 1 GiB. The kernel may use another size without an error: Linux takes twice as much, at least
    /// 2304 bytes and at most twice `net.core.rmem_max` (`socket(7)`).
    pub fn receive_buffer(mut self, bytes: Option<usize>) -> Self {
        self.options.receive_buffer = bytes;
        self
    }

    /// Sets the congestion control of each link (`TCP_CONGESTION`; Linux and FreeBSD). Default: that of the system. On other
    /// systems it has no effect, and a warning says so.
    ///
    /// On Linux, use `reno`, which every kernel has, or a name from `/proc/sys/net/ipv4/tcp_allowed_congestion_control`. On
    /// FreeBSD, use a name from `sysctl net.inet.tcp.cc.available`. A name has 1 to 15 bytes of ASCII.
    ///
    /// Set it where the system's default is `bbr`. With another one, dead peers are detected sooner
    /// ([Failure detection](crate#failure-detection)), and packets within one data centre are not paced.
    pub fn congestion_control(mut self, name: impl Into<String>) -> Self {
        self.options.congestion_control = Some(name.into());
        self
    }

    /// Sets the source address of outgoing connections. By default the kernel chooses it.
    ///
    /// Set it if this host has several addresses and the peers know only one of them. A connection from a peer's own address
    /// replaces an older link at once ([`Replace::Proven`]).
    pub fn dial_from(mut self, ip: IpAddr) -> Self {
        self.options.dial_from = Some(ip);
        self
    }

    /// Sets the seed of the random waits of the backoff, so that a test can repeat them. Default: random, and the own sid
    /// with `EventLoop::with_net`, which exists with the feature `simulation`.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// Calls this function once on the thread of a [`CnxManager`](crate::CnxManager)'s loop, before its first turn. By default nothing
    /// is called.
    ///
    /// Use it to pin the thread to a processor, to set its priority, or to register it with a profiler. While the function runs,
    /// nothing is accepted or read. If it panics, the loop dies, as it does if a handler panics: see
    /// [`Handle::has_died`](crate::Handle::has_died).
    ///
    /// An [`EventLoop`](crate::EventLoop) does not call it, since its thread belongs to the application.
    ///
    /// # Examples
    ///
    /// ```
    /// use quorum_cnx::{CnxManager, Config, Sid};
    ///
    /// fn pin_this_thread(processor: usize) {
    ///     // For instance with the crate `core_affinity`, or with `nix::sched::sched_setaffinity`.
    ///     # let _ = processor;
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::builder(Sid(1))
    ///     .server(Sid(1), "127.0.0.1:0")
    ///     .on_loop_start(|| pin_this_thread(3))
    ///     .build()?;
    /// let manager = CnxManager::start(config)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_loop_start(mut self, start: impl Fn() + Send + Sync + 'static) -> Self {
        self.options.on_loop_start = Some(OnLoopStart(Arc::new(start)));
        self
    }

    /// Has all connections use TLS, with certificates on both sides. Default: no TLS.
    ///
    /// The certificate that a server shows must belong to the sid for which it was dialed, or which it claims. See
    /// [`peer_names`](Self::peer_names).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #[cfg(feature = "tls-ring")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use quorum_cnx::{Config, Sid, Tls};
    ///
    /// let tls = Tls::from_pem_files("zk2.pem", "zk2.key", "ca.pem")?.build()?;
    /// let config = Config::builder(Sid(2))
    ///     .server(Sid(1), "zk1.example:3888")
    ///     .server(Sid(2), "zk2.example:3888")
    ///     .tls(tls)
    ///     .peer_names(Sid(1), ["zk1.example".parse()?, "spiffe://example/zk/1".parse()?])
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "tls-ring"))]
    /// # fn main() {}
    /// ```
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(self, tls: Tls) -> Self {
        self.tls_or(Ok(tls))
    }

    /// The same. [`build`](Self::build) returns the error.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_or(mut self, tls: Result<Tls, ConfigError>) -> Self {
        self.tls.tls = Some(tls);
        self
    }

    /// Sets the names that the certificate of this server may have, at most 32. One of them must be in it. Default: the hosts of its
    /// configured [addresses](Self::server), which are names and IP addresses.
    ///
    /// They are compared with the names in the certificate and with nothing else: no name is resolved, and the address of the
    /// connection has no effect. No two servers may have a name in common ([`ConfigError::SharedName`]), so servers on one host need
    /// names other than that of the host.
    ///
    /// A server that is not configured ([`Unknown::Admit`]) is refused unless its sid has names here.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn peer_names(mut self, sid: Sid, names: impl IntoIterator<Item = PeerName>) -> Self {
        self.members = self.members.peer_names(sid, names);
        self
    }

    /// Sets the names that the certificates of observers without an id may have ([`observers_max`](Self::observers_max)). Default:
    /// none, so that they are refused when this server speaks TLS.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn observer_names(self, names: impl IntoIterator<Item = PeerName>) -> Self {
        self.peer_names(Sid::OBSERVER, names)
    }

    /// Sets whether a certificate for `*.example.com` belongs to `zk1.example.com`. Default: no, since such a certificate belongs to
    /// every server below that domain, and each of them could be taken for another one.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn wildcard_certificates(mut self, yes: bool) -> Self {
        self.tls.wildcards = yes;
        self
    }

    /// Sets the options that were not set, and whose default depends on the outbox.
    fn fill_in(&mut self) {
        self.options.unsent_limit = self.unsent_limit.unwrap_or(match self.options.outbox {
            Outbox::Latest => Some(limits::UNSENT_LIMIT),
            // Every frame of a queue must arrive: none becomes stale.
            Outbox::Queue { .. } => None,
            Outbox::Lanes { .. } => Some(limits::LANES_UNSENT_LIMIT),
        });
        self.options.inbox_full = self.inbox.full.unwrap_or(match self.options.outbox {
            Outbox::Latest => InboxFull::DropOldest,
            // Every frame of a queue must arrive: none may be dropped.
            Outbox::Queue { .. } | Outbox::Lanes { .. } => InboxFull::PushBack,
        });
        let (frames, bytes) = match self.options.inbox_full {
            InboxFull::DropOldest => (limits::INBOX_FRAMES, limits::INBOX_BYTES),
            InboxFull::PushBack => (limits::PUSH_BACK_FRAMES, limits::PUSH_BACK_BYTES),
        };
        self.options.inbox_frames = self.inbox.frames.unwrap_or(frames);
        self.options.inbox_bytes = self.inbox.bytes.unwrap_or(bytes);
    }

    /// Checks the configuration, and fills in the defaults.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that says which server or option cannot work.
    pub fn build(mut self) -> Result<Config, ConfigError> {
        self.fill_in();
        check_options(&self.options)?;
        let mut members = check_servers(self.members.servers)?;
        self.options.members_max = check_members_max(self.members_max, members.len())?;
        #[cfg(feature = "tls")]
        {
            self.options.tls =
                self.tls
                    .check(self.own, &self.members.names, &members, &self.options)?;
        }
        let own = self.own;
        let own_addresses = take_own(own, &mut members)?;
        self.options.listens = match (&self.listen, self.listen_on_all_ips) {
            (Some(_), _) => Listens::Elsewhere,
            (None, true) => Listens::OnAllIps,
            (None, false) => Listens::OnOwn,
        };
        let listen = match self.listen {
            Some(texts) => listen_addresses(own, texts)?,
            None => self.options.listens.addresses(&own_addresses),
        };
        for (option, count) in [
            ("listen_on", listen.len()),
            ("listener", self.sockets.0.len()),
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
            sockets: self.sockets,
            members,
            options: self.options,
        })
    }
}

/// How many members may be there, of which `configured` are there at the start.
fn check_members_max(given: Option<usize>, configured: usize) -> Result<usize, ConfigError> {
    let fit = (2 * configured).max(limits::MEMBERS_FIT);
    match given {
        None => Ok(fit.min(limits::MEMBERS_MAX)),
        Some(max) if (configured..=limits::MEMBERS_MAX).contains(&max) => Ok(max),
        Some(max) => Err(ConfigError::BadOption {
            option: "members_max",
            why: format!(
                "{max} is outside {configured}, as many as are configured, to {}",
                limits::MEMBERS_MAX
            ),
        }),
    }
}

/// The addresses to listen on that the application has set.
fn listen_addresses(own: Sid, texts: Vec<String>) -> Result<Vec<Address>, ConfigError> {
    let mut listen = Vec::new();
    for text in texts {
        listen.extend(addresses_of(own, Given::Text(text))?);
    }
    Ok(listen)
}

impl Listens {
    /// The addresses to listen on, if they follow from the own ones.
    pub(crate) fn addresses(self, own: &[Address]) -> Vec<Address> {
        match self {
            Self::OnOwn => own.to_vec(),
            Self::OnAllIps => wildcards(own),
            Self::Elsewhere => Vec::new(),
        }
    }
}

/// One wildcard address for each distinct port.
fn wildcards(own: &[Address]) -> Vec<Address> {
    let mut ports: Vec<u16> = own.iter().map(Address::port).collect();
    ports.sort_unstable();
    ports.dedup();
    // A name may resolve to IPv4 or to IPv6, and later to the other one.
    let only_v4 = own
        .iter()
        .all(|address| matches!(address.ip(), Some(IpAddr::V4(_))));
    // A socket bound to `::` accepts IPv4 as well.
    ports
        .into_iter()
        .map(|port| Address::new(if only_v4 { "0.0.0.0" } else { "::" }, port))
        .collect()
}
