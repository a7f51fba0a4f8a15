//! Certificates for the tests: a CA, and what it signs.
//!
//! No file is used.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer},
    sign::CertifiedKey,
};

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A certification authority.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
    /// The root as text.
    pub(crate) pem: String,
}

/// A chain and its key.
pub(crate) struct Own {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
    /// The first certificate as text.
    pub(crate) pem: String,
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// What a CA has in its own certificate.
pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(name);
        let root = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            pem: root.pem(),
            root: root.der().clone(),
        }
    }

    /// Signs a certificate.
    pub(crate) fn sign(&self, params: &CertificateParams) -> Own {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Own {
            chain: vec![certificate.der().clone()],
            key,
            pem: certificate.pem(),
        }
    }

    /// Signs a certificate with these alternative names.
    pub(crate) fn names(&self, names: &[&str]) -> Own {
        self.sign(&params(names))
    }

    /// A list that revokes the certificate with this serial number.
    pub(crate) fn revoke(&self, serial: u8) -> CertificateRevocationListDer<'static> {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[serial]),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
    }
}

/// A certificate with these alternative names: IP addresses, URIs and DNS names. Without one it has a common name, as the manual of
/// ZooKeeper makes it.
pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("zk");
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if name.contains("://") => SanType::URI((*name).try_into().unwrap()),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    params
}

/// The same with this common name.
pub(crate) fn common_name(name: &str, names: &[&str]) -> CertificateParams {
    let mut params = params(names);
    params.distinguished_name = subject(name);
    params
}

impl Own {
    /// A certificate that is signed by its own key.
    pub(crate) fn self_signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            chain: vec![certificate.der().clone()],
            key,
            pem: certificate.pem(),
        }
    }

    /// Key, certificate and CA in one text, as in a key store of ZooKeeper.
    pub(crate) fn key_store(&self, ca: &Ca) -> String {
        self.key.serialize_pem() + &self.pem + &ca.pem
    }

    pub(crate) fn certified_key(&self) -> CertifiedKey {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        CertifiedKey::from_der(self.chain.clone(), key, &provider()).unwrap()
    }
}
