//! The log, on standard error: which lines are written, and what a line looks like.
//!
//! Nothing here writes a line; other programs use this file as well.

use std::{io::Write as _, time::SystemTime};

/// Starts the log with this filter, unless `RUST_LOG` is set.
///
/// Lines look like those of `env_logger` itself, whose library for times takes seconds to compile.
pub(crate) fn start(filter: &str) {
    let environment = env_logger::Env::default().default_filter_or(filter);
    env_logger::Builder::from_env(environment)
        .format(|line, record| {
            let time = humantime::format_rfc3339_seconds(SystemTime::now());
            let (level, target) = (record.level(), record.target());
            writeln!(line, "[{time} {level:<5} {target}] {}", record.args())
        })
        .init();
}
