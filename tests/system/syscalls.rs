//! The system calls of a running peer: how many a frame takes, and what becomes of the peer when they fail.
//!
//! `strace` is attached to the program while it runs, counts or spoils calls of one kind, and lets go. Needs Linux, strace
//! and the right to trace (root, or a kernel that lets parents trace), and fails where it has them not.

#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{CnxManager, Sid};
use support::{LONG, Vacant, configure, eventually, listener, program::Peer};

/// The peer, a process of its own.
const PEER: Sid = Sid(2);

/// Who dials the peer, or is dialed by it: one of ours, in this process.
const SMALLER: Sid = Sid(1);
const LARGER: Sid = Sid(3);

/// A kind of call, what it says from now on every other time, and what makes the peer call.
struct Fault {
    call: &'static str,
    errors: &'static [&'static str],
    by: By,
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    Frames,
    NewLinks,
}

const fn fault(call: &'static str, by: By, errors: &'static [&'static str]) -> Fault {
    Fault { call, errors, by }
}

/// What happens to everybody who is linked. `EAGAIN` is not among them: a kernel that says so tells when it is over, strace
/// does not.
const LINKED: [Fault; 5] = [
    fault("epoll_wait", By::Frames, &["EINTR"]),
    fault(
        "recvfrom",
        By::Frames,
        &["EINTR", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", "ENOMEM"],
    ),
    fault(
        "sendto,writev,sendmsg",
        By::Frames,
        &["EINTR", "EPIPE", "ECONNRESET", "ENOBUFS"],
    ),
    fault("epoll_ctl", By::NewLinks, &["ENOMEM", "ENOSPC"]),
    fault("setsockopt", By::NewLinks, &["EINVAL", "ENOBUFS"]),
];

const ACCEPTING: [Fault; 1] = [fault(
    "accept4",
    By::NewLinks,
    &[
        "EINTR",
        "ECONNABORTED",
        "EMFILE",
        "ENFILE",
        "ENOBUFS",
        "ENOMEM",
        "EPROTO",
        "EPERM",
    ],
)];

const DIALING: [Fault; 3] = [
    fault("socket", By::NewLinks, &["EMFILE", "ENOBUFS", "EACCES"]),
    fault(
        "connect",
        By::NewLinks,
        &[
            "EINTR",
            "ECONNREFUSED",
            "ENETUNREACH",
            "EADDRNOTAVAIL",
            "EACCES",
        ],
    ),
    fault("getsockopt", By::NewLinks, &["ENOBUFS"]),
];

/// So often a call fails before the next one has its turn.
const TIMES: usize = 3;

/// A peer that sends everything back, and somebody who talks to it.
struct Pair {
    manager: CnxManager,
    peer: Peer,
    said: u64,
}

impl Pair {
    fn new(own: Sid) -> Self {
        let (socket, address) = listener();
        let place = Vacant::new();
        let servers = [(own.0, address.as_str()), (PEER.0, place.address.as_str())];
        let peer = Peer::start(PEER.0, &servers, &["--echo"]);
        peer.next("listening");
        let config = configure(own.0, &servers).listener(socket);
        let manager = CnxManager::start(config.build().unwrap()).unwrap();
        let mut pair = Self {
            manager,
            peer,
            said: 0,
        };
        pair.talk("the start");
        pair
    }

    /// A new frame goes to the peer and comes back, over however many links it takes.
    #[track_caller]
    fn talk(&mut self, after: &str) {
        self.said += 1;
        let word = self.said.to_string();
        self.manager.to_send(PEER, word.clone()).unwrap();
        eventually(
            &format!("after {after} the newest frame comes back"),
            || {
                // What comes late is older.
                let left = self.manager.recv_timeout(Duration::from_millis(100));
                left.is_ok_and(|message| message.payload == word)
            },
        );
    }

    /// The calls fail, while there is a reason to call, until that was often enough.
    #[track_caller]
    fn endure(&mut self, call: &str, error: &str, by: By) {
        // Not one more: of a call that is being spoiled when the tracer lets go, the peer hears that the kernel has no such
        // call (ENOSYS), and a loop whose `epoll_wait` says so ends.
        let last = 2 * TIMES - 1;
        let tracer = Tracer::attach(
            &self.peer,
            &[
                &format!("--trace={call}"),
                &format!("--inject={call}:error={error}:when=1..{last}+2"),
            ],
        );
        eventually(&format!("{call} says {error}"), || {
            if by == By::NewLinks && self.manager.connected_to_peer(PEER) {
                self.manager.soft_halt();
            }
            self.said += 1;
            self.manager.to_send(PEER, self.said.to_string()).unwrap();
            // Some time for it to come back.
            let _ = self.manager.recv_timeout(Duration::from_millis(20));
            tracer.lines_with("(INJECTED)") >= TIMES
        });
        drop(tracer);
        self.talk(&format!("{call} said {error}"));
    }

    fn endure_all(mut self, faults: &[&[Fault]]) {
        for fault in faults.iter().copied().flatten() {
            for error in fault.errors {
                self.endure(fault.call, error, fault.by);
            }
        }
        let stats = self.peer.stats();
        let sent = &stats["sent"];
        let sum: u64 = ["written", "superseded", "discarded", "waiting"]
            .iter()
            .map(|key| sent[key].as_u64().unwrap())
            .sum();
        assert_eq!(sent["accepted"].as_u64(), Some(sum), "{stats}");
        assert!(self.manager.stats().balances());
        self.manager.halt();
        self.peer.quit();
    }
}

/// A running `strace`, and where it writes.
struct Tracer {
    child: Child,
    output: PathBuf,
}

impl Tracer {
    #[track_caller]
    fn attach(peer: &Peer, options: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quorum-cnx-strace-{}-{nth}", process::id());
        let output = std::env::temp_dir().join(name);
        let mut child = Command::new("strace")
            .args(["--follow-forks", "--attach", &peer.child.id().to_string()])
            .arg("--output")
            .arg(&output)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace can be started; it is a package of this name");
        // It says so on standard error when it has them, with the number of threads if there are several.
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(
            line.contains("attached"),
            "strace cannot trace a process of ours, which root can: {line}"
        );
        thread::spawn(move || said.read_to_end(&mut Vec::new()));
        Self { child, output }
    }

    /// Lines so far with this in them.
    fn lines_with(&self, text: &str) -> usize {
        let lines = fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&lines)
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }
}

impl Drop for Tracer {
    /// The peer goes on alone.
    fn drop(&mut self) {
        // SIGTERM makes it let go of all threads; a stronger one may take the peer with it.
        let killed = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(killed.is_ok_and(|status| status.success()));
        let deadline = Instant::now() + LONG;
        while !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) && Instant::now() < deadline {
            thread::yield_now();
        }
        // Fails when it has not written.
        let _ = fs::remove_file(&self.output);
    }
}

