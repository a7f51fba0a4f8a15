//! What an application on a simulated host does and keeps account of: the frames it puts, the frames and events it gets.
//!
//! The properties that can be seen from here are checked here, at once; the rest is in `properties`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::LazyLock,
    time::Duration,
};

use bytes::Bytes;
use quorum_cnx::{
    Event, Frame, Handle, Handler, Reason, SendError, SendOutcome, Sid,
    limits::{FRAME_BYTES_MAX, SILENT_AFTER},
};

use crate::{anything::call_anything, chance::Chance, kernel::Due, net::Machines};

/// A property that does not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    pub property: &'static str,
    pub what: String,
}

pub type Books = Rc<RefCell<Ledger>>;

/// What all applications of a world have done and seen.
#[derive(Debug, Default)]
pub struct Ledger {
    pub failure: Option<Failure>,
    pub hosts: Vec<Account>,
    /// A second connection replaces a link wherever it comes from.
    pub newest: bool,
    /// Members are configured by name.
    pub by_name: bool,
    /// No frame may come twice.
    pub once: bool,
    /// Nothing is wrong but strangers: no link of a member may end.
    pub calm: bool,
    /// Applications ask for nothing any more.
    pub quiet: bool,
    /// When a link was dialed anew in a calm world, by whom and to whom.
    pub renewed: BTreeMap<(Sid, Sid), Duration>,
    pub now: Duration,
}

/// One host, since its process started.
#[derive(Debug)]
pub struct Account {
    pub sid: Sid,
    /// Its configured addresses.
    pub homes: Vec<IpAddr>,
    /// All addresses from which it may speak.
    pub machine: Vec<IpAddr>,
    pub incarnation: u32,
    /// Newest frame put for each host, by its index.
    pub put: BTreeMap<usize, u64>,
    /// When that was.
    pub put_at: BTreeMap<usize, Duration>,
    /// Newest frame got from each incarnation of each host.
    pub got: BTreeMap<(usize, u32), u64>,
    pub links: BTreeMap<Sid, Up>,
    pub accepted: u64,
    pub looped: [u64; 2],
    pub frames: u64,
    pub ups: u64,
    pub ups_accepted: u64,
    pub downs: u64,
    pub rejected: u64,
    pub events: u64,
    /// Peers whose names were looked up and found.
    pub found: BTreeSet<Sid>,
    /// The addresses that were found.
    found_at: BTreeSet<IpAddr>,
    /// Dials of a peer that led to nothing, by the clock of the machine; see `properties`.
    pub fruitless: BTreeMap<Sid, Vec<Duration>>,
    /// The number of the newest frame, taken or not.
    pub next: u64,
    /// Dials of guests that the application may have brought about; see `properties`.
    pub asked_for_guests: u64,
    /// The links that are older than this are dropped by the next turn, or by the one after it if the application asked for
    /// that within a turn.
    pub dropped_at: Option<Duration>,
    pub dropped_in_turn: Option<Duration>,
    last_link: u64,
    /// The link that was just replaced, the peer whose it was, and for how long that was not heard.
    replaced: Option<(Sid, Up, Duration)>,
    /// Peers that were heard, and when last.
    heard: BTreeMap<Sid, Duration>,
    /// Observers that were served when one was refused in this turn.
    pub refused: Option<usize>,
}

