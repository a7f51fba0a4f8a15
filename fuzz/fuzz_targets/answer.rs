#![no_main]
//! Answers a native initial message with any bytes.

#[path = "../../tests/corpora/answer.rs"]
mod answer;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| answer::check(bytes));
