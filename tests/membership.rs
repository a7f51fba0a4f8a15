//! Members that join, move and leave while the loop runs, over real sockets.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use quorum_cnx::{
    Changes, CnxManager, ConfigBuilder, ConfigError, Dial, Event, EventLoop, Frame, Handle,
    Handler, InitialMessageVersion, Leave, LinkStats, Listening, Members, Outbox, Reason,
    ReconfigureError, Refusal, SendError, SendOutcome, Sid, Unknown,
    simulation::{HostNet, Network},
};
use support::{
    LONG, Mesh, NOBODY, ReservedAddress, TestConnection, bare, configure, eventually,
    expect_message, is_free, listener, single_manager,
    turned::{OWN, PEER, Recorder, TurnedLoop},
    wait_for, wait_for_down, wait_for_listening, within,
};

/// A set of members with this version.
fn members<S: AsRef<str>>(version: u64, servers: &[(i64, S)]) -> Members {
    let servers = servers.iter().map(|(sid, at)| (Sid(*sid), at.as_ref()));
    Members::new(version).servers(servers)
}

/// What a step has changed: who joined, who left, who moved.
fn lists(changes: &Changes) -> [Vec<i64>; 3] {
    [&changes.joined, &changes.left, &changes.moved]
        .map(|sids| sids.iter().map(|sid| sid.0).collect())
}

fn joined(event: &Event) -> Option<Sid> {
    match event {
        Event::Joined { sid, .. } => Some(*sid),
        _ => None,
    }
}

fn moved(event: &Event) -> Option<Sid> {
    match event {
        Event::Moved { sid, .. } => Some(*sid),
        _ => None,
    }
}

/// Who has left, and how many frames were discarded.
fn left(event: &Event) -> Option<(Sid, u64)> {
    match event {
        Event::Left { sid, discarded, .. } => Some((*sid, *discarded)),
        _ => None,
    }
}

/// Why a connection was refused.
fn rejected(event: &Event) -> Option<Reason> {
    match event {
        Event::Rejected { reason, .. } => Some(reason.clone()),
        _ => None,
    }
}

/// The number of the link to this peer.
fn link_number(manager: &CnxManager, sid: i64) -> Option<u64> {
    Some(manager.peer(Sid(sid)).ok()?.stats().link?.number)
}

/// One more server, which knows the members of the mesh.
fn start(sid: i64, mesh: &Mesh, sids: &[i64]) -> (Arc<CnxManager>, String) {
    let (socket, address) = listener();
    let mut servers: Vec<(i64, &str)> = sids
        .iter()
        .copied()
        .zip(mesh.addresses.iter().map(String::as_str))
        .collect();
    servers.push((sid, &address));
    let config = configure(sid, &servers).listener(socket).build().unwrap();
    (Arc::new(CnxManager::start(config).unwrap()), address)
}

#[test]
fn server_joins_and_other_links_stay() {
    for joiner in [1, 9] {
        let mesh = Mesh::linked(&[3, 5], &[], |builder| builder);
        let [three, five] = [&mesh.managers[0], &mesh.managers[1]];
        let before = [link_number(three, 5), link_number(five, 3)];
        let (new, address) = start(joiner, &mesh, &[3, 5]);
        for manager in [three, five] {
            let nobody = manager.to_send(Sid(joiner), "early");
            assert_eq!(nobody, Err(SendError::UnknownPeer(Sid(joiner))));
            let changes = manager.set_server(Sid(joiner), &address).unwrap();
            assert_eq!(lists(&changes), [vec![joiner], vec![], vec![]]);
            assert_eq!(changes.version, 1);
            // Before the loop has followed.
            manager.to_send(Sid(joiner), "welcome").unwrap();
        }
        let mut senders = [(); 2].map(|()| {
            let message = new.recv_timeout(LONG).unwrap();
            assert_eq!(message.payload, "welcome");
            message.from.0
        });
        senders.sort_unstable();
        assert_eq!(senders, [3, 5]);
        for manager in [three, five] {
            assert_eq!(wait_for(manager, joined), Sid(joiner));
            assert!(manager.wait_linked(2, LONG));
            new.to_send(manager.sid(), "thanks").unwrap();
            expect_message(manager, joiner, "thanks");
        }
        assert_eq!([link_number(three, 5), link_number(five, 3)], before);
    }
}