#[test]
fn a_peer_that_is_dialed_outlives_every_call_that_fails() {
    Pair::new(LARGER).endure_all(&[&ACCEPTING, &LINKED]);
}

#[test]
fn a_peer_that_dials_outlives_every_call_that_fails() {
    Pair::new(SMALLER).endure_all(&[&DIALING, &LINKED]);
}

#[test]
fn a_frame_is_read_and_written_with_one_call_each() {
    const FRAMES: usize = 200;
    let mut pair = Pair::new(LARGER);
    let calls = ["sendto(", "sendmsg(", "writev(", "recvfrom("];
    let trace = calls.map(|call| call.trim_end_matches('('));
    let tracer = Tracer::attach(&pair.peer, &[&format!("--trace={}", trace.join(","))]);
    for _ in 0..FRAMES {
        pair.talk("the one before");
    }
    let counts = calls.map(|call| tracer.lines_with(call));
    let [sends, received] = [counts[..3].iter().sum::<usize>(), counts[3]];
    // A round that was begun before the tracer came, and one that it has not yet written down.
    let exactly = FRAMES - 2..=FRAMES + 2;
    assert!(
        exactly.contains(&sends),
        "{sends} writes of {FRAMES} frames"
    );
    assert!(
        exactly.contains(&received),
        "{received} reads of {FRAMES} frames"
    );
    drop(tracer);
    pair.manager.halt();
    pair.peer.quit();
}
