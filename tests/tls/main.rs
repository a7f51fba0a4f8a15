//! TLS between servers, over real sockets: members that link, attackers that are refused, certificates that change, and the upgrade
//! of a mesh without TLS; and the programs, which must have been built with it.
//!
//! Every certificate is made here. Nothing here tests the rules for names and chains in detail: the tests beside the code do.

mod attackers;
mod members;
mod openssl;
mod programs;
mod reloads;
mod upgrades;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use quorum_cnx::{
    CnxManager, Config, ConfigBuilder, Event, InboxFull, InitialMessageVersion, Outbox, PeerName,
    Reason, ReasonKind, Sid, TlsFailure, Unknown,
    rustls::version::{TLS12, TLS13},
};
#[cfg(target_os = "linux")]
use support::process::{ProcessResources, need_descriptors};
use support::{
    LONG, MEMBER_IP, Mesh, Ring, STRANGER_IP, TestConnection, bare, eventually, expect_message,
    frame,
    tls::{Ca, Servers, client, client_hello, name_of, params},
    wait_for, wait_for_down, within,
};

/// What an observer without an id sends.
const OBSERVER: i64 = Sid::OBSERVER.0;

/// Starts members, and waits until they are linked.
fn linked(servers: &Servers, sids: &[i64], shape: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Mesh {
    let start = |sid: &i64| Arc::new(servers.start(*sid, &shape));
    let mesh = Mesh {
        managers: sids.iter().map(start).collect(),
        addresses: sids
            .iter()
            .map(|sid| servers.address(*sid).to_owned())
            .collect(),
    };
    mesh.wait_linked();
    mesh
}

/// The numbers of all links of a manager.
fn links(manager: &CnxManager) -> BTreeMap<Sid, u64> {
    let peers = manager.stats().peers.into_iter();
    peers
        .filter_map(|peer| Some((peer.sid, peer.link?.number)))
        .collect()
}

/// Waits until this server has refused a connection, and returns the sid that it claimed, and why.
#[track_caller]
fn rejected(manager: &CnxManager) -> (Option<Sid>, Reason) {
    wait_for(manager, |event| match event {
        Event::Rejected { sid, reason, .. } => Some((*sid, reason.clone())),
        _ => None,
    })
}

#[test]
fn three_members_exchange_frames_in_all_directions() {
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let servers = Servers::new(&[1, 2, 3]);
        let tls = |sid: i64| {
            let tls = servers.ca.member(sid).tls(&servers.ca);
            tls.protocol_versions(versions).build().unwrap()
        };
        let start = |sid: i64| {
            let config = servers.secure(sid, tls(sid)).build().unwrap();
            Arc::new(CnxManager::start(config).unwrap())
        };
        let mesh = Mesh {
            managers: [1, 2, 3].map(start).into(),
            addresses: Vec::new(),
        };
        mesh.wait_linked();
        for len in [1, 100, 16_384, 500_000] {
            for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
                let [from, to] = [from, to].map(|at: usize| &mesh.managers[at]);
                let payload = vec![len as u8; len];
                from.to_send(to.sid(), payload.clone()).unwrap();
                expect_message(to, from.sid().0, payload);
            }
        }
        // Crosses every link; a lost frame stops it.
        Ring::start(&mesh).wait_rounds(50);
    }
}

/// Pings go between the frames, several of which are cut into records.
#[test]
fn pings_are_answered_beside_large_frames() {
    let servers = Servers::new(&[1, 2]);
    let mesh = linked(&servers, &[1, 2], |builder| {
        let native = builder.initial_message(InitialMessageVersion::Native);
        native.ping_every(Duration::from_millis(1))
    });
    let managers = [&mesh.managers[0], &mesh.managers[1]];
    for n in 0..20 {
        for (from, to) in [(0, 1), (1, 0)] {
            let payload = vec![n; 500_000];
            let to_sid = managers[to].sid();
            managers[from].to_send(to_sid, payload.clone()).unwrap();
            expect_message(managers[to], managers[from].sid().0, payload);
        }
    }
    for manager in managers {
        eventually("a ping is answered", || {
            let link = manager.stats().peers[0].link.clone();
            link.is_some_and(|link| link.number == 1 && link.round_trip.is_some())
        });
        assert_eq!(manager.stats().received.frames, 20);
    }
}

