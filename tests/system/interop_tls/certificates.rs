//! Certificates and keys in PEM files, as ZooKeeper reads them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use quorum_cnx::rustls::pki_types::CertificateRevocationListDer;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// What kind of key a certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ecdsa,
    Rsa,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA P-256",
            Self::Rsa => "RSA 2048",
        }
    }

    fn key(self) -> KeyPair {
        match self {
            Self::Ecdsa => KeyPair::generate().unwrap(),
            Self::Rsa => KeyPair::from_pem(rsa_key()).unwrap(),
        }
    }
}

/// A key that all RSA certificates of one run share: it takes long to make.
fn rsa_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        // ring makes no RSA keys.
        let mut command = Command::new("openssl");
        command.args(["genpkey", "-quiet", "-algorithm", "RSA"]);
        let output = command.args(["-pkeyopt", "rsa_keygen_bits:2048"]).output();
        let output = output.unwrap_or_else(|error| panic!("openssl does not start: {error}"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    })
}

/// A certification authority. ZooKeeper keeps one certificate for each subject (ZOOKEEPER-4992), so that each has its own name.
pub(crate) struct Ca {
    kind: Kind,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    pub(crate) fn new(name: &str, kind: Kind) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = kind.key();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { kind, issuer, pem }
    }

    /// Writes a key store: a new key of the CA's kind, a certificate with these alternative names, and the CA's certificate.
    pub(crate) fn write_key_store(&self, path: &Path, names: &[String]) {
        self.write_key_store_with(path, names, |_| ());
    }

    /// The same with a certificate that `shape` has changed.
    pub(crate) fn write_key_store_with(
        &self,
        path: &Path,
        names: &[String],
        shape: impl FnOnce(&mut CertificateParams),
    ) {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("server");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(name.as_str().try_into().unwrap()),
            })
            .collect();
        shape(&mut params);
        let key = self.kind.key();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let text = key.serialize_pem() + &certificate.pem() + &self.pem;
        replace(path, &text);
    }

    /// Makes a list that revokes the certificates with these serial numbers.
    pub(crate) fn revocation_list(&self, revoked: &[u64]) -> CertificateRevocationListDer<'static> {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().into()
    }

    /// Writes the certificate and the key of the CA, as `openssl` reads them.
    pub(crate) fn write(&self, path: &Path) {
        replace(path, &(self.issuer.key().serialize_pem() + &self.pem));
    }
}

/// Makes it a certificate that has expired.
pub(crate) fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2020, 1, 1);
}

/// Gives it a serial number, and the URL of its issuer's revocation list.
pub(crate) fn with_list(params: &mut CertificateParams, serial: u64, url: &str) {
    params.serial_number = Some(SerialNumber::from(serial));
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec![url.to_owned()],
    }];
}

/// Gives it a serial number, and the URL of its issuer's OCSP responder.
pub(crate) fn with_ocsp(params: &mut CertificateParams, serial: u64, url: &str) {
    params.serial_number = Some(SerialNumber::from(serial));
    // RFC 5280, section 4.2.2.1: authorityInfoAccess with one id-ad-ocsp.
    let element = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let method = element(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]);
    let description = element(0x30, &[method, element(0x86, url.as_bytes())].concat());
    let content = element(0x30, &description);
    let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content);
    params.custom_extensions.push(extension);
}

/// Writes a trust store with these CAs.
pub(crate) fn write_trust_store(path: &Path, cas: &[&Ca]) {
    let text: String = cas.iter().map(|ca| ca.pem.as_str()).collect();
    replace(path, &text);
}

/// Writes a file. One that is there is replaced at once, so that nobody reads a half of it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file can be written");
    fs::rename(&new, path).expect("a file can be renamed");
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// The lines of a `zoo.cfg` that name a key store and a trust store.
pub(crate) fn store_lines(key_store: &Path, trust_store: &Path) -> String {
    let lines = |name: &str, path: &Path| {
        format!(
            "ssl.quorum.{name}.location={}\nssl.quorum.{name}.type=PEM\n",
            path.display()
        )
    };
    lines("keyStore", key_store) + &lines("trustStore", trust_store)
}

/// The path of a file in this directory.
pub(crate) fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.pem"))
}
