#![no_main]
//! Runs links of a whole loop: both directions, and any order of network events.

#[path = "../../tests/corpora/input.rs"]
mod input;
#[path = "../../tests/corpora/link.rs"]
mod link;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| link::check(bytes));
