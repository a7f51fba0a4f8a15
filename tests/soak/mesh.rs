//! All members, the ways between them, and what must be so when they are left in peace.
//!
//! Nothing here is random.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    common::{
        eventually,
        process::{Holdings, mebibytes},
    },
    diary::Diary,
    judge::Judge,
    member::Member,
    proxy::Proxy,
};

/// How many there are.
const MEMBERS: i64 = 5;

/// Those that are never killed: what they hold can be compared with what they held long before.
pub(crate) const ELDERS: [i64; 2] = [2, 4];

/// What an elder may hold more than in the beginning: what waited at one time, and the allocator has kept.
const GROWTH_MAX: u64 = 16 << 20;

/// How much longer than the test a process lives at most, if nobody ends it.
const GRACE: Duration = Duration::from_secs(600);

pub(crate) struct Mesh {
    members: BTreeMap<i64, Member>,
    /// From whom to whom.
    ways: BTreeMap<(i64, i64), Proxy>,
    judge: Arc<Judge>,
    diary: Diary,
}

/// What members held when they had been left in peace, by process.
pub(crate) struct Look(BTreeMap<i64, (Option<u32>, Holdings)>);

impl Look {
    /// An elder holds no more than before, give or take; and everybody has as many descriptors as everybody else.
    #[track_caller]
    pub(crate) fn compare(&self, first: &Self) {
        for (sid, (process, holdings)) in &self.0 {
            let (then, before) = first.0[sid];
            assert_eq!(holdings.descriptors, before.descriptors, "of {sid}");
            if then == *process {
                let growth = holdings.growth_since(before);
                assert!(
                    growth <= GROWTH_MAX,
                    "{sid} had {before} and has {holdings} now"
                );
            }
        }
    }
}

impl Mesh {
    /// All members run, and are linked.
    #[track_caller]
    pub(crate) fn start(diary: &Diary, lifetime: Duration) -> Self {
        let judge = Arc::default();
        let mut members: BTreeMap<i64, Member> = (1..=MEMBERS)
            .map(|sid| (sid, Member::new(sid, &judge)))
            .collect();
        let mut ways = BTreeMap::new();
        for &from in members.keys() {
            for (&to, member) in members.iter().filter(|(to, _)| **to != from) {
                ways.insert((from, to), Proxy::start(member.address()));
            }
        }
        let seconds = (lifetime + GRACE).as_secs();
        for (&sid, member) in &mut members {
            let mut options: Vec<String> = vec![
                "--capacity=20".into(),
                "--peer-dead-after-ms=2000".into(),
                "--handshake-timeout-ms=2000".into(),
                format!("--seconds={seconds}"),
            ];
            for to in 1..=MEMBERS {
                let address = ways.get(&(sid, to)).map(|way| way.address.as_str());
                let address = address.unwrap_or_else(|| member.address());
                options.push(format!("--server={to}={address}"));
            }
            member.set_options(options);
            member.start();
        }
        let mesh = Self {
            members,
            ways,
            judge,
            diary: diary.clone(),
        };
        mesh.wait_linked();
        mesh.diary.note("all members are linked");
        mesh
    }

    pub(crate) fn diary(&self) -> &Diary {
        &self.diary
    }

    /// Where strangers find the members.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let address = |member: &Member| member.address().to_owned();
        self.members.values().map(address).collect()
    }

    pub(crate) fn sids(&self) -> Vec<i64> {
        self.members.keys().copied().collect()
    }

    pub(crate) fn pairs(&self) -> Vec<(i64, i64)> {
        self.ways.keys().copied().collect()
    }

    pub(crate) fn member(&mut self, sid: i64) -> &mut Member {
        self.members.get_mut(&sid).expect("a member's sid")
    }

    pub(crate) fn way(&self, pair: (i64, i64)) -> &Proxy {
        &self.ways[&pair]
    }

    /// Nobody disturbs them any more: waits until all is well, and looks at what they hold.
    #[track_caller]
    pub(crate) fn look(&self) -> Look {
        self.wait_linked();
        for &(from, to) in self.ways.keys() {
            self.members[&from].send_surely(to, 100);
        }
        eventually("the newest frame of each pair comes", || {
            self.judge.acquit();
            let missing = self.judge.missing();
            if missing.is_empty() {
                return true;
            }
            self.diary.note_waiting(format!("not yet: {missing}"));
            false
        });
        for (sid, member) in &self.members {
            eventually("every account balances", || {
                let (account, told) = member.account();
                let mistake = account.mistake(told);
                if let Some(why) = &mistake {
                    self.diary.note_waiting(format!("{sid}, not yet: {why}"));
                }
                mistake.is_none()
            });
        }
        self.judge.acquit();
        let holdings = |(sid, member): (&i64, &Member)| {
            let holdings = member.holdings();
            (*sid, (member.process_id(), holdings))
        };
        let look = Look(self.members.iter().map(holdings).collect());
        let tell = |(sid, (_, holdings)): (&i64, &(Option<u32>, Holdings))| {
            let elder = if ELDERS.contains(sid) { "*" } else { "" };
            format!("{sid}{elder}: {holdings}")
        };
        let held: Vec<String> = look.0.iter().map(tell).collect();
        let own = Holdings::own();
        self.diary.note(format!(
            "peace: {} frames have come; {}; this test: {:.1} MiB, {}",
            self.judge.frames(),
            held.join("; "),
            mebibytes(own.resident),
            own.descriptors
        ));
        look
    }

    /// Everybody halts.
    #[track_caller]
    pub(crate) fn end(mut self) {
        for member in self.members.values_mut() {
            member.quit();
        }
        self.diary.note("all members have halted");
    }

    /// Everybody is linked with everybody, by one link.
    #[track_caller]
    fn wait_linked(&self) {
        for member in self.members.values() {
            eventually("every pair has one link", || {
                let (account, _) = member.account();
                let is_so = account.is_linked_with(self.members.len() - 1);
                if !is_so {
                    self.diary
                        .note_waiting(format!("not yet linked: {account:?}"));
                }
                is_so
            });
        }
    }
}
