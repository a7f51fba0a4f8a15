//! The resources of conditions: an address that never answers, lookups that hang, a limit of descriptors, and threads that work
//! until they are stopped.
//!
//! Each one ends when it is dropped.

use std::{env, fs, net::SocketAddr, process::Command, thread};

use nix::{
    fcntl::{OFlag, open},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
    },
    unistd::mkfifo,
};
use socket2::{Domain, Protocol, Socket, Type};

use support::{MEMBER_IP, worker::Worker};

/// Number of threads of this process whose names begin with `name`.
pub(crate) fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let is_one = |task: &fs::DirEntry| {
        // A thread that has just ended has no name.
        let name_of = fs::read_to_string(task.path().join("comm"));
        name_of.is_ok_and(|comm| comm.starts_with(name))
    };
    tasks.flatten().filter(is_one).count()
}

/// Number of threads of the loop under test.
pub(crate) fn loops() -> usize {
    threads("quorum-cnx-0")
}

/// Number of lookups in progress.
pub(crate) fn lookups() -> usize {
    // The kernel keeps 15 bytes of a name.
    threads("quorum-cnx-look")
}

/// An address that drops the first packet of each connection, like a machine without power: its backlog is full.
pub(crate) struct BlackHole {
    pub(crate) address: String,
    _socket: Socket,
    _waiting: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        let socket = tcp();
        socket
            .bind(&SocketAddr::from((MEMBER_IP, 0)).into())
            .unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap();
        let dial = |_| {
            let socket = tcp();
            socket.set_nonblocking(true).unwrap();
            // Never connects, since the backlog is full.
            let _ = socket.connect(&address);
            socket
        };
        Self {
            _waiting: (0..4).map(dial).collect(),
            address: address.as_socket().unwrap().to_string(),
            _socket: socket,
        }
    }
}

pub(crate) fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap()
}

/// The environment variable with the path of glibc's file of host aliases. glibc opens that file for each lookup of a name without
/// dots. If the file is a pipe, this blocks until a writer opens it.
const ALIASES: &str = "HOSTALIASES";

pub(crate) fn do_lookups_hang_here() -> bool {
    env::var_os(ALIASES).is_some()
}

/// Runs this test in a process in which lookups hang.
#[track_caller]
pub(crate) fn run_again_with_hanging_lookups(test: &str) {
    let name = format!("quorum-cnx-names-{}", std::process::id());
    let pipe = env::temp_dir().join(name);
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALIASES, &pipe)
        .status();
    fs::remove_file(&pipe).unwrap();
    assert!(status.unwrap().success(), "see above");
}

/// Ends the hanging lookups when it is dropped.
pub(crate) struct HangingLookups;

impl Drop for HangingLookups {
    fn drop(&mut self) {
        let pipe = env::var_os(ALIASES).expect("lookups hang only with this variable");
        while lookups() > 0 {
            // Fails if no lookup has the pipe open: all of them are ending.
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
            drop(open(pipe.as_os_str(), flags, Mode::empty()));
            thread::yield_now();
        }
    }
}

/// Limits the descriptors of this process to those that are open and some spare ones.
pub(crate) struct DescriptorLimit {
    before: (u64, u64),
}

impl DescriptorLimit {
    pub(crate) fn with_spare(spare: u64) -> Self {
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let highest = fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok())
            .max();
        setrlimit(Resource::RLIMIT_NOFILE, highest.unwrap() + spare, before.1).unwrap();
        Self { before }
    }
}

impl Drop for DescriptorLimit {
    fn drop(&mut self) {
        let (soft, hard) = self.before;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    }
}

/// So many threads that repeat the same work until they are dropped. `work` returns whether the thread continues.
pub(crate) fn busy_threads(
    count: usize,
    work: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Vec<Worker> {
    let start = |nth| {
        let work = work.clone();
        Worker::repeat(move || work(nth))
    };
    (0..count).map(start).collect()
}
