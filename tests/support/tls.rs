//! Certificates, servers that use them, and connections of the test that speak TLS.
//!
//! Nothing here verifies a certificate: the library does.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use quorum_cnx::{
    CnxManager, ConfigBuilder, PeerName, Sid, Tls, TlsBuilder,
    rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName},
        sign::CertifiedKey,
        version::TLS13,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

use crate::{ReservedAddress, configure, target_dir};

pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The name in the certificate of a member.
pub fn name_of(sid: i64) -> String {
    format!("zk{sid}.example")
}

/// What is in a certificate with this common name and these alternative names.
pub fn params(common: &str, names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    let dns = |name: &&str| SanType::DnsName((*name).try_into().unwrap());
    params.subject_alt_names = names.iter().map(dns).collect();
    params
}

/// A certification authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
    pub pem: String,
}

/// A certificate and its key.
pub struct Own {
    pub certificate: CertificateDer<'static>,
    pub key: KeyPair,
    pub pem: String,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            pem: root.pem(),
            root: root.der().clone(),
        }
    }

    pub fn sign(&self, params: &CertificateParams) -> Own {
        self.sign_key(params, KeyPair::generate().unwrap())
    }

    /// A certificate for this key.
    pub fn sign_key(&self, params: &CertificateParams, key: KeyPair) -> Own {
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Own {
            certificate: certificate.der().clone(),
            key,
            pem: certificate.pem(),
        }
    }

    /// The certificate of a member. Its serial number is the sid.
    pub fn member(&self, sid: i64) -> Own {
        let mut params = params("member", &[&name_of(sid)]);
        params.serial_number = Some(serial(sid));
        self.sign(&params)
    }

    /// A list that revokes the certificates with these serial numbers.
    pub fn crl(&self, serials: &[i64]) -> CertificateRevocationListDer<'static> {
        let revoked = |number: &i64| RevokedCertParams {
            serial_number: serial(*number),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: serial(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
    }
}

fn serial(number: i64) -> SerialNumber {
    SerialNumber::from_slice(&[number.try_into().unwrap()])
}

impl Own {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// What a server needs that shows this certificate, and believes this CA.
    pub fn tls(&self, believed: &Ca) -> TlsBuilder {
        let chain = vec![self.certificate.clone()];
        let own = CertifiedKey::from_der(chain, self.key(), &provider()).unwrap();
        Tls::builder(provider(), own, [believed.root.clone()])
    }
}

/// A directory of this test.
pub fn directory(name: &str) -> PathBuf {
    let directory = target_dir().join("tmp").join(name);
    // Left over from an earlier run.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Writes the files of a server into this directory.
pub fn write_files(directory: &Path, own: &Own, ca: &Ca) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("tls.crt"), &own.pem).unwrap();
    fs::write(directory.join("tls.key"), own.key.serialize_pem()).unwrap();
    fs::write(directory.join("ca.crt"), &ca.pem).unwrap();
}

/// Servers at fixed addresses, which are started and halted one by one. All are at one IP address, and their certificates have names
/// of their own.
pub struct Servers {
    pub ca: Ca,
    /// Reserved for as long as this exists. On Linux a server can listen there at the same time.
    addresses: BTreeMap<i64, ReservedAddress>,
}

impl Servers {
    pub fn new(sids: &[i64]) -> Self {
        Self {
            ca: Ca::new("CA of the members"),
            addresses: sids
                .iter()
                .map(|sid| (*sid, ReservedAddress::new()))
                .collect(),
        }
    }

    pub fn address(&self, sid: i64) -> &str {
        &self.addresses[&sid].address
    }

    /// What a member needs.
    pub fn tls(&self, sid: i64) -> Tls {
        self.ca.member(sid).tls(&self.ca).build().unwrap()
    }

    /// A configuration without TLS.
    pub fn plain(&self, own: i64) -> ConfigBuilder {
        let servers = self.addresses.iter();
        let servers: Vec<_> = servers.map(|(sid, at)| (*sid, &at.address)).collect();
        configure(own, &servers)
    }

    /// A configuration with the names of all servers.
    pub fn secure(&self, own: i64, tls: Tls) -> ConfigBuilder {
        let names = |sid: i64| [PeerName::Dns(name_of(sid))];
        self.addresses
            .keys()
            .fold(self.plain(own).tls(tls), |builder, sid| {
                builder.peer_names(Sid(*sid), names(*sid))
            })
    }

    /// Starts a member with its own certificate.
    pub fn start(
        &self,
        own: i64,
        shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> CnxManager {
        let builder = shape(self.secure(own, self.tls(own)));
        CnxManager::start(builder.build().unwrap()).unwrap()
    }
}

/// The client's end of a TLS connection, controlled by the test.
pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// Begins a handshake over this connection, with a certificate or without one. The far end must be this member.
pub fn client(stream: TcpStream, ca: &Ca, own: Option<&Own>, far: i64) -> TlsClient {
    StreamOwned::new(client_connection(ca, own, far), stream)
}

/// What a client sends first.
pub fn client_hello(ca: &Ca, far: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut connection = client_connection(ca, None, far);
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

fn client_connection(ca: &Ca, own: Option<&Own>, far: i64) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(ca.root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        Some(own) => config
            .with_client_auth_cert(vec![own.certificate.clone()], own.key())
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from(name_of(far)).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// The server's end of a TLS connection that asks for no certificate.
pub fn server(stream: TcpStream, own: &Own) -> StreamOwned<ServerConnection, TcpStream> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.certificate.clone()], own.key())
        .unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}
