//! Attackers: what each of them shows or sends, and with which reason it is refused, by who was dialed and by who dialed. No member
//! notices any of it.

use quorum_cnx::{ReasonKind, Tls};
use rcgen::{CertificateParams, SerialNumber, date_time_ymd};
use support::tls::Ca;

use super::*;

/// The serial number of the certificate that the members' CA has revoked.
const REVOKED: u8 = 66;

/// Members 2 and 4, with traffic between them. An attacker has the place of 3: it dials 2, and 4 dials it.
struct Attacked {
    servers: Servers,
    mesh: Mesh,
    ring: Ring,
    links: Vec<BTreeMap<Sid, u64>>,
}

impl Attacked {
    fn start(shape: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Self {
        let servers = Servers::new(&[2, 3, 4]);
        let crl = servers.ca.crl(&[REVOKED.into()]);
        let start = |sid: i64| {
            let tls = servers.ca.member(sid).tls(&servers.ca).crls([crl.clone()]);
            let config = shape(servers.secure(sid, tls.build().unwrap()));
            Arc::new(CnxManager::start(config.build().unwrap()).unwrap())
        };
        let mesh = Mesh {
            managers: [2, 4].map(start).into(),
            addresses: Vec::new(),
        };
        mesh.wait_linked();
        let links = mesh.managers.iter().map(|manager| links(manager));
        Self {
            links: links.collect(),
            ring: Ring::start(&mesh),
            servers,
            mesh,
        }
    }

    /// The member that attackers dial.
    fn dialed(&self) -> &CnxManager {
        &self.mesh.managers[0]
    }

    /// The member that dials attackers.
    fn dialer(&self) -> &CnxManager {
        &self.mesh.managers[1]
    }

    /// A connection to the member that attackers dial.
    fn stranger(&self, bytes: &[u8]) -> TestConnection {
        TestConnection::dial_and_write(STRANGER_IP, self.servers.address(2), bytes)
    }

    /// Waits until the member that dials the attacker has failed with this reason.
    #[track_caller]
    fn wait_dial_failed(&self, expected: &Reason) {
        // Not after the pause that follows earlier attackers.
        self.dialer().initiate_connection(Sid(3)).unwrap();
        wait_for(self.dialer(), |event| match event {
            Event::DialFailed { reason, .. } => (reason == expected).then_some(()),
            _ => None,
        });
    }

    /// Answers the ClientHello of everyone who dials the attacker, until the member that dials it has failed with such a reason.
    /// The other member knocks.
    #[track_caller]
    fn answer_all(&self, answer: &[u8], is_expected: impl Fn(&Reason) -> bool) {
        let attacker = TcpListener::bind(self.servers.address(3)).unwrap();
        attacker.set_nonblocking(true).unwrap();
        let mut answered = Vec::new();
        eventually("the dial has failed", || {
            if let Ok((mut dialed, _)) = attacker.accept() {
                dialed.set_nonblocking(false).unwrap();
                dialed.read_exact(&mut [0; 5]).unwrap();
                dialed.write_all(answer).unwrap();
                // Open until the end: it is refused for the answer.
                answered.push(dialed);
            }
            let mut events = std::iter::from_fn(|| self.dialer().events().try_recv().ok());
            events.any(|event| match event {
                Event::DialFailed { reason, .. } => is_expected(&reason),
                _ => false,
            })
        });
    }

    /// Waits until a connection of the attacker is refused with this reason. Earlier ones are those of an earlier attacker.
    #[track_caller]
    fn wait_rejected(&self, expected: &TlsFailure) {
        let has_named_itself = matches!(expected, TlsFailure::WrongName { .. });
        let expected_sid = has_named_itself.then_some(Sid(3));
        wait_for(self.dialed(), |event| match event {
            Event::Rejected { sid, reason, .. } => {
                let is_expected = *reason == Reason::Tls(expected.clone());
                is_expected.then(|| assert_eq!(*sid, expected_sid))
            }
            _ => None,
        });
    }

    /// The members have the links that they had, and frames pass.
    #[track_caller]
    fn finish(self) {
        self.ring.wait_rounds(2);
        for (manager, links_before) in self.mesh.managers.iter().zip(&self.links) {
            assert_eq!(links(manager), *links_before);
        }
    }
}

fn wrong_name(names: &str) -> TlsFailure {
    TlsFailure::WrongName {
        sid: Sid(3),
        names: names.into(),
    }
}

fn valid(years: [i32; 2]) -> CertificateParams {
    let mut params = params("member", &["zk3.example"]);
    [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
    params
}

#[test]
fn each_wrong_certificate_is_refused_at_both_ends() {
    let attacked = Attacked::start(|builder| builder);
    let ca = &attacked.servers.ca;
    let mut revoked = params("member", &["zk3.example"]);
    revoked.serial_number = Some(SerialNumber::from_slice(&[REVOKED]));
    for (own, failure) in [
        (Ca::new("another CA").member(3), TlsFailure::UnknownIssuer),
        (ca.sign(&valid([2020, 2021])), TlsFailure::Expired),
        (ca.sign(&valid([2100, 2101])), TlsFailure::NotYetValid),
        (ca.sign(&revoked), TlsFailure::Revoked),
        (ca.member(2), wrong_name("zk2.example")),
        (
            ca.sign(&params("member", &["stranger.example"])),
            wrong_name("stranger.example"),
        ),
        (
            ca.sign(&params("zk3.example", &["stranger.example"])),
            wrong_name("stranger.example"),
        ),
        (
            ca.sign(&params("member", &["*.example"])),
            wrong_name("*.example"),
        ),
    ] {
        // Only members have the list: the attacker believes everything of this CA.
        let tls: Tls = own.tls(ca).build().unwrap();
        let config = attacked.servers.secure(3, tls).build().unwrap();
        let attacker = CnxManager::start(config).unwrap();
        attacked.wait_rejected(&failure);
        attacked.wait_dial_failed(&Reason::Tls(failure.clone()));
        // Who is refused for its chain learns why, and is never linked. The name is checked after the handshake.
        let alert = match failure {
            TlsFailure::UnknownIssuer => "unknown_ca",
            TlsFailure::Expired | TlsFailure::NotYetValid => "certificate_expired",
            TlsFailure::Revoked => "certificate_revoked",
            _ => continue,
        };
        let reason = wait_for(&attacker, |event| match event {
            Event::DialFailed { reason, .. } => Some(reason.clone()),
            Event::Up { .. } => panic!("{alert}: {event}"),
            _ => None,
        });
        assert_eq!(reason, Reason::Tls(TlsFailure::Alert(alert.into())));
    }
    attacked.finish();
}

#[test]
fn dialer_without_a_certificate_is_refused() {
    let attacked = Attacked::start(|builder| builder);
    let stranger = attacked.stranger(&[]);
    let mut stranger = client(stranger.0, &attacked.servers.ca, None, 2);
    // Its handshake is over before the member has seen that it has none.
    let _ = stranger.write_all(&bare(3));
    attacked.wait_rejected(&TlsFailure::NoCertificate);
    let error = stranger.read(&mut [0]).unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
    attacked.finish();
}

#[test]
fn incomplete_handshakes_end_at_their_deadline() {
    let short = Duration::from_millis(500);
    let attacked = Attacked::start(|builder| builder.handshake_timeout(short));
    let hello = client_hello(&attacked.servers.ca, 2);
    let mut half = attacked.stranger(&hello[..hello.len() / 2]);
    half.wait_closed();
    let timeout = (None, Reason::HandshakeTimeout);
    assert_eq!(rejected(attacked.dialed()), timeout);
    // One byte each 20 ms: the whole message would take longer than the deadline. The timeout of the read sets the pace.
    let mut slow = attacked.stranger(&[]);
    slow.0
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let refusals = || attacked.dialed().stats().rejected.values().sum::<u64>();
    let mut bytes = hello.iter();
    while refusals() < 2 {
        let byte = bytes.next().expect("the whole message was accepted");
        slow.write(&[*byte]);
        let _ = slow.0.read(&mut [0]);
    }
    assert_eq!(rejected(attacked.dialed()), timeout);
    attacked.finish();
}

#[test]
fn plaintext_is_refused_in_both_directions() {
    let attacked = Attacked::start(|builder| builder);
    let plaintext = TlsFailure::Plaintext;
    for bytes in [bare(3), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        attacked.stranger(&bytes).wait_closed();
        attacked.wait_rejected(&plaintext);
    }
    // A server that answers a ClientHello in the clear.
    let expected = Reason::Tls(plaintext);
    attacked.answer_all(b"HTTP/1.1 400 Bad Request\r\n\r\n", |reason| {
        *reason == expected
    });
    // A server of this library that speaks no TLS takes the ClientHello for a sid, and hangs up.
    let config = attacked.servers.plain(3).build().unwrap();
    let attacker = CnxManager::start(config).unwrap();
    attacked.wait_dial_failed(&Reason::ClosedEarly);
    let (sid, reason) = rejected(&attacker);
    assert_eq!(sid.map(Reason::UnknownSid), Some(reason));
    attacked.finish();
}

/// A handshake message in a record.
fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap();
    let mut record = vec![0x16, 3, 1];
    record.extend((len + 4).to_be_bytes());
    record.extend([kind, 0]);
    record.extend(len.to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn old_versions_are_refused_in_both_directions() {
    // TLS 1.0, TLS 1.1.
    for minor in [1, 2] {
        let attacked = Attacked::start(|builder| builder);
        // No session; the suite TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA; no compression; no extension.
        let hello = [&[3, minor][..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
        attacked.stranger(&handshake(1, &hello)).wait_closed();
        let (_, reason) = rejected(attacked.dialed());
        assert_eq!(reason.kind(), ReasonKind::TlsProtocol, "{reason}");
        let hello = [&[3, minor][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
        attacked.answer_all(&handshake(2, &hello), |reason| {
            reason.kind() == ReasonKind::TlsProtocol
        });
        attacked.finish();
    }
}

/// A member that has been broken into, or is broken, sends more than a record may have.
#[test]
fn record_that_is_too_long_ends_only_its_link() {
    let attacked = Attacked::start(|builder| builder);
    let own = attacked.servers.ca.member(3);
    let stream = TestConnection::dial(MEMBER_IP, attacked.servers.address(2)).0;
    let mut attacker = client(stream, &attacked.servers.ca, Some(&own), 2);
    let bytes = [bare(3), frame("valid")].concat();
    attacker.write_all(&bytes).unwrap();
    let received = &attacked.ring.others[0];
    assert_eq!(&received.recv_timeout(LONG).unwrap().payload[..], b"valid");
    // Plaintext of 16 KiB and 1 byte. An encrypted record is at most 256 bytes longer than its plaintext (RFC 8446, section 5.2).
    let len = u16::try_from((16 << 10) + 1 + 256).unwrap();
    let mut record = vec![0x17, 3, 3];
    record.extend(len.to_be_bytes());
    record.resize(5 + usize::from(len), 0);
    // Fails when the link has ended before all of it was written.
    let _ = attacker.sock.write_all(&record);
    let (sid, reason) = wait_for_down(attacked.dialed());
    assert_eq!(sid, Sid(3));
    assert_eq!(reason.kind(), ReasonKind::TlsProtocol, "{reason}");
    attacked.finish();
}
