//! TLS of the simulated hosts, and of strangers with a valid certificate.
//!
//! All certificates are made once in a run of the program. Their lengths and those of their signatures are fixed, so that a seed has
//! one history.

use std::{
    fmt,
    io::{IoSlice, Read as _, Write as _},
    sync::{Arc, LazyLock},
};

use quorum_cnx::{
    ConfigBuilder, Handle, Members, PeerName, Plaintext, Sid, Tls,
    rustls::{
        ClientConfig, ClientConnection, RootCertStore,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName},
        sign::CertifiedKey,
        version::{TLS12, TLS13},
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, PKCS_ED25519, RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::{
    kernel::Kernel,
    plan::{Plan, STRANGERS_MAX, UNKNOWN},
    secure::{Change, Secure},
};

pub const IS_BUILT: bool = true;

const HOSTS_MAX: usize = 7;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));

static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(Certificates::new);

/// A CA, which makes certificates.
struct Authority(Issuer<'static, KeyPair>, CertificateDer<'static>);

/// A chain and its key.
struct Own(CertificateDer<'static>, Vec<u8>);

struct Certificates {
    authorities: [CertificateDer<'static>; 2],
    hosts: Vec<HostCertificates>,
    /// Of the first authority, and of one that no host believes.
    strangers: Vec<[Own; 2]>,
}

struct HostCertificates {
    /// Of the first authority, two of them, and of the second one.
    first: Own,
    renewed: Own,
    second: Own,
    /// The list of the first authority that has `first`.
    revoked: CertificateRevocationListDer<'static>,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("ring makes such keys")
}

/// Numbers of one length.
fn serial(number: usize) -> SerialNumber {
    SerialNumber::from(0x4000_0000 + number as u64)
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.serial_number = Some(serial(0));
        let key = key();
        let root = params.self_signed(&key).expect("it is valid").der().clone();
        Self(Issuer::new(params, key), root)
    }

    fn sign(&self, name: String, number: usize) -> Own {
        let mut params = CertificateParams::new([name]).expect("it is a DNS name");
        params.serial_number = Some(serial(number));
        let key = key();
        let certificate = params.signed_by(&key, &self.0).expect("it is valid");
        Own(certificate.der().clone(), key.serialize_der())
    }

    fn revoke(&self, number: usize) -> CertificateRevocationListDer<'static> {
        let revoked = RevokedCertParams {
            serial_number: serial(number),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: serial(0),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&self.0)
            .expect("it is valid")
            .der()
            .clone()
    }
}

impl Certificates {
    fn new() -> Self {
        let [one, two, nobody] = ["one", "two", "nobody"].map(Authority::new);
        let host = |index: usize| HostCertificates {
            first: one.sign(host_name(index), 10 + index),
            renewed: one.sign(host_name(index), 20 + index),
            second: two.sign(host_name(index), 30 + index),
            revoked: one.revoke(10 + index),
        };
        let stranger =
            |index: usize| [&one, &nobody].map(|it| it.sign(stranger_name(index), 40 + index));
        Self {
            hosts: (0..HOSTS_MAX).map(host).collect(),
            strangers: (0..STRANGERS_MAX).map(stranger).collect(),
            authorities: [one.1, two.1],
        }
    }
}

fn host_name(index: usize) -> String {
    format!("host-{index}.example")
}

fn stranger_name(index: usize) -> String {
    format!("stranger-{index}.example")
}

impl Own {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.1.clone().into())
    }
}

/// What this host has by now. `None` if it speaks no TLS yet.
fn tls(secure: &Secure, me: usize) -> Option<Tls> {
    let all = &*CERTIFICATES;
    let (host, steps) = (&all.hosts[me], secure.steps[me]);
    let [one, two] = &all.authorities;
    let (own, roots, revoked) = match (secure.change, steps) {
        (Change::Authority, 1) => (&host.first, vec![one, two], None),
        (Change::Authority, 2) => (&host.second, vec![one, two], None),
        (Change::Authority, 3) => (&host.second, vec![two], None),
        (Change::Upgrade, 0) => return None,
        (Change::Revocation(revoked), 1) if revoked == me => (&host.renewed, vec![one], None),
        (Change::Revocation(revoked), 1) => (&host.first, vec![one], all.hosts.get(revoked)),
        _ => (&host.first, vec![one], None),
    };
    let plaintext = match (secure.change, steps) {
        (Change::Upgrade, 1) => Plaintext::Dial,
        (Change::Upgrade, 2) => Plaintext::Accept,
        _ => Plaintext::Refuse,
    };
    let versions: &[_] = match secure.older[me] {
        true => &[&TLS12],
        false => &[&TLS13, &TLS12],
    };
    let key = CertifiedKey::from_der(vec![own.0.clone()], own.key(), &PROVIDER);
    let key = key.expect("the key fits");
    let tls = Tls::builder(Arc::clone(&PROVIDER), key, roots.into_iter().cloned())
        .protocol_versions(versions)
        .crls(revoked.map(|host| host.revoked.clone()))
        .build();
    Some(tls.expect("it is valid").plaintext(plaintext))
}

