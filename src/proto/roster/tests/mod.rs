//! Unit tests of `roster`, by subject.

mod admitted;
mod any_calls;
mod claims;
mod dials;
mod knocks;
mod members;
mod renewals;

use super::*;
use crate::limits::UNHEARD_RENEWAL_PAUSE;
use crate::limits::{
    DIAL_BACK_WAIT, KNOCK_CROSSING, PROVEN_AFTER, REFUSED_PAUSE_MAX, RENEWAL_PAUSE_MAX,
    RETIRING_MAX,
};

const OWN: Sid = Sid(5);
const SMALL: Sid = Sid(2);
const LARGE: Sid = Sid(9);

fn rules() -> Rules {
    Rules {
        own: OWN,
        eager: true,
        newest: false,
        admitted_max: 0,
        observers_max: 2,
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_secs(1),
        contender_timeout: Duration::from_secs(6),
        native: NativeRules {
            cluster: [0; 16],
            incarnation: 5,
            only: false,
        },
    }
}

fn up(peer: PeerId, link: ConnectionKey) -> Action {
    Action::Up {
        peer,
        link,
        restarted: false,
    }
}

fn close(link: ConnectionKey, reason: Reason) -> Action {
    Action::Close { link, reason }
}

/// A roster of the sids 2, 5 (own) and 9, with a clock that only the test moves.
struct Bench {
    roster: Roster,
    now: Instant,
    todo: Vec<Action>,
    keys: u32,
    /// The bytes that every link has brought.
    brought: u64,
    /// When connections are accepted whose initial messages come later. `None`: they come at once.
    begun: Option<Instant>,
    /// Whether both ends can retire a link that is claimed.
    retires: bool,
}

/// The last byte of an address that is not the peer's own.
const ABROAD: u8 = 99;

impl Bench {
    fn new(rules: Rules) -> Self {
        let ids = PeerIds::default();
        let members = [SMALL, LARGE].map(|sid| (ids.next(), sid));
        let roster = Roster::new(rules, members, ids, 1);
        Self {
            roster,
            now: Instant::now(),
            todo: Vec::new(),
            keys: 0,
            brought: 0,
            begun: None,
            retires: false,
        }
    }

    /// A bench whose roster has started. In an eager roster, both members are being dialed.
    fn started(rules: Rules) -> Self {
        let mut bench = Self::new(rules);
        bench.roster.on_start(bench.now, &mut bench.todo);
        bench.todo.clear();
        bench
    }

    fn on_demand() -> Self {
        Self::started(Rules {
            eager: false,
            ..rules()
        })
    }

    fn id(&self, sid: Sid) -> PeerId {
        self.roster.find(sid).unwrap()
    }

    fn key(&mut self) -> ConnectionKey {
        self.keys += 1;
        ConnectionKey {
            index: self.keys,
            generation: self.keys,
        }
    }

    fn initial_message(&mut self, sid: Sid, at_home: bool) -> (ConnectionKey, Verdict) {
        self.initial_message_from(sid, if at_home { 1 } else { ABROAD })
    }

    /// `last` is the last byte of the source address. The peer's own address is 10.0.0.1.
    fn initial_message_from(&mut self, sid: Sid, last: u8) -> (ConnectionKey, Verdict) {
        let key = self.key();
        let source = Source {
            ip: IpAddr::from([10, 0, 0, last]),
            at_home: last == 1,
        };
        let addresses = &[Address::new("10.0.0.9", 3888)];
        let claim = Claim {
            sid,
            link: key,
            since: self.begun.unwrap_or(self.now),
            source,
            brought: Brought::Bytes(self.brought),
            addresses,
            native: None,
            retires: self.retires,
        };
        let verdict = self
            .roster
            .on_initial_message(&claim, self.now, &mut self.todo);
        (key, verdict)
    }

    fn linked(&mut self, sid: Sid) -> ConnectionKey {
        let (id, key) = (self.id(sid), self.key());
        self.roster
            .on_linked(id, key, None, self.now, &mut self.todo);
        key
    }

    fn dial_failed(&mut self, peer: PeerId) {
        let lasts = false;
        self.roster
            .on_dial_failed(peer, lasts, self.now, &mut self.todo);
    }

    fn down(&mut self, sid: Sid, key: ConnectionKey) {
        let id = self.id(sid);
        self.roster
            .on_down(id, key, false, self.now, &mut self.todo);
    }

    /// Moves the clock to the next deadline, and does what is due. Returns how far the clock moved.
    fn next(&mut self) -> Duration {
        let at = self.roster.deadline().expect("something is due");
        let waited = at - self.now;
        self.now = at;
        self.tick();
        waited
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.tick();
    }

    fn tick(&mut self) {
        let brought = |_, _| Brought::Bytes(self.brought);
        self.roster.tick(self.now, brought, &mut self.todo);
    }

    /// Knocks from that address every 300 ms during `time`, and links the peer after each dial. Returns when it was dialed.
    fn knock(&mut self, last: u8, time: Duration) -> Vec<Duration> {
        let (start, mut dials) = (self.now, Vec::new());
        while self.now < start + time {
            self.initial_message_from(SMALL, last);
            self.pass(Duration::from_millis(300));
            for action in self.todo() {
                if matches!(action, Action::Dial { .. }) {
                    dials.push(self.now - start);
                    self.linked(SMALL);
                }
            }
        }
        dials
    }

    fn todo(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.todo)
    }
}
