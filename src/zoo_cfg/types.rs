//! The content of a `zoo.cfg`, and the error for one that cannot be used.
//!
//! Nothing here reads text or files. [`ZooCfg`] documents what is accepted and what is refused.

use std::{collections::BTreeMap, time::Duration};

use crate::proto::{Address, Sid};

/// The servers and options in a `zoo.cfg`, as far as they concern the ensemble and its connections. A missing key is `None`.
///
/// A connection manager needs only [`Config::from_zoo_cfg_file`](crate::Config::from_zoo_cfg_file). An election on top of it needs
/// more: which servers vote, with which weight, and at which address a leader is found.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Sid, ZooCfg};
///
/// let cfg = ZooCfg::parse("server.1=zk1:2888:3888\nserver.2=zk2:2888:3888:observer\n")?;
/// assert!(cfg.servers[1].observer);
/// assert_eq!(cfg.servers[0].quorum[0].to_string(), "zk1:2888");
/// let config = cfg.builder(Sid(1)).build()?;
/// # Ok::<(), quorum_cnx::ConfigError>(())
/// ```
///
/// # What is accepted
///
/// A file is read as ZooKeeper 3.8 and 3.9 read it (`java.util.Properties`, then `QuorumPeerConfig`), so that both find the
/// same servers in it. Text that ZooKeeper accepts but that is probably a mistake is refused here. The error names its line.
///
/// | In the file | ZooKeeper | Here |
/// |---|---|---|
/// | any bytes | ISO-8859-1 | the same; [`parse`](Self::parse) accepts characters instead |
/// | a key twice | the last one counts | the same, but not for `server.N` |
/// | `host:2888:3888:`: colons, bars and semicolons at the end | ignored | the same |
/// | `[zk1]:2888:3888`, `[10.0.0.1]:2888:3888` | the host in the brackets | the same |
/// | port `+2888` or `02888` | 2888 | the same |
/// | client address `;0` or `;:2181` | none; any host | the same |
/// | blanks after the last port of a server, or between or after the servers of a group | refused | refused |
/// | other keys that begin with `group` or `weight` | refused | refused |
/// | `server`, `group`, `weight` lines together with `dynamicConfigFile` | refused | refused |
/// | `version` inside a dynamic file, whose name has the version | refused | refused |
/// | `zookeeper.cnxTimeout` and other flags of the JVM | ignored | ignored, see [`ZooCfgReader`](crate::ZooCfgReader) |
/// | several addresses of a server | refused without the flag, even with the key `multiAddress.enabled` | the same |
/// | `multiAddress.enabled` | all addresses are sent | the same: [`InitialMessageVersion::V2`](crate::InitialMessageVersion::V2) |
/// | `server.N` twice, also as `server.1` and `server.01` | one of them counts | refused |
/// | two lines for one group or weight, a group without servers | both count, or no leader is elected | refused |
/// | a negative id, weight or version | accepted | refused |
/// | an empty host | this machine | refused |
/// | a host with a blank, `$`, `/` or similar; `256.1.1.1`, `10.0.1`, `010.0.0.1` | a name, or a guess | refused, see [`Address`] |
/// | port 0 of a server | accepted | refused |
/// | no address at all, `server.1=\|` | a server without an address | refused |
/// | a value that does not fit its key: `electionPortBindRetry=often`, `tcpKeepAlive=yes` | silently the default | refused |
/// | numbers with a leading 0 for keys that Java reads with `Integer.getInteger` | octal | refused |
/// | a byte order mark in front of a key | a part of the key | refused |
/// | `quorum.auth.enableSasl`, `quorum.auth.learnerRequireSasl`, `quorum.auth.serverRequireSasl` set to true | SASL | refused: not supported |
/// | `sslQuorum=true` | TLS | refused without the feature `tls-ring` |
/// | `;client;secureClient` | since 3.10 | accepted |
/// | an ensemble that cannot elect a leader: observers alone, a voter in no group | refused | accepted: the election decides |
/// | keys that do not concern a connection manager (`clientPort`, `dataDir`) | checked | not checked |
///
/// # TLS between servers
///
/// With the feature `tls-ring`. The keys below begin with `ssl.quorum.`, unless they stand in the first two rows. As in ZooKeeper, they
/// have no effect while `sslQuorum` and `portUnification` are false, and the flags `-Dzookeeper.ssl.quorum.*` of the JVM mean the same.
///
/// | Key | Here |
/// |---|---|
/// | `sslQuorum`, `portUnification` | whether connections without TLS are accepted and dialed: the three steps of ZooKeeper's upgrade |
/// | `sslQuorumReloadCertFiles` | the field `reload_cert_files`: the application then watches the files of `tls_files` (`Handle::watch_tls_files`) |
/// | `keyStore.location`, `trustStore.location` | PEM files; the key store has the private key, not encrypted, then the certificate of the server, then those of CAs |
/// | `keyStore.type`, `trustStore.type` | `PEM`, or a file name that ends with `.pem`; JKS, PKCS12 and BCFKS are refused, and the error has the command that converts them |
/// | `*.password`, `*.passwordPath` | ignored, since nothing is encrypted |
/// | `protocol`, `enabledProtocols` | TLSv1.2 and TLSv1.3; older ones in the list are not offered; default: both |
/// | `ciphersuites` | those of ring; others in the list are not offered |
/// | `clientAuth` | a certificate is always demanded. Servers of ZooKeeper show theirs, whatever they demand themselves |
/// | `hostnameVerification`, `clientHostnameVerification`, `allowReverseDnsLookup`, and `fips-mode` | the names of a certificate are always checked, against the configured names of the sid (`ConfigBuilder::peer_names`), never against a DNS answer |
/// | `crl`, `ocsp` | refused if true: nothing is fetched over the network; `TlsBuilder::crls` takes lists |
/// | `context.supplier.class` | refused: a Java class |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZooCfg {
    /// The `server.N` lines, in the order of the file.
    pub servers: Vec<ZooServer>,
    /// The `group.N` lines of a hierarchical quorum: the servers of each group. No server is in two groups.
    pub groups: BTreeMap<i64, Vec<Sid>>,
    /// The `weight.N` lines of a hierarchical quorum. None is negative.
    pub weights: BTreeMap<Sid, i64>,
    /// The version of the configuration, or 0 without one. For a dynamic file it is the hexadecimal end of the file's name
    /// (`zoo.cfg.dynamic.100000003`), otherwise the value of `version`. A text with a negative version is refused.
    pub version: i64,
    /// `tickTime`.
    pub tick_time: Option<Duration>,
    /// `initLimit`, in ticks.
    pub init_limit: Option<u32>,
    /// `syncLimit`, in ticks.
    pub sync_limit: Option<u32>,
    /// `fastleader.minNotificationInterval`: time after which a vote is sent again for the first time. It doubles each time after
    /// that. ZooKeeper's default is 200 ms.
    pub min_notification_interval: Option<Duration>,
    /// `fastleader.maxNotificationInterval`: the longest such time. ZooKeeper's default is 60 s.
    pub max_notification_interval: Option<Duration>,
    pub(crate) cnx_timeout: Option<Duration>,
    /// 0 means that binding is retried forever. A negative number counts as missing, as in ZooKeeper.
    pub(crate) election_port_bind_retry: Option<u32>,
    /// Zero and negative numbers count as missing, as in ZooKeeper.
    pub(crate) quorum_cnxn_timeout: Option<Duration>,
    /// `quorumListenOnAllIPs`: whether a server listens on all addresses of its machine instead of its configured ones. This
    /// concerns the election port and the port of the leader.
    pub quorum_listen_on_all_ips: bool,
    /// `reconfigEnabled`: whether the members may change while the servers run. This crate does not act on it. An application that is to
    /// follow the ensemble gives the [`members`](Self::members) of each newer configuration to
    /// [`Handle::reconfigure`](crate::Handle::reconfigure).
    pub reconfig_enabled: bool,
    /// Whether all addresses are sent. [`several_addresses`](Self::several_addresses) decides whether a server may have several.
    pub(crate) multi_address_enabled: bool,
    /// Whether a server may have several addresses. Only a flag of the JVM allows it.
    pub(crate) several_addresses: bool,
    pub(crate) dynamic_config_file: Option<DynamicFile>,
    /// The line of `sslQuorum` if it is true: whether this server dials with TLS.
    #[cfg(feature = "tls-ring")]
    pub(crate) ssl_quorum: Option<usize>,
    /// `portUnification`: whether a port accepts both TLS and plaintext.
    #[cfg(feature = "tls-ring")]
    pub(crate) port_unification: bool,
    /// `sslQuorumReloadCertFiles`: whether ZooKeeper reads the stores again when they change. This crate does not do so by itself. An
    /// application that is to follow the key gives [`tls_files`](Self::tls_files) to
    /// [`Handle::watch_tls_files`](crate::Handle::watch_tls_files), which calls [`tls`](Self::tls).
    #[cfg(feature = "tls-ring")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-ring")))]
    pub reload_cert_files: bool,
    /// The keys that begin with `ssl.quorum.`, without that, other than passwords.
    #[cfg(feature = "tls-ring")]
    pub(crate) ssl: BTreeMap<String, SslValue>,
}

/// The value of a key of TLS.
#[cfg(feature = "tls-ring")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SslValue {
    /// 0 for a flag of the JVM.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// The file that `dynamicConfigFile` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DynamicFile {
    /// The line of `dynamicConfigFile`.
    pub(crate) line: usize,
    /// The name of the file. It is not empty.
    pub(crate) name: String,
}

/// A `server.N` line. It has at least one quorum address, and the same number of election addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZooServer {
    /// N.
    pub sid: Sid,
    /// The number of the line, or of the first line if it is continued.
    pub(crate) line: usize,
    /// The addresses to which followers connect when this server leads.
    pub quorum: Vec<Address>,
    /// The addresses to which the other servers connect for the election.
    pub election: Vec<Address>,
    /// True exactly when this server does not vote.
    pub observer: bool,
    /// The text after the first `;`: the addresses to which clients connect.
    pub client: Option<String>,
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZooCfgError {
    /// The line number, from 1. For a continued line it is that of its first line.
    pub(crate) line: usize,
    /// The key and what is wrong with it, for an operator.
    pub(crate) why: String,
}
