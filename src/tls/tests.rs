//! Handshakes in memory, and what becomes of each certificate that should not be accepted.

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

#[test]
fn members_own_certificate_is_accepted() {
    let ca = Ca::new("CA");
    assert_eq!(fate(&ca, &ca.names(&["zk1.example"])), Ok(()));
    let many = ca.names(&["10.0.0.1", "other", "ZK1.Example.", "spiffe://example/zk"]);
    assert_eq!(fate(&ca, &many), Ok(()));
}

#[test]
fn certificate_of_another_ca_is_refused() {
    let (ca, other) = (Ca::new("CA"), Ca::new("other CA"));
    // Neither another name of the CA nor the same one helps.
    for stranger in [other, Ca::new("CA")] {
        let own = stranger.names(&["zk1.example"]);
        let failure = fate(&ca, &own).unwrap_err();
        let is_expected = match &failure {
            TlsFailure::UnknownIssuer => true,
            TlsFailure::BadCertificate(why) => why == "a signature is wrong",
            _ => false,
        };
        assert!(is_expected, "{failure:?}");
    }
}

#[test]
fn certificate_outside_its_validity_is_refused() {
    let ca = Ca::new("CA");
    let mut expired = params(&["zk1.example"]);
    expired.not_after = date_time_ymd(2025, 1, 1);
    assert_eq!(fate(&ca, &ca.sign(&expired)), Err(TlsFailure::Expired));
    let mut early = params(&["zk1.example"]);
    early.not_before = date_time_ymd(3000, 1, 1);
    assert_eq!(fate(&ca, &ca.sign(&early)), Err(TlsFailure::NotYetValid));
}

#[test]
fn revoked_certificate_is_refused() {
    let ca = Ca::new("CA");
    let numbered = |serial: u8| {
        let mut params = params(&["zk1.example"]);
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        ca.sign(&params)
    };
    let builder = |root: &Ca| {
        let own = ca.names(&["zk2.example"]).certified_key();
        Tls::builder(provider(), own, [root.root.clone()])
    };
    // The time of its next update has passed, but what it has revoked stays so.
    let good = builder(&ca).crls([ca.revoke(7)]).build().unwrap();
    for (serial, expected) in [(7, Err(TlsFailure::Revoked)), (8, Ok(()))] {
        let shown = tls(&numbered(serial), &[&ca.root]);
        let ends = [handshake(&shown, &good).1, handshake(&good, &shown).0];
        for end in ends {
            assert_eq!(end.map(drop), expected, "serial number {serial}");
        }
    }
    // A list of another CA says nothing about it.
    let other = Ca::new("other CA").revoke(7);
    let good = builder(&ca).crls([other]).build().unwrap();
    let failure = handshake(&tls(&numbered(8), &[&ca.root]), &good)
        .1
        .unwrap_err();
    assert!(
        failure.to_string().contains("no CRL of its issuer"),
        "{failure}"
    );
}

#[test]
fn valid_certificate_of_another_server_is_refused() {
    let ca = Ca::new("CA");
    for (names, said) in [
        (&["zk3.example"][..], "zk3.example"),
        (
            &["stranger.example", "10.0.0.9"],
            "stranger.example, 10.0.0.9",
        ),
        (
            &["zk1.example.org", "xzk1.example"],
            "zk1.example.org, xzk1.example",
        ),
        (&["*.example"], "*.example"),
        (&["zk1.example\0.evil"], "zk1.example\\u{0}.evil"),
        (&["zk1.example\0"], "zk1.example\\u{0}"),
        (&[" zk1.example"], " zk1.example"),
        (&["zk1.example.."], "zk1.example.."),
        (&["spiffe://zk1.example/"], "spiffe://zk1.example/"),
    ] {
        assert_eq!(fate(&ca, &ca.names(names)), wrong_name(said));
    }
}

