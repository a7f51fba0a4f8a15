//! Certificates that change while the members are linked.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::SystemTime,
};

use quorum_cnx::{InitialMessageVersion, Tls, rustls::pki_types::CertificateDer};
use rcgen::{SerialNumber, date_time_ymd};
use support::{
    renewed,
    tls::{directory, server, write_files},
};

use super::*;

/// Waits until new certificates are used.
#[track_caller]
fn wait_reloaded(manager: &CnxManager) {
    wait_for(manager, |event| match event {
        Event::TlsReloaded => Some(()),
        Event::TlsReloadFailed { .. } => panic!("{event}"),
        _ => None,
    });
}

/// Waits until certificates could not be loaded, and returns why.
#[track_caller]
fn wait_reload_failed(manager: &CnxManager) -> String {
    wait_for(manager, |event| match event {
        Event::TlsReloadFailed { error, .. } => Some(error.clone()),
        Event::TlsReloaded => panic!("{event}"),
        _ => None,
    })
}

#[test]
fn revocation_ends_the_link_of_the_revoked_peer_only() {
    let servers = Servers::new(&[1, 2, 3]);
    let mesh = linked(&servers, &[1, 2, 3], |builder| builder);
    let manager = &mesh.managers[0];
    let before = links(manager);
    let tls = servers.ca.member(1).tls(&servers.ca);
    let tls = tls.crls([servers.ca.crl(&[3])]).build().unwrap();
    manager.handle().set_tls(tls).unwrap();
    wait_reloaded(manager);
    let revoked = Reason::Tls(TlsFailure::Revoked);
    assert_eq!(wait_for_down(manager), (Sid(3), revoked.clone()));
    // 3 dials again, and is refused.
    assert_eq!(rejected(manager), (None, revoked));
    assert_eq!(links(manager)[&Sid(2)], before[&Sid(2)]);
    // The list of 1 does not concern 2.
    assert!(mesh.managers[1].connected_to_peer(Sid(3)));
}

/// A peer that was dialed and has not answered the native initial message yet is judged by the newest certificates, too.
#[test]
fn revocation_ends_a_link_that_waits_for_its_answer() {
    let servers = Servers::new(&[2, 3]);
    let listener = TcpListener::bind(servers.address(2)).unwrap();
    let native = |builder: ConfigBuilder| {
        let builder = builder.initial_message(InitialMessageVersion::Native);
        builder.handshake_timeout(LONG)
    };
    let manager = servers.start(3, native);
    let stream = TestConnection::accept(&listener).0;
    let mut acceptor = server(stream, &servers.ca.member(2));
    acceptor.read_exact(&mut [0; 8]).unwrap();
    let tls = servers.ca.member(3).tls(&servers.ca);
    let tls = tls.crls([servers.ca.crl(&[2])]).build().unwrap();
    manager.handle().set_tls(tls).unwrap();
    let reason = wait_for(&manager, |event| match event {
        Event::DialFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason, Reason::Tls(TlsFailure::Revoked));
}

#[test]
fn members_without_tls_take_no_certificates() {
    let servers = Servers::new(&[1]);
    let manager = CnxManager::start(servers.plain(1).build().unwrap()).unwrap();
    let error = manager.handle().set_tls(servers.tls(1)).unwrap_err();
    assert!(error.to_string().contains("started without it"), "{error}");
}

/// Starts a member with the files in this directory, which it watches.
fn watching(servers: &Servers, sid: i64, at: &Path) -> CnxManager {
    let [own, key, root] = ["tls.crt", "tls.key", "ca.crt"].map(|name| at.join(name));
    let files = [own.clone(), key.clone(), root.clone()];
    let load = move || Tls::from_pem_files(&own, &key, &root)?.build();
    let config = servers.secure(sid, load().unwrap()).build().unwrap();
    let manager = CnxManager::start(config).unwrap();
    manager.handle().watch_tls_files(files, load).unwrap();
    manager
}

/// The certificate that a server shows to those who dial it.
pub(crate) fn shown(servers: &Servers, sid: i64) -> CertificateDer<'static> {
    let stream = TestConnection::dial(STRANGER_IP, servers.address(sid)).0;
    let mut client = client(stream, &servers.ca, None, sid);
    // Sends the ClientHello, and reads until it is refused.
    let _ = client.read(&mut [0]);
    let shown = client.conn.peer_certificates();
    shown.expect("it shows a certificate")[0].clone()
}

