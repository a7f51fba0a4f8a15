//! The configurations of rustls for both directions, made from a certificate, a key and the roots that are believed.
//!
//! Nothing here opens a file or a connection.

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::{
    ALL_VERSIONS, ClientConfig, Error, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime},
    server::{ProducesTickets, StoresServerSessions},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{
    certificate::Certificate,
    trust::{ChainVerifier, Trust},
};
use crate::error::ConfigError;

/// What a server needs to speak TLS: its certificate and key, and the CAs that it believes.
///
/// It is made of PEM files with [`from_pem_files`](Self::from_pem_files) (feature `tls-ring`), of parts with
/// [`builder`](Self::builder), or of configurations of rustls with [`from_configs`](Self::from_configs).
/// [`ConfigBuilder::tls`](crate::ConfigBuilder::tls) takes it, and [`peer_names`](crate::ConfigBuilder::peer_names) says which
/// certificate may be which server.
///
/// Each server shows one certificate in both directions, so a certificate that has an extended key usage needs `serverAuth` and
/// `clientAuth`. These are fixed, whichever way it is made:
///
/// - Both ends show a certificate.
/// - No session is resumed and no early data is sent, so that each connection has its certificates verified.
/// - No server name (SNI) is sent.
///
/// A clone shares everything. `Debug` prints no key.
#[derive(Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// `None` exactly when the application has made the configurations.
    trust: Option<Arc<Trust>>,
    /// `None` under the same condition.
    not_after: Option<UnixTime>,
    plaintext: Plaintext,
}

/// Whether connections without TLS are accepted and dialed.
///
/// With these, servers without TLS change to it one by one, as in ZooKeeper (`sslQuorum`, `portUnification`). Each step is made on all
/// servers before the next one:
///
/// 1. [`Dial`](Self::Dial): each port accepts TLS too (`portUnification=true`).
/// 2. [`Accept`](Self::Accept): all new connections use TLS (`sslQuorum=true`).
/// 3. [`Refuse`](Self::Refuse): nothing else is accepted (`portUnification=false`).
///
/// Who connects without TLS has no certificate: until the third step, anyone can claim to be any server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Plaintext {
    /// Never.
    #[default]
    Refuse,
    /// They are accepted, and this server dials with TLS.
    Accept,
    /// They are accepted, and this server dials without TLS.
    Dial,
}

/// Collects what a [`Tls`] is made of. [`TlsBuilder::build`] checks it.
#[must_use = "a builder does nothing before `build`"]
pub struct TlsBuilder {
    provider: Arc<CryptoProvider>,
    own: CertifiedKey,
    roots: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Tls {
    /// Begins with a provider of cryptography, the own certificate with its key, and the certificates of the CAs that are believed.
    /// The certificate is followed by those of intermediate CAs.
    ///
    /// [`CertifiedKey::from_der`] takes a key as bytes, and [`CertifiedKey::new`] one that is in a hardware module. A root that is no
    /// CA (`basicConstraints`) must have signed itself. It is then believed as the certificate of a server, and for nobody else.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #[cfg(feature = "tls-ring")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use quorum_cnx::{Tls, rustls};
    /// use rustls::{crypto::ring, pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject}, sign::CertifiedKey};
    ///
    /// let provider = Arc::new(ring::default_provider());
    /// let own = vec![CertificateDer::from_pem_file("zk2.pem")?];
    /// let own = CertifiedKey::from_der(own, PrivateKeyDer::from_pem_file("zk2.key")?, &provider)?;
    /// let tls = Tls::builder(provider, own, [CertificateDer::from_pem_file("ca.pem")?]).build()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "tls-ring"))]
    /// # fn main() {}
    /// ```
    pub fn builder(
        provider: Arc<CryptoProvider>,
        own: CertifiedKey,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> TlsBuilder {
        TlsBuilder {
            provider,
            own,
            roots: roots.into_iter().collect(),
            crls: Vec::new(),
            versions: ALL_VERSIONS.to_vec(),
        }
    }

    /// Takes configurations of rustls that the application has made, for instance with verifiers of its own.
    ///
    /// Their verifiers decide whether a certificate is believed. Its names are checked after the handshake in any case. The server name
    /// that the verifier of the client is asked for is the IP address of the connection, so it should not check it. The server must
    /// demand certificates: a connection without one is refused. Session resumption, early data and server names are switched off in
    /// both, and the server sends one session ticket, whose arrival tells the dialer that it was accepted.
    pub fn from_configs(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Self {
        let mut client = Arc::unwrap_or_clone(client);
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.enable_sni = false;
        let mut server = Arc::unwrap_or_clone(server);
        server.session_storage = Arc::new(NoResumption);
        server.ticketer = Arc::new(NoResumption);
        server.send_tls13_tickets = 1;
        server.max_tls13_tickets = 0;
        server.max_early_data_size = 0;
        Self {
            client: Arc::new(client),
            server: Arc::new(server),
            trust: None,
            not_after: None,
            plaintext: Plaintext::Refuse,
        }
    }

    /// Sets whether servers without TLS are accepted and dialed. Default: [`Plaintext::Refuse`].
    #[must_use]
    pub fn plaintext(mut self, plaintext: Plaintext) -> Self {
        self.plaintext = plaintext;
        self
    }

    /// When the first certificate of the own chain expires. `None` if the application has made the configurations.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        let time = self.not_after?;
        Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs()))
    }

