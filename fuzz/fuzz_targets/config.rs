#![no_main]
//! Parses any bytes as a configuration file.

#[path = "../../tests/corpora/config.rs"]
mod config;
#[path = "../../examples/election/notification.rs"]
#[allow(dead_code, reason = "only its grammar is needed here")]
mod message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| config::check(bytes));
