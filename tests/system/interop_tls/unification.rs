//! Tests the three steps in which servers without TLS change to it, with the real server and ours at different steps.

use quorum_cnx::{Event, Reason};

use crate::{
    certificates::Kind,
    deadlines::wait_until,
    table::record,
    tls_ensemble::{TlsEnsemble, names},
};

/// The sid of the real server, and of two of ours: it dials the first, and the last dials it.
const REAL: i64 = 2;
const OURS: [i64; 2] = [1, 3];

/// The lines of each step. Before the first one there is no TLS.
const STEPS: [&str; 4] = [
    "",
    "portUnification=true\n",
    "sslQuorum=true\nportUnification=true\n",
    "sslQuorum=true\n",
];

pub(crate) fn port_unification_in_three_steps() {
    for step in 1..STEPS.len() {
        let ensemble = TlsEnsemble::new(3);
        let stores = |sid| ensemble.stores(sid, Kind::Ecdsa, &names(sid));
        let lines = |sid, step: usize| stores(sid) + STEPS[step];
        let server = ensemble.start(REAL, &lines(REAL, step), &[]);
        // Servers are one step apart at most.
        for our_step in step - 1..(step + 2).min(STEPS.len()) {
            for sid in OURS {
                // The dialer decides, and the real server logs how its connections speak.
                let dialer = if sid > REAL { our_step } else { step };
                let how = if dialer < 2 { "plaintext" } else { "TLS" };
                let logged = match sid > REAL {
                    true => format!("Accepted {how} connection"),
                    false => "SSL handshake complete".to_owned(),
                };
                let before = server.count_in_log(&logged);
                let ours = ensemble.ours(sid, &[REAL], &lines(sid, our_step), |builder| builder);
                assert_eq!(ours.await_up(), sid > REAL);
                ours.exchange();
                ours.assert_down_by_knocks_only();
                let is_logged = || server.count_in_log(&logged) > before;
                if sid > REAL || how == "TLS" {
                    wait_until(&logged, is_logged);
                } else {
                    assert!(!is_logged(), "{logged}");
                }
                let seen = format!("linked over {how}, frames both ways");
                record_pair(step, our_step, sid, &seen);
            }
        }
    }
}

/// Servers that are too many steps apart, which is a mistake: what each of ours is told.
pub(crate) fn servers_without_a_common_step_are_told_so() {
    for (step, our_step) in [(0, 3), (3, 0)] {
        let ensemble = TlsEnsemble::new(3);
        let stores = |sid| ensemble.stores(sid, Kind::Ecdsa, &names(sid));
        let lines = |sid, step: usize| stores(sid) + STEPS[step];
        let _server = ensemble.start(REAL, &lines(REAL, step), &[]);
        for sid in OURS {
            let ours = ensemble.ours(sid, &[REAL], &lines(sid, our_step), |builder| builder);
            let seen = ours.await_event("a refusal", |event| match event {
                Event::DialFailed { reason, .. } if sid > REAL => {
                    (*reason == Reason::ClosedEarly).then(|| format!("DialFailed: {reason}"))
                }
                Event::Rejected { reason, .. } if sid < REAL => Some(format!("Rejected: {reason}")),
                Event::Down { reason, .. } => Some(format!("Up, then Down: {reason}")),
                _ => None,
            });
            let expected = match (step, sid < REAL) {
                (0, true) => "Rejected: TLS: it does not speak TLS",
                (0, false) => "DialFailed: closed by the far end inside a message or a handshake",
                (_, true) => "Rejected: speaks TLS, which is not configured here",
                (_, false) => "Up, then Down: closed by the far end at once",
            };
            assert!(seen.starts_with(expected), "{seen}");
            record_pair(step, our_step, sid, &seen);
        }
    }
}

fn record_pair(step: usize, our_step: usize, sid: i64, seen: &str) {
    let order = if sid > REAL { "we dial" } else { "they dial" };
    let ours = format!("step {our_step}, {order}");
    record(&format!("step {step} of 3"), &ours, seen);
}
