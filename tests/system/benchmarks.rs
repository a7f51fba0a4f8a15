//! Tests the benchmarks as programs: what they refuse before they measure, and what they do when their output is closed.
//!
//! The measurements themselves do not matter here.

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use support::command::run_with;

/// Builds the benchmarks, which cargo does not build for tests, and returns the path of one.
fn benchmark(name: &str) -> PathBuf {
    static BUILT: OnceLock<Vec<Value>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .args(["build", "--offline", "--quiet", "--message-format=json"])
            .args(["--bench", "frames", "--bench", "instructions"]);
        let output = cargo.stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the benchmarks do not build");
        let lines = output.stdout.split(|byte| *byte == b'\n');
        lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    });
    let matches = |message: &&Value| {
        message["target"]["name"] == name && message["target"]["kind"][0] == "bench"
    };
    let executable = built
        .iter()
        .filter(matches)
        .find_map(|message| message["executable"].as_str());
    executable
        .expect("cargo prints the path of the executable")
        .into()
}

/// Arguments for a short measurement.
const SHORT: [&str; 15] = [
    "--bench",
    "--workload",
    "mesh",
    "--count",
    "2",
    "--variant",
    "raw/connect",
    "--rounds",
    "1",
    "--time-ms",
    "1",
    "--no-compare",
    "--no-strace",
    "--congestion",
    "keep",
];

fn frames(arguments: &[&str]) -> Command {
    let mut command = Command::new(benchmark("frames"));
    command.args(arguments);
    command
}

/// An output whose other end is closed.
fn closed_output() -> Stdio {
    OwnedFd::from(UnixStream::pair().unwrap().0).into()
}

/// Runs the program to its end: its exit code, its standard output (empty unless `stdout` is a pipe), and its standard error.
#[track_caller]
fn run(command: Command, stdout: impl Into<Stdio>) -> (Option<i32>, String, String) {
    let output = run_with(command, stdout, Stdio::piped());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Creates an empty directory for a test.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Left over from an earlier run.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Without a terminal there are 100 columns.
#[test]
fn help_fits_into_100_columns() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["drive", "--help"]] {
        let mut command = frames(arguments);
        command.env_remove("COLUMNS");
        let (_, help, _) = run(command, Stdio::piped());
        assert!(help.contains("Usage: "), "{arguments:?}: {help}");
        let long = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{arguments:?}");
    }
}

#[test]
fn benchmark_with_closed_output_ends_without_an_error() {
    let silent = (Some(0), String::new(), String::new());
    assert_eq!(run(frames(&SHORT), closed_output()), silent);
    let mut command = Command::new(benchmark("instructions"));
    command.arg("--test");
    assert_eq!(run(command, closed_output()), silent);
}

/// On other systems a closed output is noticed only when something is written.
#[cfg(target_os = "linux")]
#[test]
fn closed_output_ends_a_benchmark_before_it_measures() {
    let command = frames(&["--bench", "--no-compare", "--congestion", "keep"]);
    let silent = (Some(0), String::new(), String::new());
    assert_eq!(run(command, closed_output()), silent);
}

#[test]
fn failure_with_closed_output_sets_the_exit_code() {
    let arguments = [&SHORT[..11], &["--compare", "/nowhere/compare"]].concat();
    let output = run_with(frames(&arguments), closed_output(), closed_output());
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn files_are_written_even_if_the_output_is_closed() {
    let directory = directory("unread");
    let file = directory.join("frames.json");
    let mut command = frames(&SHORT);
    command.arg("--json").arg(&file);
    let silent = (Some(0), String::new(), String::new());
    assert_eq!(run(command, closed_output()), silent);
    let rows: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert!(rows.as_array().unwrap().len() > 1, "{rows}");
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_for_standard_output_is_an_error() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let (code, _, errors) = run(frames(&SHORT), full);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("writing to standard output"), "{errors}");
}

/// Checks that the command fails at once, with the name of the option in the first line of its error.
#[track_caller]
fn refused(command: Command, option: &str) {
    let shown = format!("{command:?}");
    let (code, stdout, errors) = run(command, Stdio::piped());
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{shown}: {errors}");
    let first = errors.lines().next().unwrap_or_default();
    assert!(first.contains(option), "{shown}: {errors}");
}

#[test]
fn unwritable_files_are_refused_before_measuring() {
    let directory = directory("refused");
    let file = directory.join("kept.json");
    fs::write(&file, "kept").unwrap();
    let missing = directory.join("missing/frames.json");
    for (option, target) in [
        ("--json", &missing),
        ("--json", &directory),
        ("--plot", &file),
        ("--plot", &file.join("plots")),
    ] {
        let mut command = frames(&SHORT);
        command.arg(option).arg(target);
        refused(command, &format!("{option} {}", target.display()));
    }
    // The check changes no existing file, and leaves no new one.
    let mut command = frames(&SHORT);
    command
        .arg("--json")
        .arg(&file)
        .arg("--plot")
        .arg("/dev/null");
    refused(command, "--plot /dev/null");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn numbers_out_of_range_are_refused_by_option() {
    for (option, arguments) in [
        ("--count", "--count 0"),
        ("--count", "--workload stream --count 0"),
        ("--count", "--workload stream --count 1025"),
        ("--count", "--workload fan-out --count 0"),
        ("--count", "--workload contended --count 0"),
        ("--count", "--workload many --count 0"),
        ("--count", "--workload slow-peer --count 1001"),
        ("--count", "--workload mesh --count 1"),
        ("--count", "--workload mesh --count 16000"),
        ("--count", "--workload mix --count 0"),
        ("--count", "--workload delayed --count 0"),
        ("--count", "--workload latency --count 1"),
        ("--count", "--count 99999"),
        ("--size", "--size 15"),
        ("--size", "--size 524289"),
        ("--size", "--workload mesh --size 64"),
        ("--rounds", "--rounds 0"),
        ("--time-ms", "--time-ms 0"),
        ("--within", "--within 0"),
        ("--spin-us", "--spin-us 0"),
        ("--unsent-limit", "--unsent-limit -1"),
        ("--count", "--count -1"),
        ("--rounds", "--rounds -1"),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        refused(frames(&[&["--bench"], &arguments[..]].concat()), option);
    }
    for (option, arguments) in [
        ("--peers", "--peers 0"),
        ("--frames-per-call", "--frames-per-call 0"),
        ("--slow-mbps", "--slow-mbps 1001"),
        ("--in-flight", "--in-flight 0"),
        ("--delay-ms", "--delay-ms 1001"),
        ("--at-most", "--at-most 0"),
        ("--seconds", "--seconds 0"),
        ("--seconds", "--seconds -1"),
        ("--at-most", "--seconds 60 --at-most 60"),
    ] {
        let end = ["serve", "--workload", "latency", "--variant", "raw/block"];
        let arguments: Vec<_> = end.into_iter().chain(arguments.split(' ')).collect();
        refused(frames(&arguments), option);
    }
}

#[test]
fn unknown_names_are_refused() {
    let end = ["serve", "--workload", "latency", "--variant", "raw/chunks"];
    refused(frames(&end), "--variant raw/chunks");
    let mut command = Command::new(benchmark("instructions"));
    command.args(["--check", "--only", "nonsense"]);
    let (code, stdout, errors) = run(command, Stdio::piped());
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("--only nonsense"), "{errors}");
}