/// Writes a file anew, in one step: else the thread that watches it may read it while it is empty, and report that, too.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn broken_file_keeps_the_certificates_in_use() {
    let servers = Servers::new(&[1, 2]);
    let at = directory("tls broken file");
    let first = servers.ca.member(1);
    write_files(&at, &first, &servers.ca);
    let manager = watching(&servers, 1, &at);
    let peer = servers.start(2, |builder| builder);
    assert!(manager.wait_linked(1, LONG));
    let before = links(&manager);
    // The certificate without its key, as if the key were written later.
    let second = servers.ca.member(1);
    replace(&at.join("tls.crt"), &second.pem);
    let error = wait_reload_failed(&manager);
    assert!(error.contains("tls.crt"), "{error}");
    assert_eq!(shown(&servers, 1), first.certificate);
    replace(&at.join("tls.key"), &second.key.serialize_pem());
    wait_reloaded(&manager);
    assert_eq!(shown(&servers, 1), second.certificate);
    assert_eq!(links(&manager), before);
    drop(peer);
}

/// The files can be read, and cannot be loaded for a moment: they do not change when that is over.
#[test]
fn certificates_that_cannot_be_loaded_are_tried_again() {
    let servers = Servers::new(&[1]);
    let at = directory("tls load fails once");
    let file = at.join("changes");
    fs::write(&file, "first").unwrap();
    let manager = servers.start(1, |builder| builder);
    let second = servers.ca.member(1);
    let tls = second.tls(&servers.ca).build().unwrap();
    let has_failed = AtomicBool::new(false);
    let load = move || match has_failed.swap(true, Ordering::Relaxed) {
        true => Ok(tls.clone()),
        false => Tls::from_pem_files("nowhere", "nowhere", "nowhere")?.build(),
    };
    let handle = manager.handle();
    handle.watch_tls_files([file.clone()], load).unwrap();
    fs::write(&file, "second").unwrap();
    let error = wait_reload_failed(&manager);
    assert!(error.contains("nowhere"), "{error}");
    wait_reloaded(&manager);
    assert_eq!(shown(&servers, 1), second.certificate);
}

/// As kubelet does: the files are links to `..data/NAME`, and `..data` is a link to a directory, which is replaced at once.
#[test]
fn kubernetes_secret_that_is_swapped_is_reloaded() {
    let servers = Servers::new(&[1]);
    let at = directory("tls secret");
    let [first, second] = [1, 1].map(|sid| servers.ca.member(sid));
    write_files(&at.join("..2026_01"), &first, &servers.ca);
    symlink("..2026_01", at.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(Path::new("..data").join(name), at.join(name)).unwrap();
    }
    let manager = watching(&servers, 1, &at);
    assert_eq!(shown(&servers, 1), first.certificate);
    write_files(&at.join("..2026_02"), &second, &servers.ca);
    symlink("..2026_02", at.join("..data_tmp")).unwrap();
    fs::rename(at.join("..data_tmp"), at.join("..data")).unwrap();
    fs::remove_dir_all(at.join("..2026_01")).unwrap();
    wait_reloaded(&manager);
    assert_eq!(shown(&servers, 1), second.certificate);
}

