//! Verifies chains of certificates: to a root, valid now, and not revoked.
//!
//! No name is checked here, and no clock is read.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{
    CertRevocationList, EndEntityCert, ExtendedKeyUsageValidator, KeyUsage,
    OwnedCertRevocationList, RevocationOptionsBuilder, anchor_from_trusted_cert,
};

use super::{certificate::Certificate, failure::from_webpki};

/// Which certificates are believed. It verifies the far end of dialed and of accepted connections, and both a second time after a
/// reload.
#[derive(Debug)]
pub(super) struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    /// Certificates that servers have signed for themselves. Each is believed when a server shows it, but it must not vouch for
    /// another one, as an anchor of webpki would.
    exact: Vec<CertificateDer<'static>>,
    crls: Vec<Crl>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The subjects of the roots, which a dialer that has several certificates chooses by.
    subjects: Vec<DistinguishedName>,
}

/// A revocation list, and its place among those of its issuer. webpki asks only the first list of an issuer that fits, although an older
/// list may stand beside a newer one, or that of another key of the CA.
#[derive(Debug)]
struct Crl {
    list: CertRevocationList<'static>,
    place: usize,
    /// How many lists this issuer has.
    places: usize,
}

impl Trust {
    /// # Errors
    ///
    /// Which root or CRL cannot be used.
    pub(super) fn new(
        provider: &CryptoProvider,
        roots: &[CertificateDer<'static>],
        crls: &[CertificateRevocationListDer<'_>],
    ) -> Result<Self, String> {
        let mut trust = Self {
            anchors: Vec::new(),
            exact: Vec::new(),
            crls: Vec::new(),
            algorithms: provider.signature_verification_algorithms,
            subjects: Vec::new(),
        };
        for (number, root) in (1..).zip(roots) {
            let bad = |why: String| format!("root certificate {number}: {why}");
            let certificate = Certificate::from_der(root).map_err(bad)?;
            let anchor = anchor_from_trusted_cert(root).map_err(|why| bad(why.to_string()))?;
            let subject = DistinguishedName::in_sequence(anchor.subject.as_ref());
            trust.subjects.push(subject);
            if certificate.is_ca {
                trust.anchors.push(anchor.to_owned());
            } else if certificate.is_self_issued {
                trust.exact.push(root.clone());
            } else {
                let why = "it is neither a CA's (basicConstraints CA:TRUE) nor signed by itself";
                return Err(bad(why.to_owned()));
            }
        }
        if roots.is_empty() {
            return Err("there is no root certificate, so that nobody is believed".to_owned());
        }
        for (number, crl) in (1..).zip(crls) {
            let crl = OwnedCertRevocationList::from_der(crl)
                .map_err(|why| format!("certificate revocation list {number}: {why}"))?;
            trust.add(crl.into());
        }
        Ok(trust)
    }

    fn add(&mut self, list: CertRevocationList<'static>) {
        let of_issuer = |crl: &&mut Crl| crl.list.issuer() == list.issuer();
        let place = self.crls.iter_mut().filter(of_issuer).count();
        for crl in self.crls.iter_mut().filter(of_issuer) {
            crl.places = place + 1;
        }
        self.crls.push(Crl {
            list,
            place,
            places: place + 1,
        });
    }

    /// Verifies a chain that begins with the certificate of the far end.
    ///
    /// # Errors
    ///
    /// Why it is not believed.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: impl ExtendedKeyUsageValidator + Copy,
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(from_webpki)?;
        let verify = |anchors: &[TrustAnchor<'_>], crls: &[&CertRevocationList<'_>]| {
            // The defaults: the whole chain is checked, a certificate of an issuer without a CRL is refused, and a CRL counts after its
            // time of the next update too, since what is revoked stays so. Without any CRL, nothing is revoked.
            let revocation = RevocationOptionsBuilder::new(crls).ok();
            let verified = certificate.verify_for_usage(
                self.algorithms.all,
                anchors,
                intermediates,
                now,
                usage,
                revocation.map(RevocationOptionsBuilder::build),
                None,
            );
            verified.map(drop)
        };
        let verified = match self.exact.iter().find(|exact| *exact == end_entity) {
            // It is its own root, which nobody else revokes.
            Some(exact) => {
                let anchor = anchor_from_trusted_cert(exact).map_err(from_webpki)?;
                verify(&[anchor], &[])
            }
            None => self.ask_each_crl(|crls| verify(&self.anchors, crls)),
        };
        verified.map_err(from_webpki)
    }

    /// Calls `verify` with the lists in such orders that each is the first of its issuer once. What one of them revokes is revoked. One
    /// with the signature of another key of the CA says nothing.
    fn ask_each_crl(
        &self,
        verify: impl Fn(&[&CertRevocationList<'_>]) -> Result<(), webpki::Error>,
    ) -> Result<(), webpki::Error> {
        let judge = |round: usize| {
            let is_first = |crl: &&Crl| round % crl.places == crl.place;
            let (first, others): (Vec<_>, Vec<_>) = self.crls.iter().partition(is_first);
            let crls: Vec<_> = first.iter().chain(&others).map(|crl| &crl.list).collect();
            verify(&crls)
        };
        let rounds = self.crls.iter().map(|crl| crl.places).max();
        let mut verdicts: Vec<_> = (0..rounds.unwrap_or(1)).map(judge).collect();
        let at = |wanted| verdicts.iter().position(|verdict| *verdict == wanted);
        let counts = at(Err(webpki::Error::CertRevoked)).or_else(|| at(Ok(())));
        verdicts.swap_remove(counts.unwrap_or_default())
    }

    /// Verifies the chain of a link again. Its purpose was checked when the link was made, and a certificate does not change.
    ///
    /// # Errors
    ///
    /// Why it is not believed any more.
    pub(super) fn verify_again(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let (end_entity, intermediates) =
            chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.verify(end_entity, intermediates, AnyUsage, now)
    }
}

/// Accepts every purpose.
#[derive(Clone, Copy)]
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _purposes: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// The verifier of both directions. A certificate without an extended key usage may be used for both.
#[derive(Debug)]
pub(super) struct ChainVerifier(pub(super) Arc<Trust>);

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0
            .verify(end_entity, intermediates, KeyUsage::server_auth(), now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for ChainVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0
            .verify(end_entity, intermediates, KeyUsage::client_auth(), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms.supported_schemes()
    }
}
