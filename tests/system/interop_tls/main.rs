//! Tests TLS with real ZooKeeper servers (`sslQuorum=true`), over loopback, with PEM stores that both sides read.
//!
//!     cargo build --example election --features tls-ring
//!     cargo test -p system-tests --features tls --test interop_tls
//!
//! takes half a minute on an idle machine. A part of a name selects tests. At the end there is a table of what was seen, also in `target/figures`.
//!
//! The release is Debian's, or that of `ZOOKEEPER_CLASSPATH`. What only a release from 3.9 on has is shown as ignored with an older
//! one, and said at the end. Needs a JDK, ZooKeeper's jars, and openssl, and fails without them.
//! `cargo build --examples` afterwards makes the program again as the other tests need it.

mod certificates;
mod member;
mod release;
mod responder;
mod table;
mod tls_ensemble;

mod elections;
mod expiry;
mod matrix;
mod reconfigurations;
mod revocation;
mod rotation;
mod stores;
mod unification;

// What the tests without TLS use as well.
#[path = "../interop/deadlines.rs"]
mod deadlines;
#[path = "../interop/java.rs"]
mod java;
#[path = "../../../examples/election/notification.rs"]
#[allow(dead_code, reason = "these tests read and write one format")]
mod notification;
#[path = "../interop/port.rs"]
mod port;
#[path = "../interop/process.rs"]
#[allow(dead_code, reason = "these tests neither pause nor command a process")]
mod process;
#[path = "../interop/server.rs"]
#[allow(dead_code, reason = "these tests use one of several ensembles")]
mod server;
#[path = "../interop/voter.rs"]
#[allow(dead_code, reason = "these tests start it in one way")]
mod voter;

use std::{process::ExitCode, time::Instant};

use libtest_mimic::{Arguments, Trial};

/// Number of tests that run at the same time. Each has one virtual machine, or two.
const AT_ONCE: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(AT_ONCE));
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(true)).exit_code();
    }
    let start = Instant::now();
    let has_fips_mode = release::is_since((3, 9));
    let conclusion = libtest_mimic::run(&arguments, trials(has_fips_mode));
    table::finish();
    println!(
        "interop_tls: ZooKeeper {}, {:.0} s",
        release::text(),
        start.elapsed().as_secs_f64()
    );
    if !has_fips_mode {
        println!(
            "interop_tls: left out: fips-mode, which ZooKeeper has since 3.9: name the jars of a 3.9 in ZOOKEEPER_CLASSPATH"
        );
    }
    conclusion.exit_code()
}

macro_rules! trials {
    ($($module:ident::$test:ident),+ $(,)?) => {
        vec![$(Trial::test(stringify!($test), || {
            $module::$test();
            Ok(())
        })),+]
    };
}

fn trials(has_fips_mode: bool) -> Vec<Trial> {
    let since_3_9 = trials![matrix::fips_mode_checks_no_names];
    let since_3_9 = since_3_9
        .into_iter()
        .map(|trial| trial.with_ignored_flag(!has_fips_mode));
    let mut all = trials![
        matrix::names_are_checked_by_both,
        matrix::both_versions_of_tls_without_names,
        matrix::only_tls_1_3,
        matrix::only_tls_1_2,
        expiry::expired_certificates_of_ours_are_refused,
        expiry::expired_certificate_of_theirs_is_refused,
        revocation::real_server_fetches_a_revocation_list,
        revocation::real_server_asks_by_ocsp,
        revocation::revoked_certificate_of_theirs_is_refused,
        rotation::certificates_of_both_are_rotated,
        unification::port_unification_in_three_steps,
        unification::servers_without_a_common_step_are_told_so,
        elections::vote_of_a_smaller_sid_elects_a_real_server,
        elections::vote_of_a_larger_sid_elects_a_real_server,
        reconfigurations::our_voter_follows_servers_that_join_leave_and_move,
        stores::jks_stores_are_converted_by_the_commands_in_the_errors,
        elections::our_vote_elects_after_the_leader_dies,
    ];
    all.extend(since_3_9);
    all
}
