//! A child process of a test, which ends with the test, and its log.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use crate::{deadlines::wait_until, java};

pub(crate) struct Process {
    pub(crate) child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts it. Its standard error goes to a file, and so does its standard output unless it is piped.
    pub(crate) fn start(name: &str, command: &mut Command, piped: bool) -> Self {
        let (file, log) = java::log(name);
        let output = if piped {
            command.stdin(Stdio::piped());
            Stdio::piped()
        } else {
            command.stdin(Stdio::null());
            file.try_clone().expect("a file can be shared").into()
        };
        let child = command
            .stdout(output)
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
        self.signal("STOP");
        wait_until("the process has stopped", || self.state() == 'T');
    }

    /// Continues it after a pause.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "cannot signal {}",
            self.name
        );
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
