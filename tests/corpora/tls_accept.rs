//! Target `tls_accept`: the first bytes of a connection to a server that speaks TLS.
//!
//! The first byte decides. Where plaintext is accepted, what does not begin as TLS has the same effect as without TLS. Nobody gets
//! further without a certificate.

use std::{net::SocketAddr, sync::LazyLock};

use quorum_cnx::{
    Config, Dial, Event, Plaintext, Reason, Sid, TlsFailure,
    rustls::{ALL_VERSIONS, sign::CertifiedKey},
    simulation::TlsNet,
};

use crate::{
    certificates::{own, tls},
    net::{OWN_ADDRESS, Remote, Reported},
};

/// The first byte of a TLS connection.
const HANDSHAKE_RECORD: u8 = 0x16;

static OWN: LazyLock<CertifiedKey> = LazyLock::new(|| own("zk5.example"));

pub(crate) fn check(bytes: &[u8]) {
    let (flags, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let piece = [1, 9, 100, usize::MAX][usize::from(flags & 3)];
    let plain = run(None, bytes, piece);
    let unified = run(Some(Plaintext::Accept), bytes, piece);
    let strict = run(Some(Plaintext::Refuse), bytes, piece);
    match bytes.first() {
        Some(&HANDSHAKE_RECORD) | None => {
            assert_eq!(unified, strict, "the same, if it is no plaintext");
            for reported in [&unified, &strict] {
                let is_refusal = |reported: &Reported| {
                    matches!(reported, Reported::Event(Event::Rejected { sid: None, .. }))
                };
                assert!(
                    reported.len() == 1 && is_refusal(&reported[0]),
                    "{reported:?}"
                );
            }
        }
        Some(_) => {
            assert_eq!(unified, plain, "the same as without TLS");
            let refused = Reason::Tls(TlsFailure::Plaintext);
            let is_refused = |reported: &Reported| matches!(reported, Reported::Event(Event::Rejected { reason, .. }) if *reason == refused);
            assert!(strict.len() == 1 && is_refused(&strict[0]), "{strict:?}");
        }
    }
}

/// What a server reports that gets these bytes, in pieces, and then the end.
fn run(plaintext: Option<Plaintext>, bytes: &[u8], piece: usize) -> Vec<Reported> {
    let mut builder = Config::builder(Sid(5))
        .server(Sid(5), OWN_ADDRESS)
        .server(Sid(9), "10.0.0.9:3888")
        .dial(Dial::OnDemand)
        .seed(1);
    if let Some(plaintext) = plaintext {
        builder = builder.tls(tls(&OWN, ALL_VERSIONS).plaintext(plaintext));
    }
    let config = builder.build().expect("the configuration is valid");
    let (mut remote, mut event_loop) = Remote::start_on(config, TlsNet::new);
    let connection = remote.arrive(SocketAddr::from(([10, 0, 0, 9], 1)));
    for piece in bytes.chunks(piece) {
        remote.send(connection, piece);
        remote.turn(&mut event_loop);
    }
    // Fails if the loop has ended the connection.
    let _ = remote.get(connection).end.shutdown_write();
    for _ in 0..4 {
        remote.turn(&mut event_loop);
    }
    assert!(
        remote.get(connection).end.is_closed(),
        "the far end has closed it"
    );
    let stats = event_loop.handle().stats();
    assert!(stats.balances(), "{stats:?}");
    event_loop.handler().reported.clone()
}
