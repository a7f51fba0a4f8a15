//! Which certificates are accepted, whatever names are in them.

use super::*;

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

/// An older list beside a newer one, or those of two keys of one CA: each counts, in any order.
#[test]
fn each_of_several_lists_of_one_issuer_revokes() {
    // Two keys of one CA.
    let (ca, renewed) = (Ca::new("CA"), Ca::new("CA"));
    let roots = [ca.root.clone(), renewed.root.clone()];
    let lists = [ca.revoke(7), ca.revoke(8), renewed.revoke(9)];
    let own = ca.names(&["zk2.example"]);
    for first in 0..lists.len() {
        let mut lists = lists.clone();
        lists.rotate_left(first);
        let good = Tls::builder(provider(), own.certified_key(), roots.clone());
        let good = good.crls(lists).build().unwrap();
        for (issuer, serial, expected) in [
            (&ca, 7, Err(TlsFailure::Revoked)),
            (&ca, 8, Err(TlsFailure::Revoked)),
            (&ca, 9, Ok(())),
            (&renewed, 7, Ok(())),
            (&renewed, 9, Err(TlsFailure::Revoked)),
        ] {
            let mut params = params(&["zk1.example"]);
            params.serial_number = Some(SerialNumber::from_slice(&[serial]));
            let shown = tls(&issuer.sign(&params), &[&ca.root, &renewed.root]);
            let end = handshake(&shown, &good).1;
            assert_eq!(end.map(drop), expected, "{serial}, list {first} is first");
        }
    }
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
