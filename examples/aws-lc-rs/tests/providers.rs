//! Servers with aws-lc-rs, linked to others with ring and with aws-lc-rs, and what they refuse.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::PathBuf,
    process,
    sync::Arc,
    time::Duration,
};

use quorum_cnx::{CnxManager, Config, Event, PeerName, Reason, Sid, Tls, TlsFailure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use with_aws_lc_rs::from_pem_files;

/// A deadline for what takes milliseconds. Reaching it is a failure.
const LONG: Duration = Duration::from_secs(60);

type Versions = [&'static SupportedProtocolVersion];

/// The files of two servers, which go with the test.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let at = env::temp_dir().join(format!("quorum-cnx-{}-{test}", process::id()));
        fs::create_dir_all(&at).unwrap();
        let files = Self(at);
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(files.path("ca.pem"), ca.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(ca, key);
        for sid in [1, 2] {
            let mut params = CertificateParams::new([name(sid)]).unwrap();
            // Asked for by verifiers of rustls itself.
            let ip = SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
            params.subject_alt_names.push(ip);
            let key = KeyPair::generate().unwrap();
            let own = params.signed_by(&key, &issuer).unwrap();
            fs::write(files.path(&format!("{sid}.pem")), own.pem()).unwrap();
            fs::write(files.path(&format!("{sid}.key")), key.serialize_pem()).unwrap();
        }
        files
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// The certificate and the key of this server, and the root.
    fn of(&self, sid: i64) -> [PathBuf; 3] {
        [
            format!("{sid}.pem"),
            format!("{sid}.key"),
            "ca.pem".to_owned(),
        ]
        .map(|file| self.path(&file))
    }

    fn ring(&self, sid: i64, versions: &Versions) -> Tls {
        let [own, key, roots] = self.of(sid);
        let tls = Tls::from_pem_files(own, key, roots).unwrap();
        tls.protocol_versions(versions).build().unwrap()
    }

    fn aws(&self, sid: i64, versions: &Versions) -> Tls {
        let [own, key, roots] = self.of(sid);
        let tls = from_pem_files(&own, &key, &roots).unwrap();
        tls.protocol_versions(versions).build().unwrap()
    }

    /// Configurations that are made with rustls alone, with the verifiers of rustls.
    fn aws_configs(&self, sid: i64, versions: &Versions) -> Tls {
        let [own, key, roots] = self.of(sid);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = || vec![CertificateDer::from_pem_file(&own).unwrap()];
        let key = || PrivateKeyDer::from_pem_file(&key).unwrap();
        let mut believed = RootCertStore::empty();
        believed
            .add(CertificateDer::from_pem_file(roots).unwrap())
            .unwrap();
        let believed = Arc::new(believed);
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(Arc::clone(&believed))
            .with_client_auth_cert(chain(), key())
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(believed, Arc::clone(&provider));
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain(), key())
            .unwrap();
        Tls::from_configs(Arc::new(client), Arc::new(server))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn name(sid: i64) -> String {
    format!("zk{sid}.example")
}

/// Two servers with these certificates. 2 dials.
fn start(tls: [Tls; 2]) -> [CnxManager; 2] {
    let sockets = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = sockets
        .each_ref()
        .map(|socket| socket.local_addr().unwrap().to_string());
    let mut servers = [1, 2].into_iter().zip(sockets).zip(tls);
    [(); 2].map(|()| {
        let ((own, socket), tls) = servers.next().unwrap();
        let builder = Config::builder(Sid(own)).listener(socket).tls(tls);
        let builder = [1, 2]
            .iter()
            .zip(&addresses)
            .fold(builder, |builder, (sid, at)| {
                let names = [PeerName::Dns(name(*sid))];
                builder.server(Sid(*sid), at).peer_names(Sid(*sid), names)
            });
        CnxManager::start(builder.build().unwrap()).unwrap()
    })
}

fn assert_linked(servers: &[CnxManager; 2], told: &str) {
    for [from, to] in [[0, 1], [1, 0]].map(|pair| pair.map(|at: usize| &servers[at])) {
        assert!(from.wait_linked(1, LONG), "{told}");
        // Of several records.
        let payload = vec![7; 100_000];
        from.to_send(to.sid(), payload.clone()).unwrap();
        let message = to.recv_timeout(LONG).expect(told);
        assert_eq!(message.payload[..], payload[..], "{told}");
    }
}

#[test]
fn servers_of_both_providers_link() {
    let files = Files::new("link");
    for versions in [&[&TLS13][..], &[&TLS12]] {
        type Make = fn(&Files, i64, &Versions) -> Tls;
        let ring: (&str, Make) = ("ring", Files::ring);
        let aws: (&str, Make) = ("aws-lc-rs", Files::aws);
        let configs: (&str, Make) = ("configurations of aws-lc-rs", Files::aws_configs);
        for [one, two] in [
            [ring, aws],
            [aws, ring],
            [aws, aws],
            [ring, configs],
            [configs, ring],
            [configs, aws],
        ] {
            let told = format!("{}, {}, {versions:?}", one.0, two.0);
            let tls = [one.1(&files, 1, versions), two.1(&files, 2, versions)];
            assert_linked(&start(tls), &told);
        }
    }
}

#[test]
fn certificate_of_another_member_is_refused() {
    let files = Files::new("refused");
    for make in [Files::aws, Files::aws_configs] {
        // 2 shows the certificate of 1.
        let [one, _two] = start([1, 1].map(|sid| make(&files, sid, &[&TLS13])));
        let reason = loop {
            match one.events().recv_timeout(LONG).unwrap() {
                Event::Rejected { reason, .. } => break reason,
                Event::Up { .. } => panic!("it is linked"),
                _ => {}
            }
        };
        let is_expected = matches!(
            reason,
            Reason::Tls(TlsFailure::WrongName { sid: Sid(2), .. })
        );
        assert!(is_expected, "{reason}");
    }
}
