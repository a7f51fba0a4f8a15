//! Certificates for the targets with TLS: one CA, and what it has signed.
//!
//! They are made once in a run of the program.

use std::sync::{Arc, LazyLock};

use quorum_cnx::{
    Tls,
    rustls::{
        SupportedProtocolVersion,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer},
        sign::CertifiedKey,
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519};

pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));

static CA: LazyLock<(Issuer<'static, KeyPair>, CertificateDer<'static>)> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("ring makes such keys");
    let root = params.self_signed(&key).expect("it is valid").der().clone();
    (Issuer::new(params, key), root)
});

/// A certificate with this name, and its key.
pub(crate) fn own(name: &str) -> CertifiedKey {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("ring makes such keys");
    let params = CertificateParams::new([name.to_owned()]).expect("it is a name");
    let certificate = params.signed_by(&key, &CA.0).expect("it is valid");
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    CertifiedKey::from_der(vec![certificate.der().clone()], der, &PROVIDER).expect("the key fits")
}

/// A server with this certificate that believes all of the CA.
pub(crate) fn tls(own: &CertifiedKey, versions: &[&'static SupportedProtocolVersion]) -> Tls {
    Tls::builder(Arc::clone(&PROVIDER), own.clone(), [CA.1.clone()])
        .protocol_versions(versions)
        .build()
        .expect("it is valid")
}
