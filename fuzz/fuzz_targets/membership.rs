#![no_main]
//! Makes any steps of the members of a loop, and compares with a model.

#[path = "../../tests/corpora/input.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod input;
#[path = "../../tests/corpora/membership.rs"]
mod membership;
#[path = "../../tests/corpora/membership_model.rs"]
mod membership_model;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| membership::check(bytes));