/// Has a host speak TLS, if the plan says so.
pub fn configure(mut builder: ConfigBuilder, plan: &Plan, me: usize) -> ConfigBuilder {
    let Some(tls) = plan.secure.as_ref().and_then(|secure| tls(secure, me)) else {
        return builder;
    };
    for (index, host) in plan.hosts.iter().enumerate() {
        builder = builder.peer_names(host.sid, [PeerName::Dns(host_name(index))]);
    }
    if plan.admits {
        for index in 0..STRANGERS_MAX {
            let sid = Sid((UNKNOWN + index) as i64);
            builder = builder.peer_names(sid, [PeerName::Dns(stranger_name(index))]);
        }
    }
    builder.tls(tls)
}

/// Names the certificate of another host that becomes a member. A member that comes back has lost its names.
pub fn name(members: Members, plan: &Plan, me: usize, host: usize) -> Members {
    match plan.secure.as_ref().and_then(|secure| tls(secure, me)) {
        Some(_) => members.peer_names(plan.hosts[host].sid, [PeerName::Dns(host_name(host))]),
        None => members,
    }
}

/// Gives this host, which runs, the certificates that it has by now.
pub fn reload(handle: &Handle, plan: &Plan, me: usize) {
    if let Some(tls) = plan.secure.as_ref().and_then(|secure| tls(secure, me)) {
        handle.set_tls(tls).expect("it has spoken TLS before");
    }
}

/// The session of a stranger that has dialed, and speaks real TLS.
pub struct Session {
    connection: ClientConnection,
    /// Ciphertext that has not left.
    ciphertext: Vec<u8>,
    received: Vec<u8>,
    has_failed: bool,
}

impl Session {
    /// The certificate is one of a CA that all hosts believe at first, or of one that none believes.
    pub fn new(index: usize, target: usize, is_signed: bool) -> Option<Self> {
        let all = &*CERTIFICATES;
        let mut roots = RootCertStore::empty();
        for authority in &all.authorities {
            roots.add(authority.clone()).expect("it is a CA");
        }
        let own = &all.strangers[index][usize::from(!is_signed)];
        let config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own.0.clone()], own.key())
            .expect("the key fits");
        let name = ServerName::try_from(host_name(target)).expect("it is a DNS name");
        Some(Self {
            connection: ClientConnection::new(Arc::new(config), name).expect("it is valid"),
            ciphertext: Vec::new(),
            received: Vec::new(),
            has_failed: false,
        })
    }

    /// Reads and writes what the socket has and takes. After the handshake it sends the next piece.
    pub fn step(&mut self, kernel: &mut Kernel, sock: usize, piece: impl FnOnce() -> Vec<u8>) {
        let mut buf = [0; 4096];
        while !self.has_failed {
            let Ok(n @ 1..) = kernel.read(sock, &mut buf) else {
                break;
            };
            self.take(&buf[..n]);
        }
        if !self.connection.is_handshaking() && !self.has_failed {
            let piece = piece();
            self.connection
                .writer()
                .write_all(&piece)
                .expect("it is short");
        }
        while self.connection.wants_write() {
            let written = self.connection.write_tls(&mut self.ciphertext);
            written.expect("memory takes all");
        }
        if !self.ciphertext.is_empty() {
            let sent = kernel.write(sock, &[IoSlice::new(&self.ciphertext)]);
            self.ciphertext.drain(..sent.unwrap_or_default());
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.has_failed {
            let taken = self.connection.read_tls(&mut bytes).unwrap_or_default();
            self.has_failed |= taken == 0 || self.connection.process_new_packets().is_err();
            // Ends with an error if nothing is left.
            let _ = self.connection.reader().read_to_end(&mut self.received);
        }
    }

    /// The plaintext that it has received.
    pub fn received(&self) -> &[u8] {
        &self.received
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}
