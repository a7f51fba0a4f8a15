//! Addresses as they are written in configurations and initial messages: a host and a port.
//!
//! Nothing here resolves a name or rewrites a host: an address that is read as text is written as the same text.

use std::{
    error, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
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

impl From<SocketAddr> for Address {
    /// The scope of a link-local IPv6 address is kept, as a number.
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                Self::new(format!("{}%{}", v6.ip(), v6.scope_id()), v6.port())
            }
            addr => Self::new(addr.ip().to_string(), addr.port()),
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
mod tests;
