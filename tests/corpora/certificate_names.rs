//! Target `certificate_names`: a server shows any bytes as its certificate, in a real handshake that believes them.
//!
//! It is taken for a server only if a name of that server is in these bytes. Nothing panics, and what is said about it is short.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use quorum_cnx::{
    PeerName, Reason, Sid, Tls, TlsFailure,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
    simulation::{Identity, Stream as _, limits::TLS_TEXT_BYTES_MAX},
};

use crate::{
    certificates::{PROVIDER, own},
    tls_memory::connect,
};

static OWN: LazyLock<CertifiedKey> = LazyLock::new(|| own("zk1.example"));

/// A name of each type. None of them is that of the key.
static NAMES: LazyLock<Vec<(Sid, PeerName)>> = LazyLock::new(|| {
    let pin = format!("sha256:{}", "5a".repeat(32));
    let names = [
        "zk1.example",
        "10.0.0.1",
        "2001:db8::1",
        "spiffe://a/b",
        "urn:zk:1",
        &pin,
    ];
    let names = names.map(|name| name.parse().expect("it is a name"));
    (1..).map(Sid).zip(names).collect()
});

/// Believes everything.
#[derive(Debug)]
struct Trusting;

/// Shows these bytes.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

pub(crate) fn check(bytes: &[u8]) {
    let certificate = CertificateDer::from(bytes.to_vec());
    let shown = CertifiedKey::new(vec![certificate], Arc::clone(&OWN.key));
    let client = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
    let tls = Tls::from_configs(Arc::new(client), Arc::new(server));
    let [(dialer, near), (acceptor, far)] = connect(tls.clone(), tls, &NAMES);
    for end in [near, far] {
        let mut pipe = end.pipe();
        (pipe.room, pipe.at_once) = (usize::MAX, usize::MAX);
    }
    let mut is_connected = false;
    for _ in 0..4 {
        is_connected |= !is_connected && dialer.connected().expect("nothing fails");
        // `WouldBlock`: there are no frames.
        let _ = acceptor.read(&mut [0; 100]);
    }
    assert!(is_connected);
    for (sid, name) in NAMES.iter() {
        match dialer.identify(*sid) {
            Ok(identity) => {
                assert_eq!(identity, Identity::Proved);
                assert!(contains(bytes, name), "{name} is not in it");
            }
            Err(Reason::Tls(TlsFailure::WrongName { names, .. })) => {
                assert!(
                    names.len() <= TLS_TEXT_BYTES_MAX && names.is_ascii(),
                    "{names}"
                );
            }
            Err(Reason::Tls(TlsFailure::BadCertificate(why))) => {
                assert!(why.len() <= TLS_TEXT_BYTES_MAX, "{why}");
            }
            Err(reason) => panic!("{reason}"),
        }
    }
}

/// Whether the name is in these bytes in a form in which certificates have names.
fn contains(bytes: &[u8], name: &PeerName) -> bool {
    let mut forms = vec![name.to_string().into_bytes()];
    match name {
        PeerName::Ip(IpAddr::V4(ip)) => {
            forms.push(ip.octets().to_vec());
        }
        PeerName::Ip(IpAddr::V6(ip)) => forms.push(ip.octets().to_vec()),
        _ => {}
    }
    let has = |form: &Vec<u8>| {
        let mut parts = bytes.windows(form.len());
        parts.any(|part| part.eq_ignore_ascii_case(form))
    };
    forms.iter().any(has)
}

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER
            .signature_verification_algorithms
            .supported_schemes()
    }
}
