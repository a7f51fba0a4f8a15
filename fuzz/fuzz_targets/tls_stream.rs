#![no_main]
//! Cuts the reads and writes of a TLS connection anywhere.

#[path = "../../tests/corpora/certificates.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod certificates;
#[path = "../../tests/corpora/input.rs"]
mod input;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;
#[path = "../../tests/corpora/tls_memory.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod tls_memory;
#[path = "../../tests/corpora/tls_stream.rs"]
mod tls_stream;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tls_stream::check(bytes));
