//! The house rules that a program can check, so that they cannot rot.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every file under `dir`, its path from the root, and its text.
fn files(dir: &str, extension: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs = vec![root.join(dir)];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                // A package of its own keeps there what it was built into.
                if !path.ends_with("target") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "nothing to check in {dir}");
    files
}

/// The lines of a file with their numbers, up to its unit tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .take_while(|(_, line)| !line.starts_with("#[cfg(all(test"))
}

#[test]
fn the_rules_know_no_clock_no_thread_no_socket_and_no_log() {
    for (path, text) in files("src/proto", "rs") {
        for (number, line) in code(&text) {
            let line = line.trim_start();
            if line.starts_with("//") {
                continue;
            }
            for word in [
                "Instant::now",
                "SystemTime",
                "std::thread",
                "TcpStream",
                "mio::",
                "log::",
                "crate::driver",
                "crate::share",
                "crate::manager",
            ] {
                assert!(
                    !line.contains(word),
                    "{path}:{number}: `{word}` among the rules"
                );
            }
        }
    }
}

#[test]
fn only_the_driver_knows_the_system_and_writes_log_lines() {
    for (path, text) in files("src", "rs") {
        if path.starts_with("src/driver/") {
            continue;
        }
        for (number, line) in code(&text) {
            let is_comment = line.trim_start().starts_with("//");
            for word in ["mio::", "socket2::", "log::"] {
                // The one line that says that the loop itself has ended is written where its thread is.
                let is_last_word = path == "src/manager.rs" && line.contains("log::error!");
                assert!(
                    is_comment || is_last_word || !line.contains(word),
                    "{path}:{number}: `{word}` outside the driver"
                );
            }
        }
    }
}

#[test]
fn every_room_says_what_happens_in_it() {
    for dir in ["src", "tests", "examples", "benches"] {
        for (path, text) in files(dir, "rs") {
            let first = text.lines().next().unwrap_or_default();
            assert!(first.starts_with("//! "), "{path} begins with {first:?}");
        }
    }
}

#[test]
fn nothing_is_left_lying_about() {
    for dir in ["src", "tests", "examples", "benches"] {
        for (path, text) in files(dir, "rs") {
            if path == "tests/tidy.rs" {
                continue;
            }
            for (number, line) in (1..).zip(text.lines()) {
                for word in [
                    "FIXME",
                    "XXX",
                    "dbg!(",
                    "todo!(",
                    "unimplemented!(",
                    "#[ignore",
                ] {
                    assert!(!line.contains(word), "{path}:{number}: {word}");
                }
                let is_task = line.contains("TODO") && !line.contains("TODO(#");
                assert!(!is_task, "{path}:{number}: a TODO without an issue");
                assert!(
                    !line.ends_with([' ', '\t']),
                    "{path}:{number}: blanks at the end"
                );
            }
        }
    }
}

/// The feature table names the test behind each row as `file: test`, where the file is one under `tests` or `src`.
#[test]
fn every_test_that_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let sources: Vec<(String, String)> = [files("src", "rs"), files("tests", "rs")].concat();
    let mut rows = 0;
    for row in readme
        .lines()
        .filter(|line| line.starts_with("| `") || line.starts_with("| "))
    {
        let Some(shown) = row.split('|').rev().nth(1) else {
            continue;
        };
        let mut named = false;
        for reference in shown.split('`').skip(1).step_by(2) {
            let Some((file, test)) = reference.split_once(": ") else {
                continue;
            };
            named = true;
            let found = sources.iter().any(|(path, text)| {
                path.ends_with(&format!("{file}.rs")) && text.contains(&format!("fn {test}("))
            });
            assert!(
                found,
                "the README names `{reference}`, which does not exist"
            );
        }
        rows += usize::from(named);
    }
    assert!(rows >= 12, "only {rows} rows of the README name a test");
}
