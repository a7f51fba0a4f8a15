//! Tests faults of networks and machines: lost packets, partitions, dead hosts, and the recovery of the mesh.
//!
//! Hosts are network namespaces of this machine, joined by a router or a switch. On each runs one `peer`
//! (`cargo build --example peer`; `cargo test` does it too). A driver sends numbered frames from every member to every other and
//! checks the promises of the crate page from the outside. Needs Linux, root and some programs, and fails without them: nothing
//! is skipped. A short run takes about a minute and a half;
//!
//!     NETWORK_ROUNDS=10 cargo test -p system-tests --test network
//!
//! does 10 rounds of every fault, with 9 members each, for better figures. `-- NAME` at its end runs the tests
//! whose name contains NAME.

mod accounts;
mod cable;
mod frames;
mod lan;
mod ledger;
mod machine;
mod namespace;
mod quorum;
mod rounds;
mod run_time;
mod sockets;
mod switch;
mod table;
mod traffic;

mod addresses;
mod cables;
mod clocks;
mod delays;
mod latency;
mod leftovers;
mod partitions;
mod processes;
mod routed_network;

use std::{process::ExitCode, time::Instant};

use libtest_mimic::{Arguments, Conclusion, Trial};

/// Number of tests that run at the same time. They mostly wait, also on a small machine.
const AT_ONCE: usize = 4;

macro_rules! trials {
    ($($module:ident: $($test:ident),+;)+) => {
        vec![$($(Trial::test(stringify!($test), || {
            $module::$test();
            Ok(())
        })),+),+]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(AT_ONCE));
    // The longest first.
    let trials = trials! {
        processes:
            rolling_restart_in_both_orders,
            killed_member_is_noticed_at_once_and_relinked,
            stopped_member_delays_no_other_and_continues;
        cables:
            member_cut_off_in_one_direction_is_noticed_and_relinked,
            pulled_cable_is_noticed_and_the_member_is_relinked;
        delays:
            promises_hold_with_lost_and_duplicated_packets,
            promises_hold_with_delayed_and_reordered_packets;
        partitions:
            mesh_recovers_after_every_pair_flaps,
            mesh_recovers_after_a_partition;
        addresses:
            host_with_a_new_address_is_found_by_its_name;
        clocks:
            steps_of_the_time_of_day_have_no_effect;
        leftovers:
            panicking_test_leaves_no_namespace_file_or_process;
        routed_network:
            idle_link_without_packets_is_found_dead_and_reestablished,
            frames_after_the_cut_at_most_double_the_detection_time,
            large_frame_on_a_slow_path_is_not_taken_for_a_dead_peer,
            link_cut_in_one_direction_ends_at_both_ends,
            machine_is_relinked_after_a_power_loss,
            frame_for_an_unreachable_peer_waits_without_blocking;
    };
    // It measures: no other test may run at the same time.
    let alone = trials! {
        latency:
            latency_of_healthy_members_beside_dead_ones;
    };
    if arguments.list {
        let all = alone.into_iter().chain(trials).collect();
        return libtest_mimic::run(&arguments, all).exit_code();
    }
    let start = Instant::now();
    run_time::start();
    if let Err(why) = machine::check() {
        eprintln!("network: NOT RUN: {why}");
        return ExitCode::FAILURE;
    }
    let conclusions = [alone, trials].map(|trials| libtest_mimic::run(&arguments, trials));
    table::finish();
    namespace::tidy();
    println!("network: {:.0} s", start.elapsed().as_secs_f64());
    if !rounds::is_long() {
        println!(
            "network: this was the short run; NETWORK_ROUNDS=10 cargo test -p system-tests --test network does 10 rounds of \
             every fault, all with 9 members"
        );
    }
    if conclusions.iter().any(Conclusion::has_failed) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