/// `renew` replaces the links of both kinds: those that this server has dialed, and those that it has accepted. A queue goes on over
/// them. What the kernel had taken when a link ended may be lost, and `Event::Down` says how many frames at most.
#[test]
fn renewal_replaces_every_link_and_queues_go_on() {
    let servers = Servers::new(&[1, 2, 3]);
    let mesh = linked(&servers, &[1, 2, 3], |builder| {
        let builder = builder.inbox_full(InboxFull::PushBack);
        builder.outbox(Outbox::QUEUE)
    });
    let middle = Arc::clone(&mesh.managers[1]);
    let stop = Arc::new(AtomicBool::new(false));
    // Of servers 1 and 3.
    let received = Arc::new([const { AtomicU64::new(0) }; 2]);
    let sending = [0, 2].map(|at: usize| {
        let (handle, stop) = (mesh.managers[at].handle(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                match handle.to_send_slice(Sid(2), &number.to_be_bytes()) {
                    Ok(_) => number += 1,
                    Err(_) => drop(handle.wait_for_room(Sid(2), LONG)),
                }
            }
            number
        })
    });
    let (all, receiver) = (Arc::clone(&received), Arc::clone(&middle));
    // Per sender: the next number, and how many are missing.
    let receiving = thread::spawn(move || {
        let mut seen = BTreeMap::<Sid, (u64, u64)>::new();
        while let Ok(message) = receiver.recv() {
            let number = u64::from_be_bytes(message.payload[..].try_into().unwrap());
            let (next, missing) = seen.entry(message.from).or_default();
            assert!(
                number >= *next,
                "{number} after {next}: twice, or out of order"
            );
            *missing += number - *next;
            *next = number + 1;
            all[usize::from(message.from == Sid(3))].fetch_add(1, Ordering::Relaxed);
        }
        seen
    });
    let flows_on = || {
        for count in &*received {
            let before = count.load(Ordering::Relaxed);
            eventually("frames arrive", || {
                count.load(Ordering::Relaxed) > before + 1000
            });
        }
    };
    flows_on();
    let before = links(&middle);
    middle.handle().renew();
    eventually("every link is a new one", || {
        let now = links(&middle);
        let is_new = |(sid, old): (&Sid, &u64)| now.get(sid).is_some_and(|new| new != old);
        before.iter().all(is_new)
    });
    flows_on();
    stop.store(true, Ordering::Relaxed);
    let sent = sending.map(|thread| thread.join().unwrap());
    // How many frames may be lost with each link that was replaced, by the events of the senders.
    let lost_at_most = [0, 2].map(|at: usize| {
        let manager = &mesh.managers[at];
        eventually("all is written", || manager.have_delivered());
        manager.halt();
        let mut written = Vec::new();
        while let Ok(event) = manager.events().try_recv() {
            match event {
                Event::Down {
                    sid: Sid(2),
                    written: count,
                    reason: Reason::Replaced | Reason::Closed,
                    ..
                } => written.push(count),
                Event::Down {
                    sid: Sid(2),
                    reason,
                    ..
                } => assert_eq!(reason, Reason::Halted),
                _ => {}
            }
        }
        written
    });
    eventually("both links have ended", || middle.linked_peers().is_empty());
    middle.halt();
    let seen = receiving.join().unwrap();
    for (at, sid) in [Sid(1), Sid(3)].into_iter().enumerate() {
        let ((next, missing), lost) = (seen[&sid], &lost_at_most[at]);
        // On a slow machine a second knock renews a link once more, perhaps after the last frame was written. Else all of them arrive.
        let late = if lost.len() > 1 {
            lost[lost.len() - 1]
        } else {
            0
        };
        let behind = sent[at] - next;
        assert!(
            behind <= late,
            "the last {behind} frames of {sid} are missing"
        );
        let all: u64 = lost.iter().sum();
        let missing = missing + behind;
        assert!(missing <= all, "{missing} frames of {sid} are missing");
    }
}

#[test]
fn renewals_of_a_native_link_lose_no_frame_of_a_queue() {
    for (renewing, times) in [(1, 20), (0, 3)] {
        let servers = Servers::new(&[1, 2]);
        let mesh = linked(&servers, &[1, 2], renewed::lossless);
        renewed::check(mesh, renewing, times);
    }
}

#[test]
fn certificate_that_expires_soon_is_reported() {
    let servers = Servers::new(&[1]);
    let mut own = params("member", &["zk1.example"]);
    let epoch = date_time_ymd(1970, 1, 1);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let not_after = Duration::from_secs(now.unwrap().as_secs() + 12 * 60 * 60);
    own.not_after = epoch + not_after;
    own.serial_number = Some(SerialNumber::from_slice(&[1]));
    let tls = servers.ca.sign(&own).tls(&servers.ca).build().unwrap();
    let config = servers.secure(1, tls).build().unwrap();
    let manager = CnxManager::start(config).unwrap();
    let told = || {
        wait_for(&manager, |event| match event {
            Event::CertificateExpires { not_after, .. } => Some(*not_after),
            _ => None,
        })
    };
    let expected = SystemTime::UNIX_EPOCH + not_after;
    assert_eq!(told(), expected);
    assert_eq!(manager.stats().certificate_not_after, Some(expected));
    // One that lasts is not reported, and one that expires is reported anew.
    manager.handle().set_tls(servers.tls(1)).unwrap();
    wait_reloaded(&manager);
    assert!(manager.stats().certificate_not_after > Some(expected));
    let tls = servers.ca.sign(&own).tls(&servers.ca).build().unwrap();
    manager.handle().set_tls(tls).unwrap();
    assert_eq!(told(), expected);
}
