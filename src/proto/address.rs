//! Addresses as they are written in configurations and initial messages: a host and a port.
//!
//! Nothing here resolves a name or rewrites a host: an address that is read as text is written as the same text.

use std::{
    error, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The longest host, in bytes: the limit of a DNS name (RFC 1035, 2.3.4, without the root).
const HOST_BYTES_MAX: usize = 253;

/// A host and a port, as configured or advertised.
///
/// The host is text: a name or an IP literal, without brackets. Two addresses are equal when their texts are equal, whatever
/// they resolve to. An address is written as `host:port`, with an IPv6 literal in brackets: `zk1:3888`, `10.0.0.1:3888`,
/// `[2001:db8::1]:3888`.
///
/// # Examples
///
/// ```
/// use quorum_cnx::Address;
///
/// let address: Address = "[::1]:3888".parse()?;
/// assert_eq!((address.host(), address.port()), ("::1", 3888));
/// assert_eq!(address.to_string(), "[::1]:3888");
/// # Ok::<(), quorum_cnx::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Creates an address without any check. Parse text from an untrusted source instead.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// Creates an address after a check of the host, which has no brackets. A host with a colon is an IPv6 literal.
    pub(crate) fn checked(host: &str, port: u16) -> Result<Self, AddressError> {
        if host.contains(':') {
            check_literal(host)?;
        } else {
            check_host(host)?;
        }
        Ok(Self::new(host, port))
    }

    /// The name or IP literal, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The IP address, if the host is an IP literal. An IPv4-mapped literal (`::ffff:10.0.0.1`) gives the IPv4 address, as in Java.
    ///
    /// A scope (`%eth0`) is dropped, unless the address is link-local. A link-local address needs its scope, and an [`IpAddr`]
    /// cannot hold one. For such a host the result is `None`, and the resolver handles it like a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        if let Some((literal, _scope)) = self.host.split_once('%') {
            let ip: Ipv6Addr = literal.parse().ok()?;
            return (!ip.is_unicast_link_local()).then(|| IpAddr::V6(ip).to_canonical());
        }
        self.host.parse().ok().map(|ip: IpAddr| ip.to_canonical())
    }

    /// Whether the host means "all addresses of this machine", so that no other machine can use it. Such hosts are `0.0.0.0`, `::`,
    /// and the short forms of `0.0.0.0` that resolvers understand, such as `0`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        let is_zero = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte == b'0');
        match self.ip() {
            Some(ip) => ip.is_unspecified(),
            None => self.host.split('.').all(is_zero),
        }
    }

    /// A text that is the same for any two addresses that certainly are the same. An IP address has one spelling here. A name is in
    /// lower case (RFC 4343) and has no dot at its end. Nothing is resolved, so that different texts may still mean one server.
    pub(crate) fn canonical(&self) -> String {
        let host = match (self.ip(), self.host.split_once('%')) {
            (Some(ip), _) => ip.to_string(),
            (None, Some((literal, scope))) => match literal.parse::<Ipv6Addr>() {
                Ok(ip) => format!("{ip}%{scope}"),
                Err(_) => self.host.clone(),
            },
            (None, None) => {
                let name = self.host.strip_suffix('.').unwrap_or(&self.host);
                name.to_lowercase()
            }
        };
        Self::new(host, self.port).to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Parses `host:port` strictly.
    ///
    /// A host has at most 253 bytes, and is one of these:
    ///
    /// - an IPv6 literal in brackets, with or without a scope;
    /// - an IPv4 literal of four numbers. Any other host of digits and dots is refused, for example `256.1.1.1`, `10.0.1` and
    ///   `010.0.0.1`, because resolvers read them differently or not at all. The only exception is a wildcard such as `0`;
    /// - a name of letters, digits, `-`, `_` and `.`. Letters of any script are allowed if they are visible.
    ///
    /// A port consists of digits only: `+3888` is refused, although Java accepts it.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.contains(',') {
            return Err(AddressError::CommaList);
        }
        if is_server_line(text) {
            return Err(AddressError::TwoPorts);
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (literal, rest) = rest.split_once(']').ok_or(AddressError::Unclosed)?;
            check_literal(literal)?;
            let port = rest.strip_prefix(':').ok_or(AddressError::NoPort)?;
            (literal, port)
        } else {
            let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
            check_host(host)?;
            (host, port)
        };
        if port.is_empty() {
            return Err(AddressError::NoPort);
        }
        // `parse` alone would accept a sign.
        if !is_digits(port) {
            return Err(AddressError::BadPort);
        }
        let port = port.parse().map_err(|_| AddressError::BadPort)?;
        Ok(Self::new(host, port))
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// The text is empty.
    Empty,
    /// The host is missing.
    NoHost,
    /// The host has this many bytes, which is too long.
    HostTooLong(usize),
    /// This character cannot be part of a host.
    BadCharacter(char),
    /// There is more than one colon, and there are no brackets.
    Unbracketed,
    /// The text has two ports, like a server line of a `zoo.cfg`.
    TwoPorts,
    /// The text has a comma. Several addresses are separated by `|`.
    CommaList,
    /// The host consists of digits and dots, but is not an IPv4 literal.
    NotIpv4,
    /// The closing bracket is missing.
    Unclosed,
    /// The text in brackets is not an IPv6 literal.
    NotIpv6,
    /// The port is missing.
    NoPort,
    /// The port is not a number from 0 to 65535.
    BadPort,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the address is empty"),
            Self::NoHost => f.write_str("the host is missing"),
            Self::HostTooLong(bytes) => {
                write!(f, "the host has {bytes} bytes, more than {HOST_BYTES_MAX}")
            }
            Self::BadCharacter(character) => write!(f, "the host contains {character:?}"),
            Self::Unbracketed => {
                f.write_str("more than one ':', an IPv6 literal must stand in brackets")
            }
            Self::TwoPorts => f.write_str(
                "this is the host:quorumPort:electionPort of a zoo.cfg, write host:electionPort",
            ),
            Self::CommaList => f.write_str("addresses are joined by '|', not by ','"),
            Self::NotIpv4 => f.write_str(
                "the host has digits and dots only, but is not an IPv4 literal: four numbers from 0 to 255, without \
                 leading zeros",
            ),
            Self::Unclosed => f.write_str("the closing bracket is missing"),
            Self::NotIpv6 => f.write_str("what stands in brackets is not an IPv6 literal"),
            Self::NoPort => f.write_str("the port is missing"),
            Self::BadPort => f.write_str("the port is not a number from 0 to 65535"),
        }
    }
}

