//! One attacker against three members with traffic, each a process of its own: what strangers cannot do, and what they cost.
//!
//! A bounded part of each attack runs in `cargo test -p system-tests --test strangers`; all of it, a million initial messages
//! by chance for instance, with `STRANGERS=full`. Parts of names pick attacks: `-- silent knocks` behind it.
//!
//! Asserted: the links of the members stay up, their memory stays below what `Config::max_memory` promises, and afterwards
//! every table has its old size and no descriptor is left. Printed, and kept in `target/tmp/strangers.txt`: round trips among
//! the members, quiet, under each attack, while a bare listening socket of another process has the same attack, and under it
//! once more with the processors before everybody else (`SCHED_FIFO`, which root may have). The second tells what the kernel
//! costs, the last what is left when nobody waits for a processor.

mod attacker;
mod attacks;
mod bare;
mod machine;
mod member;
mod role;
mod siege;
mod table;

use std::{env, fs, path::Path, time::Duration};

use siege::{Plan, Row, Siege};

/// Observers that each member serves at one time.
pub(crate) const OBSERVERS: usize = 4;

/// What is done, and for how long.
struct Form {
    name: &'static str,
    rounds: usize,
    /// For how long it is quiet in each round, before it is not.
    quiet: Duration,
    /// For how long it is not, at least.
    loud: Duration,
    counts: [u64; 9],
}

const SHORT: Form = Form {
    name: "a bounded part",
    rounds: 1,
    quiet: Duration::from_millis(500),
    loud: Duration::from_secs(1),
    counts: [
        10_000, 10_000, 20_000, 3_000, 5_000, 2_000, 400, 5_000, 1_000,
    ],
};

const FULL: Form = Form {
    name: "all",
    rounds: 4,
    quiet: Duration::from_secs(3),
    loud: Duration::from_secs(5),
    counts: [
        10_000, 10_000, 250_000, 50_000, 50_000, 20_000, 4_000, 50_000, 1_000,
    ],
};

impl Form {
    fn text(&self, rows: &[Row]) -> String {
        format!(
            "{}\n{}: {} rounds of each, {:?} quiet and at least {:?} not\n",
            table::of(rows),
            self.name,
            self.rounds,
            self.quiet,
            self.loud,
        )
    }
}

fn main() {
    match role::own().as_deref() {
        None => besiege(),
        Some("member") => member::run(),
        Some("attacker") => attacker::run(),
        Some("bare") => bare::run(),
        Some(other) => panic!("there is no role {other:?}"),
    }
}

fn besiege() {
    let form = match env::var("STRANGERS").as_deref() {
        Ok("full") => FULL,
        Err(_) => SHORT,
        Ok(other) => panic!("STRANGERS={other}: only `full` means something"),
    };
    if !cfg!(target_os = "linux") {
        println!("nothing is tested: this needs Linux, for /proc and prlimit");
        return;
    }
    // Most of what the harness of other tests takes means nothing here.
    let (options, named): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|arg| arg.starts_with('-'));
    if options.iter().any(|option| option == "--list") {
        for plan in siege::plans() {
            println!("{}: test", plan.name);
        }
        return;
    }
    let picked =
        |plan: &Plan| named.is_empty() || named.iter().any(|name| plan.name.contains(name));
    let plans: Vec<(Plan, u64)> = siege::plans()
        .into_iter()
        .zip(form.counts)
        .filter(|(plan, _)| picked(plan))
        .collect();
    if plans.is_empty() {
        println!("no attack is called {}", named.join(" or "));
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("strangers.txt");
    let mut siege = Siege::lay();
    let mut rows = Vec::new();
    for (plan, count) in &plans {
        println!("{}: {} x {count}", plan.name, form.rounds);
        let mut row = siege.endure(plan);
        for round in 0..form.rounds {
            siege.round(plan, *count, round as u64, form.quiet, form.loud, &mut row);
        }
        siege.verify(plan, &mut row);
        rows.push(row);
        // Each time, so that what was measured is not lost with what comes later.
        fs::write(&path, form.text(&rows)).expect("the table can be kept");
    }
    print!("{}", form.text(&rows));
    println!("kept in {}", path.display());
    if rows.iter().all(|row| row.preferred.micros.is_empty()) {
        println!("left out: the members preferred, for which `chrt --fifo` must be allowed");
    }
    if form.rounds == SHORT.rounds {
        println!(
            "left out: the full form, `STRANGERS=full cargo test -p system-tests --test strangers`"
        );
    }
}
