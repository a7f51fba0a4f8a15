//! A process of a measurement: started, spoken to, heard, and always reaped.
//!
//! Nothing here knows what is said. Every wait has a deadline, and ends when the harness is interrupted.

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

/// How often a wait looks for an interrupt.
const GLANCE: Duration = Duration::from_millis(50);

/// Lines on stderr that are kept to explain a failure.
const ERRORS_MAX: usize = 20;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C ends the next wait with an error, so that everything is put away.
pub(crate) fn watch_signals() -> io::Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the process as ever.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(flag))
            .context("watching signals")?;
        signal_hook::flag::register(signal, Arc::clone(flag)).context("watching signals")?;
    }
    Ok(())
}

/// True exactly when there are results only for those who read standard output.
static ONLY_FOR_READERS: AtomicBool = AtomicBool::new(false);

/// From now on the next wait ends with an error when nobody reads standard output any more: `| head`.
pub(crate) fn watch_reader() {
    ONLY_FOR_READERS.store(true, Ordering::Relaxed);
}

/// Whether the results are for nobody. Known while measuring on Linux; elsewhere only when they are written.
pub(crate) fn is_abandoned() -> bool {
    ONLY_FOR_READERS.load(Ordering::Relaxed) && has_no_reader()
}

#[cfg(target_os = "linux")]
fn has_no_reader() -> bool {
    use std::os::fd::AsFd as _;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let stdout = io::stdout();
    // Errors and hang-ups are told without being asked for: poll(2).
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

/// An error once somebody wants the harness to end.
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
        let (said, lines) = channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
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

    /// Writes a line to its stdin.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut().expect("stdin is open until the drop");
        let said = stdin.write_all(format!("{line}\n").as_bytes());
        said.map_err(|error| self.explain(format_args!("does not hear `{line}` ({error})")))
    }

    /// Reads a line from its stdout.
    pub(crate) fn hear(&self, what: &str, within: Duration) -> io::Result<String> {
        let deadline = Instant::now() + within;
        loop {
            check_interrupt()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(GLANCE)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => {
                    // Its last words are on their way.
                    thread::sleep(GLANCE);
                    return Err(self.explain(format_args!("has ended without its {what}")));
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    let within = within.as_secs_f64();
                    return Err(self.explain(format_args!("gave no {what} within {within:.0} s")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits until it has ended, with success.
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

    /// With what it has said on stderr.
    fn explain(&self, what: std::fmt::Arguments<'_>) -> io::Error {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut message = format!("{} {what}", self.name);
        for line in errors.iter() {
            message.push_str("\n    it said: ");
            message.push_str(line);
        }
        failure(message)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What runs under another program, a tracer for instance, ends by this.
        drop(self.stdin.take());
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
