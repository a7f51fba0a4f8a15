//! Runs attacks on a mesh, measures round trips, and checks the mesh afterwards.

use std::{net::SocketAddr, thread, time::Duration};

use serde_json::{Value, json};
use support::{ReservedAddress, eventually, process::ProcessResources};

use crate::{machine, role::Actor};

/// The member that most attacks target: it has a smaller and a larger peer.
const TARGET: usize = 1;

/// The limit of descriptors of each process except the attacker.
const DESCRIPTORS: usize = 1024;

/// The maximum number of repetitions where only round trips are measured.
const MEASURED_MAX: u64 = 20_000;

/// An attack may take so many times longer than planned on a busy machine.
const AT_MOST: u32 = 60;

/// Free descriptors of a process that is to run out of them.
const DESCRIPTORS_LEFT: usize = 8;

/// An attack, and its expected effects.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// True exactly when all members are attacked.
    everywhere: bool,
    /// True exactly when the application of the target does not receive during the attack.
    pauses_receiving: bool,
    /// True exactly when the target has few descriptors during the attack.
    limits_descriptors: bool,
    /// Counters of the target, with their minimum per repetition, that prove that the attack arrived.
    proof: &'static [(&'static str, f64)],
}

const PLAIN: Plan = Plan {
    name: "",
    everywhere: false,
    pauses_receiving: false,
    limits_descriptors: false,
    proof: &[],
};

/// At least one.
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
                ("/rejected/bad-initial-message", 0.1),
                ("/rejected/closed-early", 0.01),
            ],
        ),
        Plan {
            everywhere: true,
            ..plain(
                "claims",
                &[
                    ("/rejected/own-sid", 0.05),
                    ("/rejected/contender-waiting", SOME),
                    ("/knocks", 0.05),
                ],
            )
        },
        plain("knocks", &[("/knocks", 0.9)]),
        plain(
            "lengths",
            &[
                ("/downs/bad-length", 0.3),
                ("/rejected/bad-initial-message", 0.3),
            ],
        ),
        Plan {
            pauses_receiving: true,
            ..plain("largest", &[("/received", 0.5), ("/dropped", 0.1)])
        },
        plain("resets", &[("/accepted", 0.9)]),
        Plan {
            limits_descriptors: true,
            ..plain("descriptors", &[("/accept_failures", SOME)])
        },
    ]
}

/// The results of one attack.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) done: u64,
    pub(crate) held: u64,
    pub(crate) idle: RoundTrips,
    pub(crate) attacked: RoundTrips,
    /// While the bare socket is attacked.
    pub(crate) bare_attacked: RoundTrips,
    /// While the members are attacked and have real-time priority.
    pub(crate) real_time: RoundTrips,
    /// The growth of the target's memory since the time before all attacks.
    pub(crate) grown: u64,
    pub(crate) ceiling: u64,
    /// The counters of the target.
    before: Value,
}

/// Round trips.
#[derive(Default)]
pub(crate) struct RoundTrips {
    pub(crate) micros: Vec<u64>,
    pub(crate) lost: u64,
}

/// A member, with its state before all attacks.
struct Member {
    actor: Actor,
    address: SocketAddr,
    ceiling: u64,
    base: ProcessResources,
    links: Value,
}

/// The process with the bare listening socket.
struct Bare {
    actor: Actor,
    address: SocketAddr,
}

pub(crate) struct AttackTest {
    members: Vec<Member>,
    attacker: Actor,
    bare: Bare,
}

