//! Tests that the certificates of both sides are replaced by those of another CA while frames flow.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use quorum_cnx::{Event, Reason, Tls};

use crate::{
    certificates::{Ca, Kind, store_lines, write_trust_store},
    deadlines::wait_until,
    table::record,
    tls_ensemble::{TLS_ONLY, TlsEnsemble, names},
};

const REAL: i64 = 2;
/// They dial the first, and the second dials them.
const OURS: [i64; 2] = [1, 3];
/// It believes in the new CA only, and so sees when they show the new certificate.
const NEW_ONLY: i64 = 4;
/// It has a certificate of the old CA, and so sees when they do not believe in that any more.
const OLD: i64 = 5;

pub(crate) fn certificates_of_both_are_rotated() {
    let ensemble = TlsEnsemble::new(5);
    let [old, new] = ["old CA", "new CA"].map(|name| Ca::new(name, Kind::Ecdsa));
    let [theirs, both, only_new] = ["theirs", "both", "only-new"].map(|name| ensemble.file(name));
    write_trust_store(&theirs, &[&old, &new]);
    write_trust_store(&both, &[&old, &new]);
    write_trust_store(&only_new, &[&new]);
    let lines = |sid, trust_store| store_lines(&ensemble.key_store(sid), trust_store) + TLS_ONLY;
    for sid in [OURS[0], REAL, OURS[1], OLD] {
        old.write_key_store(&ensemble.key_store(sid), &names(sid));
    }
    new.write_key_store(&ensemble.key_store(NEW_ONLY), &names(NEW_ONLY));

    let real_lines = lines(REAL, &theirs) + "sslQuorumReloadCertFiles=true\nfips-mode=false\n";
    let _server = ensemble.start(REAL, &real_lines, &[]);
    let members =
        OURS.map(|sid| ensemble.ours(sid, &[REAL], &lines(sid, &both), |builder| builder));
    for member in &members {
        member.await_up();
    }
    let new_only = ensemble.ours(NEW_ONLY, &[REAL], &lines(NEW_ONLY, &only_new), |builder| {
        builder
    });
    let traffic = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (member, count) in members.iter().zip(&traffic) {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    member.exchange();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _over = Over(&is_over);
        let await_traffic = |what: &str| {
            for count in &traffic {
                let before = count.load(Ordering::Relaxed);
                wait_until(what, || count.load(Ordering::Relaxed) > before + 10);
            }
        };
        await_traffic("frames flow");
        new_only.await_refused();

        // Theirs: they read the new file by themselves. Links go on with the certificate that they began with.
        new.write_key_store(&ensemble.key_store(REAL), &names(REAL));
        new_only.await_up();
        await_traffic("frames flow after they have another certificate");

        // Ours: the new certificate, then new links, and at last the old CA is believed no more.
        for (sid, member) in OURS.into_iter().zip(&members) {
            let store = ensemble.key_store(sid);
            new.write_key_store(&store, &names(sid));
            let tls = |trust_store| Tls::from_pem_files(&store, &store, trust_store);
            let tls = |trust_store| tls(trust_store).unwrap().build().unwrap();
            member.manager.handle().set_tls(tls(&both)).unwrap();
            member.manager.handle().renew();
            assert_eq!(member.await_up(), sid > REAL);
            await_traffic("frames flow over the new link");
            member.manager.handle().set_tls(tls(&only_new)).unwrap();
            member.await_event("the new CA is used", |event| {
                let is_last = matches!(event, Event::TlsReloaded);
                is_last.then_some(())
            });
            await_traffic("frames flow with the new CA only");
        }

        // Theirs believe in the new CA only, too. Ours have certificates of it.
        write_trust_store(&theirs, &[&new]);
        wait_until("a certificate of the old CA is refused", || {
            let member = ensemble.ours(OLD, &[REAL], &lines(OLD, &both), |builder| builder);
            member.await_event("a link or a refusal", |event| match event {
                Event::Up { .. } => Some(false),
                Event::DialFailed { reason, .. } => Some(matches!(reason, Reason::Tls(_))),
                _ => None,
            })
        });
        for (sid, member) in OURS.into_iter().zip(&members) {
            member.manager.handle().renew();
            assert_eq!(member.await_up(), sid > REAL);
        }
        await_traffic("frames flow to the end");
    });
    // A link with their old certificate would have ended by TLS.
    let [below, above] = &members;
    below.assert_down_by_knocks_only();
    above.assert_never_down();
    let what = "sslQuorumReloadCertFiles=true, all stores of both replaced";
    for (order, end) in [
        ("they dial", "they close the old link first"),
        ("we dial", "the old link ends when the new one is there"),
    ] {
        record(
            what,
            &format!("set_tls, renew, {order}"),
            &format!("frames flow; {end}"),
        );
    }
}

/// Ends the traffic, also of a test that fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
