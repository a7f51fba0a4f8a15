//! A ZooKeeper `zoo.cfg`, or the dynamic configuration file that it names, read from its text.
//!
//! Only `read` opens files. Nothing here resolves a name, or decides what a key that is not there means.
//!
//! The choice of what is taken is written down at [`ZooCfg`].

mod properties;
mod read;
mod server_line;

use std::{collections::BTreeMap, time::Duration};

use properties::{Property, properties};
pub use read::ZooCfgReader;
use server_line::pieces;

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
/// | `zookeeper.cnxTimeout` and the like, which are flags of the JVM | ignored | ignored, see [`ZooCfgReader`] |
/// | several addresses of a server | refused without the flag, even with the key `multiAddress.enabled` | the same |
/// | `multiAddress.enabled` | all addresses are sent | the same: [`Challenge::V2`](crate::Challenge::V2) |
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

/// Reads a `zoo.cfg`. Keys that do not concern this crate are ignored, and what is not in the text is as in `flags`.
pub(crate) fn parse(text: &str, flags: &ZooCfg) -> Result<ZooCfg, ZooCfgError> {
    let properties = properties(text)?;
    let mut draft = Draft {
        cfg: flags.clone(),
        ..Draft::default()
    };
    let is_dynamic = |property: &&Property| property.key == DYNAMIC_CONFIG_FILE;
    let dynamic = properties.iter().find(is_dynamic);
    for property in &properties {
        match dynamic {
            Some(dynamic) if is_of_ensemble(&property.key) => {
                return Err(property.bad(format!(
                    "must be in the file that {DYNAMIC_CONFIG_FILE} (line {}) names, not beside it",
                    dynamic.line
                )));
            }
            None if is_of_ensemble(&property.key) => draft.take_of_ensemble(property)?,
            None if property.key == VERSION => draft.cfg.version = version(property)?,
            _ => draft.cfg.take(property)?,
        }
    }
    draft.cfg.check_addresses(&draft.cfg.servers)?;
    Ok(draft.cfg)
}

/// Where a dynamic configuration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, which has its version in its name and not in its text.
    File,
    /// An election message, which has its version in its text.
    Message,
}

/// Reads a dynamic configuration, in which ZooKeeper tolerates no other keys than these. Whether a server may have several
/// addresses is up to the `zoo.cfg`: see [`ZooCfg::check_addresses`].
pub(crate) fn parse_dynamic(text: &str, origin: Origin) -> Result<ZooCfg, ZooCfgError> {
    let mut draft = Draft::default();
    for property in &properties(text)? {
        match property.key.as_str() {
            key if is_of_ensemble(key) => draft.take_of_ensemble(property)?,
            VERSION if origin == Origin::Message => draft.cfg.version = version(property)?,
            VERSION => {
                return Err(property.bad(
                    "does not belong in a dynamic file, which has its version at the end of its name",
                ));
            }
            _ => return Err(property.bad("does not belong in a dynamic configuration")),
        }
    }
    Ok(draft.cfg)
}

const DYNAMIC_CONFIG_FILE: &str = "dynamicConfigFile";
const VERSION: &str = "version";
const MULTI_ADDRESS_FLAG: &str = "zookeeper.multiAddress.enabled";

/// Whether a key belongs in the dynamic configuration, if there is one.
fn is_of_ensemble(key: &str) -> bool {
    ["server.", "group", "weight"]
        .iter()
        .any(|beginning| key.starts_with(beginning))
}

fn version(property: &Property) -> Result<i64, ZooCfgError> {
    i64::from_str_radix(&property.raw, 16)
        .map_err(|_| property.bad(format!("{:?} is not a hexadecimal number", property.raw)))
}

/// What has been read so far, and in which line each server, group and weight.
#[derive(Default)]
struct Draft {
    cfg: ZooCfg,
    servers: BTreeMap<Sid, usize>,
    groups: BTreeMap<i64, usize>,
    weights: BTreeMap<Sid, usize>,
}

