//! Tests attacks of strangers: one attacker against three members with traffic, each in a process of its own.
//!
//! `cargo test --test strangers` runs a part of each attack, and `STRANGERS=full` all of it, for instance a million random
//! initial messages. Parts of names select attacks: `cargo test --test strangers -- silent knocks`.
//!
//! Checked: the links of the members stay up, their memory stays below `Config::max_memory`, and afterwards every table has its
//! old size and every descriptor is closed. Printed, and written to `target/figures`: the round trips between the
//! members without an attack, under it, while a bare listening socket of another process is attacked instead, and under it with
//! real-time priority for the members (`SCHED_FIFO`, which needs root). The bare socket shows the cost of the kernel, and the
//! priority what remains when no member waits for a processor.

mod attack_test;
mod attacker;
mod attacks;
mod bare;
mod machine;
mod member;
mod role;
mod table;

use std::{env, time::Duration};

use attack_test::{AttackTest, Plan};

/// Observers that each member serves at one time.
pub(crate) const OBSERVERS: usize = 4;

/// The number and the duration of the attacks.
struct Settings {
    rounds: usize,
    /// The time without an attack in each round.
    idle: Duration,
    /// The minimum duration of an attack.
    attacked: Duration,
    counts: [u64; 9],
}

const SHORT: Settings = Settings {
    rounds: 1,
    idle: Duration::from_millis(500),
    attacked: Duration::from_secs(1),
    counts: [
        10_000, 10_000, 20_000, 3_000, 5_000, 2_000, 400, 5_000, 1_000,
    ],
};

const FULL: Settings = Settings {
    rounds: 4,
    idle: Duration::from_secs(3),
    attacked: Duration::from_secs(5),
    counts: [
        10_000, 10_000, 250_000, 50_000, 50_000, 20_000, 4_000, 50_000, 1_000,
    ],
};

fn main() {
    match role::own().as_deref() {
        None => run_attacks(),
        Some("member") => member::run(),
        Some("attacker") => attacker::run(),
        Some("bare") => bare::run(),
        Some(other) => panic!("there is no role {other:?}"),
    }
}

fn run_attacks() {
    let settings = match env::var("STRANGERS").as_deref() {
        Ok("full") => FULL,
        Err(_) => SHORT,
        Ok(other) => panic!("STRANGERS={other}: the only value is `full`"),
    };
    // Options of the usual test harness are ignored, except `--list`.
    let (options, named): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|arg| arg.starts_with('-'));
    if options.iter().any(|option| option == "--list") {
        for plan in attack_test::plans() {
            println!("{}: test", plan.name);
        }
        return;
    }
    let is_selected =
        |plan: &Plan| named.is_empty() || named.iter().any(|name| plan.name.contains(name));
    let plans: Vec<(Plan, u64)> = attack_test::plans()
        .into_iter()
        .zip(settings.counts)
        .filter(|(plan, _)| is_selected(plan))
        .collect();
    if plans.is_empty() {
        println!("no attack has a name with {}", named.join(" or "));
        return;
    }
    let mut test = AttackTest::start();
    let (mut table, mut has_real_time) = (table::new(), false);
    for (plan, count) in &plans {
        println!("{}: {} x {count}", plan.name, settings.rounds);
        let mut row = test.begin(plan);
        for round in 0..settings.rounds {
            test.round(
                plan,
                *count,
                round as u64,
                settings.idle,
                settings.attacked,
                &mut row,
            );
        }
        test.verify(plan, &mut row);
        has_real_time |= !row.real_time.micros.is_empty();
        table.row(table::cells(&row));
        // After each attack, so that a later failure does not lose the results.
        table.tell();
    }
    if !has_real_time {
        println!(
            "left out: members with real-time priority, which needs the permission for `chrt --fifo`"
        );
    }
    if settings.rounds == SHORT.rounds {
        println!("left out: the full attacks, `STRANGERS=full cargo test --test strangers`");
    }
}
