//! One server: a process of its own that holds out a changing value to all others and reports what it sees.
//!
//! It judges what it can see alone; what only all of them can tell is left to the process that started it.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, BufRead as _, Write as _},
    net::TcpListener,
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hdrhistogram::{CreationError, Histogram};
use quorum_cnx::{CnxManager, Config, Event, Message, RecvError, Sid};
use serde::{Deserialize, Serialize};

/// Time between two values.
pub(crate) const TICK: Duration = Duration::from_millis(10);
const TICKS_A_REPORT: u64 = 10;
const TICKS_A_SECOND: u64 = 100;

/// What a member says, a line of JSON each time.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    /// The version of its own value.
    pub(crate) version: u64,
    /// Who is linked, and whether this member dialed.
    pub(crate) links: BTreeMap<i64, bool>,
    /// Open connections of all kinds.
    pub(crate) connections: u64,
    /// The newest value of each other member: its incarnation and its version.
    pub(crate) values: BTreeMap<i64, (u64, u64)>,
    pub(crate) frames: u64,
    /// Of the last whole second.
    pub(crate) pace: Pace,
    /// Of all its life.
    pub(crate) life: Pace,
    pub(crate) accounts: Accounts,
    /// True exactly when its value no longer changes.
    pub(crate) is_frozen: bool,
    /// Promises that it saw broken, with the first case of each.
    pub(crate) faults: BTreeMap<Promise, String>,
    /// In the last report: whether its port was free once it had halted.
    pub(crate) port_is_free: Option<bool>,
}

/// What one member can see to be broken.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) enum Promise {
    Dialer,
    Order,
    Account,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Pace {
    pub(crate) frames: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Accounts {
    pub(crate) accepted: u64,
    pub(crate) written: u64,
    pub(crate) superseded: u64,
    pub(crate) discarded: u64,
    pub(crate) waiting: u64,
    pub(crate) resent: u64,
}

/// What a member holds out.
struct Value {
    incarnation: u64,
    version: u64,
    /// When it was made. The time of day, since it is read in another process; nothing is decided by it.
    nanos: u64,
}

impl Value {
    fn encode(&self) -> Vec<u8> {
        [self.incarnation, self.version, self.nanos]
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes
            .chunks_exact(8)
            .filter_map(|chunk| Some(u64::from_be_bytes(chunk.try_into().ok()?)));
        let value = Self {
            incarnation: numbers.next()?,
            version: numbers.next()?,
            nanos: numbers.next()?,
        };
        (bytes.len() == 24).then_some(value)
    }
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// Runs until standard input ends; a line on it freezes the value.
pub(crate) fn run(own: i64, incarnation: u64, addresses: &[String]) -> Result<(), Box<dyn Error>> {
    let mut builder = Config::builder(Sid(own));
    for (sid, address) in (1..).zip(addresses) {
        builder = builder.server(Sid(sid), address);
    }
    let manager = CnxManager::start(builder.build()?)?;
    let mut member = Member {
        others: (1..)
            .take(addresses.len())
            .filter(|sid| *sid != own)
            .collect(),
        own,
        incarnation,
        manager,
        report: Report::default(),
        second: latencies()?,
        life: latencies()?,
    };
    member.live(&orders())?;
    member.manager.halt();
    member.note_accounts();
    if member.report.accounts.waiting != 0 {
        member.blame(Promise::Account, "a frame waits after the halt".into());
    }
    let address = &addresses[own as usize - 1];
    member.report.port_is_free = Some(TcpListener::bind(address.as_str()).is_ok());
    member.say()
}

/// What comes on standard input, until it ends.
fn orders() -> Receiver<()> {
    let (sender, orders) = channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() || sender.send(()).is_err() {
                return;
            }
        }
    });
    orders
}

struct Member {
    own: i64,
    incarnation: u64,
    others: Vec<i64>,
    manager: CnxManager,
    report: Report,
    /// Latencies of this second, and of all.
    second: Histogram<u64>,
    life: Histogram<u64>,
}

