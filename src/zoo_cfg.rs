//! A ZooKeeper `zoo.cfg`, or the dynamic configuration file that it names, read from its text.
//!
//! Nothing here opens a file, resolves a name, or decides what a key that is not there means.
//!
//! The text is a Java properties file, so a backslash escapes and a repeated key replaces. Where ZooKeeper would take a
//! mistake for a default (`tcpKeepAlive=yes`, `cnxTimeout=5s`, two `server.1`), the line is refused.

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZooCfg {
    /// The `server.N` lines, in their order.
    pub servers: Vec<ZooServer>,
    /// The `group.N` lines of a hierarchical quorum: who is in which group. Nobody is in two.
    pub groups: BTreeMap<i64, Vec<Sid>>,
    /// The `weight.N` lines of a hierarchical quorum. None is negative.
    pub weights: BTreeMap<Sid, i64>,
    /// The `version` of a dynamic configuration, hexadecimal in its text; 0 without one.
    pub version: i64,
    /// `tickTime`.
    pub tick_time: Option<Duration>,
    /// `initLimit`, in ticks.
    pub init_limit: Option<u32>,
    /// `syncLimit`, in ticks.
    pub sync_limit: Option<u32>,
    pub(crate) cnx_timeout: Option<Duration>,
    /// 0 means for ever. A negative number is no value, as in ZooKeeper.
    pub(crate) election_port_bind_retry: Option<u32>,
    /// Zero and negative numbers are no value, as in ZooKeeper.
    pub(crate) quorum_cnxn_timeout: Option<Duration>,
    /// `quorumListenOnAllIPs`: whether a server listens on its ports of all addresses of its machine, for the election and as
    /// leader, in place of its own addresses.
    pub quorum_listen_on_all_ips: bool,
    pub(crate) multi_address_enabled: bool,
    pub(crate) dynamic_config_file: Option<String>,
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

/// Reads a `zoo.cfg`. Keys that do not concern this crate are ignored.
pub(crate) fn parse(text: &str) -> Result<ZooCfg, ZooCfgError> {
    let mut cfg = ZooCfg::default();
    for property in properties(text)? {
        match property.key.strip_prefix("server.") {
            Some(id) => cfg.servers.push(property.server(id)?),
            None if cfg.take_weighing(&property)? => {}
            None => cfg.take(&property)?,
        }
    }
    refuse_duplicates(&cfg.servers)?;
    // Last, since the key that allows several addresses may stand anywhere.
    cfg.check_addresses(&cfg.servers)?;
    Ok(cfg)
}

/// Reads a dynamic configuration, of a file or of a peer, in which ZooKeeper tolerates no other keys than these. Whether a
/// server may have several addresses is up to the `zoo.cfg`: see [`ZooCfg::check_addresses`].
pub(crate) fn parse_dynamic(text: &str) -> Result<ZooCfg, ZooCfgError> {
    let mut cfg = ZooCfg::default();
    for property in properties(text)? {
        if let Some(id) = property.key.strip_prefix("server.") {
            cfg.servers.push(property.server(id)?);
        } else if property.key == "version" {
            cfg.version = i64::from_str_radix(&property.value, 16).map_err(|_| {
                property.bad(format!("{:?} is not a hexadecimal number", property.value))
            })?;
        } else if !cfg.take_weighing(&property)? {
            return Err(property.bad("does not belong in a dynamic configuration"));
        }
    }
    refuse_duplicates(&cfg.servers)?;
    Ok(cfg)
}

impl ZooCfg {
    /// Refuses servers with several addresses unless `multiAddress.enabled` is set, as ZooKeeper does.
    pub(crate) fn check_addresses(&self, servers: &[ZooServer]) -> Result<(), ZooCfgError> {
        let several = |server: &&ZooServer| server.election.len() > 1;
        match servers.iter().find(several) {
            Some(server) if !self.multi_address_enabled => Err(ZooCfgError {
                line: server.line,
                why: format!(
                    "server.{}: several addresses, but multiAddress.enabled is not true",
                    server.sid
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Takes a key of a hierarchical quorum, if it is one.
    fn take_weighing(&mut self, property: &Property) -> Result<bool, ZooCfgError> {
        if let Some(id) = property.key.strip_prefix("group.") {
            let group = property.id(id)?.0;
            let members = property.value.split(':').map(|sid| property.id(sid));
            let members = members.collect::<Result<Vec<Sid>, _>>()?;
            let others = || self.groups.iter().filter(|(other, _)| **other != group);
            for (at, sid) in members.iter().enumerate() {
                if members[..at].contains(sid) || others().any(|(_, all)| all.contains(sid)) {
                    return Err(property.bad(format!("server {sid} is in a group already")));
                }
            }
            self.groups.insert(group, members);
        } else if let Some(id) = property.key.strip_prefix("weight.") {
            let weight = i64::from(property.number()?);
            if weight < 0 {
                return Err(property.bad(format!("{weight} is less than 0")));
            }
            self.weights.insert(property.id(id)?, weight);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn take(&mut self, property: &Property) -> Result<(), ZooCfgError> {
        let key = property.key.as_str();
        // What ZooKeeper reads as a system property can be spelled like one; the other keys cannot.
        match key.strip_prefix("zookeeper.").unwrap_or(key) {
            "cnxTimeout" => self.cnx_timeout = Some(property.millis()?),
            "electionPortBindRetry" => {
                self.election_port_bind_retry = u32::try_from(property.number()?).ok();
            }
            "multiAddress.enabled" => self.multi_address_enabled = property.flag()?,
            "quorumCnxnTimeoutMs" => {
                self.quorum_cnxn_timeout = match property.number()? {
                    ..=0 => None,
                    _ => Some(property.millis()?),
                };
            }
            // Always on.
            "tcpKeepAlive" => {
                property.flag()?;
            }
            _ => match key {
                "dynamicConfigFile" => self.dynamic_config_file = property.text(),
                // Bounds nothing here, but a slip of the pen is named.
                "initLimit" => self.init_limit = Some(property.count()?),
                "quorumListenOnAllIPs" => self.quorum_listen_on_all_ips = property.flag()?,
                "syncLimit" => self.sync_limit = Some(property.count()?),
                "tickTime" => self.tick_time = Some(property.millis()?),
                _ => {}
            },
        }
        Ok(())
    }
}

fn refuse_duplicates(servers: &[ZooServer]) -> Result<(), ZooCfgError> {
    let mut lines = BTreeMap::new();
    for server in servers {
        if let Some(first) = lines.insert(server.sid, server.line) {
            return Err(ZooCfgError {
                line: server.line,
                why: format!("server.{} is in line {first} already", server.sid),
            });
        }
    }
    Ok(())
}

/// A key and its value, unescaped and trimmed.
struct Property {
    line: usize,
    key: String,
    value: String,
}

impl Property {
    fn bad(&self, why: impl AsRef<str>) -> ZooCfgError {
        ZooCfgError {
            line: self.line,
            why: format!("{}: {}", self.key, why.as_ref()),
        }
    }

    /// A whole number as Java's `int` holds it, so that what is taken here is taken there.
    fn number(&self) -> Result<i32, ZooCfgError> {
        let value = &self.value;
        value.parse().map_err(|_| {
            self.bad(format!(
                "{value:?} is not a whole number of at most {}",
                i32::MAX
            ))
        })
    }

    fn count(&self) -> Result<u32, ZooCfgError> {
        match u32::try_from(self.number()?) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(self.bad(format!("{} is less than 1", self.value))),
        }
    }

    fn millis(&self) -> Result<Duration, ZooCfgError> {
        Ok(Duration::from_millis(u64::from(self.count()?)))
    }

    fn flag(&self) -> Result<bool, ZooCfgError> {
        match self.value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.bad(format!("{:?} is neither true nor false", self.value))),
        }
    }

    fn text(&self) -> Option<String> {
        (!self.value.is_empty()).then(|| self.value.clone())
    }

    fn id(&self, text: &str) -> Result<Sid, ZooCfgError> {
        match text.trim().parse() {
            Ok(sid) if (0..i64::MAX).contains(&sid) => Ok(Sid(sid)),
            _ => {
                let max = i64::MAX - 1;
                Err(self.bad(format!("the id is not a number from 0 to {max}")))
            }
        }
    }

    /// The value as `address[|address...][;client[;secure client]]`.
    fn server(&self, id: &str) -> Result<ZooServer, ZooCfgError> {
        let sid = self.id(id)?;
        let (mut quorum, mut election, mut observer) = (Vec::new(), Vec::new(), None);
        let (addresses, clients) = match self.value.split_once(';') {
            Some((addresses, clients)) => (addresses, Some(clients)),
            None => (self.value.as_str(), None),
        };
        for address in addresses.split('|') {
            let place = self.place(address)?;
            if place.observer.is_some() {
                if observer.is_some() && observer != place.observer {
                    return Err(self.bad("its addresses have different roles"));
                }
                observer = place.observer;
            }
            quorum.push(place.quorum);
            election.push(place.election);
        }
        if let Some(clients) = clients {
            self.check_clients(clients)?;
        }
        Ok(ZooServer {
            sid,
            line: self.line,
            quorum,
            election,
            observer: observer == Some(true),
            client: clients.map(str::to_owned),
        })
    }

    /// One `host:quorumPort:electionPort[:role]`.
    fn place(&self, text: &str) -> Result<Place, ZooCfgError> {
        if text.is_empty() {
            return Err(self.bad("an address is missing, write host:quorumPort:electionPort"));
        }
        // The host ends with its bracket, or else before the first colon.
        let end = match text.strip_prefix('[') {
            Some(_) => text.find(']').map(|bracket| bracket + 1),
            None => text.find(':'),
        };
        let (host, ports) = text.split_at(end.unwrap_or(text.len()));
        let ports: Vec<&str> = ports.split(':').collect();
        let (quorum, election, role) = match ports[..] {
            ["", quorum, election] => (quorum, election, None),
            ["", quorum, election, role] => (quorum, election, Some(role)),
            [_] => return Err(self.bad(format!("no ports behind {host:?}"))),
            ["", _] => {
                return Err(self.bad(format!(
                    "no election port in {text:?}, write host:quorumPort:electionPort"
                )));
            }
            _ => {
                return Err(self.bad(format!(
                    "{text:?} is not host:quorumPort:electionPort, with an IPv6 literal in brackets"
                )));
            }
        };
        let observer = match role.map(|role| role.trim().to_ascii_lowercase()).as_deref() {
            None => None,
            Some("participant") => Some(false),
            Some("observer") => Some(true),
            Some(role) => {
                return Err(self.bad(format!("role {role:?} is neither participant nor observer")));
            }
        };
        let place = Place {
            quorum: self.address("quorum", host, quorum)?,
            election: self.address("election", host, election)?,
            observer,
        };
        if place.quorum == place.election {
            let port = place.quorum.port();
            return Err(self.bad(format!("port {port} is both quorum and election port")));
        }
        Ok(place)
    }

    fn address(&self, what: &str, host: &str, port: &str) -> Result<Address, ZooCfgError> {
        let text = format!("{host}:{port}");
        match text.parse::<Address>() {
            Ok(address) if address.port() > 0 => Ok(address),
            Ok(_) => Err(self.bad(format!("{what} address {text:?}: the port is 0"))),
            Err(why) => Err(self.bad(format!("{what} address {text:?}: {why}"))),
        }
    }

    /// Client addresses do not concern this crate, but a mistake in them may be one in what comes before.
    fn check_clients(&self, text: &str) -> Result<(), ZooCfgError> {
        let clients: Vec<&str> = text.split(';').collect();
        if clients.len() > 2 {
            return Err(self.bad("more than two client addresses"));
        }
        for client in clients.into_iter().filter(|client| !client.is_empty()) {
            match client.rsplit_once(':') {
                Some((host, port)) => self.address("client", host, port)?,
                None => self.address("client", "0.0.0.0", client)?,
            };
        }
        Ok(())
    }
}

struct Place {
    quorum: Address,
    election: Address,
    /// What the role says, if there is one.
    observer: Option<bool>,
}

/// White space of a properties file; a non-breaking space, say, is none.
const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

/// The grammar of `java.util.Properties`.
fn properties(text: &str) -> Result<Vec<Property>, ZooCfgError> {
    // Some editors put a byte order mark in front, which is no part of the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", "\n");
    let mut lines = (1..).zip(text.split(['\n', '\r']));
    let mut properties = Vec::new();
    while let Some((line, first)) = lines.next() {
        let first = first.trim_start_matches(BLANK);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = first.to_owned();
        while is_continued(&whole) {
            whole.pop();
            let next = lines.next().map_or("", |(_, next)| next);
            whole.push_str(next.trim_start_matches(BLANK));
        }
        if whole.is_empty() {
            continue;
        }
        let (key, value) = split(&whole);
        let unescaped = |text| {
            unescape(text).ok_or_else(|| ZooCfgError {
                line,
                why: "\\u is not followed by the four hexadecimal digits of a character; write \
                      \\\\ for a backslash"
                    .into(),
            })
        };
        properties.push(Property {
            line,
            key: unescaped(key)?.trim().to_owned(),
            value: unescaped(value)?.trim().to_owned(),
        });
    }
    Ok(properties)
}

/// Whether a line ends with a backslash that is not itself escaped.
fn is_continued(line: &str) -> bool {
    let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\');
    backslashes.count() % 2 == 1
}

/// A key ends before the first unescaped separator, which is `=`, `:` or white space, or both.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let ends_key = |character: char| {
        let ends = !escaped && (matches!(character, '=' | ':') || BLANK.contains(&character));
        escaped = !escaped && character == '\\';
        ends
    };
    let (key, rest) = line.split_at(line.find(ends_key).unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANK);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, value.trim_start_matches(BLANK))
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match rest.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let (digits, after) = rest.as_str().split_at_checked(4)?;
                // `from_str_radix` alone would take a sign.
                if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                plain.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                rest = after.chars();
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Some(plain)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The only server of a configuration that consists of this line.
    fn server(line: &str) -> ZooServer {
        let text = format!("multiAddress.enabled=true\n{line}");
        let mut servers = parse(&text).unwrap().servers;
        assert_eq!(servers.len(), 1);
        servers.remove(0)
    }

    /// What is wrong with the last line of the text.
    fn why(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, text.lines().count(), "{text:?}: {}", error.why);
        error.why
    }

    /// Key and value of every property, with its line.
    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        let of = |property: Property| (property.line, property.key, property.value);
        properties(text).unwrap().into_iter().map(of).collect()
    }

    fn pair(line: &str) -> (String, String) {
        let [(_, key, value)] = &pairs(line)[..] else {
            panic!("{line:?} is one property")
        };
        (key.clone(), value.clone())
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
zookeeper.tcpKeepAlive=TRUE
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
    fn keys_and_values_are_separated_as_in_java() {
        for line in [
            "key=a b=c",
            "key:a b=c",
            "key a b=c",
            "\t key \t=\x0c a b=c  ",
            "key = a b=c",
            "key: a b=c",
            "k\\ey=a\\ b\\=c",
            "\\u006bey=\\u0061 b\\u003dc",
            "\u{feff}key=a b=c",
        ] {
            assert_eq!(pair(line), ("key".into(), "a b=c".into()), "{line:?}");
        }
        assert_eq!(pair("a\\=b=c"), ("a=b".into(), "c".into()));
        assert_eq!(pair("a\\:b\\ c:d"), ("a:b c".into(), "d".into()));
        assert_eq!(pair("key"), ("key".into(), String::new()));
        assert_eq!(pair("key==b"), ("key".into(), "=b".into()));
        assert_eq!(
            pair("d=C:\\\\zk\\\\data"),
            ("d".into(), "C:\\zk\\data".into())
        );
        assert_eq!(pair("d=a\\tb\\\\tc"), ("d".into(), "a\tb\\tc".into()));
    }

    #[test]
    fn lines_are_continued_by_an_odd_number_of_backslashes() {
        let text = "a=1,\\\n   2,\\\r\n\t# 3\nb=x\\\\\nc=y\\\\\\\nz\r\n!d\\\ne=\\\n\nf=7\rg=8\\";
        let expected = [
            (1, "a", "1,2,# 3"),
            (4, "b", "x\\"),
            (5, "c", "y\\z"),
            (8, "e", ""),
            (10, "f", "7"),
            (11, "g", "8"),
        ];
        let expected = expected.map(|(line, key, value)| (line, key.into(), value.into()));
        assert_eq!(pairs(text), expected);
        let error = parse("\n\nserver.1=\\\n  zk1:\\\n  2888\n").unwrap_err();
        assert_eq!(error.line, 3);
    }

    #[test]
    fn a_broken_escape_is_an_error_wherever_it_stands() {
        for line in [
            "x=\\u12",
            "x=\\u+123",
            "x=\\u12\u{20ac}",
            "x=\\ud800",
            "C\\users=1",
        ] {
            assert!(why(line).contains("hexadecimal"), "{line}");
        }
    }

    #[test]
    fn the_last_of_several_equal_keys_wins() {
        let cfg = parse("tickTime=1\ncnxTimeout=2\nzookeeper.cnxTimeout=3\ntickTime=4").unwrap();
        assert_eq!(cfg.tick_time, Some(Duration::from_millis(4)));
        assert_eq!(cfg.cnx_timeout, Some(Duration::from_millis(3)));
        let cfg = parse("quorumCnxnTimeoutMs=9\nquorumCnxnTimeoutMs=-1").unwrap();
        assert_eq!(cfg.quorum_cnxn_timeout, None);
    }

    #[test]
    fn only_system_properties_have_two_spellings() {
        let text = "zookeeper.multiAddress.enabled=true\nzookeeper.electionPortBindRetry=7\n\
                    zookeeper.quorumCnxnTimeoutMs=8\nzookeeper.tickTime=x\nzookeeper.dataDir=y";
        let expected = ZooCfg {
            multi_address_enabled: true,
            election_port_bind_retry: Some(7),
            quorum_cnxn_timeout: Some(Duration::from_millis(8)),
            ..ZooCfg::default()
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn numbers_that_zookeeper_takes_for_nothing_are_nothing() {
        let text = "electionPortBindRetry=-1\nquorumCnxnTimeoutMs=0\ndynamicConfigFile=";
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
                "zookeeper.cnxTimeout=x",
                "zookeeper.cnxTimeout: \"x\" is not",
            ),
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
                line: 2,
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
    fn several_addresses_need_the_key_that_allows_them() {
        let line = "server.1=a:1:2|[::1]:3:4|c:5:6;2181";
        let found = server(line);
        assert_eq!(found.quorum, addresses(&["a:1", "[::1]:3", "c:5"]));
        assert_eq!(found.election, addresses(&["a:2", "[::1]:4", "c:6"]));
        assert!(server("server.1=a:1:2|b:3:4:observer").observer);
        let behind = format!("{line}\nmultiAddress.enabled=true");
        assert_eq!(parse(&behind).unwrap().servers[0].election.len(), 3);
        let refused = "server.1: several addresses, but multiAddress.enabled is not true";
        assert_eq!(why(line), refused);
        assert_eq!(why(&format!("multiAddress.enabled=false\n{line}")), refused);
    }

    #[test]
    fn server_lines_that_cannot_be_are_explained() {
        for (line, expected) in [
            (
                "server.x=a:1:2",
                "server.x: the id is not a number from 0 to 9223372036854775806",
            ),
            ("server.=a:1:2", "the id is not a number"),
            ("server.-1=a:1:2", "the id is not a number"),
            ("server.9223372036854775807=a:1:2", "the id is not a number"),
            ("server.9223372036854775808=a:1:2", "the id is not a number"),
            (
                "server.1=",
                "server.1: an address is missing, write host:quorumPort:electionPort",
            ),
            ("server.1=;2181", "an address is missing"),
            ("server.1=a", "no ports behind \"a\""),
            ("server.1=[::1]", "no ports behind \"[::1]\""),
            ("server.1=[::1:1:2", "no ports behind"),
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
            ("server.1=[::1]x:1:2", "is not host:quorumPort:electionPort"),
            ("server.1=[zk1]:1:2", "not an IPv6 literal"),
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
            ("server.1=a:1:+2", "the port is not a number"),
            ("server.1=a:0:2", "quorum address \"a:0\": the port is 0"),
            (
                "server.1=a:1:",
                "election address \"a:\": the port is missing",
            ),
            (
                "server.1=a:7:7",
                "server.1: port 7 is both quorum and election port",
            ),
            (
                "server.1=a:1:2:leader",
                "role \"leader\" is neither participant nor observer",
            ),
            ("server.1=a:1:2:", "role \"\" is neither"),
            (
                "server.1=a:1:2:observer:3",
                "is not host:quorumPort:electionPort",
            ),
            ("server.1=a:1:2|", "an address is missing"),
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
                "server.1 is in line 1 already",
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
        } = parse_dynamic(text).unwrap();
        let sids: Vec<Sid> = servers.iter().map(|server| server.sid).collect();
        assert_eq!(sids, [Sid(1), Sid(2)]);
        assert_eq!(groups, [(1, vec![Sid(1), Sid(2)])].into());
        assert_eq!(weights, [(Sid(1), 1)].into());
        assert_eq!(version, 0x1_0000_0003);
        assert_eq!(parse_dynamic("# none\n\\\n"), Ok(ZooCfg::default()));

        let mut cfg = parse("dynamicConfigFile=/etc/zk/zoo.cfg.dynamic").unwrap();
        let file = cfg.dynamic_config_file.as_deref();
        assert_eq!(file, Some("/etc/zk/zoo.cfg.dynamic"));
        assert_eq!(cfg.check_addresses(&servers).unwrap_err().line, 3);
        cfg.multi_address_enabled = true;
        assert_eq!(cfg.check_addresses(&servers), Ok(()));

        for (line, expected) in [
            (
                "tickTime=2000",
                "tickTime: does not belong in a dynamic configuration",
            ),
            ("server.1=a:1:2", "server.1 is in line 1 already"),
            ("version=zz", "version: \"zz\" is not a hexadecimal number"),
            ("version=", "version: \"\" is not a hexadecimal number"),
        ] {
            let error = parse_dynamic(&format!("server.1=a:1:2\n{line}")).unwrap_err();
            assert_eq!((error.line, error.why.as_str()), (2, expected));
        }
    }

    #[test]
    fn groups_and_weights_are_read_and_mistakes_in_them_named() {
        let cfg = parse("group.1=1:2:3\ngroup.2 = 4 : 5\nweight.4=0\nweight.5=3").unwrap();
        let groups = [(1, vec![1, 2, 3]), (2, vec![4, 5])];
        let groups = groups.map(|(group, sids)| (group, sids.into_iter().map(Sid).collect()));
        assert_eq!(cfg.groups, groups.into());
        assert_eq!(cfg.weights, [(Sid(4), 0), (Sid(5), 3)].into());
        for (line, expected) in [
            ("group.x=1", "group.x: the id is not a number"),
            ("group.2=4:", "group.2: the id is not a number"),
            ("group.2=4:1", "group.2: server 1 is in a group already"),
            ("group.2=4:4", "group.2: server 4 is in a group already"),
            ("weight.4=-1", "weight.4: -1 is less than 0"),
            (
                "weight.4=heavy",
                "weight.4: \"heavy\" is not a whole number",
            ),
            ("weight.=1", "weight.: the id is not a number"),
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
            for error in [parse(&text).err(), parse_dynamic(&text).err()].into_iter().flatten() {
                prop_assert!((1..=lines).contains(&error.line), "{}", error.why);
            }
        }
    }
}