#[test]
fn common_name_counts_only_alone() {
    let ca = Ca::new("CA");
    for (name, alternatives, expected) in [
        ("zk1.example", &[][..], Ok(())),
        ("ZK1.example", &[], Ok(())),
        ("zk2.example", &[], wrong_name("zk2.example")),
        ("*.example", &[], wrong_name("*.example")),
        ("zk1.example\0", &[], wrong_name("zk1.example\\u{0}")),
        ("zk1.example", &["zk3.example"], wrong_name("zk3.example")),
        ("zk1.example", &["10.0.0.1"], wrong_name("10.0.0.1")),
        ("zk1.example", &["spiffe://a/b"], wrong_name("spiffe://a/b")),
    ] {
        let own = ca.sign(&common_name(name, alternatives));
        assert_eq!(fate(&ca, &own), expected, "{name:?} {alternatives:?}");
    }
    let mut two = common_name("zk1.example", &[]);
    two.distinguished_name
        .push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]), "zk2.example");
    assert_eq!(fate(&ca, &ca.sign(&two)), wrong_name(""), "two of them");
}

#[test]
fn dialer_without_a_certificate_is_refused() {
    let ca = Ca::new("CA");
    let good = tls(&ca.names(&["zk2.example"]), &[&ca.root]);
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_root_certificates({
            let mut roots = rustls::RootCertStore::empty();
            roots.add(ca.root.clone()).unwrap();
            roots
        })
        .with_no_client_auth();
    // The dialer is a client that verifies names, so that the server must have the address that is dialed.
    let server = tls(&ca.names(&["zk2.example", "127.0.0.1"]), &[&ca.root]);
    let none = Tls::from_configs(Arc::new(client), Arc::clone(good.server_config()));
    let (at_dialer, at_acceptor) = handshake(&none, &server);
    assert_eq!(at_acceptor, Err(TlsFailure::NoCertificate));
    assert_eq!(
        at_dialer,
        Err(TlsFailure::Alert("certificate_required".to_owned()))
    );
    assert_eq!(
        identities().check(Sid(1), &[]),
        Err(TlsFailure::NoCertificate)
    );
}

#[test]
fn dialer_hears_by_alert_that_it_is_refused() {
    let (ca, other) = (Ca::new("CA"), Ca::new("other CA"));
    let good = tls(&ca.names(&["zk2.example"]), &[&ca.root]);
    let stranger = tls(&other.names(&["zk1.example"]), &[&ca.root]);
    let (at_dialer, _) = handshake(&stranger, &good);
    assert_eq!(at_dialer, Err(TlsFailure::Alert("unknown_ca".to_owned())));
}

#[test]
fn extended_key_usage_is_absent_or_has_both() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let ca = Ca::new("CA");
    let good = tls(&ca.names(&["zk2.example"]), &[&ca.root]);
    for (usages, accepted, dialed) in [
        (vec![ServerAuth, ClientAuth], true, true),
        (vec![ServerAuth], false, true),
        (vec![ClientAuth], true, false),
    ] {
        let mut params = params(&["zk1.example"]);
        params.extended_key_usages = usages;
        let shown = tls(&ca.sign(&params), &[&ca.root]);
        let ends = [
            (handshake(&shown, &good).1, accepted),
            (handshake(&good, &shown).0, dialed),
        ];
        for (end, expected) in ends {
            assert_eq!(end.is_ok(), expected, "{end:?}");
            if let Err(failure) = end {
                assert!(
                    failure.to_string().contains("extended key usage"),
                    "{failure}"
                );
            }
        }
    }
}

#[test]
fn certificates_of_an_intermediate_ca_are_accepted() {
    let ca = Ca::new("CA");
    let middle_params = ca_params("intermediate CA");
    let middle = ca.sign(&middle_params);
    let key = KeyPair::generate().unwrap();
    let leaf = |issuer: &Issuer<'_, &KeyPair>| {
        let certificate = params(&["zk1.example"]).signed_by(&key, issuer).unwrap();
        certificate.der().clone()
    };
    let issuer = Issuer::from_params(&middle_params, &middle.key);
    let own = Own {
        chain: vec![leaf(&issuer), middle.chain[0].clone()],
        key: KeyPair::try_from(key.serialize_der()).unwrap(),
        pem: String::new(),
    };
    assert_eq!(fate(&ca, &own), Ok(()));
    // A server is no CA, and cannot vouch for another one.
    let server_params = params(&["zk3.example"]);
    let server = ca.sign(&server_params);
    let issuer = Issuer::from_params(&server_params, &server.key);
    let own = Own {
        chain: vec![leaf(&issuer), server.chain[0].clone()],
        key: KeyPair::try_from(key.serialize_der()).unwrap(),
        pem: String::new(),
    };
    let failure = fate(&ca, &own).unwrap_err();
    assert!(
        failure.to_string().contains("EndEntityUsedAsCa"),
        "{failure}"
    );
}

