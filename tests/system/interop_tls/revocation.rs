//! Tests certificates that are revoked: of ours, in a list that the real server fetches or by OCSP, and of the real server, in a list of
//! ours.

use quorum_cnx::{Event, Reason, TlsFailure};

use crate::{
    certificates::{Kind, with_list, with_ocsp},
    responder::Responder,
    table::record,
    tls_ensemble::{TLS_ONLY, TlsEnsemble, names},
};

/// The real server dials those with a smaller sid.
const REAL: i64 = 4;
/// With certificates that are valid.
const VALID: [i64; 2] = [1, 5];
const REVOKED: [i64; 2] = [2, 6];
/// Their certificates do not say where the real server can ask.
const SILENT: [i64; 2] = [3, 7];
/// It comes later than the others.
const LATE: i64 = 8;

/// How the real server learns what is revoked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    List,
    Ocsp,
}

/// The serial number of a server's certificate.
fn serial(sid: i64) -> u64 {
    0x1000 + sid as u64
}

pub(crate) fn real_server_fetches_a_revocation_list() {
    check_ours(Source::List);
}

pub(crate) fn real_server_asks_by_ocsp() {
    check_ours(Source::Ocsp);
}

fn check_ours(source: Source) {
    let ensemble = TlsEnsemble::new(8);
    let ca = ensemble.ca(Kind::Ecdsa);
    let valid = [VALID[0], VALID[1], LATE].map(serial);
    let responder = Responder::start(ca, ensemble.directory(), &valid, &REVOKED.map(serial));
    let start = |sid: i64| {
        ca.write_key_store_with(
            &ensemble.key_store(sid),
            &names(sid),
            |params| match source {
                _ if SILENT.contains(&sid) => {}
                Source::List => with_list(params, serial(sid), &responder.list_url()),
                Source::Ocsp => with_ocsp(params, serial(sid), &responder.ocsp_url()),
            },
        );
        ensemble.ours(sid, &[REAL], &(ensemble.lines(sid) + TLS_ONLY), |builder| {
            builder
        })
    };
    let [valid, revoked, silent] = [VALID, REVOKED, SILENT].map(|sids| sids.map(start));
    let line = match source {
        Source::List => "ssl.quorum.crl=true",
        Source::Ocsp => "ssl.quorum.ocsp=true",
    };
    let stores = ensemble.stores(REAL, Kind::Ecdsa, &names(REAL));
    let lines = format!("{stores}{TLS_ONLY}fips-mode=false\n{line}\n");
    let _server = ensemble.start(REAL, &lines, &[]);
    for member in &valid {
        member.await_up();
        member.exchange();
        let sid = member.manager.sid().0;
        record_case(line, "valid certificate", sid, "linked, frames both ways");
    }
    let asked = match source {
        Source::List => responder.lists(),
        Source::Ocsp => responder.questions(),
    };
    assert!(asked > 0);
    for (what, members) in [
        ("revoked certificate", &revoked),
        ("certificate without an URL", &silent),
    ] {
        for member in members {
            record_case(line, what, member.manager.sid().0, &member.await_alerts());
        }
    }
    if source == Source::Ocsp {
        // It asks for each connection, and does not believe without an answer. Links stay.
        responder.set_down(true);
        let late = start(LATE);
        let refused = late.await_refused();
        assert!(matches!(refused, TlsFailure::Alert(_)), "{refused}");
        responder.set_down(false);
        late.await_up();
        late.exchange();
        record_case(
            line,
            "valid certificate, responder down",
            LATE,
            "alert; Up when it answers again",
        );
    }
    for member in &valid {
        member.exchange();
        member.assert_down_by_knocks_only();
    }
}

fn record_case(line: &str, what: &str, sid: i64, seen: &str) {
    let order = if sid < REAL { "they dial" } else { "we dial" };
    record(line, &format!("{what}, {order}"), seen);
}

pub(crate) fn revoked_certificate_of_theirs_is_refused() {
    let ensemble = TlsEnsemble::new(8);
    let ca = ensemble.ca(Kind::Ecdsa);
    let lists = |revoked: &[u64]| {
        [
            ca.revocation_list(revoked),
            ensemble.ca(Kind::Rsa).revocation_list(&[]),
        ]
    };
    let start = |sid: i64, revoked: &[u64]| {
        let lines = ensemble.stores(sid, Kind::Ecdsa, &names(sid)) + TLS_ONLY;
        let tls = ensemble
            .tls_builder(sid)
            .crls(lists(revoked))
            .build()
            .unwrap();
        ensemble.ours(sid, &[REAL], &lines, |builder| builder.tls(tls))
    };
    let members = REVOKED.map(|sid| start(sid, &[serial(REAL)]));
    let before = VALID.map(|sid| start(sid, &[]));
    let store = ensemble.key_store(REAL);
    ca.write_key_store_with(&store, &names(REAL), |params| {
        with_list(params, serial(REAL), "http://127.0.0.1:1/list");
    });
    let lines = ensemble.lines(REAL) + TLS_ONLY + "fips-mode=false\n";
    let _server = ensemble.start(REAL, &lines, &[]);
    for (sid, member) in REVOKED.iter().zip(&members) {
        let both = member.await_refused_both_ways();
        assert_eq!(both, [TlsFailure::Revoked, TlsFailure::Revoked]);
        let seen = "never Up; DialFailed and Rejected: Revoked";
        record_case("revoked certificate", "crls", *sid, seen);
    }
    for (sid, member) in VALID.iter().zip(&before) {
        member.await_up();
        member.exchange();
        let tls = ensemble
            .tls_builder(*sid)
            .crls(lists(&[serial(REAL)]))
            .build();
        member.manager.handle().set_tls(tls.unwrap()).unwrap();
        member.await_event("the link ends", |event| match event {
            Event::Down {
                reason: Reason::Tls(TlsFailure::Revoked),
                ..
            } => Some(()),
            _ => None,
        });
        record_case(
            "revoked certificate",
            "list loaded later",
            *sid,
            "Up, then Down: Revoked",
        );
    }
}