#[test]
fn server_that_leaves_now_is_refused_at_once() {
    let mesh = Mesh::linked(&[1, 2, 3], &[], |builder| {
        builder.initial_message(InitialMessageVersion::Native)
    });
    let [one, two, three] = [0, 1, 2].map(|at| &mesh.managers[at]);
    let before = link_number(one, 2);
    let to_three = one.peer(Sid(3)).unwrap();
    let changes = one.remove_server(Sid(3), Leave::Now).unwrap();
    assert_eq!(lists(&changes), [vec![], vec![3], vec![]]);
    assert_eq!(
        one.to_send(Sid(3), "late"),
        Err(SendError::UnknownPeer(Sid(3)))
    );
    assert_eq!(to_three.send("late"), Err(SendError::Removed(Sid(3))));
    assert_eq!(
        to_three.send_slice(b"late"),
        Err(SendError::Removed(Sid(3)))
    );
    assert_eq!(to_three.connect(), Err(SendError::Removed(Sid(3))));
    assert_eq!(wait_for_down(one), (Sid(3), Reason::Removed));
    assert_eq!(wait_for(one, left), (Sid(3), 0));
    // It dials again, and is told why it is refused.
    assert_eq!(wait_for(one, rejected), Reason::UnknownSid(Sid(3)));
    let refused = wait_for(three, |event| match event {
        Event::DialFailed { sid, reason, .. } => Some((*sid, reason.clone())),
        _ => None,
    });
    assert_eq!(refused, (Sid(1), Reason::Refused(Refusal::UnknownSid)));
    assert_eq!(
        (link_number(one, 2), one.linked_peers()),
        (before, vec![Sid(2)])
    );
    assert!(!one.wait_linked(2, Duration::ZERO));
    assert_eq!(two.linked_peers(), [Sid(1), Sid(3)]);
    eventually("everything balances", || one.stats().balances());
}

#[test]
fn frames_for_a_server_that_leaves_now_are_discarded() {
    let shape = |builder: ConfigBuilder| builder.outbox(Outbox::QUEUE);
    let (manager, _) = single_manager(5, &[(1, NOBODY), (9, "127.0.0.1:2")], shape);
    for sid in [1, 9] {
        for _ in 0..3 {
            manager.to_send(Sid(sid), "never read").unwrap();
        }
        manager.remove_server(Sid(sid), Leave::Now).unwrap();
        assert_eq!(wait_for(&manager, left), (Sid(sid), 3));
    }
    let stats = manager.stats();
    assert_eq!((stats.sent.accepted, stats.sent.discarded), (6, 6));
    assert!(stats.peers.is_empty() && stats.balances());
}

/// They were taken while the server was a member.
#[test]
fn frames_that_a_sender_holds_for_a_removed_server_are_counted() {
    let shape = |builder: ConfigBuilder| builder.outbox(Outbox::QUEUE);
    let (manager, _) = single_manager(5, &[(9, NOBODY)], shape);
    let peer = manager.peer(Sid(9)).unwrap();
    let mut sender = peer.sender();
    for _ in 0..3 {
        sender.feed(b"never sent").unwrap();
    }
    manager.remove_server(Sid(9), Leave::Now).unwrap();
    assert_eq!(wait_for(&manager, left), (Sid(9), 0));
    assert_eq!(sender.flush(), Err(SendError::Removed(Sid(9))));
    // The loop has parted with the server, whose counters are still those of this handle.
    for sent in [manager.stats().sent, peer.stats().sent] {
        assert_eq!((sent.accepted, sent.discarded), (3, 3));
    }
}

#[test]
fn last_word_is_read_by_a_server_that_leaves_in_time() {
    for outbox in [Outbox::Latest, Outbox::QUEUE] {
        for leaver in [1, 9] {
            let mesh = Mesh::linked(&[5, leaver], &[], |builder| builder.outbox(outbox));
            let [manager, other] = [&mesh.managers[0], &mesh.managers[1]];
            manager.to_send(Sid(leaver), "you are removed").unwrap();
            let leave = Leave::After(LONG * 3);
            manager.remove_server(Sid(leaver), leave).unwrap();
            let late = manager.to_send(Sid(leaver), "late");
            assert_eq!(late, Err(SendError::UnknownPeer(Sid(leaver))));
            expect_message(other, 5, "you are removed");
            assert_eq!(wait_for_down(manager), (Sid(leaver), Reason::Removed));
            // Long before its time is over.
            assert_eq!(wait_for(manager, left), (Sid(leaver), 0));
        }
    }
}

#[test]
fn server_that_leaves_is_dialed_for_its_last_word() {
    for sid in [1, 9] {
        let address = ReservedAddress::new();
        let shape = |builder: ConfigBuilder| builder.dial(Dial::OnDemand);
        let at = address.address.clone();
        let (manager, own) = single_manager(5, &[(sid, &at)], shape);
        manager.to_send(Sid(sid), "you are removed").unwrap();
        manager
            .remove_server(Sid(sid), Leave::After(LONG * 3))
            .unwrap();
        // It starts only now.
        let (socket, at) = address.open();
        let config = configure(sid, &[(5, &own), (sid, &at)]).listener(socket);
        let other = CnxManager::start(config.build().unwrap()).unwrap();
        expect_message(&other, 5, "you are removed");
        assert_eq!(wait_for(&manager, left), (Sid(sid), 0));
    }
}

