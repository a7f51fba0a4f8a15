//! The configurations of rustls: versions, suites, tickets, and parts that cannot be used.

use super::*;

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
        .with_custom_certificate_verifier(Arc::new(super::super::trust::ChainVerifier(Arc::new(
            super::super::trust::Trust::new(&provider(), std::slice::from_ref(&ca.root), &[])
                .unwrap(),
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
