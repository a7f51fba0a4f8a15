//! Runs ZooKeeper's connection manager in a process of its own (see `CnxPeer.java`), and controls it.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{ChildStdin, ChildStdout},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use crate::{deadlines::DEADLINE, java, process::Process};

pub(crate) struct CnxPeer {
    pub(crate) process: Process,
    commands: ChildStdin,
    frames: Receiver<(i64, Vec<u8>)>,
    answers: Receiver<String>,
}

impl CnxPeer {
    /// Starts it as server `sid` of these servers, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(sid: i64, servers: &[(i64, SocketAddr)], options: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut command = java::machine();
        command
            // If it cannot listen, it says so at once.
            .arg("-Dzookeeper.electionPortBindRetry=1")
            .arg("org.apache.zookeeper.server.quorum.CnxPeer")
            .arg(sid.to_string())
            .args(servers.iter().map(|(sid, at)| format!("{sid}={at}")))
            .args(options);
        let name = format!("cnx-peer-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut process = Process::start(&name, &mut command, true);
        let commands = process.child.stdin.take().expect("the stream is piped");
        let output = process.child.stdout.take().expect("the stream is piped");
        let (frames_sender, frames) = channel();
        let (answers_sender, answers) = channel();
        // Ends with the process.
        thread::spawn(move || read_lines(output, &frames_sender, &answers_sender));
        let peer = Self {
            process,
            commands,
            frames,
            answers,
        };
        let answer = peer.answers.recv_timeout(DEADLINE);
        assert_eq!(answer.as_deref(), Ok("listening"), "{name} as server {sid}");
        peer
    }

    /// Writes a command, and waits until it is executed. Its effects may come later.
    #[track_caller]
    pub(crate) fn command(&mut self, command: &str) {
        let answer = self.ask(command);
        let name = command.split(' ').next();
        assert_eq!(answer.strip_prefix("done "), name);
    }

    #[track_caller]
    pub(crate) fn send(&mut self, to: i64, payload: impl AsRef<[u8]>) {
        let hex = to_hex(payload.as_ref());
        self.command(&format!("send {to} {hex}"));
    }

    /// The next message and its sender.
    #[track_caller]
    pub(crate) fn recv(&self) -> (i64, Vec<u8>) {
        self.recv_within(DEADLINE)
            .expect("a message arrives in time")
    }

    /// The next message and its sender, if it arrives within this time.
    pub(crate) fn recv_within(&self, time: Duration) -> Option<(i64, Vec<u8>)> {
        self.frames.recv_timeout(time).ok()
    }

    /// Waits for this message, and skips those before it.
    #[track_caller]
    pub(crate) fn recv_until(&self, from: i64, payload: impl AsRef<[u8]>) {
        while self.recv() != (from, payload.as_ref().to_vec()) {}
    }

    /// Its links: sid, local port, remote port.
    #[track_caller]
    pub(crate) fn links(&mut self) -> Vec<(i64, u16, u16)> {
        let answer = self.ask("links");
        let mut links: Vec<_> = answer.split(' ').skip(1).map(link).collect();
        links.sort_unstable();
        links
    }

    /// The sids of its links.
    #[track_caller]
    pub(crate) fn linked_peers(&mut self) -> Vec<i64> {
        self.links().iter().map(|(sid, _, _)| *sid).collect()
    }

    /// The number of its worker threads: two for each link.
    #[track_caller]
    pub(crate) fn thread_count(&mut self) -> usize {
        let answer = self.ask("threads");
        answer.strip_prefix("threads ").unwrap().parse().unwrap()
    }

    /// Calls `halt`, and waits for its end.
    #[track_caller]
    pub(crate) fn halt(&mut self) {
        assert_eq!(self.ask("halt"), "halted");
        assert!(self.process.wait().success());
    }

    #[track_caller]
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").expect("the process reads commands");
        self.answers
            .recv_timeout(DEADLINE)
            .expect("the process answers in time")
    }
}

/// Reads the lines of the process until it ends, and separates frames from answers.
fn read_lines(output: ChildStdout, frames: &Sender<(i64, Vec<u8>)>, answers: &Sender<String>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        // Fails when the test has ended.
        let _ = match line.strip_prefix("frame ") {
            Some(frame) => {
                let (sid, hex) = frame.split_once(' ').expect("a frame has a sender");
                let sid = sid.parse().expect("a sid is a number");
                frames.send((sid, from_hex(hex))).is_ok()
            }
            None => answers.send(line).is_ok(),
        };
    }
}

fn link(word: &str) -> (i64, u16, u16) {
    let (sid, ports) = word.split_once('=').unwrap();
    let (own, other) = ports.split_once(':').unwrap();
    (
        sid.parse().unwrap(),
        own.parse().unwrap(),
        other.parse().unwrap(),
    )
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
    let nibble = |byte: u8| (byte as char).to_digit(16).expect("hex digits") as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
        .collect()
}
