//! The tests of the original (`CnxManagerTest` and others), under their names, for this library.
//!
//! The tests of SASL are left out, since it is not supported, and those of TLS are in `tests/tls`. `TestCircularBlockingQueue` is beside the inbox, in
//! `src/inbox/fair_queue.rs`.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use quorum_cnx::{
    CnxManager, Dial, Event, Listening, Reason, ReasonKind, SendError, SendOutcome, Sid,
};
use support::{
    LONG, MEMBER_IP, Mesh, ReservedAddress, TestConnection, V1, V2, bare, black_hole::BlackHole,
    claiming, configure, eventually, expect_message, frame, is_free, listener, single_manager,
    versioned, wait_for, within,
};

/// `testCnxManager`: two managers exchange messages. Then the smaller one requests a connection although there is one: the
/// larger one dials anew, and its last message arrives once more. Nothing listens after the halt.
#[test]
fn cnx_manager() {
    let mesh = Mesh::linked(&[0, 1], &[], |builder| builder);
    let [zero, one] = [&mesh.managers[0], &mesh.managers[1]];
    zero.to_send(Sid(1), "vote of 0").unwrap();
    one.to_send(Sid(0), "vote of 1").unwrap();
    assert_eq!(one.recv_timeout(LONG).unwrap().payload, "vote of 0");
    assert_eq!(zero.recv_timeout(LONG).unwrap().payload, "vote of 1");
    // Repeated: a knock that crosses a new link is ignored.
    let ups = zero.stats().ups;
    eventually("the larger one has dialed anew", || {
        zero.initiate_connection(Sid(1)).unwrap();
        zero.stats().ups > ups
    });
    assert_eq!(zero.recv_timeout(LONG).unwrap().payload, "vote of 1");
    // A request of the larger one replaces the link, too.
    let ups = zero.stats().ups;
    one.initiate_connection(Sid(0)).unwrap();
    assert_eq!(zero.recv_timeout(LONG).unwrap().payload, "vote of 1");
    assert_eq!(zero.stats().ups, ups + 1);
    for (manager, address) in mesh.managers.iter().zip(&mesh.addresses) {
        manager.halt();
        assert!(is_free(address));
        assert_eq!(manager.listening(), []);
    }
}