/// As in ZooKeeper's manual: each server signs its own certificate, and all of them are in the trust store.
#[test]
fn self_signed_certificates_are_believed_for_themselves_only() {
    let signed = |number: i64| {
        let params = common_name(&format!("zk{number}.example"), &[]);
        (Own::self_signed(&params), params)
    };
    let ((one, _), (two, two_params), (three, _)) = (signed(1), signed(2), signed(3));
    let roots = [&one.chain[0], &two.chain[0], &three.chain[0]];
    let good = tls(&one, &roots);
    let shown = tls(&two, &roots);
    for end in [handshake(&shown, &good).1, handshake(&good, &shown).0] {
        let chain = end.unwrap();
        assert_eq!(identities().check(Sid(2), &chain), Ok(()));
        assert!(identities().check(Sid(3), &chain).is_err());
    }
    // Server 2 makes itself a certificate for server 3.
    let issuer = Issuer::from_params(&two_params, &two.key);
    let key = KeyPair::generate().unwrap();
    let forged = params(&["zk3.example"]).signed_by(&key, &issuer).unwrap();
    let forged = Own {
        chain: vec![forged.der().clone()],
        key,
        pem: forged.pem(),
    };
    let shown = tls(&forged, &roots);
    for end in [handshake(&shown, &good).1, handshake(&good, &shown).0] {
        assert_eq!(end, Err(TlsFailure::UnknownIssuer));
    }
}

#[test]
fn key_pins_spiffe_ids_and_ip_addresses_are_compared_exactly() {
    let ca = Ca::new("CA");
    let check = |name: &str, own: &Own, wildcards: bool| {
        let given = BTreeMap::from([(Sid(1), vec![name.parse().unwrap()])]);
        let identities = Identities::new([], &given, wildcards).unwrap();
        identities.check(Sid(1), &own.chain).is_ok()
    };
    let spiffe = ca.names(&["spiffe://example/zk/1", "zk1.example"]);
    assert!(check("spiffe://example/zk/1", &spiffe, false));
    assert!(!check("spiffe://example/zk/2", &spiffe, false));
    assert!(!check("spiffe://example/zk/1/", &spiffe, false));
    assert!(!check("spiffe://Example/zk/1", &spiffe, false));
    let two = ca.names(&["spiffe://example/zk/1", "https://zk1.example/"]);
    assert!(!check("spiffe://example/zk/1", &two, false), "not an SVID");
    assert!(check("https://zk1.example/", &two, false));

    for (name, alternative, expected) in [
        ("2001:db8::1", "2001:0db8:0::0:1", true),
        ("2001:db8::1", "2001:db8::2", false),
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "::ffff:10.0.0.1", true),
        ("::ffff:10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "::10.0.0.1", false),
        ("10.0.0.1", "10.0.0.10", false),
    ] {
        let own = ca.names(&[alternative]);
        assert_eq!(check(name, &own, false), expected, "{name} {alternative}");
    }
    let text = Own::self_signed(&{
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::DnsName("10.0.0.1".try_into().unwrap())];
        params
    });
    assert!(!check("10.0.0.1", &text, false), "a DNS name is no address");
    let alone = ca.sign(&common_name("10.0.0.1", &[]));
    assert!(check("10.0.0.1", &alone, false));

    let own = ca.names(&["zk1.example"]);
    let digest = hash_of_key(&own);
    let pin = PeerName::SpkiSha256(digest).to_string();
    assert!(check(&pin, &own, false));
    assert!(!check(&pin, &ca.names(&["zk1.example"]), false));

    let wild = ca.names(&["*.b.example"]);
    for (name, expected) in [
        ("a.b.example", true),
        ("b.example", false),
        ("c.a.b.example", false),
        ("a.c.example", false),
    ] {
        assert_eq!(check(name, &wild, true), expected, "{name}");
        assert!(!check(name, &wild, false), "{name}");
    }
    assert!(
        !check("b.example", &ca.names(&["*.example"]), true),
        "all of a TLD"
    );
    assert!(!check("ab.c.example", &ca.names(&["a*.c.example"]), true));
    assert!(!check(
        "a.b.example",
        &ca.sign(&common_name("*.b.example", &[])),
        true
    ));
}