impl Account {
    pub fn new(sid: Sid, homes: Vec<IpAddr>, machine: Vec<IpAddr>) -> Self {
        Self {
            sid,
            homes,
            machine,
            incarnation: 0,
            put: BTreeMap::new(),
            put_at: BTreeMap::new(),
            got: BTreeMap::new(),
            links: BTreeMap::new(),
            accepted: 0,
            looped: [0; 2],
            frames: 0,
            ups: 0,
            ups_accepted: 0,
            downs: 0,
            rejected: 0,
            events: 0,
            found: BTreeSet::new(),
            found_at: BTreeSet::new(),
            fruitless: BTreeMap::new(),
            next: 0,
            asked_for_guests: 0,
            dropped_at: None,
            dropped_in_turn: None,
            last_link: 0,
            replaced: None,
            heard: BTreeMap::new(),
            refused: None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Up {
    pub addr: SocketAddr,
    pub dialed: bool,
    pub since: Duration,
    pub number: u64,
}

impl Ledger {
    pub fn fail(&mut self, property: &'static str, what: impl Into<String>) {
        self.failure.get_or_insert_with(|| Failure {
            property,
            what: what.into(),
        });
    }

    pub fn index_of(&self, sid: Sid) -> Option<usize> {
        self.hosts.iter().position(|host| host.sid == sid)
    }

    /// A host has been told where another one is.
    pub fn on_found(&mut self, me: usize, ip: IpAddr) {
        let found = self.hosts.iter().find(|host| host.homes.contains(&ip));
        let sid = found.map(|host| host.sid);
        if me < self.hosts.len() {
            self.hosts[me].found.extend(sid);
            self.hosts[me].found_at.insert(ip);
        }
    }

    fn is_home(&self, sid: Sid, ip: IpAddr) -> bool {
        self.index_of(sid)
            .is_some_and(|host| self.hosts[host].homes.contains(&ip))
    }

    /// Whether this host knows that connections of that one come from there.
    fn knows(&self, me: usize, sid: Sid, ip: IpAddr) -> bool {
        let is_known = !self.by_name || self.hosts[me].found_at.contains(&ip);
        is_known && self.is_home(sid, ip)
    }

    /// Whether this member's connections come from its own addresses. If not, a proxy or a translator stands between.
    fn comes_from_home(&self, sid: Sid) -> bool {
        let host = self.index_of(sid).map(|host| &self.hosts[host]);
        host.is_some_and(|host| host.machine.iter().all(|ip| host.homes.contains(ip)))
    }

    /// P6, when only strangers are about and the link of a member goes down.
    fn on_calm_down(&mut self, me: usize, sid: Sid, silent_for: Duration, reason: &Reason) {
        let own = self.hosts[me].sid;
        let direct = self.comes_from_home(sid) && self.comes_from_home(own);
        let replaced = *reason == Reason::Replaced;
        let excuse = if sid > own {
            // Whoever replaces it is seen when the next link is up. Else it has been dialed anew, and the end came first.
            let renewed = self.renewed.get(&(sid, own)).copied();
            let is_new = |at| self.now - at < Duration::from_secs(1);
            replaced || !direct || renewed.is_some_and(is_new)
        } else {
            self.renewed.insert((own, sid), self.now);
            (replaced && silent_for >= SILENT_AFTER) || (!direct && !replaced)
        };
        if !excuse {
            let what =
                format!("only strangers are about, and {sid} goes down at host {me}: {reason}");
            self.fail("P6", what);
        }
    }

    /// The process of a host starts: what it knew is gone.
    pub fn start(&mut self, host: usize) {
        let old = &mut self.hosts[host];
        let (homes, machine) = (old.homes.clone(), old.machine.clone());
        *old = Account {
            incarnation: old.incarnation + 1,
            ..Account::new(old.sid, homes, machine)
        };
    }

    fn on_event(&mut self, me: usize, event: &Event) {
        let now = self.now;
        let account = &mut self.hosts[me];
        // To say again and again that nothing can be done is to spin.
        account.events += u64::from(!matches!(event, Event::AcceptFailed { .. }));
        match event {
            Event::Up {
                sid,
                dialed,
                addr,
                link,
                ..
            } => {
                account.ups += 1;
                account.ups_accepted += u64::from(!dialed);
                if let (Some(served), true) = (&mut account.refused, sid.0 < 0) {
                    // This one had its place, and was told later.
                    *served += 1;
                }
                let up = Up {
                    addr: *addr,
                    dialed: *dialed,
                    since: now,
                    number: *link,
                };
                let last = std::mem::replace(&mut account.last_link, *link);
                let older = account.links.insert(*sid, up);
                let replaced = account.replaced.take().filter(|(whose, ..)| whose == sid);
                let member = self.index_of(*sid).is_some();
                if *link <= last {
                    self.fail("P5", format!("link {link} comes after link {last}"));
                }
                if older.is_some() {
                    self.fail("P1", format!("{sid} is up twice at host {me}"));
                }
                if *dialed && *sid > self.hosts[me].sid {
                    self.fail(
                        "P1",
                        format!("host {me} keeps a link that it dialed to the larger {sid}"),
                    );
                }
                // P6. An older link that had ended by itself has no claim any more, nor has one that came from elsewhere.
                let shields = |(_, older, silent_for): (Sid, Up, Duration)| {
                    let is_known = older.dialed || self.knows(me, *sid, older.addr.ip());
                    is_known || (self.calm && silent_for < SILENT_AFTER)
                };
                let at = self.index_of(*sid).map(|host| &self.hosts[host]);
                let is_strange = at.is_some_and(|host| !host.machine.contains(&addr.ip()));
                if replaced.is_some_and(shields) && member && !self.newest && is_strange {
                    self.fail(
                        "P6",
                        format!("a stranger at {addr} replaces the link of {sid} at host {me}"),
                    );
                }
            }
            Event::Down {
                sid, reason, link, ..
            } => {
                account.downs += 1;
                let Some(up) = account.links.remove(sid) else {
                    return self.fail("P5", format!("{sid} is down at host {me} and was not up"));
                };
                if up.number != *link {
                    let what = format!("link {link} of {sid} goes down at host {me}, not {up:?}");
                    return self.fail("P5", what);
                }
                let heard = account.heard.get(sid).copied().unwrap_or_default();
                let silent_for = now - heard.max(up.since);
                account.replaced = (*reason == Reason::Replaced).then_some((*sid, up, silent_for));
                if now - up.since >= Duration::from_secs(1) {
                    account.fruitless.remove(sid);
                }
                if self.calm && self.index_of(*sid).is_some() {
                    self.on_calm_down(me, *sid, silent_for, reason);
                }
            }
            Event::Rejected {
                addr, sid, reason, ..
            } => {
                account.rejected += 1;
                if *reason == Reason::ObserversFull {
                    // Their ids are negative; whoever has just gone was told before.
                    account.refused = Some(account.links.range(..Sid(0)).count());
                }
                let is_strange =
                    matches!(reason, Reason::OlderLinkAlive | Reason::ContenderWaiting);
                // By name, a home is known only once it was looked up.
                let claimant = sid.filter(|_| is_strange && !self.by_name);
                if claimant.is_some_and(|sid| self.is_home(sid, addr.ip())) {
                    let what = format!("host {me} takes {addr} for a stranger: {reason}");
                    self.fail("P1", what);
                }
            }
            Event::DialFailed {
                sid,
                reason: Reason::NoAddress(_),
                ..
            } if account.found.contains(sid) => {
                let what = format!("host {me} has forgotten where {sid} was found before");
                self.fail("P2", what);
            }
            Event::SlowTurn { took, .. } => {
                self.fail("P4", format!("a turn took {took:?} in no time"))
            }
            _ => {}
        }
    }

    /// Returns who has sent the frame, if it is a host.
    fn on_frame(&mut self, me: usize, from: Sid, link: u64, payload: &[u8]) -> Option<usize> {
        let own = self.hosts[me].sid;
        let current = self.hosts[me].links.get(&from).map_or(0, |up| up.number);
        if link != current {
            let what = format!("host {me} got a frame of {from} over link {link}, not {current}");
            self.fail("P5", what);
        }
        if from == own {
            self.hosts[me].looped[1] += 1;
        } else {
            self.hosts[me].frames += 1;
            self.hosts[me].heard.insert(from, self.now);
            self.hosts[me].fruitless.remove(&from);
        }
        let addr = self.hosts[me].links.get(&from).map(|up| up.addr.ip());
        let true_one = self.index_of(from).map(|host| &self.hosts[host]);
        if from != own
            && !true_one
                .zip(addr)
                .is_some_and(|(host, addr)| host.machine.contains(&addr))
        {
            // A stranger has the place of a peer that is away, or is nobody's peer: it says what it likes.
            return None;
        }
        if payload.starts_with(STRANGE) {
            self.fail(
                "P6",
                format!("host {me} takes a frame of a stranger for one of {from}"),
            );
            return None;
        }
        let Some(letter) = Letter::read(payload) else {
            self.fail(
                "P3",
                format!(
                    "host {me} got a torn frame of {} bytes from {from}",
                    payload.len()
                ),
            );
            return None;
        };
        if letter.to != me || self.hosts[letter.from].sid != from {
            self.fail(
                "P3",
                format!("host {me} got a frame of {from} that is {letter:?}"),
            );
        }
        if from != own {
            // By incarnation: what a process wrote before it died may still be on its way when the next one speaks.
            let key = (letter.from, letter.incarnation);
            let newest = self.hosts[me].got.insert(key, letter.number);
            // A slot may repeat its newest frame, a queue repeats none.
            let next = newest.map_or(0, |newest| newest + u64::from(self.once));
            if letter.number < next {
                self.fail(
                    "P3",
                    format!("host {me} got {letter:?} after the newer {newest:?}"),
                );
            }
        }
        Some(letter.from)
    }
}

/// What a stranger's frames begin with.
pub const STRANGE: &[u8] = b"stranger";

/// The head of a frame between hosts.
#[derive(Clone, Copy, Debug)]
pub struct Letter {
    from: usize,
    to: usize,
    incarnation: u32,
    pub number: u64,
}

const HEAD: usize = 18;

/// Every frame's body is a piece of this, so that a torn or mixed one can be told.
static FILLED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..FRAME_BYTES_MAX + 251)
        .map(|i| (i % 251) as u8)
        .collect()
});