#[test]
fn queues_keep_order_in_both_directions_at_once() {
    const FRAMES: u32 = 2_000;
    let servers = Servers::new(&[1, 2]);
    let mesh = linked(&servers, &[1, 2], |builder| {
        let builder = builder.inbox_full(InboxFull::PushBack);
        builder.outbox(Outbox::QUEUE)
    });
    let payload = |number: u32| {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(4 + (number as usize * 997) % 40_000, number as u8);
        payload
    };
    let run = |own: usize| {
        let manager = Arc::clone(&mesh.managers[own]);
        let other = mesh.managers[1 - own].sid();
        let (handle, sender) = (manager.handle(), mesh.managers[own].handle());
        let sending = thread::spawn(move || {
            for number in 0..FRAMES {
                while sender.to_send(other, payload(number)).is_err() {
                    sender.wait_for_room(other, LONG).unwrap();
                }
            }
        });
        thread::spawn(move || {
            for number in 0..FRAMES {
                expect_message(&manager, other.0, payload(number));
            }
            sending.join().unwrap();
            handle.stats().balances()
        })
    };
    for thread in [run(0), run(1)] {
        assert!(within("both streams", || thread.join().unwrap()));
    }
}

/// Silent connections, and halves of a handshake, use no more than their places: a member that comes late is linked.
#[test]
fn member_links_beside_a_flood_of_silent_connections() {
    let servers = Servers::new(&[1, 2, 3]);
    let mesh = linked(&servers, &[1, 2], |builder| builder.pending_max(8));
    let hello = client_hello(&servers.ca, 1);
    let mut strangers = Vec::new();
    for number in 0..64 {
        let to = servers.address(1 + number % 2);
        let bytes = &hello[..number as usize * 3 % hello.len()];
        strangers.push(TestConnection::dial_and_write(STRANGER_IP, to, bytes));
    }
    let third = servers.start(3, |builder| builder);
    assert!(third.wait_linked(2, LONG));
    for manager in &mesh.managers {
        let stats = manager.stats();
        assert_eq!(stats.downs.values().sum::<u64>(), 0, "{stats:?}");
    }
    drop(strangers);
}

/// Runs this test in a process of its own: what it measures belongs to a whole process, in which other tests run beside it. Returns
/// whether this process is that one.
#[cfg(target_os = "linux")]
#[track_caller]
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "QUORUM_CNX_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    let output = command.env(ALONE, "").output().unwrap();
    let [said, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    // Also fails if there is no test of this name.
    let has_passed = output.status.success() && said.contains("1 passed");
    assert!(has_passed, "{said}{errors}");
    false
}

/// Strangers that say nothing, or begin a handshake and do not go on, hold as many places as there are, and no more memory than those.
#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_silent_connections_take_the_pending_places_only() {
    const SILENT: u64 = 10_000;
    const PENDING_MAX: u64 = 256;
    // At most, as `docs/tls.md` says.
    const PENDING_BYTES: u64 = 136 << 10;
    if !is_alone("ten_thousand_silent_connections_take_the_pending_places_only") {
        return;
    }
    // The far ends are in this process, too.
    need_descriptors(SILENT + 1000);
    let servers = Servers::new(&[1, 2]);
    let mesh = linked(&servers, &[1, 2], |builder| {
        let builder = builder.pending_max(PENDING_MAX as usize);
        builder.handshake_timeout(LONG)
    });
    let (before, ring) = (links(&mesh.managers[0]), Ring::start(&mesh));
    let target = &mesh.managers[0];
    let hello = client_hello(&servers.ca, 1);
    let resources = ProcessResources::own();
    let accepted = target.stats().accepted;
    let mut strangers = Vec::new();
    for number in 1..=SILENT {
        // Each eighth sends a whole ClientHello, to which the member answers. The others send nothing, or the first bytes of one.
        let len = match number % 8 {
            0 => hello.len(),
            rest => rest as usize - 1,
        };
        let to = servers.address(1);
        strangers.push(TestConnection::dial_and_write(
            STRANGER_IP,
            to,
            &hello[..len],
        ));
        if number % 64 == 0 {
            // Else the backlog of the listening socket would be full.
            eventually("they are accepted", || {
                target.stats().accepted >= accepted + number
            });
            assert!(target.stats().pending <= PENDING_MAX);
        }
    }
    eventually("all others are evicted", || {
        let evicted = target.stats().rejected.get(&ReasonKind::Evicted).copied();
        evicted.unwrap_or_default() == SILENT - PENDING_MAX
    });
    ring.wait_rounds(10);
    let grown = ProcessResources::own().growth_since(resources);
    assert!(grown < PENDING_MAX * PENDING_BYTES, "{grown} bytes more");
    assert_eq!(links(target), before);
    drop(strangers);
}

