//! Fuzz target `notification`: parses any bytes with the parser of the example `election`.
//!
//! The parser accepts or refuses them. An accepted notification stays the same when it is written and read again.

use quorum_cnx::ZooCfg;

use crate::message::{Format, Malformed, Notification};

pub(crate) fn check(bytes: &[u8]) {
    let (read, configuration) = match Notification::read(bytes) {
        Ok(read) => read,
        Err(Malformed::Length(len)) => {
            assert_eq!(len, bytes.len());
            assert!(![28, 36].contains(&len), "a complete message is refused");
            return;
        }
        Err(Malformed::State(state)) => return assert!(!(0..=3).contains(&state)),
        Err(Malformed::Configuration { claimed, there }) => {
            assert_eq!(there, bytes.len() - 44);
            return assert!(claimed < 0 || claimed as usize > there);
        }
    };
    let format = match (bytes.len(), read.version) {
        (28, _) => Format::Bare,
        (36, _) => Format::Epoch,
        (_, 2..) => Format::V2,
        _ => Format::V1,
    };
    let Ok(text) = std::str::from_utf8(configuration) else {
        return;
    };
    // The text may be no valid configuration, but the parser must not panic.
    let _ = ZooCfg::parse_dynamic(text);
    let written = read.write(format, text);
    let (again, same) = Notification::read(&written).expect("it was accepted before");
    assert_eq!((again.state, again.vote), (read.state, read.vote));
    assert_eq!(same, configuration);
    assert_eq!(again.is_question(), read.is_question());
    // Bytes after the message, and version numbers that differ from 0 to 2, are not kept.
    let kind = |version: i32| version.clamp(0, 2);
    if format == Format::V2 || kind(read.version) == again.version {
        assert_eq!(kind(again.version), kind(read.version));
        assert!(bytes.starts_with(&written[..36.min(written.len())]));
    }
}
