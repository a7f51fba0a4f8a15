//! Real ZooKeeper servers, started as an operator starts them: with a `zoo.cfg`, a data directory and a `myid`.
//!
//! Nothing here speaks to them but to ask how they are.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::{
    java,
    patience::{PATIENCE, patiently},
    port::Port,
    process::Process,
};

/// The places of the servers 1, 2, 3 and so on, and their common configuration. Who of them is a real server is up to
/// the test.
pub(crate) struct Ensemble {
    places: Vec<Place>,
    directory: PathBuf,
    number: usize,
    times: Times,
}

/// What the configuration says of times.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) tick_ms: u32,
    /// In ticks: how long a new leader and its followers wait for each other.
    pub(crate) init_limit: u32,
    /// In ticks: how long they may be silent later.
    pub(crate) sync_limit: u32,
}

struct Place {
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
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = |_| Place {
            quorum: Port::new(),
            election: Port::new(),
            client: Port::new(),
        };
        Self {
            places: (0..servers).map(place).collect(),
            directory: java::scratch().join(format!("{}-ensemble-{number}", process::id())),
            number,
            times,
        }
    }

    pub(crate) fn sids(&self) -> impl Iterator<Item = i64> + use<> {
        1..=self.places.len() as i64
    }

    pub(crate) fn election(&self, sid: i64) -> &Port {
        &self.place(sid).election
    }

    /// Where the leader `sid` would be found by its followers.
    pub(crate) fn quorum(&self, sid: i64) -> &Port {
        &self.place(sid).quorum
    }

    /// The election addresses of all.
    pub(crate) fn elections(&self) -> Vec<(i64, String)> {
        let address = |sid| (sid, self.election(sid).address.to_string());
        self.sids().map(address).collect()
    }

    fn place(&self, sid: i64) -> &Place {
        &self.places[sid as usize - 1]
    }

    fn configuration(&self, sid: i64, election: impl Fn(i64) -> SocketAddr) -> String {
        let Times {
            tick_ms,
            init_limit,
            sync_limit,
        } = self.times;
        let mut text = format!(
            "tickTime={tick_ms}\ninitLimit={init_limit}\nsyncLimit={sync_limit}\ndataDir={}\nclientPort={}\n\
             clientPortAddress=127.0.0.1\n4lw.commands.whitelist=*\n",
            self.directory.join(sid.to_string()).display(),
            self.place(sid).client.address.port(),
        );
        for other in self.sids() {
            let (quorum, election) = (self.quorum(other).address, election(other));
            text += &format!("server.{other}={quorum}:{}\n", election.port());
        }
        text
    }

    /// Writes the configuration of this server, for whoever reads it.
    pub(crate) fn write_configuration(&self, sid: i64) -> PathBuf {
        self.write_configuration_with(sid, |other| self.election(other).address)
    }

    /// The same for one who finds the others on other ports for the election.
    pub(crate) fn write_configuration_with(
        &self,
        sid: i64,
        election: impl Fn(i64) -> SocketAddr,
    ) -> PathBuf {
        let data = self.directory.join(sid.to_string());
        fs::create_dir_all(&data).expect("a directory can be made");
        fs::write(data.join("myid"), sid.to_string()).expect("a file can be written");
        let path = self.directory.join(format!("zoo-{sid}.cfg"));
        fs::write(&path, self.configuration(sid, election)).expect("a file can be written");
        path
    }

    /// Starts a real server in this place, with the data that it has from before.
    pub(crate) fn start(&self, sid: i64) -> Server {
        let mut command = java::machine();
        command
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.write_configuration(sid));
        let name = format!("server-{sid}-of-{}", self.number);
        Server {
            process: Process::start(&name, &mut command, false),
            client: self.place(sid).client.address,
        }
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        if !thread::panicking() {
            // Of no interest any more; if it is gone already, all the better.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

pub(crate) struct Server {
    pub(crate) process: Process,
    client: SocketAddr,
}

impl Server {
    /// Waits until its log says this.
    #[track_caller]
    pub(crate) fn await_said(&self, text: &str) {
        patiently(text, || self.process.said().contains(text));
    }

    /// Waits until it serves clients in this mode.
    #[track_caller]
    pub(crate) fn await_mode(&self, mode: &str) {
        let line = format!("Mode: {mode}\n");
        patiently(&line, || {
            self.ask("srvr").is_some_and(|said| said.contains(&line))
        });
    }

    /// How often its log has said this.
    pub(crate) fn count_said(&self, text: &str) -> usize {
        self.process.said().matches(text).count()
    }

    /// Prints what proves how it has elected: lines of its log (shown with `--nocapture`), and what it is.
    pub(crate) fn print_elections(&self, what: &str) {
        for line in self.process.said().lines() {
            if line.contains("LEADER ELECTION TOOK") {
                println!("{what}: {line}");
            }
        }
        let said = self.ask("srvr").unwrap_or_default();
        let mode = said.lines().find(|line| line.starts_with("Mode:"));
        println!("{what}: srvr: {}", mode.unwrap_or_else(|| said.trim_end()));
    }

    /// Opens a session, as a client does: a transaction, which it has logged with a quorum when this returns.
    #[track_caller]
    pub(crate) fn log_a_transaction(&self) {
        let mut stream = TcpStream::connect(self.client).expect("it serves clients");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = Vec::new();
        // Version, last transaction seen, timeout, no session yet, and its password.
        request.extend(0_i32.to_be_bytes());
        request.extend(0_i64.to_be_bytes());
        request.extend(10_000_i32.to_be_bytes());
        request.extend(0_i64.to_be_bytes());
        request.extend(16_i32.to_be_bytes());
        request.extend([0; 16]);
        let length = request.len() as i32;
        let request = [&length.to_be_bytes(), &request[..]].concat();
        stream.write_all(&request).expect("it takes a request");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("it answers");
    }

    /// What it answers to a word of four letters, if anybody is there.
    pub(crate) fn ask(&self, word: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.client).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(word.as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        Some(said)
    }
}
