//! Runs the program `election` as a process: the configuration of an ensemble, and what a running process prints.
//!
//! Nothing here uses the library, or knows which server is to be elected.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::{LONG, ReservedAddress, command::run, example::example_path, target_dir};

/// The configuration of servers 1, 2, 3 and so on, in a directory of its own.
pub struct Ensemble {
    /// Reserved until this is dropped.
    _ports: Vec<ReservedAddress>,
    directory: PathBuf,
    /// The election addresses.
    pub elections: Vec<(i64, String)>,
}

impl Ensemble {
    pub fn new(servers: usize, more: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("elect-{}-{nth}", std::process::id());
        let directory = target_dir().join("tmp").join(name);
        fs::create_dir_all(&directory).unwrap();
        let ports: Vec<ReservedAddress> =
            (0..2 * servers).map(|_| ReservedAddress::new()).collect();
        let mut text = format!("tickTime=1000\ninitLimit=5\nsyncLimit=3\n{more}");
        let mut elections = Vec::new();
        for (sid, places) in (1..).zip(ports.chunks(2)) {
            elections.push((sid, places[1].address.clone()));
            let (_, election) = places[1].address.split_once(':').unwrap();
            text += &format!("server.{sid}={}:{election}\n", places[0].address);
        }
        let ensemble = Self {
            _ports: ports,
            directory,
            elections,
        };
        fs::write(ensemble.path("zoo.cfg"), text).unwrap();
        ensemble
    }

    /// Starts the program for these servers of it.
    pub fn start(&self, sids: &str, options: &[&str]) -> ElectionProcess {
        let cfg = self.path("zoo.cfg");
        let arguments = ["--zoo-cfg", &cfg, "--myid", sids];
        ElectionProcess::start(&[&arguments[..], options].concat())
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        // A directory that is left behind does no harm.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Runs the program to its end: its exit code, its lines and its standard error.
#[track_caller]
pub fn election(arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let mut command = Command::new(example_path("election"));
    command.env_remove("RUST_LOG").args(arguments);
    let output = run(command);
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), lines.collect(), errors)
}

/// A process of the program, which runs until the command `quit`.
pub struct ElectionProcess {
    pub child: Child,
    incoming: Receiver<Value>,
    pub lines: Vec<Value>,
}

impl ElectionProcess {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(example_path("election"));
        command.env_remove("RUST_LOG").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, incoming) = channel();
        // Ends with the program.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Fails when the test has ended.
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self {
            child,
            incoming,
            lines: Vec::new(),
        }
    }

    /// Waits until all these servers follow one leader, and returns it.
    #[track_caller]
    pub fn await_leader(&mut self, servers: &[i64]) -> i64 {
        let deadline = Instant::now() + LONG;
        loop {
            let leader_of = |sid: &i64| {
                let mut last = self.lines.iter().rev();
                let last = last.find(|line| {
                    let is_relevant = ["looking", "elected"]
                        .iter()
                        .any(|event| line["event"] == *event);
                    is_relevant && line["myid"] == *sid
                });
                last.and_then(|line| line["leader"].as_i64())
            };
            let leaders: Vec<_> = servers.iter().map(leader_of).collect();
            if let Some(leader) =
                leaders[0].filter(|_| leaders.iter().all(|all| *all == leaders[0]))
            {
                return leader;
            }
            self.next(deadline);
        }
    }

    /// Waits until `count` lines with this event have been printed.
    #[track_caller]
    pub fn await_events(&mut self, event: &str, count: usize) {
        let deadline = Instant::now() + LONG;
        while self.of(event).count() < count {
            self.next(deadline);
        }
    }

    #[track_caller]
    pub fn next(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.incoming.recv_timeout(left) {
            Ok(line) => self.lines.push(line),
            Err(_) => panic!("no line in time after {:#?}", self.lines),
        }
    }

    /// Writes a command to its standard input.
    pub fn order(&mut self, command: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{command}").unwrap();
    }

    /// The lines so far with this event.
    pub fn of<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Value> {
        let matches = move |line: &&Value| line["event"] == event;
        self.lines.iter().filter(matches)
    }

    /// Waits until `count` more lines with this event have been printed.
    #[track_caller]
    pub fn await_new(&mut self, event: &str, count: usize) {
        let before = self.of(event).count();
        self.await_events(event, before + count);
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[track_caller]
    pub fn quit(mut self, members: usize) {
        let mut input = self.child.stdin.take().unwrap();
        input.write_all(b"quit\n").unwrap();
        self.await_events("halted", members);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for ElectionProcess {
    /// No process may outlive a failed test.
    fn drop(&mut self) {
        // Fails when the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