/// The hash of the key as `openssl` computes it: over the DER of the public key.
fn hash_of_key(own: &Own) -> [u8; 32] {
    use rcgen::PublicKeyData as _;
    use sha2::Digest as _;
    sha2::Sha256::digest(own.key.subject_public_key_info()).into()
}

#[test]
fn observers_and_admitted_servers_need_names_of_their_own() {
    let ca = Ca::new("CA");
    let own = |name: &str| ca.names(&[name]).chain;
    let plain = identities();
    for sid in [Sid::OBSERVER, Sid(-1), Sid(-9), Sid(9)] {
        assert!(plain.check(sid, &own("zk1.example")).is_err(), "{sid}");
        assert!(!plain.has_names(sid));
    }
    let names = |text: &str| vec![PeerName::Dns(text.to_owned())];
    let given = BTreeMap::from([
        (Sid(9), names("zk9.example")),
        (Sid::OBSERVER, names("watcher.example")),
    ]);
    let identities = Identities::new([], &given, false).unwrap();
    for sid in [Sid::OBSERVER, Sid(-1), Sid(-9)] {
        assert_eq!(identities.check(sid, &own("watcher.example")), Ok(()));
        assert!(identities.check(sid, &own("zk9.example")).is_err());
    }
    assert_eq!(identities.check(Sid(9), &own("zk9.example")), Ok(()));
    assert!(identities.check(Sid(9), &own("watcher.example")).is_err());
}

#[test]
fn server_that_leaves_has_its_names_until_another_server_gets_them() {
    let ca = Ca::new("CA");
    let own = |sid: i64| ca.names(&[&format!("zk{sid}.example")]).chain;
    let step = |older: &Identities, left: &[i64], given: &[(i64, &str)]| {
        let name = |name: &str| vec![PeerName::Dns(name.to_owned())];
        let given = given.iter().map(|(sid, text)| (Sid(*sid), name(text)));
        let left: Vec<Sid> = left.iter().copied().map(Sid).collect();
        older.with_members([], given.collect(), &left).unwrap()
    };
    let left = step(&identities(), &[2, 3], &[]);
    for sid in 1..=3 {
        assert_eq!(left.check(Sid(sid), &own(sid)), Ok(()));
    }
    let taken = step(&left, &[], &[(4, "zk2.example")]);
    assert!(taken.check(Sid(2), &own(2)).is_err());
    assert_eq!(taken.check(Sid(4), &own(2)), Ok(()));
    assert_eq!(taken.check(Sid(3), &own(3)), Ok(()));
    let gone = taken.without(Sid(3)).unwrap();
    assert!(gone.check(Sid(3), &own(3)).is_err());
    assert_eq!(gone.without(Sid(3)), None);
    // One that comes back has no name but those that are given for it now.
    let back = step(&left, &[], &[(3, "zk9.example")]);
    assert!(back.check(Sid(3), &own(3)).is_err());
    assert_eq!(back.without(Sid(3)), None);
}

