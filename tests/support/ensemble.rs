//! The program `election` as processes: the configuration of an ensemble, and what is said by those who run.
//!
//! Nothing here looks into the library, or knows who is to be elected.

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

use crate::{LONG, Vacant, program::example_path, target_dir, within};

/// The configuration of servers 1, 2, 3 and so on, in a directory of its own.
pub struct Ensemble {
    /// Kept from everybody else.
    _ports: Vec<Vacant>,
    directory: PathBuf,
    /// Where they are found for the election.
    pub elections: Vec<(i64, String)>,
}

impl Ensemble {
    pub fn new(servers: usize, more: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("elect-{}-{nth}", std::process::id());
        let directory = target_dir().join("tmp").join(name);
        fs::create_dir_all(&directory).unwrap();
        let ports: Vec<Vacant> = (0..2 * servers).map(|_| Vacant::new()).collect();
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

    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        // Of no interest any more.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Runs it to its end: its exit code, its lines and its complaints.
#[track_caller]
pub fn election(arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let output = within("the program", move || {
        let mut command = Command::new(example_path("election"));
        command.env_remove("RUST_LOG").args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    });
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let complaints = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), lines.collect(), complaints)
}

/// A program that runs until it is told to quit.
pub struct Running {
    pub child: Child,
    coming: Receiver<Value>,
    pub lines: Vec<Value>,
}

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(example_path("election"));
        command.env_remove("RUST_LOG").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, coming) = channel();
        // Ends with the program.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Fails when the test has ended.
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self {
            child,
            coming,
            lines: Vec::new(),
        }
    }

    /// Waits until these follow one leader; gives it.
    #[track_caller]
    pub fn await_leader(&mut self, of: &[i64]) -> i64 {
        let deadline = Instant::now() + LONG;
        loop {
            let says = |sid: &i64| {
                let mut last = self.lines.iter().rev();
                let last = last.find(|line| {
                    let is_word = ["looking", "elected"]
                        .iter()
                        .any(|word| line["event"] == *word);
                    is_word && line["myid"] == *sid
                });
                last.and_then(|line| line["leader"].as_i64())
            };
            let leaders: Vec<_> = of.iter().map(says).collect();
            if let Some(leader) =
                leaders[0].filter(|_| leaders.iter().all(|all| *all == leaders[0]))
            {
                return leader;
            }
            self.next(deadline);
        }
    }

    /// Waits until so many lines tell of such an event.
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
        match self.coming.recv_timeout(left) {
            Ok(line) => self.lines.push(line),
            Err(_) => panic!("nothing comes in time after {:#?}", self.lines),
        }
    }

    /// Gives a command.
    pub fn order(&mut self, command: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{command}").unwrap();
    }

    /// The lines so far that tell of such an event.
    pub fn of<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Value> {
        let is_it = move |line: &&Value| line["event"] == event;
        self.lines.iter().filter(is_it)
    }

    /// Waits until so many more lines tell of such an event.
    #[track_caller]
    pub fn await_new(&mut self, event: &str, count: usize) {
        let before = self.of(event).count();
        self.await_events(event, before + count);
    }

    /// Ends it as a power cut would.
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

impl Drop for Running {
    /// No process may outlive a failed test.
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
