//! Runs every contender with every workload that it lists, in two processes, for a fifth of a second.
//!
//! Nothing is asserted about speed, except that frames arrive.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

const MEASURED: Duration = Duration::from_millis(200);

/// A child process, killed when dropped.
struct End {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl End {
    fn start(command: &[&str]) -> Self {
        let mut child = compare()
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn write_line(&mut self, command: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    #[track_caller]
    fn read_line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    #[track_caller]
    fn assert_exit(&mut self, code: i32) {
        // `wait` would close the pipe, which ends the process as well.
        let _open = self.child.stdin.take();
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compare() -> Command {
    Command::new(env!("CARGO_BIN_EXE_compare"))
}

/// Names, commands and workloads of the contenders that can run here.
fn contenders() -> Vec<(String, String, Vec<String>)> {
    let output = compare().arg("list").output().unwrap();
    assert!(output.status.success());
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.iter()
        .map(|contender| {
            let command = contender["command"].as_array().unwrap();
            assert_eq!(command.len(), 1);
            let workloads = contender["workloads"].as_array().unwrap();
            (
                text(&contender["name"]),
                text(&command[0]),
                workloads.iter().map(text).collect(),
            )
        })
        .collect()
}

/// The results of `serve` and `drive`, as one object.
fn measure(command: &str, workload: &str, variant: &str) -> Value {
    let mut options = vec!["--workload", workload, "--variant", variant];
    options.extend(["--size", "64", "--at-most", "60"]);
    let mut serve = End::start(&[&[command, "serve"], &options[..]].concat());
    let address = serve.read_line()["ready"].as_str().unwrap().to_owned();
    let drive = [command, "drive", "--to", &address];
    let mut drive = End::start(&[&drive[..], &options[..]].concat());
    assert!(drive.read_line()["ready"].is_string());
    drive.write_line("mark");
    serve.write_line("mark");
    thread::sleep(MEASURED);
    drive.write_line("stop");
    serve.write_line("stop");
    let (mut all, served) = (drive.read_line(), serve.read_line());
    drive.assert_exit(0);
    serve.assert_exit(0);
    let together = all.as_object_mut().unwrap();
    together.extend(served.as_object().unwrap().clone());
    all
}

#[track_caller]
fn check(results: &Value, workload: &str) {
    let keys: &[&str] = match workload {
        "latency" => &[
            "rtt_p50_us",
            "rtt_p90_us",
            "rtt_p99_us",
            "rtt_p999_us",
            "rtt_max_us",
            "round_trips",
        ],
        "stream" => &["offered_per_s", "delivered_per_s", "bytes_per_s"],
        "mix" => &["acknowledged_per_s"],
        _ => &[
            "offered_per_s",
            "delivered_per_s",
            "age_p50_us",
            "age_p99_us",
            "age_max_us",
        ],
    };
    for key in keys {
        assert!(results[key].as_f64() > Some(0.0), "{key} in {results}");
    }
    match workload {
        "latency" => assert_eq!(results["rtt_percentiles"].as_array().unwrap().len(), 41),
        "stream" | "mix" => assert_eq!(results["gaps"], 0),
        _ => {
            for key in ["written_per_s", "superseded_per_s"] {
                assert!(
                    results[key].is_null() || results[key].as_f64() >= Some(0.0),
                    "{key} in {results}"
                );
            }
        }
    }
}

/// One contender after the other, so that none of them lacks processors.
#[test]
fn every_contender_runs_every_listed_workload() {
    let contenders = contenders();
    assert!(contenders.len() >= 4);
    for (name, command, workloads) in contenders {
        for workload in workloads {
            let results = measure(&command, &workload, "default");
            println!("{name} {workload}: {results}");
            check(&results, &workload);
        }
    }
}

#[test]
fn every_variant_runs() {
    for (command, workload, variants) in [
        (
            "tokio",
            "latest",
            &["watch", "watch-thread", "mpsc-thread"][..],
        ),
        ("tokio", "lossless", &["mpsc"]),
        ("tokio", "stream", &["feed-bytes", "flush"]),
        ("tokio-by-hand", "stream", &["1m", "64k", "256k", "512k"]),
        ("recv-channel", "latency", &["thread"]),
        ("libzmq", "latest", &["dontwait"]),
        ("libzmq", "stream", &["hwm-100000"]),
        ("libzmq-conflate", "latest", &["both"]),
    ] {
        for variant in variants {
            check(&measure(command, workload, variant), workload);
        }
    }
}

#[test]
fn exits_after_at_most_without_commands() {
    let mut end = End::start(&["tokio", "serve", "--workload", "latency", "--at-most", "1"]);
    assert!(end.read_line()["ready"].is_string());
    end.assert_exit(1);
}

#[test]
fn exits_at_end_of_input_without_results() {
    let mut end = End::start(&["libzmq", "serve", "--workload", "stream"]);
    assert!(end.read_line()["ready"].is_string());
    drop(end.child.stdin.take());
    end.assert_exit(0);
}

#[test]
fn exits_with_an_error_when_the_connection_ends() {
    let options = ["--workload", "latency", "--at-most", "60"];
    let mut serve = End::start(&[&["tokio", "serve"], &options[..]].concat());
    let address = serve.read_line()["ready"].as_str().unwrap().to_owned();
    let mut drive = End::start(&[&["tokio", "drive", "--to", &address], &options[..]].concat());
    drive.read_line();
    drop(drive);
    serve.assert_exit(1);
}

#[test]
fn zookeeper_managers_link_into_a_full_mesh() {
    if !contenders().iter().any(|(_, command, _)| command == "java") {
        println!("NOT RUN: no Java, or no ZooKeeper");
        return;
    }
    let output = compare()
        .args(["java", "mesh", "--managers", "3", "--at-most", "60"])
        .output()
        .unwrap();
    let mesh: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        mesh["full_ms"].as_f64() > Some(0.0) && mesh["best_ms"].as_f64() > Some(0.0),
        "{mesh}"
    );
}

#[test]
fn list_with_closed_output_is_no_error() {
    let mut command = compare();
    let unread = OwnedFd::from(UnixStream::pair().unwrap().0);
    command.arg("list").stdin(Stdio::null()).stdout(unread);
    let output = command.stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
    assert_eq!(output.status.code(), Some(0), "{errors}");
}

#[test]
fn error_for_an_invalid_size_names_the_option() {
    for size in ["0", "-1", "524289", "15"] {
        let mut command = compare();
        command.args(["tokio", "serve", "--workload", "stream", "--size", size]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(
            errors.lines().next().unwrap().contains("--size"),
            "{errors}"
        );
    }
}
