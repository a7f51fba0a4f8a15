//! Which names a certificate may have.

use super::*;

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
    // Names of a kind that no server has.
    let mut mail = common_name("zk1.example", &[]);
    mail.subject_alt_names = vec![rcgen::SanType::Rfc822Name(
        "zk1@example".try_into().unwrap(),
    )];
    assert_eq!(fate(&ca, &ca.sign(&mail)), wrong_name(""), "e-mail address");
    let mut two = common_name("zk1.example", &[]);
    two.distinguished_name
        .push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]), "zk2.example");
    assert_eq!(fate(&ca, &ca.sign(&two)), wrong_name(""), "two of them");
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