impl AttackTest {
    /// Starts all processes, and waits until the members are linked and have made round trips for a while.
    pub(crate) fn start() -> Self {
        let vacant = [(); 3].map(|()| ReservedAddress::new());
        let addresses: Vec<&String> = vacant.iter().map(|vacant| &vacant.address).collect();
        let mut members: Vec<Member> = (1..)
            .zip(&addresses)
            .map(|(sid, address)| {
                let mut actor = Actor::start("member", &DESCRIPTORS.to_string());
                let started =
                    actor.ask(&json!({ "do": "start", "sid": sid, "servers": addresses }));
                Member {
                    address: address.parse().expect("an address"),
                    ceiling: started["max_memory"].as_u64().expect("a number"),
                    base: machine::resources(actor.pid()),
                    links: Value::Null,
                    actor,
                }
            })
            .collect();
        let mut bare = Actor::start("bare", &DESCRIPTORS.to_string());
        let answer = bare.ask(&json!({}));
        let address = answer["at"].as_str().and_then(|text| text.parse().ok());
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
        let mut test = Self {
            bare: Bare {
                address: address.expect("an address"),
                actor: bare,
            },
            members,
            attacker: Actor::start("attacker", "hard"),
        };
        test.set_targets(true);
        test.take_round_trips();
        // As many as they make in a while, so that what they allocate at first is in the measurement that follows.
        let mut made = 0;
        eventually("the members make round trips", || {
            made += test.take_round_trips().micros.len();
            made > 100
        });
        for member in &mut test.members {
            member.base = machine::resources(member.actor.pid());
            member.links = member.stats()["members"].clone();
        }
        test
    }

    /// Makes all members ping each other, or only those whose application receives.
    fn set_targets(&mut self, all: bool) {
        for (index, member) in self.members.iter_mut().enumerate() {
            let others = (0..3).filter(|other| *other != index);
            let selected = others.filter(|other| all || ![index, *other].contains(&TARGET));
            let sids: Vec<usize> = selected.map(|index| index + 1).collect();
            member.actor.ask(&json!({ "do": "ask", "sids": sids }));
        }
    }

    /// The round trips since the last call.
    fn take_round_trips(&mut self) -> RoundTrips {
        let mut laps = RoundTrips::default();
        for member in &mut self.members {
            let answer = member.actor.ask(&json!({ "do": "lap" }));
            let micros = answer["micros"].as_array().into_iter().flatten();
            laps.micros.extend(micros.filter_map(Value::as_u64));
            laps.lost += answer["lost"].as_u64().unwrap_or(0);
        }
        laps
    }

    /// Prepares an attack.
    pub(crate) fn begin(&mut self, plan: &Plan) -> Row {
        if plan.pauses_receiving {
            self.set_targets(false);
            self.set_receiving(false);
        }
        Row {
            name: plan.name,
            before: self.members[TARGET].stats(),
            ceiling: self.members[TARGET].ceiling,
            ..Row::default()
        }
    }

    fn set_receiving(&mut self, hears: bool) {
        let order = json!({ "do": "deaf", "yes": !hears });
        self.members[TARGET].actor.ask(&order);
    }

    /// One round: without an attack, then with an attack on the members, on the bare socket, and on the members with real-time
    /// priority.
    pub(crate) fn round(
        &mut self,
        plan: &Plan,
        count: u64,
        seed: u64,
        idle_time: Duration,
        attack_time: Duration,
        row: &mut Row,
    ) {
        self.take_round_trips();
        thread::sleep(idle_time);
        row.idle.add(self.take_round_trips());
        let target = self.members[TARGET].actor.pid();
        let targets: Vec<SocketAddr> = match plan.everywhere {
            true => self.members.iter().map(|member| member.address).collect(),
            false => vec![self.members[TARGET].address],
        };
        let (done, held) = self.attack(plan, target, &targets, count, seed, attack_time);
        row.attacked.add(self.take_round_trips());
        row.done += done;
        row.held = row.held.max(held);
        self.wait_cleaned_up();

        let count = count.min(MEASURED_MAX);
        let (bare, address) = (self.bare.actor.pid(), self.bare.address);
        self.take_round_trips();
        self.attack(plan, bare, &[address], count, seed, attack_time);
        row.bare_attacked.add(self.take_round_trips());

        if self.set_real_time(true) {
            self.take_round_trips();
            let (done, _) = self.attack(plan, target, &targets, count, seed, attack_time);
            row.real_time.add(self.take_round_trips());
            row.done += done;
            self.set_real_time(false);
            self.wait_cleaned_up();
        }
    }

