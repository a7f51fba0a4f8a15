//! Tests the system calls of a running peer: how many a frame takes, and that the peer survives their failure.
//!
//! `strace` is attached to the running program, counts calls or makes them fail, and is detached. Needs Linux, strace and the
//! permission to trace (root, or a kernel that lets parents trace), and fails without them.

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
use support::{
    LONG, ReservedAddress, configure,
    counters::imbalance,
    eventually, listener,
    program::Peer,
    signal::{Signal, signal},
};

/// The peer: a process of its own.
const PEER: Sid = Sid(2);

/// The manager in this process: the peer dials the smaller one, and is dialed by the larger one.
const SMALLER: Sid = Sid(1);
const LARGER: Sid = Sid(3);

/// A system call, the errors with which every other call fails, and what makes the peer call it.
struct Fault {
    call: &'static str,
    errors: &'static [&'static str],
    trigger: Trigger,
}

#[derive(Clone, Copy, PartialEq)]
enum Trigger {
    Frames,
    NewLinks,
}

const fn fault(call: &'static str, trigger: Trigger, errors: &'static [&'static str]) -> Fault {
    Fault {
        call,
        errors,
        trigger,
    }
}

/// Faults of every linked peer. Without `EAGAIN`: after it the kernel reports readiness, which strace cannot simulate.
const LINKED: [Fault; 5] = [
    fault("epoll_wait", Trigger::Frames, &["EINTR"]),
    fault(
        "recvfrom",
        Trigger::Frames,
        &["EINTR", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", "ENOMEM"],
    ),
    fault(
        "sendto,writev,sendmsg",
        Trigger::Frames,
        &["EINTR", "EPIPE", "ECONNRESET", "ENOBUFS"],
    ),
    fault("epoll_ctl", Trigger::NewLinks, &["ENOMEM", "ENOSPC"]),
    fault("setsockopt", Trigger::NewLinks, &["EINVAL", "ENOBUFS"]),
];

const ACCEPTING: [Fault; 1] = [fault(
    "accept4",
    Trigger::NewLinks,
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
    fault(
        "socket",
        Trigger::NewLinks,
        &["EMFILE", "ENOBUFS", "EACCES"],
    ),
    fault(
        "connect",
        Trigger::NewLinks,
        &[
            "EINTR",
            "ECONNREFUSED",
            "ENETUNREACH",
            "EADDRNOTAVAIL",
            "EACCES",
        ],
    ),
    fault("getsockopt", Trigger::NewLinks, &["ENOBUFS"]),
];

/// How often a call fails before the next one is tested.
const TIMES: usize = 3;

/// A peer that echoes all frames, and a manager that is linked with it.
struct Pair {
    manager: CnxManager,
    peer: Peer,
    last_frame: u64,
}

impl Pair {
    fn new(own: Sid) -> Self {
        let (socket, address) = listener();
        let peer_address = ReservedAddress::new();
        let servers = [
            (own.0, address.as_str()),
            (PEER.0, peer_address.address.as_str()),
        ];
        let peer = Peer::start(PEER.0, &servers, &["--echo"]);
        peer.next("listening");
        let config = configure(own.0, &servers).listener(socket);
        let manager = CnxManager::start(config.build().unwrap()).unwrap();
        let mut pair = Self {
            manager,
            peer,
            last_frame: 0,
        };
        pair.exchange("the start");
        pair
    }

    /// Sends a new frame, and waits until the echo arrives, over as many links as necessary.
    #[track_caller]
    fn exchange(&mut self, after: &str) {
        self.last_frame += 1;
        let number = self.last_frame.to_string();
        self.manager.to_send(PEER, number.clone()).unwrap();
        eventually(&format!("after {after} the newest frame is echoed"), || {
            // Skips late echoes of older frames.
            let received = self.manager.recv_timeout(Duration::from_millis(100));
            received.is_ok_and(|message| message.payload == number)
        });
    }

    /// Makes these calls fail `TIMES` times, while frames or new links cause them.
    #[track_caller]
    fn inject(&mut self, call: &str, error: &str, trigger: Trigger) {
        // Not one failure more: if strace is detached while it injects an error, the call returns ENOSYS, and a loop whose
        // `epoll_wait` returns that ends.
        let last = 2 * TIMES - 1;
        let tracer = Tracer::attach(
            &self.peer,
            &[
                &format!("--trace={call}"),
                &format!("--inject={call}:error={error}:when=1..{last}+2"),
            ],
        );
        eventually(&format!("{call} fails with {error}"), || {
            if trigger == Trigger::NewLinks && self.manager.connected_to_peer(PEER) {
                self.manager.soft_halt();
            }
            self.last_frame += 1;
            self.manager
                .to_send(PEER, self.last_frame.to_string())
                .unwrap();
            // Some time for the echo.
            let _ = self.manager.recv_timeout(Duration::from_millis(20));
            tracer.lines_with("(INJECTED)") >= TIMES
        });
        drop(tracer);
        self.exchange(&format!("{call} failed with {error}"));
    }

    fn inject_all(mut self, faults: &[&[Fault]]) {
        for fault in faults.iter().copied().flatten() {
            for error in fault.errors {
                self.inject(fault.call, error, fault.trigger);
            }
        }
        // A link may just be coming up or ending, and is counted in one place before the other.
        let mut found = None;
        eventually("the counters of the peer balance", || {
            let imbalance = imbalance(&self.peer.stats());
            if found != imbalance {
                println!("{imbalance:?}");
                found.clone_from(&imbalance);
            }
            imbalance.is_none()
        });
        eventually("the counters of the manager balance", || {
            self.manager.stats().balances()
        });
        self.manager.halt();
        self.peer.quit();
    }
}

/// A running `strace`, and its output file.
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
            .expect("strace is installed");
        // It prints a line to standard error when it is attached.
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(
            line.contains("attached"),
            "strace is not permitted to trace this process, root is: {line}"
        );
        thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        Self { child, output }
    }

    /// The number of lines so far with this text.
    fn lines_with(&self, text: &str) -> usize {
        let lines = fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&lines)
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }
}

