//! Members that change: whose certificate is believed for whom.

use quorum_cnx::{Leave, Members};

use super::*;

/// The set of these servers, with the names of those that are named.
fn members(servers: &Servers, version: u64, sids: &[i64], named: &[i64]) -> Members {
    let all = Members::new(version);
    let all = sids
        .iter()
        .fold(all, |all, sid| all.server(Sid(*sid), servers.address(*sid)));
    named.iter().fold(all, |all, sid| {
        all.peer_names(Sid(*sid), [PeerName::Dns(name_of(*sid))])
    })
}

#[test]
fn certificate_of_a_joiner_is_believed_and_that_of_a_leaver_is_not() {
    let servers = Servers::new(&[1, 2, 3]);
    let mesh = linked(&servers, &[1, 2, 3], |builder| builder);
    let manager = &mesh.managers[0];
    let before = links(manager);
    let without = members(&servers, 1, &[1, 2], &[]);
    manager.reconfigure(without).unwrap();
    // Not because of its certificate, which is not checked again.
    assert_eq!(wait_for_down(manager), (Sid(3), Reason::Removed));
    let (_, reason) = rejected(manager);
    assert!(
        matches!(
            reason,
            Reason::UnknownSid(_) | Reason::Tls(TlsFailure::WrongName { .. })
        ),
        "{reason}"
    );
    // Its names are those of its addresses, which its certificate does not have.
    let nameless = members(&servers, 2, &[1, 2, 3], &[]);
    manager.reconfigure(nameless).unwrap();
    wait_for(manager, |event| match event {
        Event::Rejected {
            reason: Reason::Tls(TlsFailure::WrongName { sid: Sid(3), .. }),
            ..
        } => Some(()),
        _ => None,
    });
    let again = members(&servers, 2, &[1, 2, 3], &[3]);
    let again = manager.reconfigure(again).unwrap_err().to_string();
    assert!(again.contains("version 2"), "{again}");
    let named = members(&servers, 3, &[1, 2, 3], &[3]);
    let changes = manager.reconfigure(named).unwrap();
    assert!(changes.joined.is_empty() && changes.version == 3);
    assert!(manager.wait_linked(2, LONG));
    // The names that were given for 2 at the start are its names still.
    assert_eq!(links(manager)[&Sid(2)], before[&Sid(2)]);
    let unknown = members(&servers, 4, &[1, 2], &[3]);
    let unknown = manager.reconfigure(unknown).unwrap_err().to_string();
    assert_eq!(unknown, "peer_names: server 3 is no member");
}

#[test]
fn last_word_is_read_over_tls() {
    for leaver in [1, 3] {
        let servers = Servers::new(&[2, leaver]);
        let mesh = linked(&servers, &[2, leaver], |builder| builder);
        let [manager, other] = [&mesh.managers[0], &mesh.managers[1]];
        manager.to_send(Sid(leaver), "you are removed").unwrap();
        manager
            .remove_server(Sid(leaver), Leave::After(LONG * 3))
            .unwrap();
        expect_message(other, 2, "you are removed");
        assert_eq!(wait_for_down(manager), (Sid(leaver), Reason::Removed));
    }
}

/// Its certificate is believed until then, and not any longer.
#[test]
fn server_that_leaves_is_linked_for_its_last_word_over_tls() {
    for leaver in [1, 3] {
        let servers = Servers::new(&[2, leaver]);
        let manager = servers.start(2, |builder| builder.unknown(Unknown::admit(1)));
        manager.to_send(Sid(leaver), "you are removed").unwrap();
        manager
            .remove_server(Sid(leaver), Leave::After(LONG * 3))
            .unwrap();
        // It starts only now.
        let other = servers.start(leaver, |builder| builder);
        expect_message(&other, 2, "you are removed");
        wait_for(&manager, |event| match event {
            Event::Left { discarded: 0, .. } => Some(()),
            _ => None,
        });
        // It comes again, and would be admitted with any of its names.
        wait_for(&manager, |event| match event {
            Event::Rejected {
                reason: Reason::Tls(TlsFailure::WrongName { .. }),
                ..
            } => Some(()),
            _ => None,
        });
        assert_eq!(manager.linked_peers(), []);
    }
}

#[test]
fn names_without_tls_are_refused() {
    let servers = Servers::new(&[1, 2]);
    let plain = CnxManager::start(servers.plain(1).build().unwrap()).unwrap();
    let named = members(&servers, 1, &[1, 2], &[2]);
    let refused = plain.reconfigure(named).unwrap_err().to_string();
    assert_eq!(refused, "peer_names: certificates have names only with tls");
}