impl Draft {
    /// Takes a `server`, `group` or `weight` line.
    fn take_of_ensemble(&mut self, property: &Property) -> Result<(), ZooCfgError> {
        let key = property.key.as_str();
        if property.padded_key {
            return Err(property.bad("there are blanks around the key"));
        }
        if let Some(id) = key.strip_prefix("server.") {
            let sid = property.id(id)?;
            if let Some(first) = self.servers.insert(sid, property.line) {
                let why = format!("server {sid} is in line {first} already");
                return Err(property.bad(why));
            }
            self.cfg.servers.push(server_line::server(property, sid)?);
        } else if let Some(id) = key.strip_prefix("group.") {
            self.take_group(property, property.id(id)?.0)?;
        } else if let Some(id) = key.strip_prefix("weight.") {
            let sid = property.id(id)?;
            let raw = &property.raw;
            let weight = raw.parse::<i64>().map_err(|_| {
                property.bad(format!(
                    "{raw:?} is not a whole number of at most {}",
                    i64::MAX
                ))
            })?;
            if weight < 0 {
                return Err(property.bad(format!("{weight} is less than 0")));
            }
            if let Some(first) = self.weights.insert(sid, property.line) {
                let why = format!("the weight of server {sid} is in line {first} already");
                return Err(property.bad(why));
            }
            self.cfg.weights.insert(sid, weight);
        } else {
            return Err(property.bad(
                "ZooKeeper takes each key that begins like this for a group or a weight, write group.N or weight.N",
            ));
        }
        Ok(())
    }

    fn take_group(&mut self, property: &Property, group: i64) -> Result<(), ZooCfgError> {
        let members = pieces(&property.raw, ':').into_iter();
        let members = members.map(|sid| property.id(sid));
        let members = members.collect::<Result<Vec<Sid>, _>>()?;
        if members.is_empty() {
            return Err(property.bad("there is no server in it"));
        }
        if let Some(first) = self.groups.insert(group, property.line) {
            let why = format!("group {group} is in line {first} already");
            return Err(property.bad(why));
        }
        for (at, sid) in members.iter().enumerate() {
            let mut others = self.cfg.groups.values();
            if members[..at].contains(sid) || others.any(|group| group.contains(sid)) {
                return Err(property.bad(format!("server {sid} is in a group already")));
            }
        }
        self.cfg.groups.insert(group, members);
        Ok(())
    }
}

