#![no_main]
//! The initial message, from any bytes.

#[path = "../../tests/corpora/challenge.rs"]
mod challenge;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| challenge::check(bytes));
