//! Runs real ZooKeeper servers with a `zoo.cfg`, a data directory and a `myid`, and reads their logs and four-letter words.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use support::MEMBER_IP;

use crate::{
    deadlines::{DEADLINE, wait_until},
    java,
    port::Port,
    process::Process,
};

/// The ports of the servers 1, 2, 3 and so on, and their common configuration. The test decides which of them are real servers.
pub(crate) struct Ensemble {
    ports: Vec<Ports>,
    directory: PathBuf,
    number: usize,
    times: Times,
}

/// The times in the configuration.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) tick_ms: u32,
    /// In ticks: how long a new leader and its followers wait for each other.
    pub(crate) init_limit: u32,
    /// In ticks: how long they may be silent afterwards.
    pub(crate) sync_limit: u32,
}

struct Ports {
    quorum: Port,
    election: Port,
    client: Port,
}

impl Ensemble {
    pub(crate) fn new(servers: usize) -> Self {
        Self::with_init_limit(servers, 5)
    }

    /// With ticks of a second.
    pub(crate) fn with_init_limit(servers: usize, init_limit: u32) -> Self {
        let times = Times {
            tick_ms: 1000,
            init_limit,
            sync_limit: 3,
        };
        Self::with_times(servers, times)
    }

    pub(crate) fn with_times(servers: usize, times: Times) -> Self {
        Self::at(servers, times, |_| MEMBER_IP)
    }