impl Letter {
    fn write(self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(HEAD + len);
        bytes.extend([self.from as u8, self.to as u8]);
        bytes.extend(self.incarnation.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(u32::try_from(len).expect("it is short").to_be_bytes());
        let from = self.number as usize % 251;
        bytes.extend(&FILLED[from..from + len]);
        bytes.into()
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let number = u64::from_be_bytes(head[6..14].try_into().ok()?);
        let len = u32::from_be_bytes(head[14..].try_into().ok()?) as usize;
        let from = number as usize % 251;
        let body = FILLED.get(from..from + len)?;
        (rest == body).then_some(Self {
            from: head[0].into(),
            to: head[1].into(),
            incarnation: u32::from_be_bytes(head[2..6].try_into().ok()?),
            number,
        })
    }
}

/// Puts a new frame for a host, or for the sender itself.
pub fn put(
    books: &Books,
    handle: &Handle,
    me: usize,
    to: usize,
    len: usize,
) -> Result<SendOutcome, SendError> {
    let (sid, letter) = {
        let ledger = &mut *books.borrow_mut();
        let sid = ledger.hosts[to].sid;
        let account = &mut ledger.hosts[me];
        account.next += 1;
        let letter = Letter {
            from: me,
            to,
            incarnation: account.incarnation,
            number: account.next,
        };
        (sid, letter)
    };
    // Not under the borrow: the loop may turn in the middle of it.
    let result = handle.to_send(sid, letter.write(len));
    let ledger = &mut *books.borrow_mut();
    let account = &mut ledger.hosts[me];
    match result {
        Ok(SendOutcome::Loopback) => account.looped[0] += 1,
        Ok(_) => {
            account.accepted += 1;
            let newest = account.put.entry(to).or_default();
            *newest = letter.number.max(*newest);
            account.put_at.insert(to, ledger.now);
        }
        Err(_) => {}
    }
    result
}

/// The application of a host, as its loop calls it.
pub struct App {
    pub me: usize,
    pub books: Books,
    pub machines: Machines,
    pub chance: Chance,
    /// How many of 100 frames it answers where it gets them.
    pub answers: u32,
    /// How many of 1000 frames and events it calls anything for.
    pub asks: u32,
    /// It ends no link.
    pub calm: bool,
    /// For how many of 1000 reads it is not ready, and for a while after.
    pub slow: u32,
    pub busy_until: Duration,
}

impl Handler for App {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let link = frame.link();
        let sender = (self.books.borrow_mut()).on_frame(self.me, from, link, &frame);
        {
            let mut kernel = self.machines.lock();
            kernel.trace.mix(frame.len() as u64);
            let len = frame.len();
            kernel.note(self.me, || {
                let number = Letter::read(&frame).map_or(0, |letter| letter.number);
                format!("got frame {number} of {len} bytes from {from}")
            });
        }
        if let Some(sender) = sender.filter(|sender| *sender != self.me) {
            if self.chance.percent(self.answers) {
                let len = self.chance.below(40);
                // An answer that is not taken is an error of the account, which is checked elsewhere.
                let _ = put(&self.books, handle, self.me, sender, len);
            }
        }
        self.ask(handle, Some(from));
    }

