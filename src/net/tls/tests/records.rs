//! Records of an established connection: errors, the end, and sockets that take a few bytes at a time.

use super::*;

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