impl Drop for Tracer {
    /// Detaches it. The peer continues.
    fn drop(&mut self) {
        // SIGTERM makes it detach from all threads. SIGKILL may end the peer, too.
        signal(self.child.id(), Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + LONG;
        while !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) && Instant::now() < deadline {
            thread::yield_now();
        }
        // Fails when there is no output file.
        let _ = fs::remove_file(&self.output);
    }
}

#[test]
fn dialed_peer_survives_failing_system_calls() {
    Pair::new(LARGER).inject_all(&[&ACCEPTING, &LINKED]);
}

#[test]
fn dialing_peer_survives_failing_system_calls() {
    Pair::new(SMALLER).inject_all(&[&DIALING, &LINKED]);
}

#[test]
fn frame_takes_one_read_and_one_write_call() {
    const FRAMES: usize = 200;
    let mut pair = Pair::new(LARGER);
    let calls = ["sendto(", "sendmsg(", "writev(", "recvfrom("];
    let trace = calls.map(|call| call.trim_end_matches('('));
    let tracer = Tracer::attach(&pair.peer, &[&format!("--trace={}", trace.join(","))]);
    for _ in 0..FRAMES {
        pair.exchange("the frame before");
    }
    let counts = calls.map(|call| tracer.lines_with(call));
    let [sends, received] = [counts[..3].iter().sum::<usize>(), counts[3]];
    // One round may have started before the tracer was attached, and one may not be recorded yet.
    let expected = FRAMES - 2..=FRAMES + 2;
    assert!(
        expected.contains(&sends),
        "{sends} writes of {FRAMES} frames"
    );
    assert!(
        expected.contains(&received),
        "{received} reads of {FRAMES} frames"
    );
    drop(tracer);
    pair.manager.halt();
    pair.peer.quit();
}