/// `testCnxManagerTimeout`: sending to an address that does not answer returns at once, and so does halting.
#[test]
fn cnx_manager_timeout() {
    let black_hole = BlackHole::new();
    let (manager, address) = single_manager(5, &[(2, &black_hole.address)], |builder| {
        builder
            .dial(Dial::OnDemand)
            .connect_timeout(Duration::from_secs(3600))
    });
    let manager = within("sending to an address that does not answer", move || {
        assert_eq!(manager.to_send(Sid(2), "vote"), Ok(SendOutcome::Queued));
        manager
    });
    eventually("the peer is dialed", || manager.stats().dials == 1);
    within("halting during a connect", move || manager.halt());
    assert!(is_free(&address));
    // A connect that does not end is given up.
    let (manager, _) = single_manager(5, &[(2, &black_hole.address)], |builder| {
        builder.connect_timeout(Duration::from_millis(50))
    });
    let reason = wait_for(&manager, |event| match event {
        Event::DialFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason, Reason::ConnectTimeout);
}

/// `testCnxManagerSpinLock`: a frame of length -20 ends its connection, and the manager continues.
#[test]
fn cnx_manager_spin_lock() {
    let (manager, address) = single_manager(1, &[(2, "127.0.0.1:1")], |builder| builder);
    let mut peer =
        TestConnection::dial_and_write(MEMBER_IP, &address, &versioned(V1, 2, "127.0.0.1:1"));
    eventually("the peer is linked", || manager.connected_to_peer(Sid(2)));
    peer.write(&(-20_i32).to_be_bytes());
    peer.wait_closed();
    eventually("the link is down for this reason", || {
        manager.stats().downs == [(ReasonKind::BadLength, 1)].into()
    });
    let mut again = TestConnection::member(&address, 2, &["still here"]);
    assert_eq!(manager.recv_timeout(LONG).unwrap().payload, "still here");
    manager.halt();
    again.wait_closed();
    assert!(is_free(&address));
}

/// `testCnxManagerListenerThreadConfigurableRetry`: a host of this server that cannot be resolved ends the listening after the
/// configured tries, with an event. Here it ends nothing else.
#[test]
fn cnx_manager_listener_thread_configurable_retry() {
    // A label of a name has at most 63 characters, so that the resolver sends no query.
    let unresolvable = format!("{}:3888", "x".repeat(64));
    let config = configure(1, &[(1, &unresolvable)])
        .listen_tries(2)
        .listen_pause(Duration::from_millis(1));
    let manager = CnxManager::start(config.build().unwrap()).unwrap();
    let mut failures = 0;
    let lost = loop {
        let event = wait_for(&manager, |event| Some(event.clone()));
        match event {
            Event::ListenFailed { .. } => failures += 1,
            Event::ListenerLost { address, .. } => break address.to_string(),
            _ => {}
        }
    };
    assert_eq!(failures, 2, "as configured");
    assert_eq!(lost, unresolvable);
    assert_eq!(
        manager.listening(),
        [Listening::Lost(unresolvable.parse().unwrap())]
    );
    assert_eq!(manager.to_send(Sid(1), "alive"), Ok(SendOutcome::Loopback));
}

/// `testCnxManagerNPE` (ZOOKEEPER-1789): a bare sid, as 3.4 sends it, and then a frame.
#[test]
fn cnx_manager_npe() {
    let (manager, address) = single_manager(1, &[(2, "127.0.0.1:1")], |builder| builder);
    let _peer = TestConnection::dial_and_write(
        MEMBER_IP,
        &address,
        &[bare(2), frame([1, 2, 3, 4])].concat(),
    );
    expect_message(&manager, 2, [1, 2, 3, 4]);
}

/// `testSocketTimeout` (ZOOKEEPER-900): a silent connection is closed after a timeout, and delays no other one until then.
#[test]
fn socket_timeout() {
    let (manager, address) = single_manager(1, &[(2, "127.0.0.1:1")], |builder| {
        builder.handshake_timeout(Duration::from_millis(200))
    });
    let mut silent = TestConnection::dial(MEMBER_IP, &address);
    let _peer = TestConnection::member(&address, 2, &["meanwhile"]);
    assert_eq!(manager.recv_timeout(LONG).unwrap().payload, "meanwhile");
    silent.wait_closed();
    eventually("the rejection is counted", || {
        manager.stats().rejected == [(ReasonKind::HandshakeTimeout, 1)].into()
    });
}

/// `testWorkerThreads`: of three managers each is linked with two, with one while another is halted, and with two again after
/// its restart. Where the original counts threads, this counts connections.
#[test]
fn worker_threads() {
    let reserved = [(); 3].map(|()| ReservedAddress::new());
    let addresses = reserved.each_ref().map(|one| one.address.clone());
    // On Linux they stay reserved: else another test could take the port of a server that is halted.
    let _reserved = cfg!(target_os = "linux").then_some(reserved);
    let servers: Vec<(i64, &String)> = (0..).zip(&addresses).collect();
    let start = |own: usize| {
        let listener = TcpListener::bind(&addresses[own]).unwrap();
        let config = configure(own as i64, &servers).listener(listener);
        CnxManager::start(config.build().unwrap()).unwrap()
    };
    let mut managers: Vec<CnxManager> = (0..3).map(start).collect();
    let all_have = |managers: &[CnxManager], links: usize| {
        eventually("all have their links, and no other connections", || {
            managers.iter().all(|manager| {
                let stats = manager.stats();
                manager.linked_peers().len() == links
                    && (links < 2 || stats.connections == links as u64)
            })
        });
    };
    all_have(&managers, 2);
    for _round in 0..5 {
        for absent in 0..3 {
            managers.remove(absent).halt();
            all_have(&managers, 1);
            // The port is free at once.
            managers.insert(absent, start(absent));
            all_have(&managers, 2);
        }
    }
}

/// `testInitialMessage`: valid and invalid initial messages.
#[test]
fn initial_message() {
    let (manager, address) = single_manager(1, &[(5, "127.0.0.1:1")], |builder| builder);
    let mebibyte = vec![b'a'; 1 << 20];
    let refused = [
        versioned(-65_530, 5, "10.0.0.2:3888"),
        claiming(V1, 5, mebibyte.len() as i32, &mebibyte),
        versioned(V1, 5, "what's going on here?"),
    ];
    for (count, message) in (1..).zip(refused) {
        TestConnection::dial_and_write(MEMBER_IP, &address, &message).wait_closed();
        eventually("the message is refused", || {
            manager.stats().rejected == [(ReasonKind::BadInitialMessage, count)].into()
        });
    }
    let accepted = [
        versioned(V1, 5, "10.0.0.2:3888"),
        versioned(V2, 5, "1.1.1.1:9999|2.2.2.2:8888|3.3.3.3:7777"),
    ];
    for message in accepted {
        let _peer = TestConnection::dial_and_write(
            MEMBER_IP,
            &address,
            &[message, frame("hello")].concat(),
        );
        expect_message(&manager, 5, b"hello");
    }
}

/// `testWildcardAddressRecognition` (ZOOKEEPER-2164): an advertised wildcard address is never dialed.
#[test]
fn wildcard_address_recognition() {
    let peer_listener = listener();
    let port = peer_listener.0.local_addr().unwrap().port();
    let (manager, address) = single_manager(5, &[] as &[(i64, String)], |builder| {
        builder.unknown(quorum_cnx::Unknown::admit(1))
    });
    // No other address is advertised, so that nothing can be dialed: the connection is refused.
    for wildcard in ["0.0.0.0", "[::]", "[0:0:0:0:0:0:0:0]"] {
        let message = versioned(V1, 2, format!("{wildcard}:{port}"));
        TestConnection::dial_and_write(MEMBER_IP, &address, &message).wait_closed();
    }
    eventually("the connections are refused", || {
        manager.stats().rejected == [(ReasonKind::UnknownSid, 3)].into()
    });
    assert_eq!(manager.stats().dials, 0);
    // Of a wildcard and another address, the other one is dialed.
    let message = versioned(V2, 2, format!("0.0.0.0:1|127.0.0.1:{port}"));
    TestConnection::dial_and_write(MEMBER_IP, &address, &message).wait_closed();
    assert_eq!(
        TestConnection::accept(&peer_listener.0)
            .read_initial_message()
            .sid,
        5
    );
    for plain in ["127.0.0.1:1", "255.255.255.255:1", "nowhere.invalid:1"] {
        assert!(plain.parse::<quorum_cnx::Address>().is_ok());
    }
}

/// `testCnxFromFutureVersion` of branch 3.4 (ZOOKEEPER-1633): a versioned message of a larger sid is accepted, and the frame
/// after it arrives whole. Unknown versions are refused, as they are since 3.5.1.
#[test]
fn cnx_from_future_version() {
    let (manager, address) = single_manager(1, &[(2, "127.0.0.1:1")], |builder| builder);
    let text = "this is a test message string";
    let message = versioned(V1, 2, "127.0.0.1:11221");
    let _peer =
        TestConnection::dial_and_write(MEMBER_IP, &address, &[message, frame(text)].concat());
    expect_message(&manager, 2, text.as_bytes());
    assert!(manager.connected_to_peer(Sid(2)));
    let future = versioned(-65_534, 2, "127.0.0.1:11221");
    TestConnection::dial_and_write(MEMBER_IP, &address, &future).wait_closed();
    assert_eq!(
        manager.stats().rejected,
        [(ReasonKind::BadInitialMessage, 1)].into()
    );
}

/// `testSocketConnectionTimeoutDuringConnectingToElectionAddress` (ZOOKEEPER-3756): while the address of one member does not
/// answer, the others are linked and exchange messages, although frames are sent to that member, too.
#[test]
fn socket_connection_timeout_during_connecting_to_election_address() {
    let black_holes = [BlackHole::new(), BlackHole::new()];
    // A smaller and a larger sid than both: dials and knocks hang.
    let absent = [
        (0, black_holes[0].address.as_str()),
        (9, black_holes[1].address.as_str()),
    ];
    let mesh = Mesh::linked(&[1, 2], &absent, |builder| {
        builder.connect_timeout(Duration::from_secs(3600))
    });
    for round in 0..100_u32 {
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (&mesh.managers[from], &mesh.managers[to]);
            for sid in [0, 9] {
                assert!(from.to_send(Sid(sid), "are you there?").is_ok());
            }
            let vote = round.to_be_bytes().to_vec();
            from.to_send(to.sid(), vote.clone()).unwrap();
            assert_eq!(to.recv_timeout(LONG).unwrap().payload, vote);
        }
    }
    for manager in &mesh.managers {
        assert_eq!(manager.linked_peers().len(), 1);
        // One dial to each absent peer, which still hangs.
        assert!(
            manager
                .stats()
                .peers
                .iter()
                .all(|peer| peer.dials <= 1 || peer.linked)
        );
    }
}

