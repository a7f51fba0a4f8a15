//! The mesh, who besieges it, and what must be as before when the siege is over.
//!
//! Nothing here attacks. What is measured is kept for the table, and not judged.

use std::{net::SocketAddr, thread, time::Duration};

use serde_json::{Value, json};
use support::{Vacant, eventually};

use crate::{
    machine::{self, Memory},
    role::Actor,
};

/// The member that most attacks are for: it has a smaller and a larger peer.
const BESIEGED: usize = 1;

/// Descriptors of each process but the attacker's.
const DESCRIPTORS: usize = 1024;

/// What is done at most where nothing is to be proved: enough to be measured.
const MEASURED_MAX: u64 = 20_000;

/// How many times longer than it should an attack may take, on a machine that is busy with other things.
const AT_MOST: u32 = 60;

/// How many more a process may have when it is to run out of them.
const DESCRIPTORS_LEFT: usize = 8;

/// An attack, and what it looks like from inside.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// Against all members, not one.
    everywhere: bool,
    /// The application of the besieged member does not receive meanwhile.
    deaf: bool,
    /// The besieged member has hardly any descriptors meanwhile.
    starved: bool,
    /// Counters of the besieged member that show that it came, each at least so often for each time that it was done.
    proof: &'static [(&'static str, f64)],
}

const PLAIN: Plan = Plan {
    name: "",
    everywhere: false,
    deaf: false,
    starved: false,
    proof: &[],
};

/// More than none.
const SOME: f64 = 0.0;

pub(crate) fn plans() -> Vec<Plan> {
    let plain = |name, proof| Plan {
        name,
        proof,
        ..PLAIN
    };
    vec![
        plain("silent", &[("/rejected/evicted", 0.8)]),
        plain("dribble", &[("/rejected/evicted", 0.5)]),
        plain(
            "initial_messages",
            &[
                ("/accepted", 0.9),
                ("/rejected/unknown-sid", 0.1),
                ("/rejected/bad-challenge", 0.1),
                ("/rejected/closed-early", 0.01),
            ],
        ),
        Plan {
            everywhere: true,
            ..plain(
                "claims",
                &[
                    ("/rejected/own-sid", 0.05),
                    ("/rejected/claim-waiting", SOME),
                    ("/knocks", 0.05),
                ],
            )
        },
        plain("knocks", &[("/knocks", 0.9)]),
        plain(
            "lengths",
            &[("/downs/bad-length", 0.3), ("/rejected/bad-challenge", 0.3)],
        ),
        Plan {
            deaf: true,
            ..plain("largest", &[("/received", 0.5), ("/dropped", 0.1)])
        },
        plain("resets", &[("/accepted", 0.9)]),
        Plan {
            starved: true,
            ..plain("descriptors", &[("/accept_failures", SOME)])
        },
    ]
}

/// What was seen of one attack.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) done: u64,
    pub(crate) held: u64,
    pub(crate) quiet: Laps,
    pub(crate) loud: Laps,
    /// While the bare socket has the attack.
    pub(crate) spared: Laps,
    /// While they have it, and the processors before everybody else.
    pub(crate) preferred: Laps,
    /// Of the besieged member, above what it took before any attack.
    pub(crate) grown: u64,
    pub(crate) ceiling: u64,
    before: Vec<Value>,
}

/// Round trips.
#[derive(Default)]
pub(crate) struct Laps {
    pub(crate) micros: Vec<u64>,
    pub(crate) lost: u64,
}

/// A member, as it was before anybody came.
struct Member {
    actor: Actor,
    address: SocketAddr,
    ceiling: u64,
    base: Memory,
    descriptors: usize,
    links: Value,
}

/// A socket of which nothing is known but the kernel.
struct Bare {
    actor: Actor,
    at: SocketAddr,
}

pub(crate) struct Siege {
    members: Vec<Member>,
    attacker: Actor,
    bare: Bare,
}