#[test]
fn halt_does_not_wait_for_handshakes() {
    // 3 is a listener that never answers. 2 dials nobody else, and is in the handshake with 3 and with strangers.
    let servers = Servers::new(&[2, 3]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let tls = servers.tls(3);
    let config = Config::builder(Sid(3))
        .server(Sid(3), servers.address(3))
        .server(Sid(2), &address)
        .peer_names(Sid(2), [PeerName::Dns(name_of(2))])
        .peer_names(Sid(3), [PeerName::Dns(name_of(3))])
        .connect_timeout(LONG)
        .handshake_timeout(LONG)
        .tls(tls);
    let manager = CnxManager::start(config.build().unwrap()).unwrap();
    // It has been dialed, and waits for the ServerHello.
    let mut dialed = TestConnection::accept(&silent);
    dialed.0.read_exact(&mut [0; 5]).unwrap();
    let hello = client_hello(&servers.ca, 3);
    let hanging = [0, 1, hello.len() / 2, hello.len()]
        .map(|len| TestConnection::dial_and_write(STRANGER_IP, servers.address(3), &hello[..len]));
    eventually("the strangers wait", || manager.stats().pending == 4);
    let manager = within("halt", move || {
        manager.halt();
        manager
    });
    assert!(manager.is_halted());
    for mut connection in hanging {
        connection.wait_closed();
    }
}

#[test]
fn others_need_names_of_their_own() {
    let servers = Servers::new(&[1]);
    let admit = |builder: ConfigBuilder| {
        let named = [PeerName::Dns("admitted.example".into())];
        builder
            .unknown(Unknown::admit(4))
            .peer_names(Sid(7), named)
            .observer_names([PeerName::Dns("observer.example".into())])
    };
    let manager = servers.start(1, admit);
    let connect = |sid: i64, name: &str| {
        let own = servers.ca.sign(&params("other", &[name]));
        let stream = TestConnection::dial(MEMBER_IP, servers.address(1)).0;
        let mut client = client(stream, &servers.ca, Some(&own), 1);
        // Fails if it is refused at once.
        let bytes = [bare(sid), frame(format!("from {sid}"))].concat();
        let _ = client.write_all(&bytes);
        client
    };
    let wrong = |sid: i64, names: &str| {
        Reason::Tls(TlsFailure::WrongName {
            sid: Sid(sid),
            names: names.into(),
        })
    };
    let admitted = connect(7, "admitted.example");
    expect_message(&manager, 7, "from 7");
    let _refused = connect(8, "admitted.example");
    assert_eq!(
        rejected(&manager),
        (Some(Sid(8)), wrong(8, "admitted.example"))
    );
    let observer = connect(OBSERVER, "observer.example");
    let message = manager.recv_timeout(LONG).unwrap();
    assert!(message.from.0 < 0, "{message:?}");
    let _refused = connect(OBSERVER, "zk1.example");
    assert_eq!(rejected(&manager), (None, wrong(OBSERVER, "zk1.example")));
    // A name that admits a server admits no observer, and the other way round.
    let _refused = connect(OBSERVER, "admitted.example");
    assert_eq!(
        rejected(&manager),
        (None, wrong(OBSERVER, "admitted.example"))
    );
    let _refused = connect(7, "observer.example");
    assert_eq!(
        rejected(&manager),
        (Some(Sid(7)), wrong(7, "observer.example"))
    );
    drop((admitted, observer));
}

/// A proxy gives a member the address of a stranger. Its certificate proves who it is, so that it gets its place back at once.
#[test]
fn certificate_proves_a_member_at_any_address() {
    let servers = Servers::new(&[2, 3]);
    let manager = servers.start(2, |builder| builder);
    let own = servers.ca.member(3);
    let connect = |from, text: &str| {
        let stream = TestConnection::dial(from, servers.address(2)).0;
        let mut client = client(stream, &servers.ca, Some(&own), 2);
        client.write_all(&[bare(3), frame(text)].concat()).unwrap();
        expect_message(&manager, 3, text);
        client
    };
    let _older = connect(MEMBER_IP, "from its own address");
    let _newer = connect(STRANGER_IP, "from another address");
    assert_eq!(wait_for_down(&manager), (Sid(3), Reason::Replaced));
}

/// Without names, neither an observer nor a server that is not configured is let in, whatever its certificate is.
#[test]
fn others_without_names_are_refused() {
    let servers = Servers::new(&[1]);
    let manager = servers.start(1, |builder| builder.unknown(Unknown::admit(4)));
    for sid in [OBSERVER, 7] {
        let own = servers.ca.sign(&params("other", &["other.example"]));
        let stream = TestConnection::dial(MEMBER_IP, servers.address(1)).0;
        let mut client = client(stream, &servers.ca, Some(&own), 1);
        let _ = client.write_all(&bare(sid));
        let (_, reason) = rejected(&manager);
        let expected = TlsFailure::WrongName {
            sid: Sid(sid),
            names: "other.example".into(),
        };
        assert_eq!(reason, Reason::Tls(expected));
    }
}
