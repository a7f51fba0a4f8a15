//! The plan of a run, drawn from its seed: the hosts, their configuration, and which faults are possible.
//!
//! `simulation` carries it out.

use std::{net::IpAddr, time::Duration};

use quorum_cnx::{Config, Dial, Idle, InitialMessageVersion, Outbox, Replace, Sid, Unknown};

use crate::{
    kernel::Quirks,
    layer::Shape,
    own_addresses::{Own, other_ip},
    rng::Rng,
    secure::Secure,
    tls,
};

pub const PORT: u16 = 3888;

/// Observers without an id that a host accepts.
pub const OBSERVERS: usize = 2;

/// Unknown servers that a host admits, if it admits any.
pub const GUESTS: usize = 2;

pub const STRANGERS_MAX: usize = 8;

/// How often hosts send pings, if they do. Often enough for many of them to be under way when a link ends.
const PING_EVERY: Duration = Duration::from_millis(20);

/// The first sid of servers that are not configured and larger than all others.
pub const UNKNOWN: usize = 100;

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
    /// There are no faults except quirks and strangers.
    pub strangers_only: bool,
    /// When the faults begin and end.
    pub storm: [Duration; 2],
    /// Longest time between two faults.
    pub fault_every: Duration,
    pub strangers: usize,
    /// Longest time between two calls of an application.
    pub call_interval_max: Duration,
    /// How many of 100 frames the handler answers.
    pub answers: u32,
    /// How many of 1000 frames are large.
    pub large: u32,
    /// Applications send for a while after the storm. If not, the last frame of the storm must arrive.
    pub traffic_after_storm: bool,
    /// The outbox is a queue instead of a slot.
    pub queue: bool,
    /// The outbox has a slot beside the queue.
    pub lanes: bool,
    /// Applications also send through a `Sender`.
    pub feeds: bool,
    /// After how many of 1000 frames and events the handler makes a random call.
    pub random_calls: u32,
    /// How many of 1000 times the handler says that it is not ready.
    pub slow: u32,
    /// Loops spin, but only once a turn: they read the last active link before they poll.
    pub spins: bool,
    /// The mesh is layered: a layer with a handshake, records and keys lies between TCP and the loops.
    pub layer: Option<Shape>,
    /// TLS lies between TCP and the loops. Never together with the layer.
    pub secure: Option<Secure>,
    /// True exactly when some hosts send native initial messages. All accept them.
    pub native: bool,
    /// Hosts change their members during the storm, each by itself.
    pub changes_members: bool,
    /// And their own addresses.
    pub changes_own: bool,
    /// How many of 100 calls renew all links of their host.
    pub renews: u32,
    /// Nothing but renewals happens to the links, all of which are native: a queue must lose nothing. There are no faults, as with
    /// `strangers_only`, and no strangers either.
    pub renews_only: bool,
    /// True exactly when all hosts send pings, which only those with native initial messages answer.
    pub pings: bool,
}

