//! Clocks that are set while members run: the time of day steps, and nothing else does.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    lan::Lan,
    machine::faketime,
    quorum::{DEAD_AFTER, Quorum},
    run_time,
    switch::{Fate, between},
    table::note,
};

/// What the time of day is set to, one after the other, as libfaketime reads it.
const STEPS: [&str; 5] = ["+3600", "-3600", "+315360000", "-315360000", "+0"];

pub(crate) fn a_clock_that_is_set_changes_nothing() {
    let lan = Lan::new(5);
    // Where the namespaces' files go away with them.
    let offset = lan.host(1).overlay("offset");
    write(&offset, "+0");
    let file = offset.clone();
    let quorum = Quorum::start_as(lan, Duration::from_millis(25), DEAD_AFTER, move |command| {
        shape(command, &file);
    });
    for member in quorum.all() {
        let maps = fs::read_to_string(format!("/proc/{}/maps", quorum.pid(member))).unwrap();
        assert!(maps.contains("libfaketime"), "{member} sees the true time");
    }
    let start = run_time::now();
    let before: Vec<u64> = quorum
        .all()
        .into_iter()
        .map(|member| dials(&quorum, member))
        .collect();
    for step in STEPS {
        write(&offset, step);
        let seen = time_of_day(&offset) - true_time();
        let meant: i64 = step.parse().unwrap();
        assert!(
            (seen - meant).abs() <= 60,
            "a step of {meant} s is seen as {seen} s"
        );
        quorum.settle(&quorum.all(), run_time::now());
        // Longer than any time to a retry, so that a timer that went mad would have its say.
        run_time::pass(Duration::from_millis(1200));
        quorum.settle(&quorum.all(), run_time::now());
    }
    quorum.undisturbed(&quorum.all(), start);
    let after: Vec<u64> = quorum
        .all()
        .into_iter()
        .map(|member| dials(&quorum, member))
        .collect();
    assert_eq!(before, after, "nobody has dialed");
    // While everybody waits for the time to try again.
    for step in STEPS {
        quorum
            .lan
            .treat(&between(&quorum.all(), &quorum.all(), Fate::Reset));
        run_time::pass(Duration::from_millis(300));
        write(&offset, step);
        quorum.lan.treat(&[]);
        quorum.settle(&quorum.all(), run_time::now());
    }
    note(format!(
        "The time of day set to {} s: no link ended, nobody dialed; nor was it later that those without links had them again.",
        STEPS.join(", ")
    ));
}

/// A program that sees the time of day as the file says, and every other clock as it is.
fn shape(command: &mut Command, offset: &Path) {
    let library = faketime().expect("it was found at the start");
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", offset)
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

fn write(path: &Path, step: &str) {
    fs::write(path, format!("{step}\n")).unwrap();
}

/// Seconds since 1970, as such a program sees them.
fn time_of_day(offset: &Path) -> i64 {
    let mut command = Command::new("date");
    shape(command.arg("+%s"), offset);
    let output = command.output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn true_time() -> i64 {
    let output = Command::new("date").arg("+%s").output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn dials(quorum: &Quorum, member: i64) -> u64 {
    quorum.stats(member)["dials"].as_u64().unwrap()
}