    fn is_ready(&mut self, _: Sid) -> bool {
        let mut kernel = self.machines.lock();
        if kernel.now < self.busy_until && !self.books.borrow().quiet {
            return false;
        }
        // Ready for a while in between, so that every link is read.
        let is_slow = kernel.now >= self.busy_until + Duration::from_millis(5);
        if !is_slow || !self.chance.permille(self.slow) || self.books.borrow().quiet {
            return true;
        }
        let time = self.chance.millis(1, 80);
        self.busy_until = kernel.now + time;
        kernel.after(time, Due::Ready(self.me));
        kernel.note(self.me, || format!("is not ready for {time:?}"));
        false
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        self.machines.lock().note(self.me, || format!("{event:?}"));
        self.books.borrow_mut().on_event(self.me, event);
        self.ask(handle, whom(event));
    }
}

impl App {
    fn ask(&mut self, handle: &Handle, about: Option<Sid>) {
        if self.chance.permille(self.asks) {
            let (books, chance) = (&self.books, &mut self.chance);
            call_anything(books, handle, self.me, chance, about, self.calm);
        }
    }
}

/// The peer that an event is about.
fn whom(event: &Event) -> Option<Sid> {
    match event {
        Event::Up { sid, .. } | Event::Down { sid, .. } | Event::DialFailed { sid, .. } => {
            Some(*sid)
        }
        Event::Rejected { sid, .. } => *sid,
        _ => None,
    }
}