    /// Each server has an address of its own for the other servers.
    pub(crate) fn at(servers: usize, times: Times, ip: impl Fn(i64) -> Ipv4Addr) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let new_ports = |ip| Ports {
            quorum: Port::at(ip),
            election: Port::at(ip),
            client: Port::new(),
        };
        let ips = (1..).map(ip).take(servers);
        Self {
            ports: ips.map(new_ports).collect(),
            directory: java::scratch().join(format!("{}-ensemble-{number}", process::id())),
            number,
            times,
        }
    }

    /// A directory for files of these servers.
    pub(crate) fn directory(&self) -> &Path {
        fs::create_dir_all(&self.directory).expect("a directory can be created");
        &self.directory
    }

    pub(crate) fn sids(&self) -> impl Iterator<Item = i64> + use<> {
        1..=self.ports.len() as i64
    }

    pub(crate) fn election(&self, sid: i64) -> &Port {
        &self.ports_of(sid).election
    }

    /// The port on which the leader `sid` accepts followers.
    pub(crate) fn quorum(&self, sid: i64) -> &Port {
        &self.ports_of(sid).quorum
    }

    /// The election addresses of all.
    pub(crate) fn elections(&self) -> Vec<(i64, String)> {
        let address = |sid| (sid, self.election(sid).address.to_string());
        self.sids().map(address).collect()
    }

    fn ports_of(&self, sid: i64) -> &Ports {
        &self.ports[sid as usize - 1]
    }

    fn configuration(&self, sid: i64, election: impl Fn(i64) -> SocketAddr) -> String {
        let server = |other| self.server_line(other, other, election(other)) + "\n";
        self.options(sid) + &self.sids().map(server).collect::<String>()
    }

    /// The line of the server `sid`, at the ports of `at`.
    fn server_line(&self, sid: i64, at: i64, election: SocketAddr) -> String {
        let quorum = self.quorum(at).address;
        format!("server.{sid}={quorum}:{}", election.port())
    }

    fn options(&self, sid: i64) -> String {
        let Times {
            tick_ms,
            init_limit,
            sync_limit,
        } = self.times;
        format!(
            "tickTime={tick_ms}\ninitLimit={init_limit}\nsyncLimit={sync_limit}\ndataDir={}\nclientPort={}\n\
             clientPortAddress=127.0.0.1\n4lw.commands.whitelist=*\n",
            self.directory.join(sid.to_string()).display(),
            self.ports_of(sid).client.address.port(),
        )
    }

    /// Writes the configuration file of this server.
    pub(crate) fn write_configuration(&self, sid: i64) -> PathBuf {
        self.write_configuration_with(sid, |other| self.election(other).address)
    }

    /// The same with other election addresses for its peers.
    pub(crate) fn write_configuration_with(
        &self,
        sid: i64,
        election: impl Fn(i64) -> SocketAddr,
    ) -> PathBuf {
        self.write_configuration_lines(sid, election, "")
    }

    /// The same with more lines.
    pub(crate) fn write_configuration_lines(
        &self,
        sid: i64,
        election: impl Fn(i64) -> SocketAddr,
        lines: &str,
    ) -> PathBuf {
        self.write(sid, self.configuration(sid, election) + lines)
    }

    /// Writes the configuration file of this server for an ensemble of only these, whose members may change.
    pub(crate) fn write_members(&self, sid: i64, members: &[i64]) -> PathBuf {
        self.write_members_lines(sid, members, "")
    }

    /// The same with more lines.
    pub(crate) fn write_members_lines(&self, sid: i64, members: &[i64], lines: &str) -> PathBuf {
        let server = |other: &i64| {
            let election = self.election(*other).address;
            self.server_line(*other, *other, election) + "\n"
        };
        let servers: String = members.iter().map(server).collect();
        let changes = "reconfigEnabled=true\nskipACL=yes\nstandaloneEnabled=false\n";
        self.write(sid, self.options(sid) + changes + &servers + lines)
    }

    /// The text with which `reconfig -add` adds the server `sid`, or moves it to the ports of the server `at`.
    pub(crate) fn server_text(&self, sid: i64, at: i64) -> String {
        let server = self.server_line(sid, at, self.election(at).address);
        format!("{server};{}", self.ports_of(sid).client.address)
    }

    fn write(&self, sid: i64, text: String) -> PathBuf {
        let data = self.directory().join(sid.to_string());
        fs::create_dir_all(&data).expect("a directory can be created");
        fs::write(data.join("myid"), sid.to_string()).expect("a file can be written");
        let path = self.directory.join(format!("zoo-{sid}.cfg"));
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Starts a real server with this sid, and with the data of its earlier runs.
    pub(crate) fn start(&self, sid: i64) -> Server {
        self.start_with(sid, &self.write_configuration(sid))
    }

    /// The same with a configuration file that was written before.
    pub(crate) fn start_with(&self, sid: i64, file: &Path) -> Server {
        let mut command = java::machine();
        command
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(file);
        let name = format!("server-{sid}-of-{}", self.number);
        Server {
            process: Process::start(&name, &mut command),
            client: self.ports_of(sid).client.address,
        }
    }

    /// Starts two real servers, and waits until they have elected the larger one: a server of ours that starts earlier could
    /// elect the one that is ready first.
    #[track_caller]
    pub(crate) fn start_two(&self, follower: i64, leader: i64) -> [Server; 2] {
        let servers = [self.start(follower), self.start(leader)];
        servers[0].await_mode("follower");
        servers[1].await_mode("leader");
        servers
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        if !thread::panicking() {
            // A directory that is left behind does no harm.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

pub(crate) struct Server {
    pub(crate) process: Process,
    client: SocketAddr,
}

impl Server {
    /// Waits until its log contains this text.
    #[track_caller]
    pub(crate) fn await_in_log(&self, text: &str) {
        wait_until(text, || self.process.log_text().contains(text));
    }

    /// Waits until it serves clients in this mode.
    #[track_caller]
    pub(crate) fn await_mode(&self, mode: &str) {
        wait_until(mode, || self.is_in_mode(mode));
    }

    /// Whether it serves clients in this mode.
    pub(crate) fn is_in_mode(&self, mode: &str) -> bool {
        let answer = self.ask("srvr");
        answer.is_some_and(|answer| answer.contains(&format!("Mode: {mode}\n")))
    }

    /// How often its log contains this text.
    pub(crate) fn count_in_log(&self, text: &str) -> usize {
        self.process.log_text().matches(text).count()
    }

    /// Opens a client session. That is a transaction, which a quorum has logged when this returns.
    #[track_caller]
    pub(crate) fn log_a_transaction(&self) {
        let mut stream = TcpStream::connect(self.client).expect("the server accepts clients");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut request = Vec::new();
        // Version, last transaction seen, timeout, no session, and its password.
        request.extend(0_i32.to_be_bytes());
        request.extend(0_i64.to_be_bytes());
        request.extend(10_000_i32.to_be_bytes());
        request.extend(0_i64.to_be_bytes());
        request.extend(16_i32.to_be_bytes());
        request.extend([0; 16]);
        let length = request.len() as i32;
        let request = [&length.to_be_bytes(), &request[..]].concat();
        stream
            .write_all(&request)
            .expect("the server reads a request");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("the server answers");
    }

    /// Changes the members of its ensemble (`reconfig`), and waits until that is committed.
    #[track_caller]
    pub(crate) fn reconfigure(&self, change: &str, servers: &str) {
        let mut command = java::machine();
        command
            .arg("org.apache.zookeeper.ZooKeeperMain")
            .args(["-server", &self.client.to_string()])
            .args(["reconfig", change, servers]);
        let output = command.output().expect("the client starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Committed new configuration"), "{output:?}");
    }

    /// The answer to a four-letter word, if the server accepts clients.
    pub(crate) fn ask(&self, word: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.client).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        stream.write_all(word.as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}