#[test]
fn live_link_is_checked_again_after_a_reload() {
    let (ca, other) = (Ca::new("CA"), Ca::new("other CA"));
    let mut numbered = params(&["zk1.example"]);
    numbered.serial_number = Some(SerialNumber::from_slice(&[7]));
    numbered.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    numbered.not_before = date_time_ymd(2026, 1, 1);
    numbered.not_after = date_time_ymd(2027, 1, 1);
    let chain = ca.sign(&numbered).chain;
    let own = ca.names(&["zk2.example"]);
    let at = |year: i32| {
        let seconds = date_time_ymd(year, 6, 1).unix_timestamp();
        UnixTime::since_unix_epoch(Duration::from_secs(seconds.unsigned_abs()))
    };
    let builder = |root: &Ca| Tls::builder(provider(), own.certified_key(), [root.root.clone()]);
    let same = builder(&ca).build().unwrap();
    let revoking = builder(&ca).crls([ca.revoke(7)]).build().unwrap();
    let moved = builder(&other).build().unwrap();
    let foreign = Tls::from_configs(
        Arc::clone(same.client_config()),
        Arc::clone(same.server_config()),
    );
    for (tls, sid, year, expected) in [
        (&same, 1, 2026, Ok(())),
        (&same, 1, 2027, Err(TlsFailure::Expired)),
        (&same, 1, 2025, Err(TlsFailure::NotYetValid)),
        (&revoking, 1, 2026, Err(TlsFailure::Revoked)),
        (&moved, 1, 2026, Err(TlsFailure::UnknownIssuer)),
        (&foreign, 1, 2026, Ok(())),
        (&foreign, 1, 2027, Err(TlsFailure::Expired)),
        (&foreign, 1, 2025, Err(TlsFailure::NotYetValid)),
    ] {
        let found = identities().recheck(tls, Sid(sid), &chain, at(year));
        assert_eq!(found, expected, "in {year}");
    }
    for tls in [&same, &foreign] {
        let found = identities().recheck(tls, Sid(3), &chain, at(2026));
        assert!(matches!(found, Err(TlsFailure::WrongName { .. })));
        let found = identities().recheck(tls, Sid(3), &[], at(2026));
        assert_eq!(found, Err(TlsFailure::NoCertificate));
    }
}