impl Siege {
    /// Starts everybody, and waits until the members are linked and have talked for a while.
    pub(crate) fn lay() -> Self {
        let places = [Vacant::new(), Vacant::new(), Vacant::new()];
        let addresses: Vec<&String> = places.iter().map(|place| &place.address).collect();
        let mut members: Vec<Member> = (1..)
            .zip(&addresses)
            .map(|(sid, address)| {
                let mut actor = Actor::start("member", &DESCRIPTORS.to_string());
                let started =
                    actor.ask(&json!({ "do": "start", "sid": sid, "servers": addresses }));
                Member {
                    address: address.parse().expect("an address"),
                    ceiling: started["max_memory"].as_u64().expect("a number"),
                    base: machine::memory(actor.pid()),
                    descriptors: 0,
                    links: Value::Null,
                    actor,
                }
            })
            .collect();
        let mut bare = Actor::start("bare", &DESCRIPTORS.to_string());
        let answer = bare.ask(&json!({}));
        let at = answer["at"].as_str().and_then(|text| text.parse().ok());
        eventually("every pair is linked", || {
            members.iter_mut().all(|member| {
                let stats = member.stats();
                let linked = |one: &Value| one[1] == true;
                stats["members"]
                    .as_array()
                    .is_some_and(|all| all.iter().all(linked))
                    && stats["connections"] == 2
            })
        });
        let mut siege = Self {
            bare: Bare {
                at: at.expect("an address"),
                actor: bare,
            },
            members,
            attacker: Actor::start("attacker", "hard"),
        };
        siege.talk(true);
        siege.lap();
        thread::sleep(Duration::from_millis(500));
        assert!(siege.lap().micros.len() > 10, "the members talk");
        for member in &mut siege.members {
            member.base = machine::memory(member.actor.pid());
            member.descriptors = machine::descriptors(member.actor.pid());
            member.links = member.stats()["members"].clone();
        }
        siege
    }

    /// Everybody asks everybody, or only those whose application answers.
    fn talk(&mut self, all: bool) {
        for (index, member) in self.members.iter_mut().enumerate() {
            let others = (0..3).filter(|other| *other != index);
            let asked = others.filter(|other| all || ![index, *other].contains(&BESIEGED));
            let sids: Vec<usize> = asked.map(|index| index + 1).collect();
            member.actor.ask(&json!({ "do": "ask", "sids": sids }));
        }
    }

    /// The round trips since the last call.
    fn lap(&mut self) -> Laps {
        let mut laps = Laps::default();
        for member in &mut self.members {
            let lap = member.actor.ask(&json!({ "do": "lap" }));
            let micros = lap["micros"].as_array().into_iter().flatten();
            laps.micros.extend(micros.filter_map(Value::as_u64));
            laps.lost += lap["lost"].as_u64().unwrap_or(0);
        }
        laps
    }

    /// The attack begins.
    pub(crate) fn endure(&mut self, plan: &Plan) -> Row {
        if plan.deaf {
            self.talk(false);
            self.hear(false);
        }
        Row {
            name: plan.name,
            before: self.members.iter_mut().map(Member::stats).collect(),
            ceiling: self.members[BESIEGED].ceiling,
            ..Row::default()
        }
    }

    fn hear(&mut self, hears: bool) {
        let order = json!({ "do": "deaf", "yes": !hears });
        self.members[BESIEGED].actor.ask(&order);
    }

    /// Quiet, then attacked: the members, the bare socket beside them, and the members while they are preferred.
    pub(crate) fn round(
        &mut self,
        plan: &Plan,
        count: u64,
        seed: u64,
        quiet: Duration,
        loud: Duration,
        row: &mut Row,
    ) {
        self.lap();
        thread::sleep(quiet);
        row.quiet.add(self.lap());
        let besieged = self.members[BESIEGED].actor.pid();
        let targets: Vec<SocketAddr> = match plan.everywhere {
            true => self.members.iter().map(|member| member.address).collect(),
            false => vec![self.members[BESIEGED].address],
        };
        let (done, held) = self.attack(plan, besieged, &targets, count, seed, loud);
        row.loud.add(self.lap());
        row.done += done;
        row.held = row.held.max(held);
        self.wait_gone();

        let count = count.min(MEASURED_MAX);
        let (bare, at) = (self.bare.actor.pid(), self.bare.at);
        self.lap();
        self.attack(plan, bare, &[at], count, seed, loud);
        row.spared.add(self.lap());

        if self.prefer(true) {
            self.lap();
            let (done, _) = self.attack(plan, besieged, &targets, count, seed, loud);
            row.preferred.add(self.lap());
            row.done += done;
            self.prefer(false);
            self.wait_gone();
        }
    }

