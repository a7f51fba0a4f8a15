//! Tests the program `mesh`: it must show what the README describes.
//!
//! Whether the promises hold is tested elsewhere.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use support::{
    command::{run, run_with, signal},
    example::{example_path, newer_source},
    within,
};

/// Runs the program to its end, with pipes.
#[track_caller]
fn mesh(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(example_path("mesh"));
    command.args(arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = run(command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn demonstration_kills_a_server_and_all_promises_hold() {
    let (code, said, errors) = mesh(&["--seconds", "2"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    for line in [
        "server 3 has died in the middle of a turn",
        "all others have noticed",
        "server 3 is started again, on its port",
        "all are linked again",
        "held    one link for each pair, dialed by the larger id at both ends",
        "held    every server has the last value of every other",
        "held    no older value after a newer one",
        "held    the counters of every server balance",
        "held    all others noticed the death of the server, and are linked with it again",
        "held    all servers have halted, and their ports are free",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    assert!(!said.contains('\x1b'), "colours in a pipe: {said:?}");
}

#[test]
fn too_short_duration_is_refused() {
    let (code, said, errors) = mesh(&["--seconds", "1"]);
    assert_eq!((code, said.as_str()), (Some(2), ""));
    let expected = "invalid value '1' for '--seconds <N>': 1 is not in 2..=600";
    assert!(errors.contains(expected), "{errors}");
}

/// What a build with TLS does, `tls/programs.rs` tests.
#[test]
#[cfg(not(feature = "tls"))]
fn build_without_tls_says_how_to_build_it() {
    let (code, said, errors) = mesh(&["--tls"]);
    assert_eq!((code, said.as_str()), (Some(2), ""));
    let expected = "mesh: --tls: this program speaks no TLS: build it with `cargo ";
    assert!(errors.starts_with(expected), "{errors}");
}

#[test]
fn a_signal_ends_the_demonstration_with_a_summary() {
    let mut command = Command::new(example_path("mesh"));
    command.args(["--seconds", "600"]).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let linked = lines.next().unwrap().unwrap();
    assert!(linked.contains("all are linked"), "{linked}");
    signal(&child, "INT");
    let said = within("the program", move || {
        lines.map(|line| line.unwrap() + "\n").collect::<String>()
    });
    let errors = io::read_to_string(child.stderr.take().unwrap()).unwrap();
    let code = child.wait().unwrap().code();
    assert_eq!((code, errors.as_str()), (Some(1), ""), "{said}");
    for line in [
        "interrupted",
        "held    one link for each pair, dialed by the larger id at both ends",
        "unseen  every server has the last value of every other",
        "held    no older value after a newer one",
        "held    the counters of every server balance",
        "unseen  all others noticed the death of the server, and are linked with it again",
        "held    all servers have halted, and their ports are free",
        "frames: ",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
}

#[test]
fn demonstration_with_closed_output_ends_without_an_error() {
    let command = Command::new(example_path("mesh"));
    let closed = OwnedFd::from(UnixStream::pair().unwrap().0);
    let output = run_with(command, closed, Stdio::piped());
    assert_eq!(
        (output.status.code(), &output.stderr[..]),
        (Some(1), &b""[..])
    );
}

#[test]
fn every_example_prints_its_version() {
    for name in ["mesh", "peer", "election"] {
        let mut command = Command::new(example_path(name));
        command.arg("--version");
        let output = run(command);
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}

/// What `example_path` fails for.
#[test]
fn source_newer_than_its_program_is_found() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stale example");
    // Left over from an earlier run.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name);
    let write = |name: &str, text: &str, seconds: u64| {
        fs::write(path(name), text).unwrap();
        let file = File::options().append(true).open(path(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds))
            .unwrap();
    };
    let names = ["program", "main.rs", "lib.rs", "gone.rs"];
    let [program, main, lib, gone] =
        names.map(|name| path(name).display().to_string().replace(' ', "\\ "));
    write("program", "", 100);
    write(
        "program.d",
        &format!("{program}: {main} {lib} {gone}\n"),
        110,
    );
    for (main, lib, now, expected) in [
        (90, 99, 200, None),
        (90, 100, 200, None),
        (101, 90, 200, Some("main.rs")),
        (90, 101, 200, Some("lib.rs")),
        (101, 102, 200, Some("lib.rs")),
        // Edited while the tests run.
        (90, 210, 200, None),
    ] {
        write("main.rs", "", main);
        write("lib.rs", "", lib);
        let now = UNIX_EPOCH + Duration::from_secs(now);
        let found = newer_source(&path("program"), now);
        assert_eq!(found, expected.map(path), "main.rs {main}, lib.rs {lib}");
    }
}

/// Tests on pseudo-terminals.
#[cfg(target_os = "linux")]
mod terminals {
    use std::thread;

    use nix::pty::{Winsize, openpty};

    use super::*;

    /// Runs the program to its end on a terminal of this size, and returns everything that it wrote.
    fn drawn(rows: u16, columns: u16, environment: &[(&str, &str)]) -> String {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = openpty(Some(&size), None).unwrap();
        let mut command = Command::new(example_path("mesh"));
        command.env_remove("NO_COLOR").env("TERM", "xterm");
        command
            .args(["--seconds", "2"])
            .envs(environment.iter().copied());
        let mut child = command.stdout(terminal.slave).spawn().unwrap();
        // Closes this process's copy of the terminal.
        drop(command);
        let mut master = File::from(terminal.master);
        let written = within("the program", move || {
            let mut written = Vec::new();
            // The end of the program is an error here: pts(4).
            let _ = master.read_to_end(&mut written);
            written
        });
        let written = String::from_utf8(written).unwrap().replace("\r\n", "\n");
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(0), "{}", plain(&written));
        written
    }

    /// Each drawing that replaces the one before, with the number of rows by which the cursor moves up.
    fn drawings(written: &str) -> Vec<(usize, &str)> {
        let parts = written.split("A\r").collect::<Vec<_>>();
        let rows = parts.iter().map(|part| {
            let (_, number) = part.rsplit_once("\x1b[")?;
            number.parse().ok()
        });
        let rows: Vec<usize> = rows.map_while(|rows| rows).collect();
        rows.into_iter().zip(parts.into_iter().skip(1)).collect()
    }

    /// The text without escape sequences.
    fn plain(drawing: &str) -> String {
        let mut text = String::new();
        let mut parts = drawing.split('\x1b');
        text += parts.next().unwrap();
        for part in parts {
            let end = part.find(|letter: char| letter.is_ascii_alphabetic());
            text += end.map_or("", |end| &part[end + 1..]);
        }
        text
    }

    #[test]
    fn the_table_fits_a_terminal_of_any_size() {
        let run = |(rows, columns): (u16, u16)| {
            let written = drawn(rows, columns, &[]);
            let drawings = drawings(&written);
            assert!(drawings.len() > 5, "{written:?}");
            for (covered, drawing) in &drawings {
                assert!(*covered < rows.into(), "{rows} x {columns}: {drawing:?}");
                for line in plain(drawing).lines() {
                    assert!(line.len() < columns.into(), "{rows} x {columns}: {line:?}");
                }
            }
            let (_, last) = drawings.last().unwrap();
            let last = plain(last);
            // All of it fits, and one line for the prompt.
            if rows >= 12 {
                assert!(
                    last.lines().count() < rows.into(),
                    "{rows} x {columns}: {last}"
                );
                let held = last.lines().any(|line| line.starts_with("held    "));
                assert!(
                    held && last.contains("latency"),
                    "{rows} x {columns}: {last}"
                );
            }
            let servers = last.lines().filter(|line| line.contains("halted "));
            let mut figures = servers.map(|line| {
                line.split_whitespace()
                    .skip_while(|word| *word != "halted")
                    .nth(1)
            });
            if columns >= 40 {
                assert_eq!(last.matches("halted ").count(), 5, "{last}");
                assert!(figures.all(|figure| figure > Some("0")), "{last}");
            }
        };
        let sizes = [(24, 80), (40, 120), (20, 60), (12, 40), (6, 20), (2, 2)];
        thread::scope(|scope| {
            for size in sizes {
                scope.spawn(move || run(size));
            }
        });
    }

    #[test]
    fn colours_are_used_only_on_capable_terminals() {
        let coloured = drawn(24, 80, &[]);
        assert!(coloured.contains("\x1b[32mheld\x1b[0m"), "{coloured:?}");
        let empty = drawn(24, 80, &[("NO_COLOR", "")]);
        assert!(empty.contains("\x1b[32mheld\x1b[0m"), "{empty:?}");
        let plain = drawn(24, 80, &[("NO_COLOR", "1")]);
        assert!(
            plain.contains("\nheld    ") && plain.contains("\x1b[K"),
            "{plain:?}"
        );
        let has_colours = plain.split("\x1b[").any(|part| {
            part.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';')
                .starts_with('m')
        });
        assert!(!has_colours, "{plain:?}");
        let dumb = drawn(24, 80, &[("TERM", "dumb")]);
        assert!(
            dumb.contains("\nheld    ") && !dumb.contains('\x1b'),
            "{dumb:?}"
        );
    }
}