impl error::Error for AddressError {}

/// Parses the addresses of one server in a configuration: `a:1|b:2`. An empty part is an error.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Address>, AddressError> {
    text.split('|').map(str::parse).collect()
}

/// Unicode letters that have no glyph, or a blank glyph.
const BLANK_LETTERS: [char; 6] = [
    '\u{115f}',
    '\u{1160}',
    '\u{3164}',
    '\u{ffa0}',
    '\u{13441}',
    '\u{13442}',
];

/// Checks a name or an IPv4 literal. Every character must be visible, because hosts that strangers send are written to the log.
fn check_host(host: &str) -> Result<(), AddressError> {
    check_characters(host)?;
    let digits_and_dots = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if digits_and_dots && host.parse::<Ipv4Addr>().is_err() && !Address::new(host, 0).is_wildcard()
    {
        return Err(AddressError::NotIpv4);
    }
    Ok(())
}

/// Checks the length and the characters of a name.
fn check_characters(host: &str) -> Result<(), AddressError> {
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(AddressError::HostTooLong(host.len()));
    }
    let is_letter =
        |character: char| character.is_alphanumeric() && !BLANK_LETTERS.contains(&character);
    let is_fine = |character: char| is_letter(character) || "-_.".contains(character);
    match host.chars().find(|character| !is_fine(*character)) {
        None => Ok(()),
        // The bad character may follow the first of several colons.
        Some(':') => match host.chars().find(|one| *one != ':' && !is_fine(*one)) {
            Some(character) if !"[]".contains(character) => {
                Err(AddressError::BadCharacter(character))
            }
            _ => Err(AddressError::Unbracketed),
        },
        Some(character) => Err(AddressError::BadCharacter(character)),
    }
}

