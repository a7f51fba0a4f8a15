//! Tests the log under a flood of events: the number of lines is bounded, and no line has a payload.
//!
//! A process has one logger, so this is a test program of its own with one test.

use std::{sync::Mutex, time::Instant};

use log::{LevelFilter, Log, Metadata, Record};
use quorum_cnx::{Sid, simulation::limits};
use support::{STRANGER_IP, TestConnection, bare, eventually, single_manager};

const FRAMES: u64 = 10_000;
const STRANGERS: u64 = 1000;

/// No line may contain it, at any level.
const PAYLOAD: &str = "a secret payload";

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorder;

impl Log for Recorder {
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

/// The application never reads the frames of member 2. Member 3 is absent, and strangers connect all the time.
#[test]
fn log_is_bounded_in_a_flood_and_shows_no_payload() {
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let start = Instant::now();
    let absent = support::ReservedAddress::new();
    let (manager, address) =
        single_manager(1, &[(2, "127.0.0.1:1"), (3, &absent.address)], |builder| {
            builder
        });
    let mut member = TestConnection::member(&address, 2, &[]);
    for _ in 0..FRAMES {
        member.send(PAYLOAD);
        manager.to_send(Sid(1), PAYLOAD).unwrap();
        manager.to_send(Sid(3), PAYLOAD).unwrap();
    }
    for nth in 0..STRANGERS {
        // A sid that is not configured, and the sid of a linked member from another address. Both are refused.
        let claim = if nth % 2 == 0 { 1000 } else { 2 };
        TestConnection::dial_and_write(STRANGER_IP, &address, &bare(claim)).reset();
    }
    eventually("all connections and frames are processed", || {
        let stats = manager.stats();
        stats.accepted == STRANGERS + 1
            && stats.pending == 0
            && stats.inbox.dropped + stats.inbox.waiting == 2 * FRAMES
    });
    manager.halt();
    let windows = start.elapsed().div_duration_f64(limits::LOG_WINDOW).ceil() as usize;
    let lines = LINES.lock().unwrap();
    // Four subjects have a limit each: peers 2 and 3, all strangers together, and the server itself. The first and the last
    // line of the server are not limited.
    let at_most = 4 * limits::LOG_LINES as usize * windows + 2;
    assert!(lines.len() <= at_most, "{} lines: {lines:#?}", lines.len());
    for part in [
        "listening on",
        "peer 2: up",
        "peer 3: cannot be reached",
        "refused",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{lines:#?}");
    }
    assert!(
        !lines.iter().any(|line| line.contains("secret")),
        "{lines:#?}"
    );
}
