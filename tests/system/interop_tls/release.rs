//! Which release of ZooKeeper is tested.

use std::sync::OnceLock;

use crate::java;

/// The version, as its program prints it.
pub(crate) fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut command = java::machine();
        command.args(["org.apache.zookeeper.Version", "--short"]);
        let output = command.output().expect("java starts");
        // Its exit code is that of wrong arguments, and some loggers write behind it.
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    })
}

/// Whether it is this one or a later one.
pub(crate) fn is_since(release: (u32, u32)) -> bool {
    let mut parts = text().split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= release,
        _ => panic!("{:?} is no version of ZooKeeper", text()),
    }
}
