//! Five servers on loopback, a process each. One is killed with SIGKILL and comes back; at its end the program says
//! which promises held.
//!
//! Nothing is assumed to hold: each line of the summary was looked at, by the servers or here.

mod member;
mod server;
mod table;
mod verdict;

use std::{
    error::Error,
    fmt::Display,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use clap::Parser;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    member::Report,
    server::{Said, Server},
    table::Screen,
    verdict::Verdict,
};

const SERVERS: usize = 5;

/// Who is killed: it has smaller and larger peers, so it dials again and is dialed again.
const VICTIM: i64 = 3;

/// Only a broken promise takes this long.
const LONG: Duration = Duration::from_secs(10);

/// Five servers on loopback; one is killed and comes back. Exits with 0 if all promises held.
#[derive(Debug, Parser)]
#[command(name = "mesh")]
struct Cli {
    /// How long the servers change their values
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,

    /// The server that this process is
    #[arg(long, hide = true, requires = "addresses")]
    member: Option<i64>,

    /// How often it was started before
    #[arg(long, hide = true, default_value_t = 0)]
    incarnation: u64,

    /// Where the servers live
    #[arg(long = "address", hide = true)]
    addresses: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.member {
        Some(own) => member::run(own, cli.incarnation, &cli.addresses).map(|()| true),
        None => {
            Mesh::start().and_then(|mut mesh| mesh.play(Duration::from_secs(cli.seconds.into())))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Who reads no further wants to hear no complaint.
        Err(error) if is_broken_pipe(&*error) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "mesh: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

struct Mesh {
    servers: Vec<Server>,
    said: Receiver<Said>,
    mouth: Sender<Said>,
    screen: Screen,
    verdict: Verdict,
    /// Keep the ports from everybody else, also while their server is dead.
    _places: Vec<Socket>,
}

impl Mesh {
    fn start() -> Result<Self, Box<dyn Error>> {
        let mut places = Vec::new();
        let mut servers = Vec::new();
        for sid in (1..).take(SERVERS) {
            let place = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            place.set_reuse_address(true)?;
            place.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            let address = place.local_addr()?.as_socket().ok_or("no address")?;
            servers.push(Server::new(sid, address.to_string()));
            // Elsewhere than on Linux nobody can listen beside it.
            if cfg!(target_os = "linux") {
                places.push(place);
            }
        }
        let (mouth, said) = channel();
        let mut mesh = Self {
            servers,
            said,
            mouth,
            screen: Screen::new(Instant::now()),
            verdict: Verdict::default(),
            _places: places,
        };
        for at in 0..SERVERS {
            mesh.spawn(at)?;
        }
        Ok(mesh)
    }

    fn spawn(&mut self, at: usize) -> Result<(), Box<dyn Error>> {
        let addresses: Vec<String> = self.servers.iter().map(|one| one.address.clone()).collect();
        self.servers[at].spawn(&addresses, self.mouth.clone())
    }

    /// The play, and whether all promises held.
    fn play(&mut self, length: Duration) -> Result<bool, Box<dyn Error>> {
        let start = Instant::now();
        let victim = VICTIM as usize - 1;

        let took = self.until("the servers are not all linked", Self::is_linked)?;
        self.tell(format!("all are linked, {} after the start", ms(took)))?;
        self.watch(start + length * 3 / 10)?;

        self.servers[victim].kill();
        self.tell(format!("server {VICTIM} is killed with SIGKILL"))?;
        let noticed = self.until("the death was not noticed", Self::is_missed)?;
        self.tell(format!("all others have noticed, {} later", ms(noticed)))?;
        self.watch(start + length * 5 / 10)?;

        self.servers[victim].incarnation += 1;
        self.spawn(victim)?;
        self.tell(format!(
            "server {VICTIM} is started again, on the same port"
        ))?;
        let linked = self.until("the servers are not all linked again", Self::is_linked)?;
        self.tell(format!("all are linked again, {} later", ms(linked)))?;
        self.verdict.is_back = noticed.is_some() && linked.is_some();
        self.watch(start + length)?;

        for server in &mut self.servers {
            if let Some(orders) = &mut server.orders {
                orders.write_all(b"freeze\n")?;
            }
        }
        self.tell("the values change no more".into())?;
        // The orders are obeyed at the next tick, and reported soon after.
        let arrived = self.until("the newest values are not everywhere", Self::is_settled)?;
        self.tell(format!(
            "everybody has everybody's last value, {} later",
            ms(arrived)
        ))?;

        self.verdict.arrived = arrived.is_some();
        self.verdict.is_right = self.all(is_dialed_by_the_larger);

        for server in &mut self.servers {
            server.orders = None;
        }
        let halted = self.until("the servers do not halt", Self::is_halted)?;
        self.tell(format!("all have halted, {} later", ms(halted)))?;
        Ok(self.verdict.print(&self.servers)?)
    }

    fn tell(&mut self, what: String) -> io::Result<()> {
        self.screen.tell(&self.servers, &what)
    }

    /// Listens to the servers until then.
    fn watch(&mut self, end: Instant) -> io::Result<()> {
        while Instant::now() < end {
            self.hear(end)?;
        }
        Ok(())
    }

    /// Listens to the servers until something is so, and says how long it took; `None` if it is too long.
    fn until(&mut self, else_: &str, is_so: fn(&Self) -> bool) -> io::Result<Option<Duration>> {
        let start = Instant::now();
        while !is_so(self) {
            if start.elapsed() > LONG {
                self.verdict.missing.push(else_.to_owned());
                return Ok(None);
            }
            self.hear(start + LONG)?;
        }
        Ok(Some(start.elapsed()))
    }

    /// Takes what a server says, or redraws.
    fn hear(&mut self, end: Instant) -> io::Result<()> {
        let wait = self.screen.next().min(end);
        let wait = wait.saturating_duration_since(Instant::now());
        if let Ok(said) = self.said.recv_timeout(wait) {
            let server = &mut self.servers[said.sid as usize - 1];
            // The last words of a former life come late.
            if server.is_alive() && said.incarnation == server.incarnation {
                let is_over = |report: &Report| report.port_is_free.is_some();
                match said.report {
                    Some(report) => {
                        for (promise, why) in &report.faults {
                            let why = format!("server {}: {why}", said.sid);
                            self.verdict.faults.entry(*promise).or_insert(why);
                        }
                        server.report = Some(report);
                    }
                    None if server.report.as_ref().is_some_and(is_over) => {}
                    None => {
                        server.kill();
                        self.verdict
                            .missing
                            .push(format!("server {} has died", said.sid));
                    }
                }
            }
        }
        self.screen.refresh(&self.servers)
    }

    fn all(&self, is_so: impl Fn(&Server, &Report) -> bool) -> bool {
        self.servers.iter().all(|server| {
            let report = server.report.as_ref();
            report.is_some_and(|report| is_so(server, report))
        })
    }

    fn is_linked(&self) -> bool {
        self.all(|_, report| report.links.len() == SERVERS - 1)
    }

    fn is_missed(&self) -> bool {
        let others = self.servers.iter().filter(|server| server.sid != VICTIM);
        others
            .filter_map(|server| server.report.as_ref())
            .all(|report| !report.links.contains_key(&VICTIM))
    }

    /// Whether everybody has everybody's last value, over one connection for each pair.
    fn is_settled(&self) -> bool {
        self.all(|server, report| {
            let last = |other: &Server, theirs: &Report| {
                let last = (other.incarnation, theirs.version);
                other.sid == server.sid || report.values.get(&other.sid) == Some(&last)
            };
            report.is_frozen && report.connections == SERVERS as u64 - 1 && self.all(last)
        })
    }

    fn is_halted(&self) -> bool {
        self.all(|_, report| report.port_is_free.is_some())
    }
}

fn is_dialed_by_the_larger(server: &Server, report: &Report) -> bool {
    let mut links = report.links.iter();
    links.all(|(sid, dialed)| *dialed == (*sid < server.sid))
}

fn ms(took: Option<Duration>) -> impl Display {
    took.map_or_else(
        || "never".to_owned(),
        |took| format!("{:.0} ms", took.as_secs_f64() * 1000.0),
    )
}
