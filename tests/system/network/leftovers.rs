//! Tests that a failing test leaves nothing behind.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use crate::{lan::Lan, namespace, quorum::Quorum};

pub(crate) fn panicking_test_leaves_no_namespace_file_or_process() {
    let (mut prefix, mut pids) = (String::new(), Vec::new());
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let lan = Lan::new(2);
        prefix = lan.prefix();
        let quorum = Quorum::start(lan, Duration::from_millis(25));
        pids.extend(quorum.all().into_iter().map(|member| quorum.pid(member)));
        assert_eq!(namespace::existing(&prefix).len(), 3);
        panic!("this panic is part of the test");
    }));
    assert!(failed.is_err());
    assert_eq!(pids.len(), 2, "two processes ran");
    assert_eq!(namespace::existing(&prefix), Vec::<String>::new());
    for pid in pids {
        assert!(
            !Path::new("/proc").join(pid.to_string()).exists(),
            "{pid} runs"
        );
    }
}