#[test]
fn one_ticket_is_sent_and_no_session_is_resumed() {
    let ca = Ca::new("CA");
    let (one, two) = (ca.names(&["zk1.example"]), ca.names(&["zk2.example"]));
    let (dialer, acceptor) = (tls(&one, &[&ca.root]), tls(&two, &[&ca.root]));
    let mut ends = connect(&dialer, &acceptor);
    assert_eq!(exchange(&mut ends), [None, None]);
    assert_eq!(ends.0.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let Connection::Client(client) = &ends.0 else {
        panic!("the dialer is the client")
    };
    assert_eq!(client.tls13_tickets_received(), 1);
    // A dialer of another kind that tries to resume must show its certificate again.
    let mut eager = (**dialer.client_config()).clone();
    eager.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let eager = Arc::new(eager);
    for _ in 0..2 {
        let name = IpAddr::from([127, 0, 0, 1]).into();
        let client = ClientConnection::new(Arc::clone(&eager), name).unwrap();
        let server = ServerConnection::new(Arc::clone(acceptor.server_config())).unwrap();
        let mut ends = (client.into(), server.into());
        assert_eq!(exchange(&mut ends), [None, None]);
        let kind = ends.1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn tls12_prefers_keys_that_last() {
    let ca = Ca::new("CA");
    let own = ca.names(&["zk1.example"]);
    let build = || Tls::builder(provider(), own.certified_key(), [ca.root.clone()]);
    let new = build().build().unwrap();
    let old = build().protocol_versions(&[&TLS12]).build().unwrap();
    // A client that would rather use AES, as ring itself.
    let foreign = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(super::trust::ChainVerifier(Arc::new(
            super::trust::Trust::new(&provider(), std::slice::from_ref(&ca.root), &[]).unwrap(),
        ))))
        .with_client_cert_resolver(Arc::clone(&old.client_config().client_auth_cert_resolver));
    let foreign = Tls::from_configs(Arc::new(foreign), Arc::clone(old.server_config()));
    for (dialer, acceptor) in [(&old, &new), (&new, &old), (&foreign, &new)] {
        let mut ends = connect(dialer, acceptor);
        assert_eq!(exchange(&mut ends), [None, None]);
        assert_eq!(ends.0.protocol_version(), Some(ProtocolVersion::TLSv1_2));
        let suite = ends.0.negotiated_cipher_suite().unwrap();
        let name = format!("{:?}", suite.suite());
        assert!(name.ends_with("CHACHA20_POLY1305_SHA256"), "{name}");
    }
}

#[test]
fn versions_without_a_common_one_are_reported() {
    let ca = Ca::new("CA");
    let own = ca.names(&["zk1.example"]);
    let build = || Tls::builder(provider(), own.certified_key(), [ca.root.clone()]);
    let old = build().protocol_versions(&[&TLS12]).build().unwrap();
    let new = build().protocol_versions(&[&TLS13]).build().unwrap();
    let (at_dialer, at_acceptor) = handshake(&old, &new);
    assert!(
        matches!(at_acceptor, Err(TlsFailure::Protocol(_))),
        "{at_acceptor:?}"
    );
    assert_eq!(
        at_dialer,
        Err(TlsFailure::Alert("protocol_version".to_owned()))
    );
}

#[test]
fn plaintext_is_told_apart() {
    let ca = Ca::new("CA");
    let good = tls(&ca.names(&["zk1.example"]), &[&ca.root]);
    let (mut client, _) = connect(&good, &good);
    client
        .read_tls(&mut &b"HTTP/1.1 400 Bad Request\r\n"[..])
        .unwrap();
    let error = client.process_new_packets().unwrap_err();
    assert_eq!(failure_of(&error), TlsFailure::Plaintext);
    let modes = [
        (Plaintext::Refuse, false, true),
        (Plaintext::Accept, true, true),
        (Plaintext::Dial, true, false),
    ];
    for (plaintext, accepts, dials) in modes {
        let tls = good.clone().plaintext(plaintext);
        assert_eq!((tls.accepts_plain(), tls.dials_tls()), (accepts, dials));
    }
}

#[test]
fn unusable_parts_are_refused_with_a_reason() {
    let ca = Ca::new("CA");
    let own = ca.names(&["zk1.example"]);
    let refused = |roots: Vec<CertificateDer<'static>>, crls: Vec<Vec<u8>>| {
        let crls = crls.into_iter().map(Into::into);
        let builder = Tls::builder(provider(), own.certified_key(), roots).crls(crls);
        match builder.build() {
            Err(ConfigError::BadOption { option: "tls", why }) => why,
            other => panic!("{other:?}"),
        }
    };
    let root = || ca.root.clone();
    assert!(refused(vec![], vec![]).contains("no root certificate"));
    let garbage = CertificateDer::from(b"garbage".to_vec());
    assert!(refused(vec![root(), garbage], vec![]).starts_with("root certificate 2: "));
    assert!(refused(vec![own.chain[0].clone()], vec![]).contains("neither a CA's"));
    assert!(refused(vec![root()], vec![b"x".to_vec()]).contains("revocation list 1"));
    let mut explicit = params(&["zk1.example"]);
    explicit.is_ca = IsCa::ExplicitNoCa;
    assert!(refused(vec![ca.sign(&explicit).chain[0].clone()], vec![]).contains("neither"));
    let mut nobody = own.certified_key();
    nobody.cert.clear();
    let nobody = Tls::builder(provider(), nobody, [root()]).build();
    assert!(nobody.is_err());
}

#[test]
fn debug_prints_no_key_and_the_expiry_is_that_of_the_chain() {
    let ca = Ca::new("CA");
    let mut short = params(&["zk1.example"]);
    short.not_after = date_time_ymd(2030, 1, 1);
    let mut own = ca.sign(&short);
    own.chain.push(ca.root.clone());
    let tls = tls(&own, &[&ca.root]);
    let expected = std::time::SystemTime::UNIX_EPOCH
        + Duration::from_secs(date_time_ymd(2030, 1, 1).unix_timestamp().unsigned_abs());
    assert_eq!(tls.not_after(), Some(expected));
    let builder = Tls::builder(provider(), own.certified_key(), []);
    for text in [format!("{tls:?}"), format!("{builder:?}")] {
        assert!(text.len() < 300, "{text}");
    }
}
