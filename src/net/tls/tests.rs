//! Both ends of a connection in memory, whose buffers the tests change.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Shutdown},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::{
    crypto::{
        cipher::{OutboundChunks, OutboundPlainMessage},
        ring,
    },
    pki_types::PrivateKeyDer,
    sign::CertifiedKey,
    version,
};

use super::{TlsStream, common::Common};
use crate::{
    limits::{
        TLS_OVERHEAD_BYTES_MAX, TLS_RECORD_BYTES, TLS_RENEWED_EVERY_RECORDS, TLS_TICKET_WAIT,
    },
    net::{Identity, Ready, Stream},
    outbox::{Clock, Wire},
    proto::{Reason, Sid, TlsFailure},
    tls::{Identities, PeerName, Plaintext, Tls, TlsContext},
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One direction of a connection in memory.
#[derive(Debug, Default)]
struct Direction {
    bytes: Vec<u8>,
    room: usize,
    closed: bool,
    /// A shutdown closes nothing: the far end closes its TLS only.
    stays_open: bool,
}

/// One end of a connection in memory, whose buffers the test changes.
#[derive(Clone, Debug)]
struct End {
    sends: Arc<Mutex<Direction>>,
    receives: Arc<Mutex<Direction>>,
}

fn pair() -> (End, End) {
    let direction = || {
        Arc::new(Mutex::new(Direction {
            room: usize::MAX,
            ..Direction::default()
        }))
    };
    let (a, b) = (direction(), direction());
    let end = |sends: &Arc<_>, receives: &Arc<_>| End {
        sends: Arc::clone(sends),
        receives: Arc::clone(receives),
    };
    (end(&a, &b), end(&b, &a))
}

impl Wire for End {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut to = self.sends.lock().unwrap();
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let taken = bytes.len().min(to.room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        to.bytes.extend(&bytes[..taken]);
        to.room -= taken;
        Ok(taken)
    }
}

impl Stream for End {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut from = self.receives.lock().unwrap();
        let taken = buf.len().min(from.bytes.len());
        if taken == 0 && !from.closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buf[..taken].copy_from_slice(&from.bytes[..taken]);
        from.bytes.drain(..taken);
        Ok(taken)
    }

    fn connected(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        let mut to = self.sends.lock().unwrap();
        to.closed = !to.stays_open;
        Ok(())
    }

    fn abort(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

/// Numbers the authorities, which have names of their own.
static AUTHORITIES: AtomicU32 = AtomicU32::new(0);

/// A certificate authority, which makes certificates for names.
struct Authority(Issuer<'static, KeyPair>, rcgen::Certificate);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        let name = format!("authority {}", AUTHORITIES.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self(Issuer::new(params, key), certificate)
    }

    fn tls(&self, name: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> Tls {
        self.believing(self, name, versions)
    }

    /// A certificate of this authority, for a server that believes another one.
    fn believing(
        &self,
        believed: &Self,
        name: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Tls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let own = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap();
        Tls::builder(provider, own, [believed.1.der().clone()])
            .protocol_versions(versions)
            .build()
            .unwrap()
    }
}

/// The time of the streams, which the tests set.
#[derive(Clone)]
struct Time(Arc<Mutex<Instant>>);

impl Time {
    fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

/// What the streams of one server share.
fn common(tls: Tls, time: &Time) -> Arc<Common> {
    let names = [1, 2].map(|sid| (Sid(sid), vec![PeerName::Dns(format!("zk{sid}"))]));
    let identities = Identities::new([], &BTreeMap::from(names), false).unwrap();
    let context = TlsContext::new(tls, Arc::new(identities));
    let time = time.clone();
    let clock = Clock::new(move || *time.0.lock().unwrap());
    Arc::new(Common::new(Arc::new(context), clock, Arc::new(|| {})))
}

/// Both ends of a connection, of which server 2 has dialed.
struct Pair {
    dialer: TlsStream<End>,
    acceptor: TlsStream<End>,
    dialer_common: Arc<Common>,
    acceptor_common: Arc<Common>,
}

impl Pair {
    fn new(dialer: Tls, acceptor: Tls) -> Self {
        Self::at(dialer, acceptor, &Time::now())
    }

    fn at(dialer: Tls, acceptor: Tls, time: &Time) -> Self {
        let (a, b) = pair();
        let dialer_common = common(dialer, time);
        let acceptor_common = common(acceptor, time);
        Self {
            dialer: TlsStream::dialed(a, HERE, Arc::clone(&dialer_common)),
            acceptor: TlsStream::accepted(b, Arc::clone(&acceptor_common)),
            dialer_common,
            acceptor_common,
        }
    }

    /// Takes steps at both ends until the dialer is connected or one of them fails.
    fn shake_hands(&self) -> (io::Result<bool>, io::Result<usize>) {
        let mut dialer = Ok(false);
        let mut acceptor: io::Result<usize> = Err(io::ErrorKind::WouldBlock.into());
        for _ in 0..20 {
            if matches!(dialer, Ok(false)) {
                dialer = self.dialer.connected();
            }
            let waits =
                matches!(&acceptor, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if waits {
                acceptor = self.acceptor.read(&mut [0; 64]);
            }
        }
        (dialer, acceptor)
    }

    fn linked() -> Self {
        Self::linked_with(&[&version::TLS13])
    }

    fn linked_with(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let authority = Authority::new();
        let pair = Self::new(
            authority.tls("zk2", versions),
            authority.tls("zk1", versions),
        );
        let (dialer, _) = pair.shake_hands();
        assert!(dialer.unwrap());
        pair
    }
}

/// The reason in an error.
#[track_caller]
fn reason<T: std::fmt::Debug>(result: io::Result<T>) -> Reason {
    Reason::of_io(&result.unwrap_err())
}

/// Everything that can be read now.
fn read_all(stream: &TlsStream<End>) -> (Vec<u8>, io::Error) {
    let mut all = Vec::new();
    let mut buf = [0; 1000];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return (all, io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => all.extend(&buf[..n]),
            Err(error) => return (all, error),
        }
    }
}

#[test]
fn both_ends_prove_who_they_are() {
    for versions in [&[&version::TLS13], &[&version::TLS12]] {
        let pair = Pair::linked_with(versions);
        assert!(!pair.dialer.is_handshaking());
        assert_eq!(pair.dialer.write(&[IoSlice::new(b"hello")]).unwrap(), 5);
        let mut buf = [0; 64];
        assert_eq!(pair.acceptor.read(&mut buf).unwrap(), 5);
        assert!(!pair.acceptor.is_handshaking());
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(pair.dialer.identify(Sid(1)), Ok(Identity::Proved));
        assert_eq!(pair.acceptor.identify(Sid(2)), Ok(Identity::Proved));
        let wrong = TlsFailure::WrongName {
            sid: Sid(1),
            names: "zk2".to_owned(),
        };
        assert_eq!(pair.acceptor.identify(Sid(1)), Err(Reason::Tls(wrong)));
    }
}

#[test]
fn refused_dialer_is_never_connected() {
    for versions in [&[&version::TLS13], &[&version::TLS12]] {
        let (ours, theirs) = (Authority::new(), Authority::new());
        // The dialer believes the acceptor, but not the other way round.
        let pair = Pair::new(
            theirs.believing(&ours, "zk2", versions),
            ours.tls("zk1", versions),
        );
        let (dialer, acceptor) = pair.shake_hands();
        assert_eq!(reason(acceptor), Reason::Tls(TlsFailure::UnknownIssuer));
        let alert = TlsFailure::Alert("unknown_ca".to_owned());
        assert_eq!(reason(dialer), Reason::Tls(alert));
    }
}

#[test]
fn acceptor_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let versions = &[&version::TLS13];
    let pair = Pair::new(ours.tls("zk2", versions), theirs.tls("zk1", versions));
    let (dialer, acceptor) = pair.shake_hands();
    assert_eq!(reason(dialer), Reason::Tls(TlsFailure::UnknownIssuer));
    let alert = TlsFailure::Alert("unknown_ca".to_owned());
    assert_eq!(reason(acceptor), Reason::Tls(alert));
}

#[test]
fn dialer_does_not_wait_for_ever_for_a_ticket() {
    let authority = Authority::new();
    let versions = &[&version::TLS13];
    let no_ticket = {
        let tls = authority.tls("zk1", versions);
        let mut server = rustls::ServerConfig::clone(tls.server_config());
        server.send_tls13_tickets = 0;
        tls.with_server_config(server)
    };
    let time = Time::now();
    let pair = Pair::at(authority.tls("zk2", versions), no_ticket, &time);
    let (dialer, _) = pair.shake_hands();
    assert!(!dialer.unwrap() && pair.dialer.is_handshaking());
    let at = pair.dialer.connected_at().unwrap();
    time.pass(TLS_TICKET_WAIT - Duration::from_nanos(1));
    assert!(!pair.dialer.connected().unwrap());
    time.pass(Duration::from_nanos(1));
    assert_eq!(*time.0.lock().unwrap(), at);
    assert!(pair.dialer.connected().unwrap());
}

#[test]
fn refusal_that_comes_when_the_wait_for_the_ticket_ends_is_not_lost() {
    let (own, other, time) = (Authority::new(), Authority::new(), Time::now());
    let versions = &[&version::TLS13];
    let dialer = other.believing(&own, "zk2", versions);
    let pair = Pair::at(dialer, own.tls("zk1", versions), &time);
    let mut refused = Ok(0);
    while pair.dialer.connected_at().is_none() {
        assert!(!pair.dialer.connected().unwrap());
        refused = pair.acceptor.read(&mut [0; 64]);
    }
    assert_eq!(reason(refused), Reason::Tls(TlsFailure::UnknownIssuer));
    time.pass(TLS_TICKET_WAIT);
    let told = Reason::Tls(TlsFailure::Alert("unknown_ca".to_owned()));
    assert_eq!(reason(pair.dialer.connected()), told);
}

#[test]
fn plaintext_is_refused_or_accepted_by_its_first_byte() {
    let authority = Authority::new();
    let versions = &[&version::TLS13];
    let (plain, end) = pair();
    let tls = authority.tls("zk1", versions);
    let strict = TlsStream::accepted(end, common(tls.clone(), &Time::now()));
    plain.write(&[IoSlice::new(&[0xff; 9])]).unwrap();
    let refused = Reason::Tls(TlsFailure::Plaintext);
    assert_eq!(reason(strict.read(&mut [0; 64])), refused);

    let (plain, end) = pair();
    let shared = common(tls.clone().plaintext(Plaintext::Accept), &Time::now());
    let unified = TlsStream::accepted(end, Arc::clone(&shared));
    assert!(unified.is_handshaking());
    plain.write(&[IoSlice::new(b"\xff plain")]).unwrap();
    assert_eq!(read_all(&unified).0, b"\xff plain");
    assert!(!unified.is_handshaking());
    assert_eq!(unified.identify(Sid(2)), Ok(Identity::Claimed));
    // After a reload that requires TLS, it is not enough any more.
    shared.set_context(Arc::new(shared.context().with(tls)));
    assert_eq!(unified.identify(Sid(2)), Err(refused));
}

#[test]
fn dialer_that_is_answered_in_the_clear_says_so() {
    let authority = Authority::new();
    let (a, plain) = pair();
    let shared = common(authority.tls("zk2", &[&version::TLS13]), &Time::now());
    let dialer = TlsStream::dialed(a, HERE, shared);
    assert!(!dialer.connected().unwrap());
    plain
        .write(&[IoSlice::new(b"HTTP/1.1 400 Bad Request")])
        .unwrap();
    assert_eq!(
        reason(dialer.connected()),
        Reason::Tls(TlsFailure::Plaintext)
    );
}

#[test]
fn links_are_judged_again_after_a_reload() {
    let pair = Pair::linked();
    let others = Authority::new();
    let newer = others.tls("zk1", &[&version::TLS13]);
    let context = pair.acceptor_common.context().with(newer);
    pair.acceptor_common.set_context(Arc::new(context));
    let refused = Reason::Tls(TlsFailure::UnknownIssuer);
    assert_eq!(pair.acceptor.identify(Sid(2)), Err(refused));
    assert_eq!(pair.dialer.identify(Sid(1)), Ok(Identity::Proved));
}

#[test]
fn error_behind_plaintext_is_returned_by_the_next_read() {
    let pair = Pair::linked();
    pair.dialer.write(&[IoSlice::new(b"last")]).unwrap();
    // A record that nobody has encrypted.
    let record = [0x17, 3, 3, 0, 20];
    pair.dialer
        .socket()
        .write(&[IoSlice::new(&record)])
        .unwrap();
    pair.dialer
        .socket()
        .write(&[IoSlice::new(&[0; 20])])
        .unwrap();
    let mut buf = [0; 64];
    assert_eq!(pair.acceptor.read(&mut buf).unwrap(), 4);
    assert!(pair.acceptor.has_more());
    let Reason::Tls(TlsFailure::Protocol(_)) = reason(pair.acceptor.read(&mut buf)) else {
        panic!("another reason");
    };
}

/// Only the beginning of a connection tells which language the far end speaks.
#[test]
fn garbage_on_a_link_is_no_plaintext() {
    let pair = Pair::linked();
    let socket = pair.dialer.socket();
    pair.acceptor.read(&mut [0; 64]).unwrap_err();
    socket.write(&[IoSlice::new(b"HTTP/1.1")]).unwrap();
    let Reason::Tls(TlsFailure::Protocol(_)) = reason(pair.acceptor.read(&mut [0; 64])) else {
        panic!("another reason");
    };
}

#[test]
fn garbage_after_the_own_end_is_an_error() {
    let pair = Pair::linked();
    let _ = read_all(&pair.acceptor);
    pair.dialer.shutdown(Shutdown::Write).unwrap();
    let socket = pair.acceptor.socket();
    socket.write(&[IoSlice::new(&[0x17, 3, 3, 0, 20])]).unwrap();
    socket.write(&[IoSlice::new(&[0; 20])]).unwrap();
    let refused = reason(pair.dialer.read(&mut [0; 64]));
    assert!(
        matches!(refused, Reason::Tls(TlsFailure::Protocol(_))),
        "{refused}"
    );
}

/// Else a read would take them for as long as they come.
#[test]
fn too_many_records_without_data_are_refused() {
    let authority = Authority::new();
    let versions = &[&version::TLS13];
    let tls = authority.tls("zk1", versions);
    let mut server = rustls::ServerConfig::clone(tls.server_config());
    server.enable_secret_extraction = true;
    let acceptor = tls.with_server_config(server);
    let pair = Pair::new(authority.tls("zk2", versions), acceptor);
    assert!(pair.shake_hands().0.unwrap());
    // A lifetime of a second, an age of 0, a nonce, a ticket, and no extension (RFC 8446, section 4.6.1).
    const TICKET: &[u8] = &[4, 0, 0, 15, 0, 0, 0, 1, 0, 0, 0, 0, 1, 7, 0, 1, 9, 0, 0];
    // rustls writes none later than in the handshake.
    let connection = pair.acceptor.take_connection().unwrap();
    let suite = connection.negotiated_cipher_suite().unwrap();
    let (mut number, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
    let rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
        panic!("another suite");
    };
    let mut encrypter = suite.tls13().unwrap().aead_alg.encrypter(key, iv);
    let mut record = || {
        let ticket = OutboundPlainMessage {
            typ: rustls::ContentType::Handshake,
            version: rustls::ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(TICKET),
        };
        number += 1;
        let record = encrypter.encrypt(ticket, number - 1).unwrap();
        record.encode()
    };
    let socket = pair.acceptor.socket();
    socket.write(&[IoSlice::new(&record())]).unwrap();
    let waits = pair.dialer.read(&mut [0; 8192]).unwrap_err();
    assert_eq!(waits.kind(), io::ErrorKind::WouldBlock);
    let many: Vec<u8> = (0..=TLS_OVERHEAD_BYTES_MAX / 22)
        .flat_map(|_| record())
        .collect();
    socket.write(&[IoSlice::new(&many)]).unwrap();
    let refused = reason(pair.dialer.read(&mut [0; 8192]));
    assert!(
        matches!(refused, Reason::Tls(TlsFailure::Protocol(_))),
        "{refused}"
    );
}

#[test]
fn record_that_is_too_long_is_refused() {
    let pair = Pair::linked();
    let len = (TLS_RECORD_BYTES + 257) as u16;
    let [high, low] = len.to_be_bytes();
    pair.dialer
        .socket()
        .write(&[IoSlice::new(&[0x17, 3, 3, high, low])])
        .unwrap();
    let body = vec![0; len.into()];
    pair.dialer.socket().write(&[IoSlice::new(&body)]).unwrap();
    let Reason::Tls(TlsFailure::Protocol(_)) = reason(pair.acceptor.read(&mut [0; 64])) else {
        panic!("another reason");
    };
}

#[test]
fn close_is_the_end_and_needs_no_answer() {
    let pair = Pair::linked();
    pair.dialer.write(&[IoSlice::new(b"last")]).unwrap();
    pair.dialer.shutdown(Shutdown::Write).unwrap();
    let (bytes, error) = read_all(&pair.acceptor);
    assert_eq!(
        (&bytes[..], error.kind()),
        (&b"last"[..], io::ErrorKind::UnexpectedEof)
    );
}

/// As `SSLSocket.shutdownOutput` of Java does.
#[test]
fn close_of_tls_alone_is_the_end() {
    for (frame, versions) in [
        (&b"last"[..], [&version::TLS13]),
        (b"last", [&version::TLS12]),
        (b"", [&version::TLS13]),
    ] {
        let pair = Pair::linked_with(&versions);
        pair.dialer.socket().sends.lock().unwrap().stays_open = true;
        if !frame.is_empty() {
            pair.dialer.write(&[IoSlice::new(frame)]).unwrap();
        }
        pair.dialer.shutdown(Shutdown::Both).unwrap();
        let mut buf = [0; 64];
        if !frame.is_empty() {
            assert_eq!(pair.acceptor.read(&mut buf).unwrap(), frame.len());
            // The socket does not report it again.
            assert!(pair.acceptor.has_more());
        }
        assert_eq!(pair.acceptor.read(&mut buf).unwrap(), 0);
    }
}

#[test]
fn tls_1_2_link_is_worn_before_its_keys_are_used_up() {
    let pair = Pair::linked_with(&[&version::TLS12]);
    pair.dialer.set_token(7);
    let mut ready = Vec::new();
    // One less than makes it worn: the initial message is not sent here.
    pair.dialer.set_records(TLS_RENEWED_EVERY_RECORDS - 2);
    pair.dialer.write(&[IoSlice::new(b"x")]).unwrap();
    pair.dialer_common.worn.report(&mut ready);
    assert_eq!(ready, []);
    pair.dialer.write(&[IoSlice::new(b"x")]).unwrap();
    pair.dialer_common.worn.report(&mut ready);
    assert_eq!(ready, [Ready::Worn(7)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Frames through a socket that takes a few bytes at a time, and an outbox that offers again what was not reported.
    #[test]
    fn bytes_arrive_once_and_count_when_they_have_left(
        lens in proptest::collection::vec(1usize..40_000, 1..6),
        rooms in proptest::collection::vec(1usize..30_000, 1..40),
        parts in 1usize..4,
    ) {
        let pair = Pair::linked();
        let sent: Vec<u8> = (0..lens.iter().sum()).map(|n: usize| (n % 251) as u8).collect();
        let (mut from, mut received) = (0, Vec::new());
        let mut rooms = rooms.iter().cycle();
        let socket = pair.dialer.socket();
        for len in lens {
            let end = from + len;
            while from < end {
                let frame = &sent[from..end];
                let slices: Vec<_> =
                    frame.chunks(frame.len().div_ceil(parts)).map(IoSlice::new).collect();
                socket.sends.lock().unwrap().room = *rooms.next().unwrap();
                match pair.dialer.write(&slices) {
                    Ok(n) => from += n,
                    Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                if from == end {
                    // Reported: the system has all of it, so that the far end can read it.
                    received.extend(read_all(&pair.acceptor).0);
                    prop_assert!(received.len() >= end);
                }
            }
        }
        prop_assert_eq!(received, sent);
    }
}
