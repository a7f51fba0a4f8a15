#![no_main]
//! Shows any bytes as a certificate.

#[path = "../../tests/corpora/certificate_names.rs"]
mod certificate_names;
#[path = "../../tests/corpora/certificates.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod certificates;
#[path = "../../tests/corpora/net.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod net;
#[path = "../../tests/corpora/tls_memory.rs"]
#[allow(dead_code, reason = "other targets use more of it")]
mod tls_memory;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| certificate_names::check(bytes));
