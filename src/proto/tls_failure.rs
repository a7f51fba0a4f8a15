//! Why TLS refuses a connection, in words that do not depend on a TLS library.
//!
//! Nothing here verifies anything: the module `tls` does.

use std::{error, fmt};

use super::Sid;

/// Why TLS has refused a connection, or was refused by the far end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The far end sent no certificate.
    NoCertificate,
    /// No configured root has signed the certificate, directly or through the certificates that were sent with it.
    UnknownIssuer,
    /// The certificate, or one in its chain, has expired.
    Expired,
    /// The certificate, or one in its chain, is not valid yet.
    NotYetValid,
    /// The issuer has revoked the certificate.
    Revoked,
    /// The certificate is unusable for another reason, which the text says.
    BadCertificate(String),
    /// The certificate is valid, but it is not one of this server: none of its names is one that this sid may have.
    WrongName {
        /// The server for which the connection was made, or which it claims to be.
        sid: Sid,
        /// The names in the certificate, separated by commas; cut to 256 bytes.
        names: String,
    },
    /// The far end did not speak TLS, which this server requires.
    Plaintext,
    /// The far end has refused this server, with the TLS alert of this name (RFC 8446, section 6).
    Alert(String),
    /// The far end broke the TLS protocol, or has no version or cipher suite in common with this server. The text says how.
    Protocol(String),
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("it sent no certificate"),
            Self::UnknownIssuer => f.write_str("no configured root has signed its certificate"),
            Self::Expired => f.write_str("its certificate has expired"),
            Self::NotYetValid => f.write_str("its certificate is not valid yet"),
            Self::Revoked => f.write_str("its certificate is revoked"),
            Self::BadCertificate(why) => write!(f, "its certificate cannot be used: {why}"),
            Self::WrongName { sid, names } if names.is_empty() => write!(
                f,
                "its certificate has no name, so it is not one of server {sid}"
            ),
            Self::WrongName { sid, names } => {
                write!(
                    f,
                    "its certificate is for {names}, which is no name of server {sid}"
                )
            }
            Self::Plaintext => f.write_str("it does not speak TLS, which is required"),
            Self::Alert(name) => write!(f, "it refused this server (TLS alert {name})"),
            Self::Protocol(why) => write!(f, "it broke the TLS protocol: {why}"),
        }
    }
}

impl error::Error for TlsFailure {}