#[test]
fn time_of_a_server_that_leaves_is_limited() {
    let (manager, _) = single_manager(5, &[(9, NOBODY)], |builder| builder.outbox(Outbox::QUEUE));
    manager.to_send(Sid(9), "never read").unwrap();
    let leave = Leave::After(Duration::from_millis(50));
    manager.remove_server(Sid(9), leave).unwrap();
    assert_eq!(wait_for(&manager, left), (Sid(9), 1));
    assert!(manager.stats().balances());
}

#[test]
fn time_of_a_server_that_leaves_can_be_shortened_and_not_extended() {
    let (manager, _) = single_manager(5, &[(9, NOBODY)], |builder| {
        builder.outbox(Outbox::QUEUE).members_max(3)
    });
    let hour = LONG * 180;
    manager.to_send(Sid(9), "never read").unwrap();
    manager.remove_server(Sid(9), Leave::After(hour)).unwrap();
    manager.set_server(Sid(7), NOBODY).unwrap();
    // Its place is needed.
    assert!(manager.set_server(Sid(8), "127.0.0.1:8").is_err());
    let version = manager.remove_server(Sid(9), Leave::Now).unwrap().version;
    assert_eq!(version, 2, "the members are the same");
    assert_eq!(wait_for(&manager, left), (Sid(9), 1));
    manager.to_send(Sid(7), "never read").unwrap();
    manager.remove_server(Sid(7), Leave::After(hour)).unwrap();
    for time in [Duration::from_millis(50), hour] {
        manager.remove_server(Sid(7), Leave::After(time)).unwrap();
    }
    assert_eq!(wait_for(&manager, left), (Sid(7), 1));
    assert!(manager.stats().balances());
}

/// The far end has the link, and neither reads nor closes it.
#[test]
fn far_end_that_stays_is_hung_up_on_in_time() {
    let (manager, address) = single_manager(5, &[(9, NOBODY)], |builder| builder);
    let mut peer = TestConnection::member(&address, 9, &[]);
    assert!(manager.wait_linked(1, LONG));
    manager.to_send(Sid(9), "you are removed").unwrap();
    // Long enough for the next frame on a machine that stops this thread for a while.
    let leave = Leave::After(Duration::from_secs(2));
    manager.remove_server(Sid(9), leave).unwrap();
    // What it still sends arrives.
    peer.send("I know");
    expect_message(&manager, 9, "I know");
    // It is not let in again while its link is about to end.
    eventually("its link is about to end", || {
        let again = TestConnection::member(&address, 9, &[]);
        drop(again);
        manager.stats().rejected.values().sum::<u64>() > 0
    });
    assert_eq!(wait_for_down(&manager), (Sid(9), Reason::Removed));
    assert_eq!(wait_for(&manager, left), (Sid(9), 0));
}

#[test]
fn sid_that_comes_back_is_another_peer() {
    for outbox in [Outbox::Latest, Outbox::QUEUE] {
        for sid in [1, 9] {
            let mesh = Mesh::linked(&[5, sid], &[], |builder| builder.outbox(outbox));
            let [manager, other] = [&mesh.managers[0], &mesh.managers[1]];
            manager.to_send(Sid(sid), "for the old one").unwrap();
            expect_message(other, 5, "for the old one");
            other.halt();
            eventually("the old one is gone", || {
                !manager.connected_to_peer(Sid(sid))
            });
            let old = manager.peer(Sid(sid)).unwrap();
            // With a slot, the last frame is kept for the next link, and this one waits as well.
            manager
                .to_send(Sid(sid), "too late for the old one")
                .unwrap();
            manager.remove_server(Sid(sid), Leave::After(LONG)).unwrap();
            let (socket, at) = listener();
            let changes = manager.set_server(Sid(sid), &at).unwrap();
            assert_eq!(
                (lists(&changes), changes.version),
                ([vec![sid], vec![], vec![]], 2)
            );
            assert_eq!(old.send("who?"), Err(SendError::Removed(Sid(sid))));
            let own = mesh.addresses[0].clone();
            let config = configure(sid, &[(5, own), (sid, at)]).listener(socket);
            let new = CnxManager::start(config.build().unwrap()).unwrap();
            manager.to_send(Sid(sid), "for the new one").unwrap();
            expect_message(&new, 5, "for the new one");
            assert_eq!(wait_for(manager, left), (Sid(sid), 1));
            let stats = manager.stats();
            assert_eq!((stats.sent.discarded, stats.sent.resent), (1, 0));
            assert!(!old.is_linked());
            // The frame may arrive before the link is counted.
            eventually("the counters balance", || manager.stats().balances());
        }
    }
}