    /// For connections that this server dials. The name that its verifier is asked for has no effect.
    pub(crate) fn client_config(&self) -> &Arc<ClientConfig> {
        &self.client
    }

    /// For connections that this server accepts.
    pub(crate) fn server_config(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// The same with another configuration for connections that this server accepts.
    #[cfg(test)]
    pub(crate) fn with_server_config(mut self, server: ServerConfig) -> Self {
        self.server = Arc::new(server);
        self
    }

    /// Whether an accepted connection may speak without TLS.
    pub(crate) fn accepts_plain(&self) -> bool {
        self.plaintext != Plaintext::Refuse
    }

    /// Whether this server dials with TLS.
    pub(crate) fn dials_tls(&self) -> bool {
        self.plaintext != Plaintext::Dial
    }

    /// Verifies a chain again. `None` if the application has made the configurations.
    pub(super) fn verify_again(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Result<(), Error>> {
        Some(self.trust.as_ref()?.verify_again(chain, now))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("plaintext", &self.plaintext)
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

impl TlsBuilder {
    /// Adds certificate revocation lists. Default: none, so that nothing is revoked.
    ///
    /// With them, each certificate of a chain needs a list of its issuer, or it is refused. A list is used after the time of its next
    /// update too: what it has revoked stays so. If there are several lists of an issuer, what one of them revokes is revoked; each
    /// further one costs another verification of the chain in each handshake.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #[cfg(feature = "tls-ring")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use quorum_cnx::{Tls, rustls::pki_types::{CertificateRevocationListDer, pem::PemObject}};
    ///
    /// let crl = CertificateRevocationListDer::from_pem_file("ca.crl")?;
    /// let tls = Tls::from_pem_files("zk2.pem", "zk2.key", "ca.pem")?.crls([crl]).build()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "tls-ring"))]
    /// # fn main() {}
    /// ```
    pub fn crls(
        mut self,
        crls: impl IntoIterator<Item = CertificateRevocationListDer<'static>>,
    ) -> Self {
        self.crls.extend(crls);
        self
    }

    /// Sets the versions of TLS. Default: 1.2 and 1.3. ZooKeeper 3.8 speaks 1.2 by default.
    pub fn protocol_versions(mut self, versions: &[&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    /// Checks all parts. The validity of the own certificate is not one of them: the clock may be wrong for now.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadOption`] that says what cannot be used.
    pub fn build(self) -> Result<Tls, ConfigError> {
        self.checked()
            .map_err(|why| ConfigError::BadOption { option: "tls", why })
    }

    fn checked(self) -> Result<Tls, String> {
        let mut not_after: Option<UnixTime> = None;
        for (number, certificate) in (1..).zip(&self.own.cert) {
            let certificate = Certificate::from_der(certificate)
                .map_err(|why| format!("own certificate {number}: {why}"))?;
            let earlier = not_after.map_or(certificate.not_after, |time| {
                time.min(certificate.not_after)
            });
            not_after = Some(earlier);
        }
        let Some(not_after) = not_after else {
            return Err("there is no certificate of this server".to_owned());
        };
        let trust = Arc::new(Trust::new(&self.provider, &self.roots, &self.crls)?);
        let provider = Arc::new(with_lasting_keys_first(&self.provider));
        let own = Arc::new(SingleCertAndKey::from(self.own));
        let unusable = |why: Error| why.to_string();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ChainVerifier(Arc::clone(&trust))))
            .with_client_cert_resolver(Arc::clone(&own) as _);
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .map_err(unusable)?
            .with_client_cert_verifier(Arc::new(ChainVerifier(Arc::clone(&trust))))
            .with_cert_resolver(own);
        server.ignore_client_order = true;
        let tls = Tls::from_configs(Arc::new(client), Arc::new(server));
        Ok(Tls {
            trust: Some(trust),
            not_after: Some(not_after),
            ..tls
        })
    }
}

impl fmt::Debug for TlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsBuilder")
            .field("roots", &self.roots.len())
            .field("crls", &self.crls.len())
            .field("versions", &self.versions)
            .finish_non_exhaustive()
    }
}

/// The same provider, but among the cipher suites of TLS 1.2 those come first whose keys last longest. There, a link with AES-GCM
/// must end after 2^24 records, and one with ChaCha20 never. TLS 1.3 renews the keys by itself.
fn with_lasting_keys_first(provider: &CryptoProvider) -> CryptoProvider {
    let mut provider = provider.clone();
    provider.cipher_suites.sort_by_key(|suite| match suite {
        SupportedCipherSuite::Tls13(_) => (0, 0),
        SupportedCipherSuite::Tls12(suite) => (1, u64::MAX - suite.common.confidentiality_limit),
    });
    provider
}

/// Keeps no session, but says that it does, so that the one ticket is sent whose arrival tells a dialer that its certificate was
/// accepted. A link that is resumed would not have its certificate verified.
#[derive(Debug)]
struct NoResumption;

impl StoresServerSessions for NoResumption {
    fn put(&self, _key: Vec<u8>, _value: Vec<u8>) -> bool {
        true
    }

    fn get(&self, _key: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, _key: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl ProducesTickets for NoResumption {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}
