//! What a seed decides before its world begins: who is there, how they are configured, what may go wrong.
//!
//! Nothing here happens; `world` carries it out.

use std::{net::IpAddr, time::Duration};

use quorum_cnx::{Config, Dial, Idle, InitialMessageVersion, Outbox, Replace, Sid, Unknown};

use crate::{chance::Chance, kernel::Quirks};

pub const PORT: u16 = 3888;

/// Observers without an id that a host serves.
pub const OBSERVERS: usize = 2;

/// Hosts that nobody has configured and that are admitted where any are.
pub const GUESTS: usize = 2;

#[derive(Clone, Debug)]
pub struct Plan {
    pub hosts: Vec<HostPlan>,
    pub quirks: Quirks,
    pub latency_ms: u64,
    pub dial: Dial,
    pub replace: Replace,
    pub admits: bool,
    pub initial_message: InitialMessageVersion,
    pub dead_after: Duration,
    pub pending_max: usize,
    /// Nothing goes wrong but quirks and strangers.
    pub calm: bool,
    /// Faults begin at the first and end at the second of these times.
    pub storm: [Duration; 2],
    /// Time between two faults, at most.
    pub fault_every: Duration,
    pub strangers: usize,
    /// Time between two frames of an application, at most.
    pub talk_every: Duration,
    /// How many of 100 frames are answered where they arrive.
    pub answers: u32,
    /// How many of 1000 frames are large.
    pub large: u32,
    /// Applications go on for a while when the storm is over. Without it, the last frame from the storm is to arrive.
    pub talks_on: bool,
    /// All frames are to arrive in order, not only the newest.
    pub queue: bool,
    /// For how many of 1000 frames and events an application calls anything where it hears of them.
    pub asks: u32,
    /// For how many of 1000 reads an application is not ready.
    pub slow: u32,
    /// Loops spin, if only once a turn: they read where something came from last before they ask.
    pub spins: bool,
}

#[derive(Clone, Debug)]
pub struct HostPlan {
    pub sid: Sid,
    /// Where it listens, by configuration.
    pub ips: Vec<IpAddr>,
    /// Where its connections come from.
    pub source: IpAddr,
    /// A proxy stands between it and all others: it acknowledges and keeps connections when this machine has lost its power.
    pub proxied: bool,
    /// It is configured by name.
    pub name: Option<String>,
    /// Its first address leads nowhere.
    pub first_is_black: bool,
}

