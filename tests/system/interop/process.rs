//! A child process of a test, which ends with the test, and its log.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
};

use support::signal::{Signal, signal};

use crate::{deadlines::wait_until, java};

pub(crate) struct Process {
    pub(crate) child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts it. Its output goes to a file.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        Self::spawn(name, command.stdin(Stdio::null()), |file| file.into())
    }

    /// Starts it. `on_line` is called for each line of its standard output, by a thread that ends with the process. Returns its
    /// standard input, too.
    pub(crate) fn start_piped(
        name: &str,
        command: &mut Command,
        on_line: impl FnMut(String) + Send + 'static,
    ) -> (Self, ChildStdin) {
        let mut process = Self::spawn(name, command.stdin(Stdio::piped()), |_| Stdio::piped());
        let stdin = process.child.stdin.take().expect("the stream is piped");
        let stdout = process.child.stdout.take().expect("the stream is piped");
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        thread::spawn(move || lines.for_each(on_line));
        (process, stdin)
    }

    fn spawn(name: &str, command: &mut Command, stdout: impl FnOnce(fs::File) -> Stdio) -> Self {
        let (file, log) = java::log(name);
        let child = command
            .stdout(stdout(file.try_clone().expect("a file can be shared")))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self {
            child,
            name: name.to_owned(),
            log,
        }
    }

    /// The text of its log file so far.
    pub(crate) fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.unwrap()
    }

    /// Stops it with SIGSTOP.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("the process has stopped", || self.state() == 'T');
    }

    /// Continues it after a pause.
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, which: Signal) {
        signal(self.child.id(), which).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// The letter of its state in `proc(5)`.
    fn state(&self) -> char {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(path).expect("the kernel knows the process");
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        fields.trim_start().chars().next().expect("a state follows")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let text = self.log_text();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!(
                "--- the end of the log of {} ({}):\n{}\n---",
                self.name,
                self.log.display(),
                tail.join("\n")
            );
        } else {
            // A file that is left behind does no harm.
            let _ = fs::remove_file(&self.log);
        }
    }
}