impl ZooCfg {
    /// Refuses servers with several addresses unless a flag allows them. ZooKeeper reads the key `multiAddress.enabled` of
    /// the file as well, but its parser of server lines asks for the flag alone.
    pub(crate) fn check_addresses(&self, servers: &[ZooServer]) -> Result<(), ZooCfgError> {
        let several = |server: &&ZooServer| server.election.len() > 1;
        match servers.iter().find(several) {
            Some(server) if !self.several_addresses => Err(ZooCfgError {
                line: server.line,
                why: format!(
                    "server.{}: several addresses, which the flag -D{MULTI_ADDRESS_FLAG}=true of ZooKeeper's JVM allows, and \
                     not the key multiAddress.enabled: give the flag here too",
                    server.sid
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Takes a flag of the JVM, if it is one that matters here.
    fn take_flag(&mut self, flag: &Property) -> Result<bool, ZooCfgError> {
        if flag.key == MULTI_ADDRESS_FLAG {
            self.several_addresses = flag.flag()?;
            self.multi_address_enabled = self.several_addresses;
            return Ok(true);
        }
        match flag.key.strip_prefix("zookeeper.") {
            Some(name) => self.take_system_property(name, flag),
            None => Ok(false),
        }
    }

    /// Takes what ZooKeeper asks its JVM for; a key of the file becomes a flag `zookeeper.KEY` there.
    fn take_system_property(
        &mut self,
        name: &str,
        property: &Property,
    ) -> Result<bool, ZooCfgError> {
        match name {
            "cnxTimeout" => self.cnx_timeout = Some(property.millis()?),
            "electionPortBindRetry" => {
                self.election_port_bind_retry = u32::try_from(property.integer()?).ok();
            }
            "fastleader.maxNotificationInterval" => {
                property.integer()?;
                self.max_notification_interval = Some(property.millis()?);
            }
            "fastleader.minNotificationInterval" => {
                property.integer()?;
                self.min_notification_interval = Some(property.millis()?);
            }
            "quorumCnxnTimeoutMs" => {
                self.quorum_cnxn_timeout = match property.integer()? {
                    ..=0 => None,
                    _ => Some(property.millis()?),
                };
            }
            // Always on.
            "tcpKeepAlive" => drop(property.flag()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take(&mut self, property: &Property) -> Result<(), ZooCfgError> {
        match property.key.as_str() {
            DYNAMIC_CONFIG_FILE => {
                let (line, name) = (property.line, property.value().to_owned());
                if name.is_empty() {
                    return Err(property.bad("it names no file"));
                }
                self.dynamic_config_file = Some(DynamicFile { line, name });
            }
            // What is made of it is up to the user; a slip of the pen is named.
            "initLimit" => self.init_limit = Some(property.count()?),
            "multiAddress.enabled" => self.multi_address_enabled = property.flag()?,
            // Says what a port takes besides TLS, which changes nothing here.
            "portUnification" => drop(property.flag()?),
            "quorumListenOnAllIPs" => self.quorum_listen_on_all_ips = property.flag()?,
            "sslQuorum" if property.flag()? => {
                return Err(property.bad(
                    "the servers speak TLS to each other, which this one does not; votes would go out in the clear",
                ));
            }
            // With SASL enabled and not required a server still takes plain connections, but it must answer one that
            // authenticates, as the others do as soon as learnerRequireSasl is set in their files.
            "quorum.auth.enableSasl"
            | "quorum.auth.learnerRequireSasl"
            | "quorum.auth.serverRequireSasl"
                if property.flag()? =>
            {
                return Err(property.bad(
                    "the servers authenticate each other with SASL, which this one does not speak",
                ));
            }
            "syncLimit" => self.sync_limit = Some(property.count()?),
            "tickTime" => self.tick_time = Some(property.millis()?),
            key => drop(self.take_system_property(key, property)?),
        }
        Ok(())
    }
}

impl Property {
    /// A whole number as Java's `int` holds it, so that what is taken here is taken there.
    fn number(&self) -> Result<i32, ZooCfgError> {
        let value = self.value();
        value.parse().map_err(|_| {
            self.bad(format!(
                "{value:?} is not a whole number of at most {}",
                i32::MAX
            ))
        })
    }

    /// A number that Java reads with `Integer.getInteger`, for which a leading zero makes it octal.
    fn integer(&self) -> Result<i32, ZooCfgError> {
        let digits = self.value().trim_start_matches(['+', '-']);
        if digits.len() > 1 && digits.starts_with('0') {
            let why = format!(
                "{:?} begins with 0, which makes it octal in Java",
                self.value()
            );
            return Err(self.bad(why));
        }
        self.number()
    }

    fn count(&self) -> Result<u32, ZooCfgError> {
        match u32::try_from(self.number()?) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(self.bad(format!("{} is less than 1", self.value()))),
        }
    }

    fn millis(&self) -> Result<Duration, ZooCfgError> {
        Ok(Duration::from_millis(u64::from(self.count()?)))
    }

    fn flag(&self) -> Result<bool, ZooCfgError> {
        match self.value().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.bad(format!("{:?} is neither true nor false", self.value()))),
        }
    }

    fn id(&self, text: &str) -> Result<Sid, ZooCfgError> {
        match text.parse() {
            Ok(sid) if (0..i64::MAX).contains(&sid) => Ok(Sid(sid)),
            _ => {
                let max = i64::MAX - 1;
                Err(self.bad(format!("{text:?} is not an id, a number from 0 to {max}")))
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn parse(text: &str) -> Result<ZooCfg, ZooCfgError> {
        super::parse(text, &ZooCfg::default())
    }

    fn with_flag() -> ZooCfg {
        ZooCfg {
            several_addresses: true,
            ..ZooCfg::default()
        }
    }

    /// The only server of a configuration that consists of this line.
    fn server(line: &str) -> ZooServer {
        let mut servers = super::parse(line, &with_flag()).unwrap().servers;
        assert_eq!(servers.len(), 1);
        servers.remove(0)
    }

    /// What is wrong with the last line of the text.
    fn why(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, text.lines().count(), "{text:?}: {}", error.why);
        error.why
    }

    #[test]
    fn a_file_as_people_write_it_is_understood() {
        let text = "\
# The number of milliseconds of each tick
tickTime=2000
initLimit=10
syncLimit=5
! where the snapshot is stored
dataDir=/var/lib/zookeeper
clientPort=2181
#maxClientCnxns=60
autopurge.snapRetainCount=3
4lw.commands.whitelist=*

server.1=zk1.example.com:2888:3888
server.2=zk2.example.com:2888:3888:participant;2181
server.3=[2001:db8::3]:2888:3888:observer;[::]:2181
cnxTimeout=3000
tcpKeepAlive=TRUE
electionPortBindRetry=0
quorumCnxnTimeoutMs=7000
quorumListenOnAllIPs=true
";
        let cfg = parse(text).unwrap();
        let of = |sid: i64, line, quorum, election, observer| ZooServer {
            sid: Sid(sid),
            line,
            quorum: addresses(&[quorum]),
            election: addresses(&[election]),
            observer,
            client: [None, Some("2181"), Some("[::]:2181")][sid as usize - 1].map(str::to_owned),
        };
        let (zk1, zk2) = ("zk1.example.com", "zk2.example.com");
        let servers = vec![
            of(1, 12, &format!("{zk1}:2888"), &format!("{zk1}:3888"), false),
            of(2, 13, &format!("{zk2}:2888"), &format!("{zk2}:3888"), false),
            of(3, 14, "[2001:db8::3]:2888", "[2001:db8::3]:3888", true),
        ];
        let expected = ZooCfg {
            servers,
            tick_time: Some(Duration::from_secs(2)),
            init_limit: Some(10),
            sync_limit: Some(5),
            cnx_timeout: Some(Duration::from_secs(3)),
            election_port_bind_retry: Some(0),
            quorum_cnxn_timeout: Some(Duration::from_secs(7)),
            quorum_listen_on_all_ips: true,
            multi_address_enabled: false,
            ..ZooCfg::default()
        };
        assert_eq!(cfg, expected);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in [
            "",
            "\n\n",
            "# a comment\\\n!another",
            "\u{feff}",
            "   \n\t\\",
        ] {
            assert_eq!(parse(text), Ok(ZooCfg::default()), "{text:?}");
        }
    }

    #[test]
    fn the_last_of_several_equal_keys_wins() {
        let cfg = parse("tickTime=1\ncnxTimeout=2\ncnxTimeout=3\ntickTime=4").unwrap();
        assert_eq!(cfg.tick_time, Some(Duration::from_millis(4)));
        assert_eq!(cfg.cnx_timeout, Some(Duration::from_millis(3)));
        let cfg = parse("quorumCnxnTimeoutMs=9\nquorumCnxnTimeoutMs=-1").unwrap();
        assert_eq!(cfg.quorum_cnxn_timeout, None);
    }

    #[test]
    fn numbers_that_zookeeper_takes_for_nothing_are_nothing() {
        let text = "electionPortBindRetry=-1\nquorumCnxnTimeoutMs=0";
        assert_eq!(parse(text), Ok(ZooCfg::default()));
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        for (line, expected) in [
            (
                "tickTime=",
                "tickTime: \"\" is not a whole number of at most 2147483647",
            ),
            (
                "tickTime=2s",
                "tickTime: \"2s\" is not a whole number of at most 2147483647",
            ),
            ("tickTime=2147483648", "not a whole number"),
            ("tickTime=0", "tickTime: 0 is less than 1"),
            ("syncLimit=-5", "syncLimit: -5 is less than 1"),
            ("initLimit=1.5", "not a whole number"),
            ("cnxTimeout=0", "cnxTimeout: 0 is less than 1"),
            (
                "fastleader.minNotificationInterval=0",
                "fastleader.minNotificationInterval: 0 is less than 1",
            ),
            (
                "fastleader.maxNotificationInterval=1s",
                "not a whole number",
            ),
            (
                "fastleader.maxNotificationInterval=01",
                "makes it octal in Java",
            ),
            ("electionPortBindRetry=010", "makes it octal in Java"),
            ("quorumCnxnTimeoutMs=-01", "makes it octal in Java"),
            ("dynamicConfigFile= ", "dynamicConfigFile: it names no file"),
            ("portUnification=maybe", "neither true nor false"),
            ("version=", "version: \"\" is not a hexadecimal number"),
            ("electionPortBindRetry=many", "not a whole number"),
            ("quorumCnxnTimeoutMs=-", "not a whole number"),
            (
                "tcpKeepAlive=yes",
                "tcpKeepAlive: \"yes\" is neither true nor false",
            ),
            ("quorumListenOnAllIPs=1", "neither true nor false"),
            ("multiAddress.enabled=", "neither true nor false"),
        ] {
            let why = why(&format!("# comment\n{line}"));
            assert!(why.contains(expected), "{line}: {why}");
        }
    }

    #[test]
    fn a_server_has_a_role_and_client_addresses_or_not() {
        for line in [
            "server.1=zk1:2888:3888",
            "server.1 = zk1:2888:3888:participant",
            "server.1:zk1:2888:3888:PARTICIPANT",
            "server.1 zk1:2888:3888;2181",
            "server.01=zk1:2888:3888;",
            "server.1=zk1:2888:3888;0.0.0.0:2181",
            "server.1=zk1:2888:3888:participant;[::]:2181;2281",
            "server.1=zk1:2888:3888;;zk1:2281",
        ] {
            let expected = ZooServer {
                sid: Sid(1),
                line: 1,
                quorum: addresses(&["zk1:2888"]),
                election: addresses(&["zk1:3888"]),
                observer: false,
                client: line.split_once(';').map(|(_, client)| client.to_owned()),
            };
            assert_eq!(server(line), expected, "{line}");
        }
        assert!(server("server.1=zk1:2888:3888:Observer;2181").observer);
        assert_eq!(server("server.0=a:1:2").sid, Sid(0));
        assert_eq!(
            server("server.9223372036854775806=a:1:2").sid,
            Sid(i64::MAX - 1)
        );
    }

    #[test]
    fn several_addresses_need_the_flag_that_allows_them() {
        let line = "server.1=a:1:2|[::1]:3:4|c:5:6;2181";
        let found = server(line);
        assert_eq!(found.quorum, addresses(&["a:1", "[::1]:3", "c:5"]));
        assert_eq!(found.election, addresses(&["a:2", "[::1]:4", "c:6"]));
        assert!(server("server.1=a:1:2|b:3:4:observer").observer);
        let refused =
            "server.1: several addresses, which the flag -Dzookeeper.multiAddress.enabled=true of";
        for text in [
            line.to_owned(),
            format!("multiAddress.enabled=true\n{line}"),
        ] {
            assert!(why(&text).starts_with(refused), "{text:?}");
        }
        let sends_all = |text: &str| {
            super::parse(text, &with_flag())
                .unwrap()
                .multi_address_enabled
        };
        assert!(sends_all("multiAddress.enabled=true") && !sends_all("multiAddress.enabled=false"));
    }

    #[test]
    fn server_lines_that_cannot_be_are_explained() {
        for (line, expected) in [
            (
                "server.x=a:1:2",
                "server.x: \"x\" is not an id, a number from 0 to 9223372036854775806",
            ),
            ("server.=a:1:2", "is not an id"),
            ("server.-1=a:1:2", "is not an id"),
            ("server.9223372036854775807=a:1:2", "is not an id"),
            ("server.9223372036854775808=a:1:2", "is not an id"),
            (
                "server.1=",
                "server.1: an address is missing, write host:quorumPort:electionPort",
            ),
            ("server.1=;2181", "an address is missing"),
            ("server.1=a", "no ports in \"a\", write host:"),
            ("server.1=[::1]", "no ports in \"[::1]\""),
            ("server.1=[::1:1:2", "no ']' closes the '['"),
            (
                "server.1=a:1",
                "server.1: no election port in \"a:1\", write host:",
            ),
            ("server.1=[::1]:1", "no election port in"),
            (
                "server.1=:1:2",
                "quorum address \":1\": the host is missing",
            ),
            ("server.1=::1:2888:3888", "with an IPv6 literal in brackets"),
            (
                "server.1=fe80::1:2888:3888",
                "with an IPv6 literal in brackets",
            ),
            ("server.1=[::1]x:1:2", "no colon behind the ']'"),
            ("server.1=[::g]:1:2", "not an IPv6 literal"),
            (
                "server.1=a b:1:2",
                "quorum address \"a b:1\": the host contains ' '",
            ),
            (
                "server.1=a:x:2",
                "quorum address \"a:x\": the port is not a number",
            ),
            (
                "server.1=a:1:65536",
                "election address \"a:65536\": the port is not a number from 0 to 65535",
            ),
            ("server.1=a:1:-2", "the port is not a number"),
            ("server.1=a:1:++2", "the port is not a number"),
            (
                "server.1=a:1:2 ",
                "election address \"a:2 \": the port is not",
            ),
            ("server.1=a:0:2", "quorum address \"a:0\": the port is 0"),
            ("server.1=a:1:", "no election port in \"a:1:\""),
            (
                "server.1=a::1",
                "quorum address \"a:\": the port is missing",
            ),
            ("server.1=256.1.1.1:1:2", "not an IPv4 literal"),
            (
                "server.1=a:7:7",
                "server.1: port 7 is both quorum and election port",
            ),
            (
                "server.1=a:1:2:leader",
                "role \"leader\" is neither participant nor observer",
            ),
            ("server.1=a:1:2: :", "role \"\" is neither"),
            (
                "server.1=a:1:2:observer:3",
                "is not host:quorumPort:electionPort",
            ),
            ("server.1=|;1", "an address is missing"),
            ("server.1=a:1:2||b:1:2", "an address is missing"),
            (
                "server.1=a:1:2:observer|b:1:2:participant",
                "its addresses have different roles",
            ),
            (
                "server.1=a:1:2;x",
                "client address \"0.0.0.0:x\": the port is not a number",
            ),
            (
                "server.1=a:1:2;::1:2181",
                "client address \"::1:2181\": more than one ':'",
            ),
            ("server.1=a:1:2;1;2;3", "more than two client addresses"),
            (
                "server.1=a:1:2\nserver.2=b:1:2\nserver.01=c:1:2",
                "server.01: server 1 is in line 1 already",
            ),
        ] {
            let why = why(line);
            assert!(why.contains(expected), "{line}: {why}");
        }
    }

    #[test]
    fn a_dynamic_file_holds_servers_and_little_else() {
        let text = "group.1=1:2\nserver.1=a:1:2:participant;2181\nserver.2=b:1:2|c:1:2\n\
                    weight.1=1\nversion=100000003\n";
        let ZooCfg {
            servers,
            groups,
            weights,
            version,
            ..
        } = parse_dynamic(text, Origin::Message).unwrap();
        let sids: Vec<Sid> = servers.iter().map(|server| server.sid).collect();
        assert_eq!(sids, [Sid(1), Sid(2)]);
        assert_eq!(groups, [(1, vec![Sid(1), Sid(2)])].into());
        assert_eq!(weights, [(Sid(1), 1)].into());
        assert_eq!(version, 0x1_0000_0003);
        assert_eq!(
            parse_dynamic("# none\n\\\n", Origin::File),
            Ok(ZooCfg::default())
        );

        let mut cfg = parse("dynamicConfigFile=/etc/zk/zoo.cfg.dynamic").unwrap();
        let file = cfg.dynamic_config_file.clone();
        let (line, name) = (1, "/etc/zk/zoo.cfg.dynamic".into());
        assert_eq!(file, Some(DynamicFile { line, name }));
        assert_eq!(cfg.check_addresses(&servers).unwrap_err().line, 3);
        cfg.several_addresses = true;
        assert_eq!(cfg.check_addresses(&servers), Ok(()));

        for (line, expected) in [
            (
                "tickTime=2000",
                "tickTime: does not belong in a dynamic configuration",
            ),
            ("server.1=a:1:2", "server.1: server 1 is in line 1 already"),
            ("version=zz", "version: \"zz\" is not a hexadecimal number"),
            ("version=", "version: \"\" is not a hexadecimal number"),
        ] {
            let error =
                parse_dynamic(&format!("server.1=a:1:2\n{line}"), Origin::Message).unwrap_err();
            assert_eq!((error.line, error.why.as_str()), (2, expected));
        }
    }

    #[test]
    fn groups_and_weights_are_read_and_mistakes_in_them_named() {
        let cfg = parse("group.1=1:2:3\ngroup.2 = 4:5:\nweight.4=0\nweight.5=3").unwrap();
        let groups = [(1, vec![1, 2, 3]), (2, vec![4, 5])];
        let groups = groups.map(|(group, sids)| (group, sids.into_iter().map(Sid).collect()));
        assert_eq!(cfg.groups, groups.into());
        assert_eq!(cfg.weights, [(Sid(4), 0), (Sid(5), 3)].into());
        for (line, expected) in [
            ("group.x=1", "group.x: \"x\" is not an id"),
            ("group.2=4:x", "group.2: \"x\" is not an id"),
            ("group.2=4 :5", "group.2: \"4 \" is not an id"),
            ("group.2=:", "group.2: there is no server in it"),
            ("group.01=4", "group.01: group 1 is in line 1 already"),
            ("groups=4", "write group.N or weight.N"),
            ("group.2\\ =4", "there are blanks around the key"),
            ("group.2=4:1", "group.2: server 1 is in a group already"),
            ("group.2=4:4", "group.2: server 4 is in a group already"),
            ("weight.4=-1", "weight.4: -1 is less than 0"),
            (
                "weight.4=heavy",
                "weight.4: \"heavy\" is not a whole number",
            ),
            ("weight.=1", "weight.: \"\" is not an id"),
        ] {
            let why = why(&format!("group.1=1:2\n{line}"));
            assert!(why.contains(expected), "{line}: {why}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_with_a_line_of_it(
            pieces in prop::collection::vec(
                "(server|group|weight)\\.[-0-9]{0,3}=|[a-z:=|;\\[\\]\\\\#! \\n\\r0-9]{0,8}|tickTime=|\\\\u[0-9a-f]{0,5}|\\PC{0,4}",
                0..12,
            ),
        ) {
            let text = pieces.concat();
            let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
            let read = [
                parse(&text),
                parse_dynamic(&text, Origin::File),
                parse_dynamic(&text, Origin::Message),
            ];
            for error in read.into_iter().filter_map(Result::err) {
                prop_assert!((1..=lines).contains(&error.line), "{}", error.why);
            }
        }
    }
}