impl Plan {
    pub fn new(chance: &mut Chance) -> Self {
        let size = *chance.pick(&[2, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7]);
        let calm = chance.percent(15);
        let rare = |chance: &mut Chance| *chance.pick(&[0, 0, 20, 200]);
        let quirks = Quirks {
            interrupted: rare(chance),
            short_read: rare(chance),
            short_write: rare(chance),
            late_event: rare(chance),
            spurious_event: rare(chance),
            narrow_events: chance.percent(30),
            abort_on_accept: chance.percent(30),
            tiny_segments: *chance.pick(&[0, 0, 0, 50]),
            rx_bytes: *chance.pick(&[4 << 10, 64 << 10, 700 << 10]),
            tx_bytes: *chance.pick(&[4 << 10, 64 << 10, 700 << 10]),
        };
        // In a quiet world without answers the strangers are all there is.
        let dial = if chance.percent(75) {
            Dial::Eager
        } else {
            Dial::OnDemand
        };
        let storm_ends = chance.millis(4000, 16_000);
        let mut plan = Self {
            hosts: hosts(chance, size),
            quirks,
            latency_ms: *chance.pick(&[1, 1, 5, 40]),
            dial: if calm { Dial::Eager } else { dial },
            replace: if calm || chance.percent(80) {
                Replace::Proven
            } else {
                Replace::Newest
            },
            admits: chance.percent(25),
            initial_message: *chance.pick(&[
                InitialMessageVersion::V1,
                InitialMessageVersion::V2,
                InitialMessageVersion::Bare,
            ]),
            dead_after: Duration::from_secs(*chance.pick(&[2, 3, 5])),
            pending_max: *chance.pick(&[2, 4, 64]),
            calm,
            storm: [Duration::from_millis(1000), storm_ends],
            fault_every: chance.millis(20, 2500),
            strangers: if calm {
                chance.between(2, 8)
            } else {
                *chance.pick(&[0, 0, 1, 3, 8])
            },
            talk_every: chance.millis(4, 900),
            answers: *chance.pick(&[0, 0, 30, 80]),
            large: *chance.pick(&[0, 20, 150]),
            talks_on: dial == Dial::OnDemand || chance.percent(50),
            queue: false,
            asks: 0,
            slow: 0,
            spins: false,
        };
        // Last, so that the other seeds stay what they were.
        plan.queue = chance.percent(25);
        plan.spins = chance.percent(25);
        plan.asks = *chance.pick(&[0, 0, 20, 300]);
        plan.slow = *chance.pick(&[0, 0, 0, 10, 200]);
        // What the kernel had taken when a link ended is lost, and the next frame is needed to see that all is well.
        plan.talks_on |= plan.queue;
        // Some names have two addresses. A clone draws nothing from what comes after.
        let is_named = plan.hosts.iter().any(|host| host.name.is_some());
        if is_named && chance.clone().percent(40) {
            for (n, host) in (1..).zip(&mut plan.hosts) {
                host.ips.push(IpAddr::from([10, 4, 0, n]));
            }
        }
        let mut apart = chance.clone().fork();
        if apart.percent(25) {
            for (host, n) in plan.hosts.iter_mut().zip(1..) {
                host.proxied = apart.percent(60);
                if host.proxied {
                    host.source = IpAddr::from([10, 2, 0, n]);
                }
            }
        }
        plan
    }

    /// The configuration of one of the hosts.
    pub fn config(&self, me: usize, seed: u64) -> Config {
        let mut builder = Config::builder(self.hosts[me].sid)
            .dial(self.dial)
            .replace(self.replace)
            .initial_message(self.initial_message)
            .peer_dead_after(self.dead_after)
            .pending_max(self.pending_max)
            .observers_max(OBSERVERS)
            // A host that gives its port up would not be reachable after healing.
            .listen_tries(0)
            .seed(seed);
        if self.queue {
            builder = builder.outbox(Outbox::QUEUE);
        }
        if self.spins {
            let for_at_most = Duration::ZERO;
            builder = builder.idle(Idle::Spin { for_at_most });
        }
        if self.admits {
            builder = builder.unknown(Unknown::Admit { max: GUESTS });
        }
        for host in &self.hosts {
            let address = |ip: &IpAddr| format!("{ip}:{PORT}");
            let all: Vec<String> = host.ips.iter().map(address).collect();
            let named = host.name.as_ref().map(|name| format!("{name}:{PORT}"));
            builder = builder.server(host.sid, named.unwrap_or_else(|| all.join("|")));
        }
        builder.build().expect("the plan makes sense")
    }
}

fn hosts(chance: &mut Chance, size: usize) -> Vec<HostPlan> {
    let mut sids: Vec<i64> = (0..20).collect();
    chance.shuffle(&mut sids);
    let by_name = chance.percent(30);
    (0..size)
        .map(|index| {
            let n = u8::try_from(index).expect("few hosts");
            let ip = IpAddr::from([10, 0, 0, n + 1]);
            let two = !by_name && chance.percent(20);
            let ips = if two {
                vec![IpAddr::from([10, 1, 0, n + 1]), ip]
            } else {
                vec![ip]
            };
            // Behind a translator, nobody sees a connection come from a member's own address.
            let source = if chance.percent(12) {
                IpAddr::from([10, 2, 0, n + 1])
            } else {
                ip
            };
            HostPlan {
                sid: Sid(sids[index]),
                ips,
                source,
                proxied: false,
                name: by_name.then(|| format!("host-{n}.sim")),
                first_is_black: two && chance.percent(50),
            }
        })
        .collect()
}
