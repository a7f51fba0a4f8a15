//! The model of the target `membership`: the members as a plain map, and what each step to other ones must return and report.
//!
//! Nothing here calls the library.

use std::{collections::BTreeMap, time::Duration};

use quorum_cnx::{
    Changes, ConfigError, Leave, ReconfigureError, Sid, simulation::limits::LEAVE_MAX,
};

pub(crate) const OWN: Sid = Sid(5);

/// Where a server is said to be. Some of these cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    /// The same address, in another spelling.
    FirstAsIpv6,
    Second,
    Both,
    /// The same address for all servers.
    Shared,
    /// It can be listened on, and not be dialed.
    PortZero,
    Nothing,
    Nonsense,
}

impl Place {
    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte % 32 {
            0..12 => Self::First,
            12..15 => Self::FirstAsIpv6,
            15..21 => Self::Second,
            21..26 => Self::Both,
            26..29 => Self::Shared,
            29 => Self::PortZero,
            30 => Self::Nothing,
            _ => Self::Nonsense,
        }
    }

    pub(crate) fn text(self, sid: Sid) -> String {
        let [first, second] = hosts(sid);
        match self {
            Self::FirstAsIpv6 => format!("[::ffff:{first}]:3888"),
            Self::Nothing => " ".to_owned(),
            Self::Nonsense => "a b:1".to_owned(),
            Self::PortZero => format!("{first}:0"),
            Self::Both => format!("{first}:3888|{second}:3888"),
            Self::Shared => "10.0.9.9:3888".to_owned(),
            Self::First => format!("{first}:3888"),
            Self::Second => format!("{second}:3888"),
        }
    }

    /// Its addresses, in one spelling.
    fn addresses(self, sid: Sid) -> Vec<String> {
        let place = match self {
            Self::FirstAsIpv6 => Self::First,
            place => place,
        };
        place.text(sid).split('|').map(str::to_owned).collect()
    }
}

/// The two hosts where a server may be. No two servers have one of them in common.
fn hosts(sid: Sid) -> [String; 2] {
    match sid {
        OWN => ["192.0.2.5".to_owned(), "192.0.2.6".to_owned()],
        sid => [0, 1].map(|net| format!("10.0.{net}.{}", sid.0 & 0xff)),
    }
}

/// Why a step is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Halted,
    OldVersion(u64, u64),
    SameVersion(u64),
    OwnSid,
    Leave,
    ReservedSid(Sid),
    NoAddress(Sid),
    BadAddress(Sid),
    DuplicateSid(Sid),
    SharedAddress(Sid, Sid),
    CannotBeDialed,
    NoRoom,
    Other(String),
}

impl From<ReconfigureError> for Refused {
    fn from(error: ReconfigureError) -> Self {
        use ReconfigureError::Config;
        match error {
            ReconfigureError::Halted => Self::Halted,
            ReconfigureError::OldVersion { given, current, .. } => Self::OldVersion(given, current),
            ReconfigureError::SameVersion(version) => Self::SameVersion(version),
            ReconfigureError::OwnSid(OWN) => Self::OwnSid,
            Config(ConfigError::ReservedSid(sid)) => Self::ReservedSid(sid),
            Config(ConfigError::NoAddress(sid)) => Self::NoAddress(sid),
            Config(ConfigError::BadAddress { sid, .. }) => Self::BadAddress(sid),
            Config(ConfigError::DuplicateSid(sid)) => Self::DuplicateSid(sid),
            Config(ConfigError::SharedAddress { first, second, .. }) => {
                Self::SharedAddress(first, second)
            }
            Config(ConfigError::BadOption {
                option: "leave", ..
            }) => Self::Leave,
            Config(ConfigError::BadOption {
                option: "server", ..
            }) => Self::CannotBeDialed,
            Config(ConfigError::BadOption {
                option: "members_max",
                ..
            }) => Self::NoRoom,
            other => Self::Other(other.to_string()),
        }
    }
}

/// One server as long as it is a member. A sid that comes back has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(pub(crate) usize);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) generation: Generation,
    pub(crate) place: Place,
}

