//! Tests steps of the time of day while members run. The monotonic clocks do not change.

use std::{fs, path::Path, process::Command, time::Duration};

use support::counters::count;

use crate::{
    lan::Lan,
    machine::faketime,
    quorum::{DEAD_AFTER, Quorum},
    run_time,
    switch::{Fate, between},
    table::note,
};

/// The offsets of the time of day in seconds, one after the other, in the syntax of libfaketime.
const STEPS: [&str; 5] = ["+3600", "-3600", "+315360000", "-315360000", "+0"];

pub(crate) fn steps_of_the_time_of_day_have_no_effect() {
    let lan = Lan::new(5);
    // In a directory that is removed with the namespace.
    let offset = lan.host(1).overlay("offset");
    write(&offset, "+0");
    let file = offset.clone();
    let quorum = Quorum::start_as(lan, Duration::from_millis(25), DEAD_AFTER, move |command| {
        shape(command, &file);
    });
    for member in quorum.all() {
        let maps = fs::read_to_string(format!("/proc/{}/maps", quorum.pid(member))).unwrap();
        assert!(
            maps.contains("libfaketime"),
            "{member} runs without libfaketime"
        );
    }
    let start = run_time::now();
    let dials = || -> Vec<u64> {
        let all = quorum.all().into_iter();
        all.map(|member| count(&quorum.stats(member), "/dials"))
            .collect()
    };
    let before = dials();
    for step in STEPS {
        write(&offset, step);
        let measured = time_of_day(Some(&offset)) - time_of_day(None);
        let expected: i64 = step.parse().unwrap();
        assert!(
            (measured - expected).abs() <= 60,
            "a step of {expected} s is measured as {measured} s"
        );
        quorum.wait_recovered(&quorum.all(), run_time::now());
        // Longer than every retry delay, so that a wrong timer would expire.
        run_time::pass(Duration::from_millis(1200));
        quorum.wait_recovered(&quorum.all(), run_time::now());
    }
    quorum.assert_no_link_ended(&quorum.all(), start);
    assert_eq!(before, dials(), "a member has dialed");
    // The same while all members wait for the next attempt.
    for step in STEPS {
        quorum
            .lan
            .set_rules(&between(&quorum.all(), &quorum.all(), Fate::Reset));
        run_time::pass(Duration::from_millis(300));
        write(&offset, step);
        quorum.lan.set_rules(&[]);
        quorum.wait_recovered(&quorum.all(), run_time::now());
    }
    note(format!(
        "The time of day set to {} s: no link ended, no member dialed, and recovery took no longer.",
        STEPS.join(", ")
    ));
}

/// Runs a program with libfaketime, which reads the offset of the time of day from the file. Other clocks are unchanged.
fn shape(command: &mut Command, offset: &Path) {
    let library = faketime().expect("the library was found at the start");
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

/// Seconds since 1970, as seen by a program, with this file of the offset or without libfaketime.
fn time_of_day(offset: Option<&Path>) -> i64 {
    let mut command = Command::new("date");
    command.arg("+%s");
    if let Some(offset) = offset {
        shape(&mut command, offset);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap()
}
