//! The upgrade of a running mesh to TLS, as in ZooKeeper: three steps, each on all servers one after the other.

use quorum_cnx::Plaintext;

use super::*;

/// Restarts each server of a mesh with this configuration. After each restart all are linked, and the link of the other two has
/// stayed.
#[track_caller]
fn restart_each(managers: &mut [CnxManager; 3], step: &str, config: impl Fn(i64) -> ConfigBuilder) {
    for manager in &*managers {
        assert!(manager.wait_linked(2, LONG));
    }
    for at in 0..3 {
        let sid = Sid(at as i64 + 1);
        let others = |managers: &[CnxManager; 3]| -> Vec<_> {
            let all = managers.iter().filter(|manager| manager.sid() != sid);
            all.flat_map(links).filter(|link| link.0 != sid).collect()
        };
        let before = others(managers);
        managers[at].halt();
        managers[at] = CnxManager::start(config(sid.0).build().unwrap()).unwrap();
        eventually(
            &format!("{step}: all are linked after {sid} is restarted"),
            || {
                managers
                    .iter()
                    .all(|manager| manager.linked_peers().len() == 2)
            },
        );
        assert_eq!(others(managers), before, "{step}: {sid} is restarted");
        for [from, to] in [[0, 1], [1, 0], [0, 2], [2, 0], [1, 2], [2, 1]] {
            let payload = format!("{step}, {sid} restarted");
            let (from, to) = (&managers[from], &managers[to]);
            from.to_send(to.sid(), payload.clone()).unwrap();
            // The last frame may be sent once more over the new link, before the new one.
            eventually("the frame arrives", || {
                let message = to.recv_timeout(LONG).unwrap();
                message.from == from.sid() && message.payload == payload.as_bytes()
            });
        }
    }
}

#[test]
fn mesh_is_upgraded_in_three_rolling_steps() {
    let servers = Servers::new(&[1, 2, 3]);
    let start = |sid| CnxManager::start(servers.plain(sid).build().unwrap()).unwrap();
    let mut managers = [1, 2, 3].map(start);
    let secure = |plaintext: Plaintext| {
        let servers = &servers;
        move |sid| servers.secure(sid, servers.tls(sid).plaintext(plaintext))
    };
    restart_each(&mut managers, "accept TLS", secure(Plaintext::Dial));
    // A member that was left out still links.
    managers[2].halt();
    managers[2] = start(3);
    assert!(managers[2].wait_linked(2, LONG));
    managers[2].halt();
    managers[2] = CnxManager::start(secure(Plaintext::Dial)(3).build().unwrap()).unwrap();
    restart_each(&mut managers, "dial TLS", secure(Plaintext::Accept));
    restart_each(&mut managers, "refuse plaintext", secure(Plaintext::Refuse));
    // Now it does not.
    managers[2].halt();
    let left_out = start(3);
    assert_eq!(
        rejected(&managers[0]),
        (None, Reason::Tls(TlsFailure::Plaintext))
    );
    assert!(!managers[0].connected_to_peer(left_out.sid()));
}
