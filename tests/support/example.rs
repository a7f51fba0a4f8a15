//! Finds the programs of `examples`, which cargo puts beside the tests.
//!
//! Nothing here starts one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::SystemTime,
};

/// The path of an example. Fails if the example is not built, or if one of its source files is newer.
///
/// `cargo test` builds the examples before it runs the tests. With `--test NAME` or with a filter of test names, cargo builds tests
/// only, and the example is the one of an earlier build. A file that is edited while the tests run does not count.
#[track_caller]
pub fn example_path(name: &str) -> PathBuf {
    static BEGIN: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);
    let begin = *BEGIN;
    let test = env::current_exe().unwrap();
    let beside = test.parent().unwrap();
    let profile_dir = if beside.ends_with("deps") {
        beside.parent().unwrap()
    } else {
        beside
    };
    let program = profile_dir.join("examples").join(name);
    // Cargo names the folder after the profile, except that of `dev`.
    let profile = match profile_dir.file_name().unwrap().to_str().unwrap() {
        "debug" => String::new(),
        other => format!(" --profile {other}"),
    };
    let remedy = format!("run `cargo build --examples{profile}`");
    let shown = program.display();
    assert!(program.exists(), "{shown} is not built: {remedy}");
    if let Some(source) = newer_source(&program, begin) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let source = source.strip_prefix(root).unwrap_or(&source);
        panic!("{shown} is older than {}: {remedy}", source.display());
    }
    program
}

/// The newest source file of a program that cargo has built, if it is newer than the program and older than `now`.
///
/// Cargo lists the source files beside the program, in a file `NAME.d` for `make`: those of the program and those of the library.
/// The files of unit tests are not among them. A source file that is gone does not count: the one that named it has changed too.
pub fn newer_source(program: &Path, now: SystemTime) -> Option<PathBuf> {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let built = modified(program).unwrap();
    let list = program.with_extension("d");
    let list = fs::read_to_string(&list)
        .unwrap_or_else(|error| panic!("cargo writes {}: {error}", list.display()));
    let (_, sources) = list.split_once(": ").unwrap();
    // A space in a path has a backslash before it.
    let sources = sources.trim_end().replace("\\ ", "\0");
    sources
        .split(' ')
        .map(|source| PathBuf::from(source.replace('\0', " ")))
        .filter_map(|source| Some((modified(&source).ok()?, source)))
        .filter(|(time, _)| *time > built && *time < now)
        .max()
        .map(|(_, source)| source)
}
