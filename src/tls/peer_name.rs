//! A name that a server's certificate must have.
//!
//! Nothing here reads a certificate or resolves a name.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::{error::ConfigError, proto::Address};

/// A name that the certificate of a server may have, so that it is accepted for that server.
///
/// It is written without the name of its type: what has the form of an IP address is one, `sha256:` is followed by the hash of a key,
/// what has `://` or begins with `urn:` is a URI, and the rest is a DNS name.
///
/// # Examples
///
/// ```
/// use quorum_cnx::PeerName;
///
/// assert_eq!("zk1.example".parse(), Ok(PeerName::Dns("zk1.example".into())));
/// assert_eq!("2001:db8::1".parse(), Ok(PeerName::Ip("2001:db8::1".parse()?)));
/// let uri = "spiffe://example/zk/1".parse::<PeerName>()?;
/// assert_eq!(uri, PeerName::Uri("spiffe://example/zk/1".into()));
/// let pin = format!("sha256:{}", "0a".repeat(32)).parse::<PeerName>()?;
/// assert_eq!(pin, PeerName::SpkiSha256([10; 32]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PeerName {
    /// A DNS name among the subject alternative names, in any case. An internationalized name is written in its ASCII form
    /// (`xn--`). In a certificate without alternative names of any kind, the common name of its subject counts instead.
    Dns(String),
    /// An IP address among the subject alternative names. The common name counts under the same condition as for
    /// [`Dns`](Self::Dns).
    Ip(IpAddr),
    /// A URI among the subject alternative names, byte for byte. With a SPIFFE ID (`spiffe://`), the certificate must have no
    /// other URI.
    Uri(String),
    /// The SHA-256 hash of the public key (`SubjectPublicKeyInfo`). It stays the same when a certificate is renewed with the same
    /// key. This command prints it:
    ///
    /// ```sh
    /// openssl x509 -in zk1.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum
    /// ```
    SpkiSha256([u8; 32]),
}

/// What [`PeerName::SpkiSha256`] begins with.
const SHA256: &str = "sha256:";

/// The beginning of a SPIFFE ID.
pub(super) const SPIFFE: &str = "spiffe://";

impl PeerName {
    /// Checks the name, and gives it the one spelling in which names are compared.
    pub(super) fn canonical(self) -> Result<Self, String> {
        match self {
            Self::Dns(name) => match canonical_dns(&name) {
                Some(name) => Ok(Self::Dns(name)),
                None if name.contains('*') => Err(format!(
                    "{name:?} is a pattern, but each server needs a name of its own"
                )),
                None => Err(format!(
                    "{name:?} is no DNS name of ASCII letters, digits, '-', '_' and '.'"
                )),
            },
            Self::Ip(ip) => Ok(Self::Ip(ip.to_canonical())),
            Self::Uri(uri) if is_uri(&uri) => Ok(Self::Uri(uri)),
            Self::Uri(uri) => Err(format!("{uri:?} is no URI")),
            Self::SpkiSha256(hash) => Ok(Self::SpkiSha256(hash)),
        }
    }

    /// The name of the host of an address. `None` if no certificate can have it: if it is a wildcard, a name with letters outside
    /// ASCII, or an IPv6 address with a scope.
    pub(super) fn of_host(address: &Address) -> Option<Self> {
        if address.is_wildcard() || address.host().contains('%') {
            return None;
        }
        match address.ip() {
            Some(ip) => Some(Self::Ip(ip)),
            None => canonical_dns(address.host()).map(Self::Dns),
        }
    }
}

/// A DNS name in lower case, without the dot at its end. `None` if it has another form, for example that of an IP address, a NUL or a
/// wildcard. The underscore is no letter of a host name, but many containers have it in theirs.
pub(super) fn canonical_dns(name: &str) -> Option<String> {
    const NAME_BYTES_MAX: usize = 253;
    const LABEL_BYTES_MAX: usize = 63;
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label =
        |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_fine);
    let is_name = name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label);
    // No top-level domain is a number (RFC 3696, section 2), so that no IPv4 address passes, in whatever spelling.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    (is_name && !is_number).then(|| name.to_ascii_lowercase())
}

