//! What is written to the log when very much happens: a bounded number of lines, and never a payload.
//!
//! The log of a process is one, so this is a test program of its own with one test.

use std::{sync::Mutex, time::Instant};

use log::{LevelFilter, Log, Metadata, Record};
use quorum_cnx::{Sid, limits};
use support::{ABROAD, HOME, Puppet, alone, bare, eventually};

const FRAMES: u64 = 10_000;
const STRANGERS: u64 = 1000;

/// No line may show it, at whatever level.
const PAYLOAD: &str = "what nobody else may read";

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl Log for Keep {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let ours = record.target().starts_with("quorum_cnx");
        if ours {
            LINES.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Member 2 talks and is never listened to, member 3 is not there, and strangers come all the time.
#[test]
fn floods_leave_few_lines_and_no_payload() {
    log::set_logger(&Keep).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let start = Instant::now();
    let nowhere = support::Vacant::new();
    let (manager, address) = alone(1, &[(2, "127.0.0.1:1"), (3, &nowhere.address)], |builder| {
        builder
    });
    let mut member = Puppet::say(HOME, &address, &bare(2));
    for _ in 0..FRAMES {
        member.send(PAYLOAD);
        manager.to_send(Sid(1), PAYLOAD).unwrap();
        manager.to_send(Sid(3), PAYLOAD).unwrap();
    }
    for nth in 0..STRANGERS {
        // Somebody whom nobody knows, who is refused; and the member from elsewhere, who is one as well.
        let claim = if nth % 2 == 0 { 1000 } else { 2 };
        Puppet::say(ABROAD, &address, &bare(claim)).reset();
    }
    eventually("all have been dealt with", || {
        let stats = manager.stats();
        stats.accepted == STRANGERS + 1
            && stats.pending == 0
            && stats.inbox.dropped + stats.inbox.waiting == 2 * FRAMES
    });
    manager.halt();
    let windows = start.elapsed().div_duration_f64(limits::LOG_WINDOW).ceil() as usize;
    let lines = LINES.lock().unwrap();
    // Peers 2 and 3, all strangers together, the server itself; and its first and last word.
    let at_most = 4 * limits::LOG_LINES as usize * windows + 2;
    assert!(lines.len() <= at_most, "{} lines: {lines:#?}", lines.len());
    for about in [
        "listening on",
        "peer 2: up",
        "peer 3: cannot be reached",
        "refused",
    ] {
        assert!(lines.iter().any(|line| line.contains(about)), "{lines:#?}");
    }
    assert!(
        !lines.iter().any(|line| line.contains("nobody else")),
        "{lines:#?}"
    );
}
