//! Certificates for the ends that speak TLS. Each process makes its own, of an authority whose key all ends know.
//!
//! The program `compare` uses this, too, so that all participants have the same cryptography.

use std::{error::Error, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as cryptography;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as cryptography;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    version::TLS13,
};

/// The key of the authority. It protects nothing: its certificates are believed while something is measured, by nobody else.
const AUTHORITY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2sTzgtPPOsODtEgK
klMp31yHFmOVmhaes7WxLA2eVwChRANCAAQCqxQG06sHr+zOrEGL9YNUp3tl/PeN
I8n2HmanAtZdfAtltVOCbci4FrEEGen3Mn1mzwlCVYN2NiEU7eF9FBRI
-----END PRIVATE KEY-----";

/// The name in the certificate of this server.
pub(crate) fn name(sid: i64) -> String {
    format!("server-{sid}")
}

/// What one end needs to speak TLS 1.3 with AES-128-GCM and keys on P-256, in which both ends prove who they are.
pub(crate) struct Certificates {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) own: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) root: CertificateDer<'static>,
}

impl Certificates {
    /// Makes the certificate of this server.
    pub(crate) fn new(sid: i64) -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::default();
        let subject = &mut authority.distinguished_name;
        subject.push(DnType::CommonName, "quorum-cnx-benches");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::from_pem(AUTHORITY)?;
        let root = authority.self_signed(&authority_key)?.der().clone();
        let key = KeyPair::generate()?;
        let authority = Issuer::new(authority, authority_key);
        let own = CertificateParams::new([name(sid)])?.signed_by(&key, &authority)?;
        Ok(Self {
            provider: Arc::new(CryptoProvider {
                cipher_suites: vec![cryptography::cipher_suite::TLS13_AES_128_GCM_SHA256],
                kx_groups: vec![cryptography::kx_group::SECP256R1],
                ..cryptography::default_provider()
            }),
            own: own.der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            root,
        })
    }

    /// For rustls without the library.
    pub(crate) fn configs(&self) -> Result<(ClientConfig, ServerConfig), Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&roots),
            Arc::clone(&self.provider),
        );
        let (own, key) = (vec![self.own.clone()], self.key.clone_key());
        let client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(own.clone(), key.clone_key())?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(own, key)?;
        Ok((client, server))
    }
}
