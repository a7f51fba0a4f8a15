//! Target `notification`: a message of an election, of any bytes, to the parser of the example `election`.
//!
//! It is understood or refused; what was understood says the same when it is written and read again.

use quorum_cnx::ZooCfg;

use crate::message::{Format, Malformed, Notification};

pub(crate) fn check(bytes: &[u8]) {
    let (read, configuration) = match Notification::read(bytes) {
        Ok(read) => read,
        Err(Malformed::Length(len)) => {
            assert_eq!(len, bytes.len());
            assert!(![28, 36].contains(&len), "a whole message is refused");
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
    // Real ones hold a text that is to be understood, but who knows.
    let _ = ZooCfg::parse_dynamic(text);
    let written = read.write(format, text);
    let (again, same) = Notification::read(&written).expect("it was understood before");
    assert_eq!((again.state, again.vote), (read.state, read.vote));
    assert_eq!(same, configuration);
    assert_eq!(again.is_question(), read.is_question());
    // What follows, and the number of a version that only tells two ages apart, are not repeated.
    let age = |version: i32| version.clamp(0, 2);
    if format == Format::V2 || age(read.version) == again.version {
        assert_eq!(age(again.version), age(read.version));
        assert!(bytes.starts_with(&written[..36.min(written.len())]));
    }
}
