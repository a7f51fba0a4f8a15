//! ZooKeeper's own connection manager in a process of its own, as a test holds it (see `CnxPeer.java`).
//!
//! Nothing here waits without a deadline.

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

use crate::{java, patience::PATIENCE, process::Process};

pub(crate) struct CnxPeer {
    pub(crate) process: Process,
    commands: ChildStdin,
    frames: Receiver<(i64, Vec<u8>)>,
    answers: Receiver<String>,
}

impl CnxPeer {
    /// Starts it as server `sid` of these, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(sid: i64, servers: &[(i64, SocketAddr)], options: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut command = java::machine();
        command
            // What cannot listen says so at once.
            .arg("-Dzookeeper.electionPortBindRetry=1")
            .arg("org.apache.zookeeper.server.quorum.CnxPeer")
            .arg(sid.to_string())
            .args(servers.iter().map(|(sid, at)| format!("{sid}={at}")))
            .args(options);
        let name = format!("cnx-peer-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut process = Process::start(&name, &mut command, true);
        let commands = process.child.stdin.take().expect("it is piped");
        let output = process.child.stdout.take().expect("it is piped");
        let (frames_in, frames) = channel();
        let (answers_in, answers) = channel();
        // Ends with the process.
        thread::spawn(move || listen(output, &frames_in, &answers_in));
        let peer = Self {
            process,
            commands,
            frames,
            answers,
        };
        let answer = peer.answers.recv_timeout(PATIENCE);
        assert_eq!(answer.as_deref(), Ok("listening"), "{name} as server {sid}");
        peer
    }

    /// Gives a command, and waits until it has been carried out: what was done, not what came of it.
    #[track_caller]
    pub(crate) fn order(&mut self, command: &str) {
        let answer = self.ask(command);
        let word = command.split(' ').next();
        assert_eq!(answer.strip_prefix("done "), word);
    }

    #[track_caller]
    pub(crate) fn send(&mut self, to: i64, payload: impl AsRef<[u8]>) {
        let hex = to_hex(payload.as_ref());
        self.order(&format!("send {to} {hex}"));
    }

    /// The next message and its sender.
    #[track_caller]
    pub(crate) fn recv(&self) -> (i64, Vec<u8>) {
        self.recv_within(PATIENCE).expect("a message comes in time")
    }

    /// The next message and its sender, if one comes soon.
    pub(crate) fn recv_within(&self, time: Duration) -> Option<(i64, Vec<u8>)> {
        self.frames.recv_timeout(time).ok()
    }

    /// Waits for this message, and skips those before it.
    #[track_caller]
    pub(crate) fn recv_until(&self, from: i64, payload: impl AsRef<[u8]>) {
        while self.recv() != (from, payload.as_ref().to_vec()) {}
    }

    /// Who is linked, by sid, and by which ports: its own and the other one's.
    #[track_caller]
    pub(crate) fn links(&mut self) -> Vec<(i64, u16, u16)> {
        let answer = self.ask("links");
        let mut links: Vec<_> = answer.split(' ').skip(1).map(link).collect();
        links.sort_unstable();
        links
    }

    /// Whom it is linked with.
    #[track_caller]
    pub(crate) fn linked_peers(&mut self) -> Vec<i64> {
        self.links().iter().map(|(sid, _, _)| *sid).collect()
    }

    /// Its workers: two for each link.
    #[track_caller]
    pub(crate) fn thread_count(&mut self) -> usize {
        let answer = self.ask("threads");
        answer.strip_prefix("threads ").unwrap().parse().unwrap()
    }

    /// Halts it as its own application would.
    #[track_caller]
    pub(crate) fn halt(&mut self) {
        assert_eq!(self.ask("halt"), "halted");
        assert!(self.process.wait().success());
    }

    #[track_caller]
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").expect("it takes commands");
        self.answers
            .recv_timeout(PATIENCE)
            .expect("it answers in time")
    }
}

/// Sorts the lines of a peer until it has ended.
fn listen(output: ChildStdout, frames: &Sender<(i64, Vec<u8>)>, answers: &Sender<String>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        // Fails when the test has ended, which then has no more use for it.
        let _ = match line.strip_prefix("frame ") {
            Some(frame) => {
                let (sid, hex) = frame.split_once(' ').expect("a frame has a sender");
                let sid = sid.parse().expect("a sid is a number");
                frames.send((sid, of_hex(hex))).is_ok()
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

pub(crate) fn of_hex(hex: &str) -> Vec<u8> {
    let nibble = |byte: u8| (byte as char).to_digit(16).expect("hex digits") as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
        .collect()
}
