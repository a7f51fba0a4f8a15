//! Tests one real server with several of ours at once: each order of the sids, each kind of key, each version of TLS; and names that
//! are wrong.

use quorum_cnx::{ConfigBuilder, Dial, Event, PeerName, Reason, Sid, TlsFailure};

use crate::{
    certificates::Kind,
    member::Member,
    release,
    table::record,
    tls_ensemble::{TLS_ONLY, TlsEnsemble, names},
};

/// The sid of the real server. Eleven servers have a smaller one.
const REAL: i64 = 12;
const SERVERS: usize = 20;

/// A version of TLS, and the line with which one of ours speaks no other.
#[derive(Clone, Copy)]
pub(crate) struct Version {
    pub(crate) name: &'static str,
    pub(crate) lines: &'static str,
}

pub(crate) const TLS_1_2: Version = Version {
    name: "TLSv1.2",
    lines: "ssl.quorum.enabledProtocols=TLSv1.2\n",
};
pub(crate) const TLS_1_3: Version = Version {
    name: "TLSv1.3",
    lines: "ssl.quorum.enabledProtocols=TLSv1.3\n",
};

/// How the real server is configured.
struct Setup {
    name: &'static str,
    lines: &'static str,
    kind: Kind,
    versions: &'static [Version],
    checks_names: bool,
}

/// Lines for both versions, also in releases before 3.9, which speak 1.2 unless they are told.
pub(crate) const BOTH: &str = "ssl.quorum.protocol=TLSv1.3\nssl.quorum.enabledProtocols=TLSv1.3,TLSv1.2\nssl.quorum.ciphersuites=\
    TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,\
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n";

pub(crate) fn names_are_checked_by_both() {
    // 3.8 speaks 1.2 by default, and 3.9 both.
    check(&Setup {
        name: "names checked, default protocol",
        lines: "fips-mode=false\n",
        kind: Kind::Ecdsa,
        versions: if release::is_since((3, 9)) {
            &[TLS_1_2, TLS_1_3]
        } else {
            &[TLS_1_2]
        },
        checks_names: true,
    });
}

pub(crate) fn both_versions_of_tls_without_names() {
    let lines = format!("fips-mode=false\nssl.quorum.hostnameVerification=false\n{BOTH}");
    check(&Setup {
        name: "hostnameVerification=false, TLS 1.2 and 1.3",
        lines: lines.leak(),
        kind: Kind::Rsa,
        versions: &[TLS_1_2, TLS_1_3],
        checks_names: false,
    });
}

pub(crate) fn fips_mode_checks_no_names() {
    check(&Setup {
        name: "fips-mode=true, default protocol",
        lines: "fips-mode=true\n",
        kind: Kind::Ecdsa,
        versions: &[TLS_1_2, TLS_1_3],
        checks_names: false,
    });
}

pub(crate) fn only_tls_1_3() {
    check(&Setup {
        name: "names checked, TLS 1.3 only",
        lines: "fips-mode=false\nssl.quorum.protocol=TLSv1.3\nssl.quorum.enabledProtocols=TLSv1.3\n\
                ssl.quorum.ciphersuites=TLS_AES_256_GCM_SHA384\n",
        kind: Kind::Rsa,
        versions: &[TLS_1_3],
        checks_names: true,
    });
}

pub(crate) fn only_tls_1_2() {
    check(&Setup {
        name: "names checked, TLS 1.2 only",
        lines: "fips-mode=false\nssl.quorum.protocol=TLSv1.2\nssl.quorum.enabledProtocols=TLSv1.2\n",
        kind: Kind::Rsa,
        versions: &[TLS_1_2],
        checks_names: true,
    });
}

/// How a link is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    WeDial,
    TheyDial,
    WeKnock,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::WeDial => "we dial",
            Self::TheyDial => "they dial",
            Self::WeKnock => "we knock, they dial",
        }
    }
}

/// One of ours.
struct Case {
    sid: i64,
    order: Order,
    kind: Kind,
    version: Version,
}

fn cases(setup: &Setup) -> Vec<Case> {
    let (mut below, mut above) = (1.., REAL + 1..);
    let mut cases = Vec::new();
    // Those that dial are linked first: what they send makes the real server dial all others.
    for order in [Order::WeDial, Order::TheyDial, Order::WeKnock] {
        for kind in [Kind::Ecdsa, Kind::Rsa] {
            for version in setup.versions {
                let sid = match order {
                    Order::WeDial => above.next(),
                    Order::TheyDial | Order::WeKnock => below.next(),
                };
                cases.push(Case {
                    sid: sid.expect("there are more numbers"),
                    order,
                    kind,
                    version: *version,
                });
            }
        }
    }
    cases
}

