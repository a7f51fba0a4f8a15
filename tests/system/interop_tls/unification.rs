//! Tests the three steps in which servers without TLS change to it, with the real server and ours at different steps.

use crate::{
    certificates::Kind,
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
                let ours = ensemble.ours(sid, &[REAL], &lines(sid, our_step), |builder| builder);
                assert_eq!(ours.await_up(), sid > REAL);
                ours.exchange();
                ours.assert_down_by_knocks_only();
                // The dialer decides.
                let dialer = if sid > REAL { our_step } else { step };
                let how = if dialer < 2 { "plaintext" } else { "TLS" };
                let accepted = format!("Accepted {how} connection");
                if sid > REAL {
                    server.await_in_log(&accepted);
                }
                record(
                    &format!("step {step} of 3"),
                    &format!(
                        "step {our_step}, {}",
                        if sid > REAL { "we dial" } else { "they dial" }
                    ),
                    &format!("linked over {how}, frames both ways"),
                );
            }
        }
    }
}