/// `testBadPackets` of `QuorumPeerMainTest`: four bytes to the election port, and a FIN.
#[test]
fn bad_packets() {
    let mesh = Mesh::linked(&[1, 2, 3], &[], |builder| builder);
    for address in &mesh.addresses {
        let mut stranger =
            TestConnection::dial_and_write(Ipv4Addr::LOCALHOST, address, &[0x40, 0, 0, 0]);
        stranger.finish();
        stranger.wait_closed();
    }
    for (manager, next) in mesh
        .managers
        .iter()
        .zip(mesh.managers.iter().cycle().skip(1))
    {
        manager.to_send(next.sid(), "still works").unwrap();
        assert_eq!(next.recv_timeout(LONG).unwrap().payload, "still works");
        eventually("the rejection is counted", || {
            manager.stats().rejected == [(ReasonKind::ClosedEarly, 1)].into()
        });
    }
}

/// `testCircularBlockingQueue` for the manager: of three messages in an inbox of two, the first is dropped.
#[test]
fn circular_blocking_queue() {
    let (manager, _) = single_manager(1, &[] as &[(i64, String)], |builder| {
        builder.inbox_frames(2)
    });
    for number in ["1", "2", "3"] {
        assert_eq!(manager.to_send(Sid(1), number), Ok(SendOutcome::Loopback));
    }
    assert_eq!(manager.try_recv().unwrap().payload, "2");
    assert_eq!(manager.try_recv().unwrap().payload, "3");
    assert_eq!(manager.stats().inbox.dropped, 1);
}

/// The intended meaning of `haveDelivered` (ZOOKEEPER-3637, 4605): all frames are written, not only some.
#[test]
fn have_delivered_means_all() {
    let absent = ReservedAddress::new();
    let mesh = Mesh::linked(&[1, 2], &[(3, &absent.address)], |builder| builder);
    let one = &mesh.managers[0];
    one.to_send(Sid(2), "arrives").unwrap();
    assert_eq!(
        mesh.managers[1].recv_timeout(LONG).unwrap().payload,
        "arrives"
    );
    eventually("all is written", || one.have_delivered());
    one.to_send(Sid(3), "waits").unwrap();
    assert!(!one.have_delivered(), "one of the two still waits");
    assert_eq!(
        one.to_send(Sid(4), "unknown"),
        Err(SendError::UnknownPeer(Sid(4)))
    );
}