fn check(setup: &Setup) {
    let ensemble = TlsEnsemble::new(SERVERS);
    let cases = cases(setup);
    let start = |case: &Case| {
        let lines = ensemble.stores(case.sid, case.kind, &names(case.sid));
        let lines = lines + TLS_ONLY + case.version.lines;
        let shape = |builder: ConfigBuilder| match case.order {
            // It does not knock.
            Order::TheyDial => builder.dial(Dial::OnDemand),
            Order::WeDial | Order::WeKnock => builder,
        };
        ensemble.ours(case.sid, &[REAL], &lines, shape)
    };
    let members: Vec<Member> = cases.iter().map(start).collect();
    // The real server does not know where those listen that knock: only a knock tells it.
    let hidden: Vec<i64> = cases
        .iter()
        .filter(|case| case.order == Order::WeKnock)
        .map(|case| case.sid)
        .collect();
    let stores = ensemble.stores(REAL, setup.kind, &names(REAL));
    let server = ensemble.start(REAL, &(stores + TLS_ONLY + setup.lines), &hidden);
    for (case, member) in cases.iter().zip(&members) {
        assert_eq!(member.await_up(), case.order == Order::WeDial);
        member.exchange();
        member.send_longest();
        member.exchange();
        let (order, version) = (case.order.name(), case.version.name);
        record(
            &format!("{}, {}", setup.name, setup.kind.name()),
            &format!("{}, {version}, {order}", case.kind.name()),
            "linked, frames both ways",
        );
    }
    for version in [TLS_1_2, TLS_1_3] {
        let is_spoken = setup
            .versions
            .iter()
            .any(|spoken| spoken.name == version.name);
        // Between the address of the far end and the cipher suite.
        let count = server.count_in_log(&format!(" - {} - ", version.name));
        assert_eq!(count > 0, is_spoken, "{}", version.name);
    }
    for version in setup.versions {
        check_wrong_name(&ensemble, setup, *version, &members[0]);
    }
    check_wrong_name_of_theirs(&ensemble, setup);
    // Nothing of this has ended a link.
    for (case, member) in cases.iter().zip(&members) {
        member.exchange();
        match case.order {
            Order::WeKnock => member.assert_down_by_knocks_only(),
            Order::WeDial | Order::TheyDial => member.assert_never_down(),
        }
    }
}

/// Certificates of ours without a name that fits their address. `linked`: another one of ours.
fn check_wrong_name(ensemble: &TlsEnsemble, setup: &Setup, version: Version, linked: &Member) {
    let wrong = ["elsewhere.example".to_owned()];
    for (sid, order) in [(REAL - 1, "they dial"), (REAL + 8, "we dial")] {
        let lines = ensemble.stores(sid, Kind::Ecdsa, &wrong) + TLS_ONLY + version.lines;
        let member = ensemble.ours(sid, &[REAL], &lines, |builder| builder);
        let mut seen = "linked, frames both ways".to_owned();
        if setup.checks_names {
            let TlsFailure::Alert(alert) = member.await_refused() else {
                panic!("refused without an alert");
            };
            seen = format!("DialFailed, alert {alert}, never Up");
            if sid < REAL {
                // A new round makes the real server dial all that are not linked.
                linked.exchange();
                let reason = member.await_event("a refused connection", |event| match event {
                    Event::Rejected { reason, .. } => Some(reason.clone()),
                    _ => None,
                });
                assert!(
                    matches!(reason, Reason::Tls(TlsFailure::Alert(_))),
                    "{reason}"
                );
                seen += "; Rejected when they dial";
            }
            // With the right name it is linked.
            ensemble.stores(sid, Kind::Ecdsa, &names(sid));
            member.manager.handle().set_tls(ensemble.tls(sid)).unwrap();
        }
        member.await_up();
        member.exchange();
        if sid < REAL {
            member.assert_down_by_knocks_only();
        } else {
            member.assert_never_down();
        }
        record(
            &format!("{}, {}", setup.name, setup.kind.name()),
            &format!("wrong name, {}, {order}", version.name),
            &seen,
        );
    }
}

/// A certificate of theirs that is not the one of its sid, as far as ours knows.
fn check_wrong_name_of_theirs(ensemble: &TlsEnsemble, setup: &Setup) {
    for (sid, order) in [(REAL - 1, "they dial"), (REAL + 8, "we dial")] {
        let lines = ensemble.stores(sid, Kind::Ecdsa, &names(sid)) + TLS_ONLY;
        let other = PeerName::Dns("elsewhere.example".to_owned());
        let member = ensemble.ours(sid, &[REAL], &lines, |builder| {
            builder.peer_names(Sid(REAL), [other])
        });
        let failure = member.await_refused();
        let TlsFailure::WrongName { sid, names } = failure else {
            panic!("{failure}");
        };
        assert_eq!(sid, Sid(REAL));
        assert!(names.contains("zk12.example"), "{names}");
        record(
            &format!("{}, {}", setup.name, setup.kind.name()),
            &format!("expects another name, {order}"),
            "DialFailed, WrongName, never Up",
        );
    }
}
