#![no_main]
//! The initial message, from any bytes.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorum_cnx::fuzzing::challenge(bytes));
