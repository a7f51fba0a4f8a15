//! A process of the test's own, which never outlives it, and what it said.
//!
//! Nothing here knows what the process is.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use crate::{java, patience::patiently};

pub(crate) struct Process {
    pub(crate) child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts it. Its standard error goes to a file, and its standard output as well unless that is piped.
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

    /// All that it has said so far into its file.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        patiently("the process ends", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.unwrap()
    }

    /// Stops it where it is, without ending it.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        patiently("the process has stopped", || self.state() == 'T');
    }

    /// Lets it go on after a pause.
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
        let stat = fs::read_to_string(path).expect("the process is known to the kernel");
        let (_, fields) = stat.rsplit_once(')').expect("a name stands in parentheses");
        fields.trim_start().chars().next().expect("a state follows")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!(
                "--- the end of what {} said ({}):\n{}\n---",
                self.name,
                self.log.display(),
                tail.join("\n")
            );
        } else {
            // Of no interest any more; if it is gone already, all the better.
            let _ = fs::remove_file(&self.log);
        }
    }
}