    /// Whether the system lets the members have the processors before everybody else.
    fn prefer(&self, yes: bool) -> bool {
        let mut members = self.members.iter();
        members.all(|member| machine::prefer(member.actor.pid(), yes))
    }

    /// Has the attacker do this, for at least so long.
    fn attack(
        &mut self,
        plan: &Plan,
        besieged: u32,
        targets: &[SocketAddr],
        count: u64,
        seed: u64,
        loud: Duration,
    ) -> (u64, u64) {
        if plan.starved {
            let count = machine::descriptors(besieged) + DESCRIPTORS_LEFT;
            machine::limit_descriptors(besieged, count);
        }
        self.attacker.tell(&json!({
            "do": "attack", "name": plan.name, "targets": targets, "count": count, "seed": seed << 32,
            "at_most": (AT_MOST * loud).as_secs(),
        }));
        thread::sleep(loud);
        let done = self.attacker.ask(&json!({ "do": "stop" }));
        if plan.starved {
            machine::limit_descriptors(besieged, DESCRIPTORS);
        }
        let number = |name: &str| done[name].as_u64().expect("a number");
        (number("done"), number("held"))
    }

    /// Waits until nothing is left of the strangers.
    fn wait_gone(&mut self) {
        for member in &mut self.members {
            let pid = member.actor.pid();
            eventually("no stranger is left in any table", || {
                let stats = member.stats();
                stats["connections"] == 2 && stats["pending"] == 0 && stats["peers"] == 2
            });
            eventually("no descriptor is left", || {
                machine::descriptors(pid) == member.descriptors
            });
        }
    }

    /// The attack is over, it did come, and everything is as before it.
    pub(crate) fn verify(&mut self, plan: &Plan, row: &mut Row) {
        let after: Vec<Value> = self.members.iter_mut().map(Member::stats).collect();
        for (member, stats) in self.members.iter().zip(&after) {
            assert_eq!(
                stats["members"], member.links,
                "{}: a link between members has ended, or was dialed anew",
                plan.name
            );
            assert_eq!(stats["balances"], true, "{}: {stats:#}", plan.name);
            let grown = member.grown();
            assert!(
                grown <= member.ceiling,
                "{}: {grown} bytes more than before, {} are promised",
                plan.name,
                member.ceiling
            );
        }
        for (counter, share) in plan.proof {
            let count = |stats: &Value| stats.pointer(counter).and_then(Value::as_u64).unwrap_or(0);
            let counted = count(&after[BESIEGED]) - count(&row.before[BESIEGED]);
            // Each of those that are attacked has its share.
            let each = if plan.everywhere { 3 } else { 1 };
            let least = (row.done / each) as f64 * share;
            assert!(
                counted > 0 && counted as f64 >= least,
                "{}: {counter} counted {counted}, less than {least}: {:#}",
                plan.name,
                after[BESIEGED]
            );
        }
        row.grown = self.members[BESIEGED].grown();
        if plan.deaf {
            self.hear(true);
            self.talk(true);
        }
    }
}

impl Member {
    fn stats(&mut self) -> Value {
        self.actor.ask(&json!({ "do": "stats" }))
    }

    /// The most memory that it ever took, above what it took before any attack.
    fn grown(&self) -> u64 {
        let peak = machine::memory(self.actor.pid()).peak;
        peak.saturating_sub(self.base.now)
    }
}

impl Row {
    pub(crate) fn lost(&self) -> u64 {
        let all = [&self.quiet, &self.loud, &self.spared, &self.preferred];
        all.map(|laps| laps.lost).iter().sum()
    }
}

impl Laps {
    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.lost += other.lost;
    }
}
