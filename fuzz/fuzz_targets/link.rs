#![no_main]
//! A whole link, from any bytes cut anywhere.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorum_cnx::fuzzing::link(bytes));
