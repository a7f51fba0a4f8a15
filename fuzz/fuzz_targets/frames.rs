#![no_main]
//! Reads frames from bytes that are split in any way.

#[path = "../../tests/corpora/frames.rs"]
mod frames;
#[path = "../../tests/corpora/input.rs"]
mod input;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frames::check(bytes));
