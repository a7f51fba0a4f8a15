//! Both ends of a connection in memory, whose buffers the tests change.

mod handshakes;
mod records;

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