#[test]
fn versions_order_the_steps() {
    let (manager, own) = single_manager(5, &[(9, NOBODY)], |builder| builder);
    let servers = |sids: &[i64]| -> Vec<(i64, String)> {
        let others = sids.iter().map(|sid| (*sid, format!("127.0.0.1:{sid}")));
        others.chain([(5, own.clone())]).collect()
    };
    let step = |version, sids: &[i64]| manager.reconfigure(members(version, &servers(sids)));
    let same = manager
        .reconfigure(members(0, &[(5, &own[..]), (9, NOBODY)]))
        .unwrap();
    assert_eq!((lists(&same), same.version), ([vec![], vec![], vec![]], 0));
    assert_eq!(step(0, &[1]), Err(ReconfigureError::SameVersion(0)));
    let first = step(4, &[1, 2]).unwrap();
    assert_eq!(
        (lists(&first), first.version),
        ([vec![1, 2], vec![9], vec![]], 4)
    );
    let again = step(4, &[2, 1]).unwrap();
    assert_eq!(
        (lists(&again), again.version),
        ([vec![], vec![], vec![]], 4)
    );
    assert_eq!(step(4, &[1]), Err(ReconfigureError::SameVersion(4)));
    let older = step(3, &[1]).unwrap_err();
    assert_eq!(
        older.to_string(),
        "version 3 of the members is older than 4"
    );
    assert_eq!(
        manager.set_server(Sid(1), "127.0.0.1:1").unwrap().version,
        4
    );
    assert_eq!(
        manager.remove_server(Sid(7), Leave::Now).unwrap().version,
        4
    );
    // The same address in another spelling.
    let same = manager.set_server(Sid(1), "[::ffff:127.0.0.1]:1").unwrap();
    assert_eq!(same.version, 4);
    let moved = manager.set_server(Sid(1), "127.0.0.1:7").unwrap();
    assert_eq!(
        (lists(&moved), moved.version),
        ([vec![], vec![], vec![1]], 5)
    );
    let newer = step(6, &[1, 2]).unwrap();
    assert_eq!(lists(&newer), [vec![], vec![], vec![1]]);
    let without = manager.reconfigure(members(7, &[(1, "127.0.0.1:1")]));
    assert_eq!(without, Err(ReconfigureError::OwnSid(Sid(5))));
    let without = manager.remove_server(Sid(5), Leave::Now);
    assert_eq!(without, Err(ReconfigureError::OwnSid(Sid(5))));
    assert!(without.unwrap_err().to_string().contains("halt it instead"));
    let shared = manager.set_server(Sid(2), "127.0.0.1:1").unwrap_err();
    assert!(matches!(
        shared,
        ReconfigureError::Config(ConfigError::SharedAddress { .. })
    ));
    let long = Leave::After(Duration::MAX);
    let long = manager.remove_server(Sid(1), long).unwrap_err().to_string();
    assert!(long.starts_with("leave: "), "{long}");
    manager.halt();
    assert_eq!(step(8, &[]), Err(ReconfigureError::Halted));
}

#[test]
fn members_fit_into_what_the_configuration_allows() {
    let shape = |builder: ConfigBuilder| builder.members_max(3);
    let (manager, own) = single_manager(5, &[(9, NOBODY)], shape);
    manager.set_server(Sid(1), "127.0.0.1:2").unwrap();
    let error = manager.set_server(Sid(2), "127.0.0.1:3").unwrap_err();
    assert_eq!(
        error.to_string(),
        "members_max: 4 servers are members and 0 leave, at most 3 fit"
    );
    manager.to_send(Sid(9), "last word").unwrap();
    manager.remove_server(Sid(9), Leave::After(LONG)).unwrap();
    assert!(
        manager.set_server(Sid(2), "127.0.0.1:3").is_err(),
        "9 still leaves"
    );
    manager.remove_server(Sid(9), Leave::Now).unwrap();
    // The loop has parted with it when this comes.
    assert_eq!(wait_for(&manager, left).0, Sid(9));
    manager.set_server(Sid(2), "127.0.0.1:3").unwrap();
    // One that is removed at once counts as well until then.
    let next = [(5, &*own), (1, "127.0.0.1:2"), (3, "127.0.0.1:4")];
    let error = manager.reconfigure(members(100, &next)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "members_max: 3 servers are members and 1 leave, at most 3 fit"
    );
    let few = configure(1, &[(1, NOBODY), (2, "127.0.0.1:2")]).members_max(1);
    assert!(
        few.build()
            .unwrap_err()
            .to_string()
            .starts_with("members_max: ")
    );
}

