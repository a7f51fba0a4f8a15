//! What a `zoo.cfg` says, and why one cannot be used.
//!
//! Nothing here reads. The choice of what is taken is written down at [`ZooCfg`].

use std::{collections::BTreeMap, time::Duration};

use crate::proto::{Address, Sid};

/// What a `zoo.cfg` says of the ensemble and its connections; `None` where a key is not there.
///
/// [`Config::from_zoo_cfg_file`](crate::Config::from_zoo_cfg_file) is all that a connection manager needs of it. An
/// election on top of one asks for more: who votes, with what weight, and where a leader is found.
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
/// # What is taken
///
/// A file is read as ZooKeeper 3.8 and 3.9 read it (`java.util.Properties`, then `QuorumPeerConfig`), so that both see the
/// same servers in it. What they take for something that nobody meant is refused here, with its line.
///
/// | In the file | ZooKeeper | Here |
/// |---|---|---|
/// | any bytes | ISO-8859-1 | the same; [`parse`](Self::parse) takes characters instead |
/// | a key twice | the last one counts | the same, but not for `server.N` |
/// | `host:2888:3888:`, colons, bars and semicolons at the end | overlooked | the same |
/// | `[zk1]:2888:3888`, `[10.0.0.1]:2888:3888` | the host in the brackets | the same |
/// | port `+2888` or `02888` | 2888 | the same |
/// | client address `;0` or `;:2181` | none; any host | the same |
/// | blanks behind the last port of a server, between or behind the servers of a group | refused | refused |
/// | other keys that begin with `group` or `weight` | refused | refused |
/// | `server`, `group`, `weight` lines beside `dynamicConfigFile` | refused | refused |
/// | `version` inside a dynamic file; it is in the file's name | refused | refused |
/// | `zookeeper.cnxTimeout` and the like, which are flags of the JVM | ignored | ignored, see [`ZooCfgReader`](crate::ZooCfgReader) |
/// | several addresses of a server | refused without the flag, even with the key `multiAddress.enabled` | the same |
/// | `multiAddress.enabled` | all addresses are sent | the same: [`InitialMessageVersion::V2`](crate::InitialMessageVersion::V2) |
/// | `server.N` twice, also as `server.1` and `server.01` | one of them counts | refused |
/// | two lines for one group or weight, a group without servers | both count, or nobody is elected | refused |
/// | a negative id or weight | taken | refused |
/// | an empty host | this machine | refused |
/// | a host with a blank, `$`, `/` and the like; `256.1.1.1`, `10.0.1`, `010.0.0.1` | a name, or a guess | refused, see [`Address`] |
/// | port 0 of a server | taken | refused |
/// | no address at all, `server.1=\|` | a server without an address | refused |
/// | `electionPortBindRetry=often`, `tcpKeepAlive=yes` and the like: values that do not fit their key | the default, in silence | refused |
/// | numbers with a leading 0 for keys that Java reads with `Integer.getInteger` | octal | refused |
/// | a byte order mark in front of a key | a part of the key | refused |
/// | `sslQuorum`, `quorum.auth.enableSasl`, `quorum.auth.learnerRequireSasl`, `quorum.auth.serverRequireSasl` set to true | TLS, SASL | refused: not spoken here |
/// | `;client;secureClient` | since 3.10 | taken |
/// | an ensemble that could elect nobody: observers alone, a voter in no group | refused | taken: up to the election |
/// | keys that are none of a connection manager (`clientPort`, `dataDir`) | checked | not looked at |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZooCfg {
    /// The `server.N` lines, in their order.
    pub servers: Vec<ZooServer>,
    /// The `group.N` lines of a hierarchical quorum: who is in which group. Nobody is in two.
    pub groups: BTreeMap<i64, Vec<Sid>>,
    /// The `weight.N` lines of a hierarchical quorum. None is negative.
    pub weights: BTreeMap<Sid, i64>,
    /// The version of the configuration: of a dynamic file the hexadecimal end of its name (`zoo.cfg.dynamic.100000003`),
    /// elsewhere the value of `version`. 0 without one.
    pub version: i64,
    /// `tickTime`.
    pub tick_time: Option<Duration>,
    /// `initLimit`, in ticks.
    pub init_limit: Option<u32>,
    /// `syncLimit`, in ticks.
    pub sync_limit: Option<u32>,
    /// `fastleader.minNotificationInterval`: how long after it was sent a vote is sent again, the first time. Twice as long
    /// the next times. ZooKeeper's default is 200 ms.
    pub min_notification_interval: Option<Duration>,
    /// `fastleader.maxNotificationInterval`: the longest such time. ZooKeeper's default is 60 s.
    pub max_notification_interval: Option<Duration>,
    pub(crate) cnx_timeout: Option<Duration>,
    /// 0 means for ever. A negative number is no value, as in ZooKeeper.
    pub(crate) election_port_bind_retry: Option<u32>,
    /// Zero and negative numbers are no value, as in ZooKeeper.
    pub(crate) quorum_cnxn_timeout: Option<Duration>,
    /// `quorumListenOnAllIPs`: whether a server listens on its ports of all addresses of its machine, for the election and as
    /// leader, in place of its own addresses.
    pub quorum_listen_on_all_ips: bool,
    /// Whether all addresses are sent. Whether a server may have several is another question: see
    /// [`several_addresses`](Self::several_addresses).
    pub(crate) multi_address_enabled: bool,
    /// Whether a server may have several addresses, which only a flag of the JVM allows.
    pub(crate) several_addresses: bool,
    pub(crate) dynamic_config_file: Option<DynamicFile>,
}

/// The file that `dynamicConfigFile` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DynamicFile {
    /// Where it is named.
    pub(crate) line: usize,
    /// Its name, which is not empty.
    pub(crate) name: String,
}

/// A `server.N` line. It has at least one address, and as many for the quorum as for the election.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZooServer {
    /// N.
    pub sid: Sid,
    /// Where the line begins.
    pub(crate) line: usize,
    /// Where its followers find it when it leads.
    pub quorum: Vec<Address>,
    /// Where the others find it for the election.
    pub election: Vec<Address>,
    /// True exactly when it does not vote.
    pub observer: bool,
    /// Where its clients find it, as it is written behind the first `;`.
    pub client: Option<String>,
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZooCfgError {
    /// From 1; of a line that is continued, the first.
    pub(crate) line: usize,
    /// The key and what is wrong with it, for an operator.
    pub(crate) why: String,
}
