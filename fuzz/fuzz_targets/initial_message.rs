#![no_main]
//! Decodes any bytes as an initial message.

#[path = "../../tests/corpora/initial_message.rs"]
mod initial_message;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| initial_message::check(bytes));