#[derive(Clone, Debug)]
pub struct HostPlan {
    pub sid: Sid,
    /// Its configured addresses.
    pub ips: Vec<IpAddr>,
    /// The source address of its connections.
    pub source: IpAddr,
    /// A proxy stands between it and the others. The proxy keeps and acknowledges connections when this machine loses power.
    pub proxied: bool,
    /// If it is configured by name: the name.
    pub name: Option<String>,
    /// Its first address never answers.
    pub first_is_blackholed: bool,
    /// It sends native initial messages.
    pub native: bool,
    /// Its own addresses, which may change.
    pub own: Own,
    /// An address of its machine that is none of `ips`.
    pub other_ip: IpAddr,
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Self {
        let size = *rng.pick(&[2, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7]);
        let strangers_only = rng.percent(15);
        let rare = |rng: &mut Rng| *rng.pick(&[0, 0, 20, 200]);
        let quirks = Quirks {
            interrupted: rare(rng),
            short_read: rare(rng),
            short_write: rare(rng),
            late_event: rare(rng),
            spurious_event: rare(rng),
            narrow_events: rng.percent(30),
            abort_on_accept: rng.percent(30),
            tiny_segments: *rng.pick(&[0, 0, 0, 50]),
            rx_bytes: *rng.pick(&[4 << 10, 64 << 10, 700 << 10]),
            tx_bytes: *rng.pick(&[4 << 10, 64 << 10, 700 << 10]),
        };
        let dial = if rng.percent(75) {
            Dial::Eager
        } else {
            Dial::OnDemand
        };
        let storm_ends = rng.millis(4000, 16_000);
        let mut plan = Self {
            hosts: hosts(rng, size),
            quirks,
            latency_ms: *rng.pick(&[1, 1, 5, 40]),
            dial: if strangers_only { Dial::Eager } else { dial },
            replace: if strangers_only || rng.percent(80) {
                Replace::Proven
            } else {
                Replace::Newest
            },
            admits: rng.percent(25),
            initial_message: *rng.pick(&[
                InitialMessageVersion::V1,
                InitialMessageVersion::V2,
                InitialMessageVersion::Bare,
            ]),
            dead_after: Duration::from_secs(*rng.pick(&[2, 3, 5])),
            pending_max: *rng.pick(&[2, 4, 64]),
            strangers_only,
            storm: [Duration::from_millis(1000), storm_ends],
            fault_every: rng.millis(20, 2500),
            strangers: if strangers_only {
                rng.between(2, STRANGERS_MAX)
            } else {
                *rng.pick(&[0, 0, 1, 3, STRANGERS_MAX])
            },
            call_interval_max: rng.millis(4, 900),
            answers: *rng.pick(&[0, 0, 30, 80]),
            large: *rng.pick(&[0, 20, 150]),
            traffic_after_storm: dial == Dial::OnDemand || rng.percent(50),
            queue: false,
            lanes: false,
            feeds: false,
            random_calls: 0,
            slow: 0,
            spins: false,
            layer: None,
            secure: None,
            native: false,
            changes_members: false,
            changes_own: false,
            renews: 0,
            renews_only: false,
            pings: false,
        };
        // Drawn last, so that older seeds keep their meaning.
        plan.queue = rng.percent(25);
        plan.spins = rng.percent(25);
        plan.random_calls = *rng.pick(&[0, 0, 20, 300]);
        plan.slow = *rng.pick(&[0, 0, 0, 10, 200]);
        // A cloned generator leaves the later choices as they are.
        plan.feeds = (rng.clone().fork()).percent(if plan.queue { 50 } else { 5 });
        // A queue loses what the kernel has when a link ends. Only a later frame shows that the link works.
        plan.traffic_after_storm |= plan.queue;
        // Some names have two addresses. A cloned generator leaves the later choices as they are.
        let is_named = plan.hosts.iter().any(|host| host.name.is_some());
        if is_named && rng.clone().percent(40) {
            for (n, host) in (1..).zip(&mut plan.hosts) {
                host.ips.push(IpAddr::from([10, 4, 0, n]));
            }
        }
        let mut forks = rng.clone();
        let mut proxies = forks.fork();
        let mut layers = forks.fork();
        plan.layer = layers.percent(25).then(|| Shape {
            certificate: *layers.pick(&[8, 300, 6000]),
            record: *layers.pick(&[256, 4 << 10, 16 << 10]),
        });
        if tls::IS_BUILT && layers.percent(50) {
            plan.layer = None;
            plan.secure = Some(Secure::new(&mut layers, size, strangers_only));
        }
        if proxies.percent(25) {
            for (host, n) in plan.hosts.iter_mut().zip(1..) {
                host.proxied = proxies.percent(60);
                if host.proxied {
                    host.source = IpAddr::from([10, 2, 0, n]);
                }
            }
        }
        let mut natives = proxies.clone().fork();
        plan.lanes = plan.queue && natives.clone().fork().percent(40);
        plan.native = natives.percent(30);
        if plan.native {
            // A third of these meshes is in the middle of a rolling upgrade.
            let all = natives.percent(67);
            for host in &mut plan.hosts {
                host.native = all || natives.percent(50);
            }
            plan.pings = natives.percent(50);
        }
        // An admitted server that becomes a member is the same peer.
        let can_change = !plan.strangers_only && !plan.admits;
        plan.changes_members = natives.fork().percent(40) && can_change;
        // A cloned generator leaves all else as it is.
        let mut renewals = natives.clone().fork();
        plan.renews = *renewals.pick(&[0, 2, 10]);
        plan.renews_only = plan.strangers_only && renewals.percent(50);
        // The same.
        plan.changes_own = plan.changes_members && renewals.clone().fork().percent(50);
        if plan.strangers_only {
            // A renewal ends a link.
            plan.renews = 0;
        }
        if plan.renews_only {
            (plan.renews, plan.strangers, plan.queue) = (5, 0, true);
            (plan.native, plan.traffic_after_storm) = (true, true);
            for host in &mut plan.hosts {
                host.native = true;
                // Behind a proxy, a knock at a link that is silent looks as if its host had started again.
                (host.proxied, host.source) = (false, host.ips[host.ips.len() - 1]);
            }
        }
        plan
    }