/// Checks the text in brackets: an IPv6 literal, optionally with the name or number of an interface.
fn check_literal(text: &str) -> Result<(), AddressError> {
    if text.is_empty() {
        return Err(AddressError::NoHost);
    }
    if text.len() > HOST_BYTES_MAX {
        return Err(AddressError::HostTooLong(text.len()));
    }
    let (literal, scope) = match text.split_once('%') {
        Some((literal, scope)) => (literal, Some(scope)),
        None => (text, None),
    };
    let is_no_scope = |scope| check_characters(scope).is_err();
    if literal.parse::<Ipv6Addr>().is_err() || scope.is_some_and(is_no_scope) {
        return Err(AddressError::NotIpv6);
    }
    Ok(())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text has the form of a server line in a `zoo.cfg`: `host:port:port[:role][;client]`.
fn is_server_line(text: &str) -> bool {
    let server = text.split(';').next().unwrap_or_default();
    let (host, ports) = match server.split_once("]:") {
        Some(parts) => parts,
        None => match server.split_once(':') {
            Some(parts) => parts,
            None => return false,
        },
    };
    let is_role = |role: &str| role.bytes().all(|byte| byte.is_ascii_alphabetic());
    let ports: Vec<&str> = ports.split(':').collect();
    let has_two = match ports[..] {
        [quorum, election] => is_digits(quorum) && is_digits(election),
        [quorum, election, role] => is_digits(quorum) && is_digits(election) && is_role(role),
        _ => false,
    };
    has_two && !host.is_empty()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Address, AddressError> {
        text.parse()
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let longest = format!("{}:1", "h".repeat(HOST_BYTES_MAX));
        for (text, host, port) in [
            ("zk1:3888", "zk1", 3888),
            ("10.0.0.2:0", "10.0.0.2", 0),
            ("zk-0.zk_svc.default:65535", "zk-0.zk_svc.default", 65535),
            ("m\u{fc}ller:1", "m\u{fc}ller", 1),
            ("[::1]:3888", "::1", 3888),
            ("[0:0:0:0:0:0:0:1]:3888", "0:0:0:0:0:0:0:1", 3888),
            ("[fe80::1%eth0]:3888", "fe80::1%eth0", 3888),
            ("[fe80::1%2]:3888", "fe80::1%2", 3888),
            ("zoo.1:3888", "zoo.1", 3888),
            ("0:3888", "0", 3888),
            (&longest, &longest[..HOST_BYTES_MAX], 1),
        ] {
            let address = parse(text).unwrap();
            assert_eq!((address.host(), address.port()), (host, port));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(parse("a:03888").unwrap().port(), 3888);
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        let too_long = format!("{}:1", "h".repeat(HOST_BYTES_MAX + 1));
        let long_scope = format!("[::1%{}]:1", "e".repeat(HOST_BYTES_MAX));
        for (text, why) in [
            ("", AddressError::Empty),
            (":3888", AddressError::NoHost),
            ("[]:3888", AddressError::NoHost),
            ("zk1", AddressError::NoPort),
            ("zk1:", AddressError::NoPort),
            ("[::1]", AddressError::NoPort),
            ("[::1]3888", AddressError::NoPort),
            ("[::1]:", AddressError::NoPort),
            ("zk1:+3888", AddressError::BadPort),
            ("zk1:-1", AddressError::BadPort),
            ("zk1:65536", AddressError::BadPort),
            ("zk1:99999999999999999999", AddressError::BadPort),
            ("zk1:38 88", AddressError::BadPort),
            ("zk1:3888 ", AddressError::BadPort),
            ("zk1:\u{663}", AddressError::BadPort),
            ("::1:3888", AddressError::Unbracketed),
            ("2001:db8::1:3888", AddressError::Unbracketed),
            ("a:b:1", AddressError::Unbracketed),
            ("[::1:3888", AddressError::Unclosed),
            ("[10.0.0.1]:3888", AddressError::NotIpv6),
            ("[zk1]:3888", AddressError::NotIpv6),
            ("[::1%]:3888", AddressError::NotIpv6),
            ("[::1%a b]:3888", AddressError::NotIpv6),
            ("[::g]:3888", AddressError::NotIpv6),
            (" zk1:3888", AddressError::BadCharacter(' ')),
            ("zk\n1:3888", AddressError::BadCharacter('\n')),
            ("zk\u{202e}1:3888", AddressError::BadCharacter('\u{202e}')),
            ("zk\u{0}:3888", AddressError::BadCharacter('\u{0}')),
            ("a|b:1", AddressError::BadCharacter('|')),
            ("a:1;b:1", AddressError::BadCharacter(';')),
            ("a:1/b:1", AddressError::BadCharacter('/')),
            ("a:1,b:1", AddressError::CommaList),
            ("[::1]:1,[::2]:1", AddressError::CommaList),
            ("a:1:2", AddressError::TwoPorts),
            ("[::1]:1:2", AddressError::TwoPorts),
            ("a:1:2:observer;3", AddressError::TwoPorts),
            ("a:1:2:", AddressError::TwoPorts),
            ("256.1.1.1:1", AddressError::NotIpv4),
            ("1.2.3:1", AddressError::NotIpv4),
            ("1.2.3.4.:1", AddressError::NotIpv4),
            ("1.2.3.4.5:1", AddressError::NotIpv4),
            ("010.0.0.1:1", AddressError::NotIpv4),
            ("1:1", AddressError::NotIpv4),
            (".:1", AddressError::NotIpv4),
            ("fe80%eth0:1", AddressError::BadCharacter('%')),
            ("::1]:1", AddressError::Unbracketed),
            (&too_long, AddressError::HostTooLong(HOST_BYTES_MAX + 1)),
            (&long_scope, AddressError::HostTooLong(HOST_BYTES_MAX + 4)),
        ] {
            assert_eq!(parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn letters_that_nobody_can_see_are_refused() {
        for blank in BLANK_LETTERS {
            assert!(blank.is_alphanumeric(), "needless: {blank:?}");
            let why = Err(AddressError::BadCharacter(blank));
            assert_eq!(parse(&format!("zk{blank}1:3888")), why);
        }
        // The characters that Unicode defines as invisible (Default_Ignorable_Code_Point), and all white space.
        let ignorable = [
            0xad..=0xad,
            0x34f..=0x34f,
            0x61c..=0x61c,
            0x115f..=0x1160,
            0x17b4..=0x17b5,
            0x180b..=0x180f,
            0x200b..=0x200f,
            0x202a..=0x202e,
            0x2060..=0x206f,
            0x3164..=0x3164,
            0xfe00..=0xfe0f,
            0xfeff..=0xfeff,
            0xffa0..=0xffa0,
            0xfff0..=0xfff8,
            0x1bca0..=0x1bca3,
            0x1d173..=0x1d17a,
            0xe0000..=0xe0fff_u32,
        ];
        let blank = char::from_u32(0x2800);
        let space = ('\0'..=char::MAX).filter(|one| one.is_whitespace() || one.is_control());
        let ignorable = ignorable.into_iter().flatten().filter_map(char::from_u32);
        for character in ignorable.chain(blank).chain(space) {
            assert!(
                parse(&format!("zk{character}1:3888")).is_err(),
                "{character:?}"
            );
        }
    }

    #[test]
    fn texts_that_are_certainly_one_place_have_one_form() {
        let canonical = |text: &str| parse(text).unwrap().canonical();
        for (text, other) in [
            ("ZK1.Example:1", "zk1.example.:1"),
            ("[0:0:0:0:0:0:0:1]:1", "[::1]:1"),
            ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
            ("[FE80::1%eth0]:1", "[fe80:0::1%eth0]:1"),
            ("[2001:db8::1%eth0]:1", "[2001:DB8::1]:1"),
        ] {
            assert_eq!(canonical(text), canonical(other));
        }
        for (text, other) in [
            ("zk1:1", "zk1:2"),
            ("zk1:1", "zk2:1"),
            ("[fe80::1%eth0]:1", "[fe80::1%eth1]:1"),
            ("localhost:1", "127.0.0.1:1"),
        ] {
            assert_ne!(canonical(text), canonical(other));
        }
    }

    #[test]
    fn a_literal_has_an_ip_and_a_name_has_none() {
        let ip = |host: &str| Address::new(host, 1).ip().map(|ip| ip.to_string());
        assert_eq!(ip("10.0.0.2").as_deref(), Some("10.0.0.2"));
        assert_eq!(ip("0:0:0:0:0:0:0:1").as_deref(), Some("::1"));
        assert_eq!(ip("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(ip("2001:db8::1%eth0").as_deref(), Some("2001:db8::1"));
        assert_eq!(ip("fe80::1").as_deref(), Some("fe80::1"));
        for host in ["fe80::1%eth0", "10.0.0.1%eth0", "zk1", "1.2.3", "localhost"] {
            assert_eq!(ip(host), None, "{host}");
        }
    }

    #[test]
    fn wildcards_are_known_in_every_spelling() {
        for host in [
            "0.0.0.0",
            "0",
            "00",
            "0.0",
            "::",
            "0:0:0:0:0:0:0:0",
            "::%lo",
            "::ffff:0.0.0.0",
        ] {
            assert!(Address::new(host, 3888).is_wildcard(), "{host}");
        }
        for host in [
            "10.0.0.0",
            "::1",
            "0.0.0.0.example",
            "zk0",
            "",
            "0.",
            "127.0.0.1",
        ] {
            assert!(!Address::new(host, 3888).is_wildcard(), "{host:?}");
        }
    }

    #[test]
    fn a_list_has_no_empty_parts() {
        let (a, b) = (Address::new("a", 1), Address::new("::1", 2));
        assert_eq!(parse_list("a:1"), Ok(vec![a.clone()]));
        assert_eq!(parse_list("a:1|[::1]:2"), Ok(vec![a, b]));
        for text in ["", "|", "a:1|", "|a:1", "a:1||b:2"] {
            assert_eq!(parse_list(text), Err(AddressError::Empty), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_that_survives_or_an_error(text in "\\PC{0,40}|[\\[\\]:%|.0-9a-f]{0,24}") {
            if let Ok(address) = parse(&text) {
                prop_assert_eq!(parse(&address.to_string()), Ok(address));
            }
        }

        #[test]
        fn ip_literals_survive(ip in any::<IpAddr>(), port in any::<u16>()) {
            let address = Address::new(ip.to_string(), port);
            prop_assert_eq!(address.ip(), Some(ip.to_canonical()));
            prop_assert_eq!(address.to_string(), SocketAddr::new(ip, port).to_string());
            prop_assert_eq!(parse(&address.to_string()), Ok(address));
        }
    }
}