/// Each side in turn: a member moves to a server at another address, which takes its place.
#[test]
fn link_of_a_moved_member_ends_when_the_new_one_is_there() {
    for sid in [1, 9] {
        let shape = |builder: ConfigBuilder| builder.outbox(Outbox::QUEUE);
        let mesh = Mesh::linked(&[5, sid], &[], shape);
        let [manager, old] = [&mesh.managers[0], &mesh.managers[1]];
        // At another IP address: the far end of an accepted link is recognized by that.
        let (socket, at) = ReservedAddress::at([127, 0, 0, 3].into()).open();
        let own = mesh.addresses[0].clone();
        let config = shape(configure(sid, &[(5, own), (sid, at.clone())]))
            .listener(socket)
            .dial_from([127, 0, 0, 3].into())
            .dial(Dial::OnDemand);
        let new = CnxManager::start(config.build().unwrap()).unwrap();
        let changes = manager.set_server(Sid(sid), &at).unwrap();
        assert_eq!(lists(&changes), [vec![], vec![], vec![sid]]);
        assert_eq!(wait_for(manager, moved), Sid(sid));
        assert_eq!(wait_for_down(manager), (Sid(sid), Reason::Replaced));
        eventually("the new one is linked", || new.connected_to_peer(Sid(5)));
        manager.to_send(Sid(sid), "at the new address").unwrap();
        expect_message(&new, 5, "at the new address");
        assert!(old.try_recv().is_err());
    }
}

#[test]
fn link_at_one_of_the_new_addresses_stays() {
    let mesh = Mesh::linked(&[1, 5, 9], &[], |builder| builder);
    let manager = &mesh.managers[1];
    let before = [1, 9].map(|sid| link_number(manager, sid));
    for (sid, at) in [(1, &mesh.addresses[0]), (9, &mesh.addresses[2])] {
        let both = format!("127.0.0.4:{sid}|{at}");
        let changes = manager.set_server(Sid(sid), both).unwrap();
        assert_eq!(lists(&changes), [vec![], vec![], vec![sid]]);
        assert_eq!(wait_for(manager, moved), Sid(sid));
    }
    for (at, sid) in [(0, 1), (2, 9)] {
        mesh.managers[at].to_send(Sid(5), "still here").unwrap();
        expect_message(manager, sid, "still here");
    }
    assert_eq!([1, 9].map(|sid| link_number(manager, sid)), before);
}

/// Where this server is on a simulated network.
fn simulated(sid: i64) -> String {
    format!("10.0.0.{sid}:3888")
}

/// The loops of [`OWN`] and of this server on a simulated network, linked.
fn linked_loops(network: &Network, sid: i64) -> [EventLoop<Recorder, HostNet>; 2] {
    let servers = [OWN, sid].map(|sid| (sid, simulated(sid)));
    let mut loops = [OWN, sid].map(|own| {
        let net = network.host([10, 0, 0, own as u8]).net();
        let config = configure(own, &servers).build().unwrap();
        EventLoop::with_net(config, Recorder::new(|_, _, _| {}), net).unwrap()
    });
    network.run(&mut loops, LONG).unwrap();
    loops
}

/// Before its new link is there, and from each side of the pair.
#[test]
fn member_that_moves_away_and_back_keeps_its_link() {
    // Also while the first dial of the address where nobody is has failed, and the next one is under way.
    for (sid, away) in [(1, 1), (1, 6), (9, 1), (9, 6)] {
        let network = Network::new();
        let mut loops = linked_loops(&network, sid);
        let handle = loops[0].handle().clone();
        let before = handle.peer(Sid(sid)).unwrap().stats().link;
        handle.set_server(Sid(sid), "10.0.9.9:3888").unwrap();
        network.run(&mut loops, Duration::from_secs(away)).unwrap();
        handle.set_server(Sid(sid), simulated(sid)).unwrap();
        network.run(&mut loops, LONG * 6).unwrap();
        let after = handle.peer(Sid(sid)).unwrap().stats().link;
        let number = |link: Option<LinkStats>| link.map(|link| link.number);
        assert_eq!(number(after), number(before), "{sid}, {away} s");
        assert_eq!(handle.stats().connections, 1);
        // What the application asks for is not forgotten.
        handle.initiate_connection(Sid(sid)).unwrap();
        network.run(&mut loops, LONG).unwrap();
        assert_eq!(handle.stats().ups, 2);
    }
}

/// From an address to a name of the same host. The name is looked up only then.
#[test]
fn link_of_a_member_that_gets_a_name_stays() {
    for sid in [1, 9] {
        let network = Network::new();
        network.set_name("peer.example", [[10, 0, 0, 7], [10, 0, 0, sid as u8]]);
        let mut loops = linked_loops(&network, sid);
        let handle = loops[0].handle().clone();
        handle.set_server(Sid(sid), "peer.example:3888").unwrap();
        network.run(&mut loops, LONG * 6).unwrap();
        let stats = handle.stats();
        assert_eq!((stats.ups, stats.connections), (1, 1), "{sid}");
    }
}