/// Whether this is visible ASCII that begins with a scheme and `://`, or with `urn:`. URIs are not taken apart. A host with a port
/// would be one by the letter of RFC 3986, and is a mistake here.
fn is_uri(text: &str) -> bool {
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let has_scheme = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && scheme.bytes().all(is_letter) && !rest.is_empty()
    });
    is_visible && (has_scheme || text.starts_with("urn:"))
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) | Self::Uri(text) => f.write_str(text),
            Self::Ip(ip) => ip.fmt(f),
            Self::SpkiSha256(hash) => {
                f.write_str(SHA256)?;
                hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl FromStr for PeerName {
    type Err = ConfigError;

    /// Reads a name of any type.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadOption`] if the text has none of the forms.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let name = if let Some(hash) = text.strip_prefix(SHA256) {
            hash_of(hash)
                .map(Self::SpkiSha256)
                .ok_or_else(|| format!("{text:?}: {SHA256} is followed by 64 hexadecimal digits"))
        } else if let Ok(ip) = text.parse() {
            Ok(Self::Ip(ip))
        } else if text.contains(':') {
            Ok(Self::Uri(text.to_owned()))
        } else {
            Ok(Self::Dns(text.to_owned()))
        };
        name.and_then(Self::canonical)
            .map_err(|why| ConfigError::BadOption {
                option: "peer_names",
                why,
            })
    }
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    // `from_str_radix` alone would accept a sign.
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_become_names_of_their_form() {
        for (text, name) in [
            ("zk1", PeerName::Dns("zk1".into())),
            ("ZK_1.Example.", PeerName::Dns("zk_1.example".into())),
            ("10.0.0.1", PeerName::Ip([10, 0, 0, 1].into())),
            ("::ffff:10.0.0.1", PeerName::Ip([10, 0, 0, 1].into())),
            (
                "2001:DB8:0::1",
                PeerName::Ip([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
            ),
            ("urn:zk:1", PeerName::Uri("urn:zk:1".into())),
            ("spiffe://A/b", PeerName::Uri("spiffe://A/b".into())),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
    }

    #[test]
    fn odd_texts_are_refused() {
        for (text, said) in [
            ("", "no DNS name"),
            (".", "no DNS name"),
            ("zk1..example", "no DNS name"),
            ("zk1.example..", "no DNS name"),
            ("zk1\0.example", "no DNS name"),
            ("zk 1", "no DNS name"),
            ("bücher.example", "ASCII"),
            ("*.example", "pattern"),
            ("10.0.0.256", "no DNS name"),
            ("10.1", "no DNS name"),
            ("zk1:3888", "no URI"),
            ("fe80::1%eth0", "no URI"),
            ("://a", "no URI"),
            ("spiffe://a b", "no URI"),
            ("sha256:00", "64 hexadecimal digits"),
            ("[::1]", "no URI"),
        ] {
            let error = text.parse::<PeerName>().unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        let long = format!("{}.example", "a".repeat(64));
        assert!(long.parse::<PeerName>().is_err());
        let long = ["a"; 128].join(".");
        assert!(long.parse::<PeerName>().is_err());
        let signs = format!("sha256:{}", "+f".repeat(32));
        assert!(signs.parse::<PeerName>().is_err());
    }

    #[test]
    fn hosts_of_addresses_are_names_if_a_certificate_can_have_them() {
        for (address, name) in [
            ("zk1.Example.:3888", Some("zk1.example")),
            ("10.0.0.1:3888", Some("10.0.0.1")),
            ("[::ffff:10.0.0.1]:3888", Some("10.0.0.1")),
            ("[2001:db8::1]:3888", Some("2001:db8::1")),
            ("[fe80::1%eth0]:3888", None),
            ("[2001:db8::1%eth0]:3888", None),
            ("0.0.0.0:3888", None),
            ("[::]:3888", None),
            ("0:3888", None),
            ("bücher.example:3888", None),
        ] {
            let found = PeerName::of_host(&address.parse().unwrap());
            let found = found.map(|name| name.to_string());
            assert_eq!(found.as_deref(), name, "{address}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "\\PC{0,20}|[a-z0-9:./*-]{0,20}|sha256:[0-9a-f]{64}") {
            if let Ok(name) = text.parse::<PeerName>() {
                prop_assert_eq!(name.to_string().parse(), Ok(name));
            }
        }
    }
}
