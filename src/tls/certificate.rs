//! Reads what this crate needs of a certificate: its names, its key, its validity, and whether it is one of a CA.
//!
//! Nothing here verifies a signature.

use std::{net::IpAddr, time::Duration};

use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;
use x509_cert::{
    Certificate as X509,
    der::{Decode as _, asn1::ObjectIdentifier},
    ext::pkix::{
        BasicConstraints, SubjectAltName,
        name::{DirectoryString, GeneralName},
    },
};

use super::peer_name::{PeerName, SPIFFE, canonical_dns};
use crate::limits;

/// A certificate as far as this crate reads it.
pub(super) struct Certificate {
    /// DNS names, IP addresses and URIs among the alternative names; in a certificate without alternative names the common name. They are
    /// as the certificate has them.
    names: Vec<Name>,
    /// True exactly when it has alternative names of any kind, also of those that are not read.
    has_alternatives: bool,
    key_hash: [u8; 32],
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
    /// True exactly when it may sign certificates.
    pub(super) is_ca: bool,
    /// True exactly when its issuer is its subject.
    pub(super) is_self_issued: bool,
}

#[derive(Debug)]
enum Name {
    Text(String),
    Uri(String),
    Ip(IpAddr),
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub(super) fn from_der(der: &CertificateDer<'_>) -> Result<Self, String> {
        let bad = |what: &str| format!("its {what} cannot be read");
        // The public key that has verified the handshake, as webpki found it: the bytes of the certificate.
        let end_entity = EndEntityCert::try_from(der).map_err(|_| bad("encoding"))?;
        let key_hash = Sha256::digest(end_entity.subject_public_key_info()).into();
        let certificate = X509::from_der(der).map_err(|_| bad("encoding"))?;
        let certificate = certificate.tbs_certificate();
        let alternatives = certificate
            .get_extension::<SubjectAltName>()
            .map_err(|_| bad("alternative names"))?;
        let alternatives = alternatives.map(|(_, SubjectAltName(names))| names);
        let mut names = Vec::new();
        for alternative in alternatives.iter().flatten() {
            match alternative {
                GeneralName::DnsName(name) => names.push(Name::Text(name.as_str().to_owned())),
                GeneralName::UniformResourceIdentifier(uri) => {
                    names.push(Name::Uri(uri.as_str().to_owned()));
                }
                GeneralName::IpAddress(octets) => {
                    let octets = octets.as_bytes();
                    let ip = <[u8; 4]>::try_from(octets)
                        .map(IpAddr::from)
                        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
                        .map_err(|_| bad("IP address"))?;
                    names.push(Name::Ip(ip.to_canonical()));
                }
                _ => {}
            }
        }
        let has_alternatives = alternatives.is_some();
        if !has_alternatives {
            names.extend(common_name(certificate.subject()).map(Name::Text));
        }
        let constraints = certificate
            .get_extension::<BasicConstraints>()
            .map_err(|_| bad("basic constraints"))?;
        let time = |time: Duration| UnixTime::since_unix_epoch(time);
        let validity = certificate.validity();
        Ok(Self {
            names,
            has_alternatives,
            key_hash,
            not_before: time(validity.not_before.to_unix_duration()),
            not_after: time(validity.not_after.to_unix_duration()),
            is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
            is_self_issued: certificate.issuer() == certificate.subject(),
        })
    }

    /// Whether it has this name. The name is canonical.
    pub(super) fn has(&self, name: &PeerName, wildcards: bool) -> bool {
        match name {
            PeerName::SpkiSha256(hash) => self.key_hash == *hash,
            PeerName::Ip(ip) => self.names.iter().any(|own| match own {
                Name::Ip(own) => own == ip,
                // A common name has no type.
                Name::Text(own) if !self.has_alternatives => own
                    .parse()
                    .is_ok_and(|own: IpAddr| own.to_canonical() == *ip),
                _ => false,
            }),
            PeerName::Dns(name) => self.names.iter().any(|own| match own {
                Name::Text(own) => match own.strip_prefix("*.") {
                    Some(domain) => {
                        wildcards && self.has_alternatives && is_in_domain(name, domain)
                    }
                    None => canonical_dns(own).is_some_and(|own| own == *name),
                },
                _ => false,
            }),
            PeerName::Uri(uri) => {
                let mut own = self.names.iter().filter_map(|own| match own {
                    Name::Uri(own) => Some(own),
                    _ => None,
                });
                // An X.509 SVID has exactly one URI.
                let is_svid = uri.starts_with(SPIFFE);
                if is_svid {
                    own.next() == Some(uri) && own.next().is_none()
                } else {
                    own.any(|own| own == uri)
                }
            }
        }
    }