#[test]
fn own_address_changes_and_links_stay() {
    let servers = [(5, "127.0.0.1:0"), (9, NOBODY)];
    let manager = CnxManager::start(configure(5, &servers).build().unwrap()).unwrap();
    let old = wait_for_listening(&manager).to_string();
    let mut peer = TestConnection::member(&old, 9, &[]);
    assert!(manager.wait_linked(1, LONG));
    let before = link_number(&manager, 9);
    let changes = manager.set_server(Sid(5), "127.0.0.2:0").unwrap();
    assert_eq!(lists(&changes), [vec![], vec![], vec![5]]);
    assert_eq!(wait_for(&manager, moved), Sid(5));
    let new = wait_for_listening(&manager);
    assert!(new.ip().to_string() == "127.0.0.2", "{new}");
    eventually("the old socket is closed", || is_free(&old));
    eventually("this is known", || {
        manager.listening() == [Listening::Open(new)]
    });
    peer.send("still linked");
    expect_message(&manager, 9, "still linked");
    assert_eq!(link_number(&manager, 9), before);
    drop(peer);
    TestConnection::member(&new.to_string(), 9, &["at the new address"]);
    expect_message(&manager, 9, "at the new address");
}

#[test]
fn peer_that_cannot_be_reached_is_dialed_at_once_where_it_moves() {
    let (manager, own) = single_manager(5, &[(1, NOBODY), (9, "127.0.0.1:2")], |builder| {
        builder.backoff(Duration::from_secs(3600), Duration::from_secs(3600))
    });
    for sid in [1, 9] {
        wait_for(&manager, |event| match event {
            Event::DialFailed { sid: failed, .. } if failed.0 == sid => Some(()),
            _ => None,
        });
        let (socket, at) = listener();
        let config = configure(sid, &[(5, own.clone()), (sid, at.clone())]).listener(socket);
        let other = CnxManager::start(config.dial(Dial::OnDemand).build().unwrap()).unwrap();
        manager.set_server(Sid(sid), at).unwrap();
        assert!(other.wait_linked(1, LONG));
        manager
            .set_server(Sid(sid), format!("127.0.0.1:{sid}"))
            .unwrap();
    }
}

#[test]
fn admitted_server_becomes_a_member_and_keeps_its_link() {
    let shape = |builder: ConfigBuilder| builder.unknown(Unknown::admit(1));
    let (manager, address) = single_manager(5, &[(6, "127.0.0.1:2")], shape);
    let mut peer = TestConnection::member(&address, 9, &["admitted"]);
    expect_message(&manager, 9, "admitted");
    assert!(!manager.wait_linked(1, Duration::ZERO), "it is no member");
    let handle = manager.peer(Sid(9)).unwrap();
    let changes = manager.set_server(Sid(9), NOBODY).unwrap();
    assert_eq!(lists(&changes), [vec![9], vec![], vec![]]);
    assert!(manager.wait_linked(1, LONG), "it is a member");
    assert_eq!(wait_for(&manager, joined), Sid(9));
    assert_eq!(handle.send("member").unwrap(), SendOutcome::Written);
    assert_eq!(peer.recv(), b"member");
    // Its place is free for another one.
    TestConnection::member(&address, 8, &["next"]);
    expect_message(&manager, 8, "next");
    // A removed member is an unknown server like any other.
    manager.remove_server(Sid(9), Leave::Now).unwrap();
    assert_eq!(wait_for(&manager, left), (Sid(9), 0));
    eventually("8 is gone", || !manager.connected_to_peer(Sid(8)));
    TestConnection::member(&address, 9, &["admitted again"]);
    expect_message(&manager, 9, "admitted again");
}

/// Changes the members when it is told to, on the thread of the loop.
struct Steward {
    events: Vec<Event>,
}

impl Handler for Steward {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let order = String::from_utf8(frame.to_vec()).unwrap();
        match order.split_once(' ') {
            Some(("add", at)) => {
                handle.set_server(Sid(7), at).unwrap();
                handle.to_send(Sid(7), "from the handler").unwrap();
            }
            _ => {
                handle.remove_server(from, Leave::Now).unwrap();
                let gone = handle.to_send(from, "late");
                assert_eq!(gone, Err(SendError::UnknownPeer(from)));
            }
        }
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        if let Event::Joined { sid, .. } = event {
            handle.remove_server(*sid, Leave::After(LONG)).unwrap();
        }
        self.events.push(event.clone());
    }
}

/// What was reported about members: who joined, who left, who moved.
fn told(events: &[Event]) -> Vec<(&'static str, Sid)> {
    let of = |event: &Event| {
        let left = left(event).map(|(sid, _)| ("left", sid));
        let joined = joined(event).map(|sid| ("joined", sid));
        let moved = moved(event).map(|sid| ("moved", sid));
        left.or(joined).or(moved)
    };
    events.iter().filter_map(of).collect()
}