/// A server that was a member, until the loop has parted with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaver {
    pub(crate) sid: Sid,
    pub(crate) member: Member,
    /// `None`: at once.
    pub(crate) until: Option<Duration>,
}

/// How the servers leave that a step removes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// `None`: the next version, if there is a change.
    pub(crate) version: Option<u64>,
    pub(crate) leave: Option<Duration>,
    pub(crate) now: Duration,
}

/// What the loop must report in the turn that follows the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Joined(Sid, Generation),
    Moved(Sid),
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) version: u64,
    pub(crate) own: Place,
    /// All but this server.
    pub(crate) members: BTreeMap<Sid, Member>,
    pub(crate) leavers: Vec<Leaver>,
    pub(crate) is_halted: bool,
    pub(crate) max: usize,
    generations: usize,
    /// What the loop knows since its last turn.
    followed: BTreeMap<Generation, Vec<String>>,
    followed_own: Vec<String>,
}

impl Model {
    pub(crate) fn new(members: &[Sid], max: usize) -> Self {
        let mut model = Self {
            version: 0,
            own: Place::First,
            members: BTreeMap::new(),
            leavers: Vec::new(),
            is_halted: false,
            max,
            generations: 0,
            followed: BTreeMap::new(),
            followed_own: Place::First.addresses(OWN),
        };
        for sid in members {
            model.join(*sid, Place::First);
        }
        model.follow();
        model
    }

    fn join(&mut self, sid: Sid, place: Place) {
        let generation = Generation(self.generations);
        self.generations += 1;
        self.members.insert(sid, Member { generation, place });
    }

    /// All servers now, this one included.
    pub(crate) fn servers(&self) -> Vec<(Sid, Place)> {
        let others = self
            .members
            .iter()
            .map(|(sid, member)| (*sid, member.place));
        others.chain([(OWN, self.own)]).collect()
    }

    /// Makes a step to these servers.
    pub(crate) fn step(
        &mut self,
        step: Step,
        servers: Vec<(Sid, Place)>,
    ) -> Result<Changes, Refused> {
        if self.is_halted {
            return Err(Refused::Halted);
        }
        let version = step
            .version
            .unwrap_or_else(|| self.version.saturating_add(1));
        if version < self.version {
            return Err(Refused::OldVersion(version, self.version));
        }
        if step.leave.is_some_and(|time| time > LEAVE_MAX) {
            return Err(Refused::Leave);
        }
        let servers = check(servers)?;
        let mut changes = Changes::default();
        if servers[&OWN].addresses(OWN) != self.own.addresses(OWN) {
            changes.moved.push(OWN);
        }
        for (sid, place) in servers.iter().filter(|(sid, _)| **sid != OWN) {
            match self.members.get(sid) {
                None => changes.joined.push(*sid),
                Some(member) if member.place.addresses(*sid) != place.addresses(*sid) => {
                    changes.moved.push(*sid);
                }
                Some(_) => {}
            }
        }
        let stays = |sid: &&Sid| servers.contains_key(sid);
        changes.left = self
            .members
            .keys()
            .filter(|sid| !stays(sid))
            .copied()
            .collect();
        let lists = [&changes.joined, &changes.left, &changes.moved];
        if lists.iter().all(|sids| sids.is_empty()) {
            self.version = step.version.unwrap_or(self.version);
            changes.version = self.version;
            return Ok(changes);
        }
        if version == self.version {
            return Err(Refused::SameVersion(version));
        }
        if servers.len() + self.leavers.len() + changes.left.len() > self.max {
            return Err(Refused::NoRoom);
        }
        (self.version, changes.version) = (version, version);
        self.apply(&servers, &changes, step.leave.map(|time| step.now + time));
        Ok(changes)
    }