impl Member {
    fn live(&mut self, orders: &Receiver<()>) -> Result<(), Box<dyn Error>> {
        let mut next = Instant::now();
        for tick in 1.. {
            match orders.try_recv() {
                Ok(()) => self.report.is_frozen = true,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
            if !self.report.is_frozen {
                self.hold_out()?;
            }
            next += TICK;
            self.listen(next)?;
            let is_news = self.note_events();
            if tick % TICKS_A_SECOND == 0 {
                self.report.pace = pace(&self.second);
                self.report.life = pace(&self.life);
                self.second.reset();
            }
            if is_news || tick % TICKS_A_REPORT == 0 {
                self.note_accounts();
                self.say()?;
            }
        }
        self.report.life = pace(&self.life);
        Ok(())
    }

    /// A new value, to everybody.
    fn hold_out(&mut self) -> Result<(), Box<dyn Error>> {
        self.report.version += 1;
        for sid in &self.others {
            let value = Value {
                incarnation: self.incarnation,
                version: self.report.version,
                nanos: nanos(),
            };
            self.manager.to_send(Sid(*sid), value.encode())?;
        }
        Ok(())
    }

    fn listen(&mut self, until: Instant) -> Result<(), RecvError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.manager.recv_timeout(left) {
                Ok(message) => self.take(&message),
                Err(RecvError::Timeout) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, message: &Message) {
        self.report.frames += 1;
        let from = message.from.0;
        let Some(value) = Value::decode(&message.payload) else {
            return self.blame(Promise::Order, format!("a frame of {from} is torn"));
        };
        let came = (value.incarnation, value.version);
        let newest = self.report.values.entry(from).or_default();
        if came == *newest {
            // The last frame once more, after a reconnect: allowed, and no sign of a latency.
            return;
        }
        if came.0 == newest.0 && came.1 < newest.1 {
            let why = format!("{from} sent {}, and then {}", newest.1, came.1);
            return self.blame(Promise::Order, why);
        }
        *newest = came;
        let latency = nanos().saturating_sub(value.nanos);
        self.second.saturating_record(latency);
        self.life.saturating_record(latency);
    }

    /// Whether somebody's link came up or ended.
    fn note_events(&mut self) -> bool {
        let mut is_news = false;
        while let Ok(event) = self.manager.events().try_recv() {
            match event {
                Event::Up { sid, dialed, .. } => {
                    is_news = true;
                    self.report.links.insert(sid.0, dialed);
                    if dialed != (sid.0 < self.own) {
                        let why = format!("the link to {sid} was dialed by the smaller id");
                        self.blame(Promise::Dialer, why);
                    }
                }
                Event::Down { sid, .. } => {
                    is_news = true;
                    self.report.links.remove(&sid.0);
                }
                _ => {}
            }
        }
        is_news
    }

    fn note_accounts(&mut self) {
        let stats = self.manager.stats();
        let unbalanced = stats.peers.iter().find(|peer| !peer.sent.balances());
        if let Some(peer) = unbalanced {
            let why = format!("the account of {} does not balance", peer.sid);
            self.blame(Promise::Account, why);
        }
        self.report.connections = stats.connections;
        self.report.accounts = Accounts {
            accepted: stats.sent.accepted,
            written: stats.sent.written,
            superseded: stats.sent.superseded,
            discarded: stats.sent.discarded,
            waiting: stats.sent.waiting,
            resent: stats.sent.resent,
        };
    }

    fn blame(&mut self, promise: Promise, why: String) {
        self.report.faults.entry(promise).or_insert(why);
    }

    fn say(&self) -> Result<(), Box<dyn Error>> {
        let mut line = serde_json::to_string(&self.report)?;
        line.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes())?;
        Ok(out.flush()?)
    }
}

/// In nanoseconds, up to a minute.
fn latencies() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
}

fn pace(latencies: &Histogram<u64>) -> Pace {
    let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Pace {
        frames: latencies.len(),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
    }
}