/// Several steps before one turn. The one that comes back leaves again, and its last word has a time of its own.
#[test]
fn sid_that_comes_back_joins_after_the_older_one_has_left() {
    let mut it = TurnedLoop::passive(|builder| builder);
    let (handle, peer) = (it.handle(), Sid(PEER));
    let _link = it.link();
    handle.remove_server(peer, Leave::After(LONG)).unwrap();
    handle.set_server(peer, NOBODY).unwrap();
    handle.remove_server(peer, Leave::After(LONG)).unwrap();
    it.turn();
    let events = &it.handler().events;
    assert_eq!(
        told(events),
        [("left", peer), ("joined", peer), ("left", peer)]
    );
    assert!(handle.stats().balances());
}

/// It was admitted before, and has no link.
#[test]
fn admitted_server_that_joins_and_leaves_in_one_turn_gets_its_last_word() {
    let guest = Sid(12);
    let (socket, at) = listener();
    socket.set_nonblocking(true).unwrap();
    let mut it = TurnedLoop::passive(|builder| builder.unknown(Unknown::admit(1)));
    let handle = it.handle();
    for is_linked in [true, false] {
        let _link = is_linked.then(|| it.connect(guest.0, &[]));
        it.until("the link comes up and ends", |handle, _| {
            handle.connected_to_peer(guest) == is_linked
        });
    }
    handle.set_server(guest, &at).unwrap();
    handle.to_send(guest, "you are removed").unwrap();
    let leave = Leave::After(LONG * 3);
    handle.remove_server(guest, leave).unwrap();
    it.until("it is knocked at", |_, _| socket.accept().is_ok());
    let link = it.connect(guest.0, &[]);
    it.until("the last word is written", |handle, _| {
        handle.stats().sent.written == 1
    });
    drop(link);
    it.until("it has left", |_, handler| {
        told(&handler.events).contains(&("left", guest))
    });
    assert_eq!(
        told(&it.handler().events),
        [("joined", guest), ("left", guest)]
    );
    assert!(handle.stats().balances());
}

/// Its connection arrives in the turn in which its time is over.
#[test]
fn accepted_link_of_a_leaver_counts_as_accepted_to_the_end() {
    let network = Network::new();
    let own: SocketAddr = "10.0.0.5:3888".parse().unwrap();
    let servers = [(OWN, own.to_string()), (PEER, "10.0.0.9:3888".to_owned())];
    let config = configure(OWN, &servers).build().unwrap();
    let net = network.host(own.ip()).net();
    let mut event_loop = EventLoop::with_net(config, Recorder::new(|_, _, _| {}), net).unwrap();
    let (handle, peer) = (event_loop.handle().clone(), Sid(PEER));
    handle.to_send(peer, "you are removed").unwrap();
    let time = Duration::from_secs(1);
    handle.remove_server(peer, Leave::After(time)).unwrap();
    event_loop.turn(None).unwrap();
    network.advance(time);
    let end = network.connect("10.0.0.9:1".parse().unwrap(), own).unwrap();
    end.send(&PEER.to_be_bytes()).unwrap();
    event_loop.turn(None).unwrap();
    let is_accepted = |event: &Event| matches!(event, Event::Up { dialed: false, .. });
    assert!(event_loop.handler().events.iter().any(is_accepted));
    assert_eq!(event_loop.handler().ends(), [Reason::Removed]);
    assert!(handle.stats().balances(), "{:?}", handle.stats());
}

#[test]
fn other_spelling_is_no_move_beside_another_change() {
    let mut it = TurnedLoop::passive(|builder| builder);
    let spelled = |address: &str| address.replace("127.0.0.1", "[::ffff:127.0.0.1]");
    let servers = [
        (OWN, spelled(&it.address)),
        (PEER, spelled(NOBODY)),
        (7, "127.0.0.1:7".to_owned()),
    ];
    let changes = it.handle().reconfigure(members(1, &servers)).unwrap();
    assert_eq!(lists(&changes), [vec![7], vec![], vec![]]);
    it.turn();
    assert_eq!(told(&it.handler().events), [("joined", Sid(7))]);
}

#[test]
fn handlers_change_the_members() {
    let mut it = TurnedLoop::with(Steward { events: Vec::new() }, |builder| builder);
    // Before the first turn.
    let handle = it.handle();
    handle.set_server(Sid(6), "127.0.0.1:3").unwrap();
    let (socket, at) = listener();
    let mut peer = TestConnection::member(&it.address, PEER, &[]);
    peer.send(format!("add {at}"));
    let mut turn = |what: &str, holds: &dyn Fn(&[Event]) -> bool| {
        eventually(what, || {
            it.event_loop.turn(Some(Duration::from_millis(1))).unwrap();
            holds(&it.event_loop.handler().events)
        });
    };
    turn("7 has joined", &|events| {
        events.iter().filter_map(joined).any(|sid| sid == Sid(7))
    });
    // 7 is larger than this server, and is knocked at. It dials back and reads its last word.
    let own = it_address(&peer);
    let seventh = thread::spawn(move || {
        let mut link = TestConnection::dial_and_write([127, 0, 0, 1].into(), &own, &bare(7));
        let read = link.recv();
        link.wait_closed();
        drop(socket);
        read
    });
    turn("7 has left", &|events| {
        events.iter().filter_map(left).any(|is| is == (Sid(7), 0))
    });
    assert_eq!(seventh.join().unwrap(), b"from the handler");
    peer.send("remove me");
    turn("the peer has left", &|events| {
        events
            .iter()
            .filter_map(left)
            .any(|is| is == (Sid(PEER), 0))
    });
    assert_eq!(it.event_loop.handle().sid(), Sid(OWN));
    assert!(it.event_loop.handle().stats().balances());
}

