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
    crls: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The subjects of the roots, which a dialer that has several certificates chooses by.
    subjects: Vec<DistinguishedName>,
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
            trust.crls.push(crl.into());
        }
        Ok(trust)
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
        usage: impl ExtendedKeyUsageValidator,
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(from_webpki)?;
        let own_anchor;
        let crls: Vec<&CertRevocationList<'_>>;
        let (anchors, revocation) = match self.exact.iter().find(|exact| *exact == end_entity) {
            // It is its own root, which nobody else revokes.
            Some(exact) => {
                own_anchor = [anchor_from_trusted_cert(exact).map_err(from_webpki)?];
                (&own_anchor[..], None)
            }
            None => {
                crls = self.crls.iter().collect();
                // The defaults: the whole chain is checked, a certificate of an issuer without a CRL is refused, and a CRL counts
                // after its time of the next update too, since what is revoked stays so.
                let options = RevocationOptionsBuilder::new(&crls);
                (
                    &self.anchors[..],
                    options.ok().map(RevocationOptionsBuilder::build),
                )
            }
        };
        certificate
            .verify_for_usage(
                self.algorithms.all,
                anchors,
                intermediates,
                now,
                usage,
                revocation,
                None,
            )
            .map_err(from_webpki)?;
        Ok(())
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