    /// Its names for a log line, separated by commas. They are the choice of a stranger: escaped, and cut.
    pub(super) fn names(&self) -> String {
        let mut text = String::new();
        for name in &self.names {
            if text.len() > limits::TLS_TEXT_BYTES_MAX {
                break;
            }
            if !text.is_empty() {
                text.push_str(", ");
            }
            match name {
                Name::Text(name) | Name::Uri(name) => text.extend(name.escape_default()),
                Name::Ip(ip) => text.push_str(&ip.to_string()),
            }
        }
        // All of it is ASCII.
        text.truncate(limits::TLS_TEXT_BYTES_MAX);
        text
    }
}

/// Whether a name is one label below this domain, which must have two labels at least.
fn is_in_domain(name: &str, domain: &str) -> bool {
    let domain = canonical_dns(domain).filter(|domain| domain.contains('.'));
    let parent = name.split_once('.').map(|(_, parent)| parent);
    domain.is_some() && domain.as_deref() == parent
}

/// The only common name of a subject. With several of them it is not clear which one counts, so that none does.
fn common_name(subject: &x509_cert::name::Name) -> Option<String> {
    const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
    let mut names = subject.iter().filter(|one| one.oid == COMMON_NAME);
    let (name, None) = (names.next()?, names.next()) else {
        return None;
    };
    let text: DirectoryString = name.value.decode_as().ok()?;
    Some(text.value().into_owned())
}

#[cfg(all(test, not(loom), feature = "tls-ring"))]
mod tests {
    use proptest::prelude::*;

    use super::{super::fixture::Ca, *};

    fn with(names: Vec<Name>, has_alternatives: bool) -> Certificate {
        let time = UnixTime::since_unix_epoch(Duration::ZERO);
        Certificate {
            names,
            has_alternatives,
            key_hash: [0; 32],
            not_before: time,
            not_after: time,
            is_ca: false,
            is_self_issued: false,
        }
    }

    /// A server's name, and one that differs from it in one place or in nothing.
    fn near_miss() -> impl Strategy<Value = (String, String)> {
        let name = prop_oneof![
            "[a-z0-9]{1,5}(\\.[a-z0-9]{1,5}){0,2}\\.[a-z]{1,5}",
            "10\\.0\\.0\\.[0-9]",
            "spiffe://[a-z]{1,3}/[a-z]{1,3}",
        ];
        let edit = prop_oneof![
            Just(String::new()),
            "[\\x00-\\x7f]",
            Just("*".to_owned()),
            Just("*.".to_owned()),
            Just(".".to_owned()),
            Just("..".to_owned()),
        ];
        (name, edit, any::<prop::sample::Index>(), any::<bool>()).prop_map(
            |(name, edit, at, replaces)| {
                let at = at.index(name.len() + 1);
                let behind = (at + usize::from(replaces)).min(name.len());
                let other = format!("{}{edit}{}", &name[..at], &name[behind..]);
                (name, other)
            },
        )
    }

    proptest! {
        #[test]
        fn names_match_only_if_they_are_equal(
            (name, other) in near_miss(),
            has_alternatives: bool,
            is_uri: bool,
        ) {
            let peer: PeerName = name.parse().unwrap();
            let own = match is_uri {
                true => Name::Uri(other.clone()),
                false => Name::Text(other.clone()),
            };
            let matches = with(vec![own], has_alternatives).has(&peer, false);
            let same = match &peer {
                PeerName::Dns(_) => {
                    let other = other.strip_suffix('.').unwrap_or(&other);
                    !is_uri && other.to_ascii_lowercase() == name
                }
                PeerName::Ip(_) => !is_uri && !has_alternatives && other == name,
                _ => is_uri && other == name,
            };
            prop_assert_eq!(matches, same, "{:?} {:?}", name, other);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            at: prop::sample::Index,
            bytes in prop::collection::vec(any::<u8>(), 1..4),
            length: prop::sample::Index,
        ) {
            let ca = Ca::new("CA");
            let mut der = ca.names(&["zk1.example", "10.0.0.1", "spiffe://a/b"]).chain[0].to_vec();
            let at = at.index(der.len() - bytes.len());
            der[at..at + bytes.len()].copy_from_slice(&bytes);
            der.truncate(length.index(4 * der.len()));
            if let Ok(certificate) = Certificate::from_der(&CertificateDer::from(der)) {
                prop_assert!(certificate.names().len() <= limits::TLS_TEXT_BYTES_MAX);
            }
        }
    }

    #[test]
    fn many_names_are_cut() {
        let many = (0..9000).map(|number| Name::Text(format!("é{number}")));
        let text = with(many.collect(), true).names();
        assert_eq!(text.len(), limits::TLS_TEXT_BYTES_MAX);
        assert!(text.starts_with("\\u{e9}0, \\u{e9}1, "), "{text}");
    }
}
