//! Tests certificates that have expired: of ours, which the real server refuses, and of the real server.

use quorum_cnx::TlsFailure;

use crate::{
    certificates::{Kind, expired},
    matrix::{BOTH, TLS_1_2, TLS_1_3},
    table::record,
    tls_ensemble::{TLS_ONLY, TlsEnsemble, names},
};

/// The real server dials those with a smaller sid.
const REAL: i64 = 3;

pub(crate) fn expired_certificates_of_ours_are_refused() {
    let ensemble = TlsEnsemble::new(6);
    let fresh = |sid| ensemble.stores(sid, Kind::Ecdsa, &names(sid)) + TLS_ONLY;
    let cases = [(1, TLS_1_2), (2, TLS_1_3), (4, TLS_1_2), (5, TLS_1_3)];
    let members = cases.map(|(sid, version)| {
        let lines = fresh(sid) + version.lines;
        let (ca, store) = (ensemble.ca(Kind::Ecdsa), ensemble.key_store(sid));
        ca.write_key_store_with(&store, &names(sid), expired);
        ensemble.ours(sid, &[REAL], &lines, |builder| builder)
    });
    let _server = ensemble.start(REAL, &(fresh(REAL) + BOTH + "fips-mode=false\n"), &[]);
    for ((sid, version), member) in cases.iter().zip(&members) {
        let seen = member.await_alerts();
        // A new certificate is enough: the next dial shows it.
        fresh(*sid);
        member.manager.handle().set_tls(ensemble.tls(*sid)).unwrap();
        member.await_up();
        member.exchange();
        let order = if *sid < REAL { "they dial" } else { "we dial" };
        let ours = format!("expired certificate, {}, {order}", version.name);
        record("names checked", &ours, &(seen + "; Up with a new one"));
    }
}

pub(crate) fn expired_certificate_of_theirs_is_refused() {
    let ensemble = TlsEnsemble::new(6);
    let lines = |sid| ensemble.stores(sid, Kind::Ecdsa, &names(sid)) + TLS_ONLY;
    let cases = [(1, TLS_1_2), (2, TLS_1_3), (4, TLS_1_2), (5, TLS_1_3)];
    let members = cases.map(|(sid, version)| {
        ensemble.ours(sid, &[REAL], &(lines(sid) + version.lines), |builder| {
            builder
        })
    });
    let real_lines = lines(REAL) + BOTH + "fips-mode=false\nsslQuorumReloadCertFiles=true\n";
    let (ca, store) = (ensemble.ca(Kind::Ecdsa), ensemble.key_store(REAL));
    ca.write_key_store_with(&store, &names(REAL), expired);
    let _server = ensemble.start(REAL, &real_lines, &[]);
    for member in &members {
        let both = member.await_refused_both_ways();
        assert_eq!(both, [TlsFailure::Expired, TlsFailure::Expired]);
    }
    ca.write_key_store(&store, &names(REAL));
    for ((sid, version), member) in cases.iter().zip(&members) {
        member.await_up();
        member.exchange();
        let order = if *sid < REAL { "they dial" } else { "we dial" };
        record(
            "expired certificate, sslQuorumReloadCertFiles=true",
            &format!("{}, {order}", version.name),
            "never Up; DialFailed and Rejected: Expired; Up when they have a new one",
        );
    }
}