/// The address to which this connection goes.
fn it_address(connection: &TestConnection) -> String {
    connection.0.peer_addr().unwrap().to_string()
}

/// Threads add and remove servers, and send to them, at the same time.
#[test]
fn many_threads_change_the_members_at_once() {
    let shape = |builder: ConfigBuilder| builder.outbox(Outbox::QUEUE).members_max(100);
    let mesh = Mesh::linked(&[5, 9], &[], shape);
    let manager = &mesh.managers[0];
    let before = link_number(manager, 9);
    let threads: Vec<_> = (0..4)
        .map(|thread: u16| {
            let handle = manager.handle();
            thread::spawn(move || {
                for round in 0..50_u16 {
                    let sid = Sid(i64::from(20 + (thread + round) % 6));
                    let port = 1 + (20 + thread + round) % 6;
                    // Refused if another thread has given that address to another server, or if too many leave.
                    let _ = handle.set_server(sid, format!("127.0.0.9:{port}"));
                    let sent = handle.to_send(sid, "to somebody");
                    let gone = [SendError::UnknownPeer(sid), SendError::Removed(sid)];
                    assert!(
                        sent.is_ok() || gone.iter().any(|gone| sent == Err(*gone)),
                        "{sent:?}"
                    );
                    let leave = match round % 2 {
                        0 => Leave::Now,
                        _ => Leave::After(Duration::from_millis(1)),
                    };
                    let _ = handle.remove_server(sid, leave);
                }
            })
        })
        .collect();
    for thread in threads {
        within("the steps", move || thread.join().unwrap());
    }
    for sid in 20..26 {
        manager.remove_server(Sid(sid), Leave::Now).unwrap();
    }
    eventually("all have left, and everything balances", || {
        let stats = manager.stats();
        let known: Vec<i64> = stats.peers.iter().map(|peer| peer.sid.0).collect();
        known == [9] && stats.sent.waiting == 0 && stats.balances()
    });
    assert_eq!(link_number(manager, 9), before);
    // The thread of the loop is alive.
    mesh.managers[1].to_send(Sid(5), "still linked").unwrap();
    expect_message(manager, 9, "still linked");
}

#[test]
fn thread_that_waits_for_room_is_told_of_the_removal() {
    let (manager, _) = single_manager(5, &[(9, NOBODY)], |builder| builder);
    manager.to_send(Sid(9), "fills the slot").unwrap();
    let peer = manager.peer(Sid(9)).unwrap();
    let waiting = thread::spawn(move || (peer.wait_for_room(Duration::MAX), peer.send("late")));
    manager.remove_server(Sid(9), Leave::After(LONG)).unwrap();
    let told = within("the wait", move || waiting.join().unwrap());
    assert_eq!(told, (true, Err(SendError::Removed(Sid(9)))));
}

#[test]
fn peer_handle_does_what_the_handle_does() {
    let mesh = Mesh::linked(&[1, 5], &[], |builder| builder.outbox(Outbox::QUEUE));
    let [one, five] = [&mesh.managers[0], &mesh.managers[1]];
    assert_eq!(
        five.peer(Sid(5)).unwrap_err(),
        SendError::UnknownPeer(Sid(5))
    );
    let peer = five.peer(Sid(1)).unwrap();
    assert_eq!((peer.sid(), peer.is_linked()), (Sid(1), true));
    peer.send("1").unwrap();
    peer.send_slice(b"2").unwrap();
    assert_eq!(peer.send_all(&[b"3", b"4"]).unwrap(), 2);
    let mut sender = peer.sender();
    sender.feed(b"5").unwrap();
    sender.flush().unwrap();
    for payload in ["1", "2", "3", "4", "5"] {
        expect_message(one, 5, payload);
    }
    assert!(peer.wait_for_room(LONG));
    peer.connect().unwrap();
    assert_eq!((peer.discard(), peer.stats().sent.accepted), (0, 5));
    sender.feed(b"6").unwrap();
    five.remove_server(Sid(1), Leave::After(LONG)).unwrap();
    assert_eq!(sender.flush(), Err(SendError::Removed(Sid(1))));
    assert_eq!(peer.stats().sent.discarded, 1);
}
