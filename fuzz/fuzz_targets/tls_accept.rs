#![no_main]
//! Connects to a server that speaks TLS, and sends any bytes.

#[path = "../../tests/corpora/certificates.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod certificates;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;
#[path = "../../tests/corpora/tls_accept.rs"]
mod tls_accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tls_accept::check(bytes));
