//! Handshakes: who is connected, who is refused, and what both ends learn of it.

use super::*;

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
