//! Runs a program to its end, before a deadline, and sends signals.

use std::{
    io::Read,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use crate::LONG;

/// Runs the program without input. If it does not end in time, kills it and fails with its arguments and what it has printed.
#[track_caller]
pub fn run(command: Command) -> Output {
    run_with(command, Stdio::piped(), Stdio::piped())
}

/// The same with this standard output and this standard error. The result has only what was written to a pipe.
#[track_caller]
pub fn run_with(
    mut command: Command,
    stdout: impl Into<Stdio>,
    stderr: impl Into<Stdio>,
) -> Output {
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let shown = format!("{command:?}");
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    // Closes this process's copies of the streams.
    drop(command);
    let deadline = Instant::now() + LONG;
    let pipes = [
        read_pipe(child.stdout.take()),
        read_pipe(child.stderr.take()),
    ];
    let [(stdout, stdout_ended), (stderr, stderr_ended)] =
        pipes.map(|pipe| collect(&pipe, deadline));
    let mut status = child.try_wait().unwrap();
    while status.is_none() && Instant::now() < deadline {
        // Leaves the processor to the program. Nothing depends on the duration.
        thread::sleep(Duration::from_millis(1));
        status = child.try_wait().unwrap();
    }
    match status {
        Some(status) if stdout_ended && stderr_ended => Output {
            status,
            stdout,
            stderr,
        },
        _ => {
            // Fails when it has ended, and a child of it has not.
            let _ = child.kill();
            let _ = child.wait();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            panic!(
                "did not end within {LONG:?}, and was killed: {shown}\nstandard output: {}\nstandard error: {}",
                text(&stdout),
                text(&stderr)
            );
        }
    }
}

/// Sends a signal, whose name is without `SIG`.
#[track_caller]
pub fn signal(child: &Child, name: &str) {
    let script = ["-c", "kill -s \"$0\" \"$1\"", name, &child.id().to_string()];
    assert!(Command::new("sh").args(script).status().unwrap().success());
}

/// What arrives from a pipe, read by a thread that ends with the pipe. Nothing if there is none.
fn read_pipe(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                // Fails when the test has ended.
                let _ = sender.send(buffer[..count].to_vec());
            }
        });
    }
    receiver
}

/// Everything that arrives until the pipe ends or the deadline, and whether the pipe has ended.
fn collect(pipe: &Receiver<Vec<u8>>, deadline: Instant) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match pipe.recv_timeout(left) {
            Ok(chunk) => bytes.extend(chunk),
            Err(error) => return (bytes, error == RecvTimeoutError::Disconnected),
        }
    }
}