    /// The last one of the addresses of a host.
    pub fn last_address(&self, host: usize) -> String {
        let all = self.hosts[host].addresses();
        all.rsplit('|').next().unwrap_or_default().to_owned()
    }

    /// Whether this host takes only those for a server that have proved to be it.
    pub fn requires_proof(&self, me: usize) -> bool {
        let by_tls = |secure: &Secure| secure.requires_proof(me);
        self.layer.is_some() || self.secure.as_ref().is_some_and(by_tls)
    }

    /// Whether every host takes only those for a server that have proved to be it, at any time.
    pub fn always_proves(&self) -> bool {
        let by_tls = |secure: &Secure| secure.always_proves();
        self.layer.is_some() || self.secure.as_ref().is_some_and(by_tls)
    }

    pub fn outbox(&self) -> Outbox {
        match (self.queue, self.lanes) {
            (_, true) => Outbox::LANES,
            (true, false) => Outbox::QUEUE,
            (false, false) => Outbox::Latest,
        }
    }

    /// The configuration of one of the hosts.
    pub fn config(&self, me: usize, seed: u64) -> Config {
        let initial_message = match self.hosts[me].native {
            true => InitialMessageVersion::Native,
            false => self.initial_message,
        };
        let mut builder = Config::builder(self.hosts[me].sid)
            .dial(self.dial)
            .replace(self.replace)
            .initial_message(initial_message)
            .peer_dead_after(self.dead_after)
            .pending_max(self.pending_max)
            .observers_max(OBSERVERS)
            // A host that stops listening would not be reachable after the storm.
            .listen_tries(0)
            .outbox(self.outbox())
            .seed(seed);
        if self.pings {
            builder = builder.ping_every(PING_EVERY);
        }
        if self.spins {
            let for_at_most = Duration::ZERO;
            builder = builder.idle(Idle::spin(for_at_most));
        }
        if self.admits {
            builder = builder.unknown(Unknown::admit(GUESTS));
        }
        builder = tls::configure(builder, self, me);
        if self.changes_members {
            // Those that leave are counted, and a host that is paused parts with none of them.
            builder = builder.members_max(1000);
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let addresses = match index == me {
                true => host.own_addresses(),
                false => host.addresses(),
            };
            builder = builder.server(host.sid, addresses);
        }
        builder.build().expect("the plan is valid")
    }
}

fn hosts(rng: &mut Rng, size: usize) -> Vec<HostPlan> {
    let mut sids: Vec<i64> = (0..20).collect();
    rng.shuffle(&mut sids);
    let by_name = rng.percent(30);
    (0..size)
        .map(|index| {
            let n = u8::try_from(index).expect("few hosts");
            let ip = IpAddr::from([10, 0, 0, n + 1]);
            let two = !by_name && rng.percent(20);
            let ips = if two {
                vec![IpAddr::from([10, 1, 0, n + 1]), ip]
            } else {
                vec![ip]
            };
            // Behind a NAT, no connection comes from the member's own address.
            let source = if rng.percent(12) {
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
                first_is_blackholed: two && rng.percent(50),
                native: false,
                own: Own::Home,
                other_ip: other_ip(n + 1),
            }
        })
        .collect()
}
