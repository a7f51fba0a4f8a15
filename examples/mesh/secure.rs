//! Certificates for the servers, and strangers that have none or others.
//!
//! Without the feature `tls-ring` there are none, and `--tls` is refused with the command that builds this program with it.

use std::fmt;

use quorum_cnx::{ReasonKind, Sid};

/// The server that the strangers dial.
pub(crate) const DIALED: Sid = Sid(1);

/// The server whose certificate one of them has.
const OWNER: Sid = Sid(2);

/// Someone who is no server, and dials one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stranger {
    WithoutTls,
    OfAnotherCa,
    /// It shows the certificate of another server.
    WithCertificateOfAnother,
}

pub(crate) const STRANGERS: [Stranger; 3] = [
    Stranger::WithoutTls,
    Stranger::OfAnotherCa,
    Stranger::WithCertificateOfAnother,
];

impl Stranger {
    /// Why it is refused.
    pub(crate) fn refusal(self) -> ReasonKind {
        match self {
            Self::WithoutTls => ReasonKind::TlsPlaintext,
            Self::OfAnotherCa => ReasonKind::TlsUnknownIssuer,
            Self::WithCertificateOfAnother => ReasonKind::TlsWrongName,
        }
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WithoutTls => f.write_str("a stranger without TLS"),
            Self::OfAnotherCa => f.write_str("a stranger with a certificate of another CA"),
            Self::WithCertificateOfAnother => {
                write!(f, "a stranger with the certificate of server {OWNER}")
            }
        }
    }
}

#[cfg(not(feature = "tls-ring"))]
pub(crate) use without::Certificates;

#[cfg(feature = "tls-ring")]
pub(crate) use with::Certificates;

#[cfg(not(feature = "tls-ring"))]
mod without {
    use std::error::Error;

    use quorum_cnx::{CnxManager, ConfigBuilder, Sid};

    use super::Stranger;

    /// There are none.
    #[derive(Debug)]
    pub(crate) enum Certificates {}

    impl Certificates {
        pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
            Err(
                "this program speaks no TLS: build it with `cargo run --release --features tls-ring --example mesh -- --tls`"
                    .into(),
            )
        }

        pub(crate) fn configure(&self, _: Sid, _: ConfigBuilder) -> ConfigBuilder {
            match *self {}
        }

        pub(crate) fn stranger(&self, _: Stranger, _: &str) -> Result<CnxManager, Box<dyn Error>> {
            match *self {}
        }
    }
}

#[cfg(feature = "tls-ring")]
mod with {
    use std::{collections::BTreeMap, error::Error, sync::Arc};

    use quorum_cnx::{
        CnxManager, Config, ConfigBuilder, PeerName, Sid, Tls,
        rustls::{
            crypto::ring,
            pki_types::{CertificateDer, PrivateKeyDer},
            sign::CertifiedKey,
        },
    };
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::{DIALED, OWNER, Stranger};
    use crate::{SERVERS, sids};

    /// The server that the strangers claim to be: the largest, which dials all others.
    const CLAIMED: Sid = Sid(SERVERS as i64);

    /// What each server needs, and a stranger of another CA.
    #[derive(Debug)]
    pub(crate) struct Certificates {
        servers: BTreeMap<Sid, Tls>,
        of_another_ca: Tls,
    }

    impl Certificates {
        pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
            let (ca, other) = (Ca::new("CA of the servers")?, Ca::new("another CA")?);
            let mut servers = BTreeMap::new();
            for sid in sids() {
                servers.insert(sid, ca.tls(sid, &ca.root)?);
            }
            let of_another_ca = other.tls(CLAIMED, &ca.root)?;
            Ok(Self {
                servers,
                of_another_ca,
            })
        }

        pub(crate) fn configure(&self, own: Sid, builder: ConfigBuilder) -> ConfigBuilder {
            with_names(builder.tls(self.servers[&own].clone()), sids())
        }

        /// Starts a stranger that dials the server at this address.
        pub(crate) fn stranger(
            &self,
            stranger: Stranger,
            dialed: &str,
        ) -> Result<CnxManager, Box<dyn Error>> {
            let builder = Config::builder(CLAIMED)
                .server(CLAIMED, "127.0.0.1:0")
                .server(DIALED, dialed);
            let tls = match stranger {
                Stranger::WithoutTls => return Ok(CnxManager::start(builder.build()?)?),
                Stranger::OfAnotherCa => &self.of_another_ca,
                Stranger::WithCertificateOfAnother => &self.servers[&OWNER],
            };
            let builder = with_names(builder.tls(tls.clone()), [CLAIMED, DIALED]);
            Ok(CnxManager::start(builder.build()?)?)
        }
    }

    /// All servers have one host, so that each needs a name of its own.
    fn with_names(builder: ConfigBuilder, sids: impl IntoIterator<Item = Sid>) -> ConfigBuilder {
        sids.into_iter().fold(builder, |builder, sid| {
            builder.peer_names(sid, [PeerName::Dns(name(sid))])
        })
    }

    fn name(sid: Sid) -> String {
        format!("server-{sid}.example")
    }

    /// A certification authority that lives as long as this program.
    struct Ca {
        issuer: Issuer<'static, KeyPair>,
        root: CertificateDer<'static>,
    }

    impl Ca {
        fn new(name: &str) -> Result<Self, rcgen::Error> {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate()?;
            let root = params.self_signed(&key)?.der().clone();
            let issuer = Issuer::new(params, key);
            Ok(Self { issuer, root })
        }

        /// A certificate of this CA for a server, which believes the CA with this root.
        fn tls(&self, sid: Sid, root: &CertificateDer<'static>) -> Result<Tls, Box<dyn Error>> {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new([name(sid)])?.signed_by(&key, &self.issuer)?;
            let provider = Arc::new(ring::default_provider());
            let key = PrivateKeyDer::try_from(key.serialize_der())?;
            let own = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider)?;
            Ok(Tls::builder(provider, own, [root.clone()]).build()?)
        }
    }
}