    /// Sets or resets real-time priority for all members. Returns false without the permission.
    fn set_real_time(&self, yes: bool) -> bool {
        let mut members = self.members.iter();
        members.all(|member| machine::set_real_time(member.actor.pid(), yes))
    }

    /// Runs an attack for at least this time.
    fn attack(
        &mut self,
        plan: &Plan,
        target: u32,
        targets: &[SocketAddr],
        count: u64,
        seed: u64,
        attack_time: Duration,
    ) -> (u64, u64) {
        if plan.limits_descriptors {
            let count = machine::resources(target).descriptors + DESCRIPTORS_LEFT;
            machine::limit_descriptors(target, count);
        }
        self.attacker.send_order(&json!({
            "do": "attack", "name": plan.name, "targets": targets, "count": count, "seed": seed << 32,
            "at_most": (AT_MOST * attack_time).as_secs(),
        }));
        thread::sleep(attack_time);
        let done = self.attacker.ask(&json!({ "do": "stop" }));
        if plan.limits_descriptors {
            machine::limit_descriptors(target, DESCRIPTORS);
        }
        let number = |name: &str| done[name].as_u64().expect("a number");
        (number("done"), number("held"))
    }

    /// Waits until the members have dropped all connections of strangers.
    fn wait_cleaned_up(&mut self) {
        for member in &mut self.members {
            let pid = member.actor.pid();
            eventually("the tables have no stranger", || {
                let stats = member.stats();
                stats["connections"] == 2 && stats["pending"] == 0 && stats["peers"] == 2
            });
            eventually("all descriptors of strangers are closed", || {
                machine::resources(pid).descriptors == member.base.descriptors
            });
        }
    }

    /// Checks that the attack arrived, and that the state of the members is as before.
    pub(crate) fn verify(&mut self, plan: &Plan, row: &mut Row) {
        let after: Vec<Value> = self.members.iter_mut().map(Member::stats).collect();
        for (member, stats) in self.members.iter().zip(&after) {
            assert_eq!(
                stats["members"], member.links,
                "{}: a link between members has ended or was dialed again",
                plan.name
            );
            assert_eq!(stats["balances"], true, "{}: {stats:#}", plan.name);
            let grown = member.grown();
            assert!(
                grown <= member.ceiling,
                "{}: {grown} bytes more than before, the maximum is {}",
                plan.name,
                member.ceiling
            );
        }
        for (counter, share) in plan.proof {
            let count = |stats: &Value| stats.pointer(counter).and_then(Value::as_u64).unwrap_or(0);
            let counted = count(&after[TARGET]) - count(&row.before);
            // The repetitions are distributed over the attacked members.
            let each = if plan.everywhere { 3 } else { 1 };
            let least = (row.done / each) as f64 * share;
            assert!(
                counted > 0 && counted as f64 >= least,
                "{}: {counter} counted {counted}, less than {least}: {:#}",
                plan.name,
                after[TARGET]
            );
        }
        row.grown = self.members[TARGET].grown();
        if plan.pauses_receiving {
            self.set_receiving(true);
            self.set_targets(true);
        }
    }
}

impl Member {
    fn stats(&mut self) -> Value {
        self.actor.ask(&json!({ "do": "stats" }))
    }

    /// Its peak memory above that before all attacks.
    fn grown(&self) -> u64 {
        let peak = machine::peak_memory(self.actor.pid());
        peak.saturating_sub(self.base.resident)
    }
}

impl Row {
    pub(crate) fn lost(&self) -> u64 {
        let all = [
            &self.idle,
            &self.attacked,
            &self.bare_attacked,
            &self.real_time,
        ];
        all.map(|laps| laps.lost).iter().sum()
    }
}

impl RoundTrips {
    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.lost += other.lost;
    }
}