    fn apply(
        &mut self,
        servers: &BTreeMap<Sid, Place>,
        changes: &Changes,
        until: Option<Duration>,
    ) {
        for &sid in &changes.left {
            let member = self.members.remove(&sid).expect("it was a member");
            self.leavers.push(Leaver { sid, member, until });
        }
        for &sid in &changes.joined {
            self.join(sid, servers[&sid]);
            // A server has one link: the older one with this sid has no more time.
            let older = self.leavers.iter_mut().filter(|leaver| leaver.sid == sid);
            older.for_each(|leaver| leaver.until = None);
        }
        for (&sid, &place) in servers {
            match self.members.get_mut(&sid) {
                Some(member) => member.place = place,
                None => self.own = place,
            }
        }
    }

    /// What the loop must report in a turn now, besides who has left, and who must have left after it.
    pub(crate) fn turn(&self, now: Duration) -> (Vec<Told>, Vec<Generation>) {
        let (mut told, mut gone) = (Vec::new(), Vec::new());
        if self.own.addresses(OWN) != self.followed_own {
            told.push(Told::Moved(OWN));
        }
        for leaver in &self.leavers {
            let generation = leaver.member.generation;
            if !self.followed.contains_key(&generation) {
                told.push(Told::Joined(leaver.sid, generation));
            }
            if leaver.until.is_none_or(|until| until <= now) {
                gone.push(generation);
            }
        }
        for (&sid, member) in &self.members {
            match self.followed.get(&member.generation) {
                None => told.push(Told::Joined(sid, member.generation)),
                Some(addresses) if *addresses != member.place.addresses(sid) => {
                    told.push(Told::Moved(sid));
                }
                Some(_) => {}
            }
        }
        (told, gone)
    }

    /// A server that is no member was removed once more. If it leaves, it has no more time than that.
    pub(crate) fn hurry(&mut self, sid: Sid, leave: Leave, now: Duration) {
        let until = match leave {
            Leave::After(time) => Some(now + time),
            _ => None,
        };
        for leaver in self.leavers.iter_mut().filter(|leaver| leaver.sid == sid) {
            leaver.until = leaver.until.min(until);
        }
    }

    /// The loop has reported that this one has left. Returns it.
    pub(crate) fn left(&mut self, generation: Generation) -> Leaver {
        let is_it = |leaver: &Leaver| leaver.member.generation == generation;
        let at = self.leavers.iter().position(is_it).expect("it leaves");
        self.leavers.swap_remove(at)
    }

    /// After a turn.
    pub(crate) fn follow(&mut self) {
        let members = self.members.iter().map(|(sid, member)| (*sid, *member));
        let leavers = self
            .leavers
            .iter()
            .map(|leaver| (leaver.sid, leaver.member));
        let all = members.chain(leavers);
        self.followed = all
            .map(|(sid, member)| (member.generation, member.place.addresses(sid)))
            .collect();
        self.followed_own = self.own.addresses(OWN);
    }
}

/// All servers, this one included, if they can be the members.
fn check(servers: Vec<(Sid, Place)>) -> Result<BTreeMap<Sid, Place>, Refused> {
    for &(sid, place) in &servers {
        match place {
            _ if !(0..i64::MAX).contains(&sid.0) => return Err(Refused::ReservedSid(sid)),
            Place::Nothing => return Err(Refused::NoAddress(sid)),
            Place::Nonsense => return Err(Refused::BadAddress(sid)),
            _ => {}
        }
    }
    let mut all = BTreeMap::new();
    let mut twice = servers
        .iter()
        .filter(|(sid, place)| all.insert(*sid, *place).is_some());
    if let Some(sid) = twice.by_ref().map(|(sid, _)| *sid).min() {
        return Err(Refused::DuplicateSid(sid));
    }
    let mut shared = all.iter().filter(|(_, place)| **place == Place::Shared);
    if let (Some((first, _)), Some((second, _))) = (shared.next(), shared.next()) {
        return Err(Refused::SharedAddress(*first, *second));
    }
    if !all.contains_key(&OWN) {
        return Err(Refused::OwnSid);
    }
    if all
        .iter()
        .any(|(sid, place)| *sid != OWN && *place == Place::PortZero)
    {
        return Err(Refused::CannotBeDialed);
    }
    Ok(all)
}
