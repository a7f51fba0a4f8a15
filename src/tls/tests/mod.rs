//! Handshakes in memory, and what becomes of each certificate that should not be accepted.

mod certificates;
mod configurations;
mod names;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConnection, Connection, ProtocolVersion, ServerConnection,
    pki_types::{CertificateDer, UnixTime},
    version::{TLS12, TLS13},
};

use super::{
    Identities, PeerName, Plaintext, Tls, failure_of,
    fixture::{Ca, Own, ca_params, common_name, params, provider},
};
use crate::{
    error::ConfigError,
    proto::{Sid, TlsFailure},
};

/// Server 1 is `zk1.example`, and so on.
fn identities() -> Identities {
    let names = |number: i64| vec![PeerName::Dns(format!("zk{number}.example"))];
    let given = (1..=3).map(|number| (Sid(number), names(number)));
    Identities::new([], &given.collect(), false).unwrap()
}

fn tls(own: &Own, roots: &[&CertificateDer<'static>]) -> Tls {
    let roots = roots.iter().map(|root| (*root).clone());
    Tls::builder(provider(), own.certified_key(), roots)
        .build()
        .unwrap()
}

type Chain = Vec<CertificateDer<'static>>;

/// What a handshake has come to at one end: the certificates of the other one, or the failure.
type End = Result<Chain, TlsFailure>;

fn connect(dialer: &Tls, acceptor: &Tls) -> (Connection, Connection) {
    let name = IpAddr::from([127, 0, 0, 1]).into();
    let client = ClientConnection::new(Arc::clone(dialer.client_config()), name).unwrap();
    let server = ServerConnection::new(Arc::clone(acceptor.server_config())).unwrap();
    (client.into(), server.into())
}

/// Carries bytes in both directions until there are none, and returns the failures.
fn exchange(ends: &mut (Connection, Connection)) -> [Option<TlsFailure>; 2] {
    fn carry(from: &mut Connection, to: &mut Connection) -> (bool, Option<TlsFailure>) {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let (mut rest, mut failure) = (&bytes[..], None);
        while !rest.is_empty() && failure.is_none() {
            to.read_tls(&mut rest).unwrap();
            failure = to
                .process_new_packets()
                .err()
                .map(|error| failure_of(&error));
        }
        (!bytes.is_empty(), failure)
    }
    let mut failures = [None, None];
    loop {
        let (to_server, at_server) = carry(&mut ends.0, &mut ends.1);
        let (to_client, at_client) = carry(&mut ends.1, &mut ends.0);
        failures[0] = failures[0].take().or(at_client);
        failures[1] = failures[1].take().or(at_server);
        if !to_server && !to_client {
            return failures;
        }
    }
}

fn handshake(dialer: &Tls, acceptor: &Tls) -> (End, End) {
    let mut ends = connect(dialer, acceptor);
    let [at_client, at_server] = exchange(&mut ends);
    let end = |connection: &Connection, failure: Option<TlsFailure>| match failure {
        Some(failure) => Err(failure),
        None => {
            assert!(!connection.is_handshaking());
            let chain = connection.peer_certificates().unwrap_or_default();
            Ok(chain.iter().map(|one| one.clone().into_owned()).collect())
        }
    };
    (end(&ends.0, at_client), end(&ends.1, at_server))
}

/// What happens to this certificate in both directions: as a dialer that claims to be server 1, and as the server that was dialed
/// as 1.
fn fate(ca: &Ca, own: &Own) -> Result<(), TlsFailure> {
    let (good, shown) = (
        tls(&ca.names(&["zk2.example"]), &[&ca.root]),
        tls(own, &[&ca.root]),
    );
    let judge = |end: End| identities().check(Sid(1), &end?);
    let accepted = judge(handshake(&shown, &good).1);
    let dialed = judge(handshake(&good, &shown).0);
    assert_eq!(accepted, dialed, "both directions agree");
    dialed
}

fn wrong_name(names: &str) -> Result<(), TlsFailure> {
    Err(TlsFailure::WrongName {
        sid: Sid(1),
        names: names.to_owned(),
    })
}
