#![no_main]
//! A configuration file, from any text.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorum_cnx::fuzzing::config(bytes));
