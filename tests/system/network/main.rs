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
mod latency;
mod leftovers;
mod partitions;
mod processes;
mod routed_network;
mod weathers;

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
            all_are_restarted_one_after_the_other_in_both_orders,
            a_member_that_is_killed_is_missed_at_once_and_welcome_again,
            a_member_that_stands_still_holds_nobody_up_and_goes_on;
        cables:
            a_member_that_is_not_heard_or_does_not_hear_is_no_member_until_it_is,
            a_cable_that_is_pulled_is_noticed_and_put_back_brings_the_member_back;
        weathers:
            promises_hold_while_packets_are_lost_and_come_twice,
            promises_hold_while_packets_are_late_and_overtake_each_other;
        partitions:
            every_pair_flaps_at_once_and_the_mesh_stands_again,
            a_partition_that_heals_is_one_mesh_again;
        addresses:
            a_host_that_returns_with_another_address_is_found_by_its_name;
        clocks:
            a_clock_that_is_set_changes_nothing;
        leftovers:
            a_test_that_panics_leaves_no_namespace_no_file_and_no_process;
        routed_network:
            an_idle_link_whose_packets_vanish_is_found_dead_at_both_ends_and_comes_back,
            a_link_with_frames_on_their_way_is_found_dead_and_the_newest_arrives_later,
            a_frame_that_is_sent_after_the_cut_doubles_the_time_at_most,
            a_large_frame_on_a_slow_way_is_not_taken_for_death,
            a_way_that_is_cut_in_one_direction_is_no_link,
            a_machine_that_lost_its_power_and_comes_back_is_linked_again,
            a_frame_for_who_cannot_be_reached_waits_and_the_sender_does_not;
    };
    // It measures: no other test may run at the same time.
    let alone = trials! {
        latency:
            the_healthy_are_as_fast_while_others_are_dead;
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
