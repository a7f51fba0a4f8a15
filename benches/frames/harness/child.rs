//! A child process of a measurement: starts it, exchanges lines with it, and always reaps it.
//!
//! Every wait has a deadline, and ends when the harness is interrupted.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::failure::{While, failure};

/// How often a wait checks for an interrupt.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Lines on stderr that are kept to explain a failure.
const ERRORS_MAX: usize = 20;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C ends the next wait with an error, so that everything is cleaned up.
pub(crate) fn watch_signals() -> io::Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends the process, as by default.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(flag))
            .context("watching signals")?;
        signal_hook::flag::register(signal, Arc::clone(flag)).context("watching signals")?;
    }
    Ok(())
}

/// True exactly when the results go to standard output only.
static ONLY_TO_STDOUT: AtomicBool = AtomicBool::new(false);

/// From now on a wait ends with an error when standard output is closed: `| head`.
pub(crate) fn watch_reader() {
    ONLY_TO_STDOUT.store(true, Ordering::Relaxed);
}

/// Whether nothing reads the results. On Linux this is known while measuring, elsewhere only when they are written.
pub(crate) fn is_abandoned() -> bool {
    ONLY_TO_STDOUT.load(Ordering::Relaxed) && has_no_reader()
}

#[cfg(target_os = "linux")]
fn has_no_reader() -> bool {
    use std::os::fd::AsFd as _;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let stdout = io::stdout();
    // Errors and hang-ups are reported in any case: poll(2).
    let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        && polled[0]
            .revents()
            .is_some_and(|flags| flags.intersects(gone))
}

#[cfg(not(target_os = "linux"))]
fn has_no_reader() -> bool {
    false
}

/// An error when the harness must end: after a signal, or when nothing reads the results.
pub(crate) fn check_interrupt() -> io::Result<()> {
    if is_abandoned() {
        let why = "nobody reads the results";
        return Err(io::Error::new(io::ErrorKind::Interrupted, why));
    }
    let is_set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
    if INTERRUPTED.get().is_some_and(is_set) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
    }
    Ok(())
}

/// A running process; killed and reaped when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts a program with its arguments.
    pub(crate) fn start(name: String, command: &[OsString]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().expect("a command has a program");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(format_args!(
                "starting {name} ({})",
                program.to_string_lossy()
            ))?;
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let (kept, stderr) = (Arc::clone(&errors), child.stderr.take());
        let stderr = stderr.expect("stderr is piped");
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == ERRORS_MAX {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Ok(Self {
            name,
            stdin: child.stdin.take(),
            child,
            lines,
            errors,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its stdin.
    pub(crate) fn write_line(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut().expect("stdin is open until the drop");
        let written = stdin.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| self.explain(format_args!("does not read `{line}` ({error})")))
    }

    /// Reads a line from its stdout.
    pub(crate) fn read_line(&self, what: &str, within: Duration) -> io::Result<String> {
        let deadline = Instant::now() + within;
        loop {
            check_interrupt()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(POLL_INTERVAL)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => {
                    // Gives the thread that reads stderr time for the last lines.
                    thread::sleep(POLL_INTERVAL);
                    return Err(self.explain(format_args!("has ended without {what}")));
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    let within = within.as_secs_f64();
                    return Err(self.explain(format_args!("gave no {what} within {within:.0} s")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits until it exits. An exit code other than 0 is an error.
    pub(crate) fn end(mut self, within: Duration) -> io::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            check_interrupt()?;
            match self.child.try_wait().context(&self.name)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.explain(format_args!("failed: {status}"))),
                None if Instant::now() >= deadline => {
                    return Err(self.explain(format_args!("does not end")));
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// An error with the last lines of stderr.
    fn explain(&self, what: std::fmt::Arguments<'_>) -> io::Error {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut message = format!("{} {what}", self.name);
        for line in errors.iter() {
            message.push_str("\n    stderr: ");
            message.push_str(line);
        }
        failure(message)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ends a program that runs under another one, for instance under strace.
        drop(self.stdin.take());
        // Fails if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
