//! What conditions are made of: an address that swallows, names that nobody answers for, a shortage of descriptors, and
//! threads that do something until they are told to stop.
//!
//! Each goes when it is dropped.

use std::{
    env, fs,
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    fcntl::{OFlag, open},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
    },
    unistd::mkfifo,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::HOME;

/// Threads of this process that have a name that begins so.
pub(crate) fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let is_one = |task: &fs::DirEntry| {
        // One that has ended meanwhile has no name.
        let name_of = fs::read_to_string(task.path().join("comm"));
        name_of.is_ok_and(|comm| comm.starts_with(name))
    };
    tasks.flatten().filter(is_one).count()
}

/// Threads of the loop under test.
pub(crate) fn loops() -> usize {
    threads("quorum-cnx-0")
}

/// Lookups under way.
pub(crate) fn lookups() -> usize {
    // The kernel keeps 15 bytes of a name.
    threads("quorum-cnx-look")
}

/// An address that swallows the first packet of each connection, as a machine does that is switched off: the queue of its
/// listening socket is full.
pub(crate) struct BlackHole {
    pub(crate) address: String,
    _socket: Socket,
    _waiting: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        let socket = tcp();
        socket.bind(&SocketAddr::from((HOME, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap();
        let dial = |_| {
            let socket = tcp();
            socket.set_nonblocking(true).unwrap();
            // Goes on for ever, for those who find no place.
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

fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap()
}

/// The variable by which glibc finds the file of other names for a name without dots. It opens that file for each lookup;
/// when it is a pipe that nobody writes to, that takes until somebody does.
const ALIASES: &str = "HOSTALIASES";

pub(crate) fn are_names_slow_here() -> bool {
    env::var_os(ALIASES).is_some()
}

/// Runs this test in a process where lookups of names hang.
#[track_caller]
pub(crate) fn run_again_where_names_are_slow(test: &str) {
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

/// Lets the lookups end that hang when it is dropped.
pub(crate) struct SlowNames;

impl Drop for SlowNames {
    fn drop(&mut self) {
        let pipe = env::var_os(ALIASES).expect("this is where names are slow");
        while lookups() > 0 {
            // Fails when nobody reads, that is when all of them are on their way out.
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
            drop(open(pipe.as_os_str(), flags, Mode::empty()));
            thread::yield_now();
        }
    }
}

/// No more descriptors than there are now, and these.
pub(crate) struct Shortage {
    before: (u64, u64),
}

impl Shortage {
    pub(crate) fn of_all_but(spare: u64) -> Self {
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

impl Drop for Shortage {
    fn drop(&mut self) {
        let (soft, hard) = self.before;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    }
}

/// A socket that has its descriptor before there are none, and connects later.
pub(crate) struct Waiting(Socket);

impl Waiting {
    pub(crate) fn new() -> Self {
        Self(tcp())
    }

    pub(crate) fn dial(self, to: &str) -> TcpStream {
        let to: SocketAddr = to.parse().unwrap();
        self.0.connect(&to.into()).unwrap();
        self.0.into()
    }
}

/// Threads that do the same until they are dropped.
pub(crate) struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// `work` says whether there is more.
    pub(crate) fn start(
        count: usize,
        work: impl Fn(usize) -> bool + Clone + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |nth| {
            let (stop, work) = (Arc::clone(&stop), work.clone());
            thread::spawn(move || while !stop.load(Ordering::Acquire) && work(nth) {})
        };
        let threads = (0..count).map(start).collect();
        Self { stop, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Connects if anybody is there to be connected to.
pub(crate) fn try_dial(to: &str) -> Option<TcpStream> {
    TcpStream::connect(to).ok()
}
