//! Runs ZooKeeper's connection manager in a process of its own (see `CnxPeer.java`), and controls it.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::ChildStdin,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use support::hex::{from_hex, to_hex};

use crate::{
    deadlines::{DEADLINE, wait_until},
    java,
    process::Process,
};

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
        let (frames_sender, frames) = channel();
        let (answers_sender, answers) = channel();
        let (process, commands) = Process::start_piped(&name, &mut command, move |line| {
            // Fails when the test has ended.
            let _ = match line.strip_prefix("frame ") {
                Some(frame) => {
                    let (sid, hex) = frame.split_once(' ').expect("a frame has a sender");
                    let sid = sid.parse().expect("a sid is a number");
                    let payload = from_hex(hex).expect("hex digits");
                    frames_sender.send((sid, payload)).is_ok()
                }
                None => answers_sender.send(line).is_ok(),
            };
        });
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
        let hex = to_hex(payload);
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

    /// Waits until it has no link and has noticed it. Before, the old link's thread may take a message from the queue of a new one, which is
    /// then lost.
    #[track_caller]
    pub(crate) fn await_no_link(&mut self) {
        wait_until("ZooKeeper has no link", || {
            self.links().is_empty() && self.thread_count() == 0
        });
    }

    #[track_caller]
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").expect("the process reads commands");
        self.answers
            .recv_timeout(DEADLINE)
            .expect("the process answers in time")
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
