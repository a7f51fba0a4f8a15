//! Addresses as configurations and initial messages spell them: a host and a port.
//!
//! No name is ever resolved here, and a host is never rewritten: what came in as text goes out as the same text.

use std::{
    error, fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// The longest host, in bytes: as many as a name in DNS may have (RFC 1035, 2.3.4, without the root).
const HOST_BYTES_MAX: usize = 253;

/// A host and a port, as configured or advertised.
///
/// The host is text: a name or an IP literal, without brackets. Two addresses are equal when their texts are, whatever
/// they resolve to. As text it is `host:port`, with an IPv6 literal in brackets: `zk1:3888`, `10.0.0.1:3888`,
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
    /// Puts an address together, unchecked. Text from elsewhere is to be parsed instead.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
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

    /// The IP address, when the host is a literal of one. An IPv4-mapped literal (`::ffff:10.0.0.1`) is the IPv4
    /// address, as it is in Java.
    ///
    /// A scope (`%eth0`) is dropped where it says nothing. A link-local address is none without its scope, which an
    /// [`IpAddr`] has no room for: such a host is `None` here and left to the resolver, like a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        if let Some((literal, _scope)) = self.host.split_once('%') {
            let ip: Ipv6Addr = literal.parse().ok()?;
            return (!ip.is_unicast_link_local()).then(|| IpAddr::V6(ip).to_canonical());
        }
        self.host.parse().ok().map(|ip: IpAddr| ip.to_canonical())
    }

    /// Whether the host stands for "all addresses of this machine", so that nobody else can use it: `0.0.0.0`, `::`,
    /// and the short forms of the former that resolvers understand, such as `0`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        let is_zero = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte == b'0');
        match self.ip() {
            Some(ip) => ip.is_unspecified(),
            None => self.host.split('.').all(is_zero),
        }
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

    /// Reads `host:port`, strictly.
    ///
    /// A host is an IPv6 literal in brackets, with or without a scope, or else consists of letters, digits, `-`, `_`
    /// and `.`, and has at most 253 bytes. A port is made of digits only: `+3888`, which Java would take, is not one.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
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
        // `parse` alone would take a sign.
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::BadPort);
        }
        let port = port.parse().map_err(|_| AddressError::BadPort)?;
        Ok(Self::new(host, port))
    }
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// There is nothing.
    Empty,
    /// Nothing stands before the port.
    NoHost,
    /// The host has this many bytes.
    HostTooLong(usize),
    /// This character cannot be part of a host.
    BadCharacter(char),
    /// There are more colons than one, and no brackets.
    Unbracketed,
    /// A bracket is opened and not closed.
    Unclosed,
    /// What stands in brackets is no IPv6 literal.
    NotIpv6,
    /// Nothing stands behind the host, or nothing behind the colon.
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
            Self::Unclosed => f.write_str("the closing bracket is missing"),
            Self::NotIpv6 => f.write_str("what stands in brackets is not an IPv6 literal"),
            Self::NoPort => f.write_str("the port is missing"),
            Self::BadPort => f.write_str("the port is not a number from 0 to 65535"),
        }
    }
}

impl error::Error for AddressError {}

/// Reads the addresses of one server out of a configuration: `a:1|b:2`. An empty part is an error.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Address>, AddressError> {
    text.split('|').map(str::parse).collect()
}

/// Names, and IPv4 literals. Strangers send hosts which end up in log lines, so only what is visible is let in.
fn check_host(host: &str) -> Result<(), AddressError> {
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(AddressError::HostTooLong(host.len()));
    }
    let is_fine = |character: char| character.is_alphanumeric() || "-_.".contains(character);
    match host.chars().find(|character| !is_fine(*character)) {
        None => Ok(()),
        Some(':') => Err(AddressError::Unbracketed),
        Some(character) => Err(AddressError::BadCharacter(character)),
    }
}

/// What stands in brackets: an IPv6 literal, and perhaps the name or number of an interface.
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
    if literal.parse::<Ipv6Addr>().is_err() || scope.is_some_and(|scope| check_host(scope).is_err())
    {
        return Err(AddressError::NotIpv6);
    }
    Ok(())
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
            ("fe80%eth0:1", AddressError::BadCharacter('%')),
            ("::1]:1", AddressError::Unbracketed),
            (&too_long, AddressError::HostTooLong(HOST_BYTES_MAX + 1)),
            (&long_scope, AddressError::HostTooLong(HOST_BYTES_MAX + 4)),
        ] {
            assert_eq!(parse(text), Err(why), "{text:?}");
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
