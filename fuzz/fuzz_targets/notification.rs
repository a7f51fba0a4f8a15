#![no_main]
//! Parses any bytes as a notification of an election.

#[path = "../../examples/election/notification.rs"]
#[allow(dead_code, reason = "only its grammar is needed here")]
mod message;
#[path = "../../tests/corpora/notification.rs"]
mod notification;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| notification::check(bytes));
