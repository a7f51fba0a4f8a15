//! Those who belong to nobody: they claim a member's sid, send garbage, knock, stay silent, or observe.
//!
//! They speak to the kernel directly and know nothing of the code under test.

use std::{
    collections::VecDeque,
    io::IoSlice,
    net::{IpAddr, Shutdown, SocketAddr},
    time::Duration,
};

use quorum_cnx::Sid;

use crate::{
    chance::Chance,
    host::STRANGE,
    kernel::{Due, Kernel},
    plan::{PORT, Plan},
};

#[derive(Debug)]
pub struct Stranger {
    node: usize,
    chance: Chance,
    visit: Option<Visit>,
    /// True exactly when it was not sent away in time although it had nothing to say, or claims to be a member that has a
    /// link.
    pub overstays: bool,
}

/// After this time a silent stranger is gone: the handshake timeout, and the way of the FIN.
const PATIENCE: Duration = Duration::from_secs(7);

/// So much longer a contender may wait, beyond the time after which a link that is dead is found to be.
const CONTENTION: Duration = Duration::from_secs(2);

/// One connection of a stranger.
#[derive(Debug)]
struct Visit {
    sock: usize,
    says: VecDeque<Vec<u8>>,
    /// It ends its side when all is said.
    hangs_up: bool,
    reads: bool,
    silent: bool,
    claims: bool,
    since: Duration,
    /// How often it still looks at the connection before it leaves.
    stays: usize,
}

impl Stranger {
    pub fn new(kernel: &mut Kernel, index: usize, chance: Chance) -> Self {
        let ip = IpAddr::from([10, 9, 0, u8::try_from(index).expect("few strangers") + 1]);
        let node = kernel.add_node(format!("stranger{index}"), vec![ip]);
        Self {
            node,
            chance,
            visit: None,
            overstays: false,
        }
    }

    /// Does the next thing, and says when the one after it is due.
    pub fn act(&mut self, kernel: &mut Kernel, plan: &Plan) -> Duration {
        let Some(visit) = &mut self.visit else {
            self.visit = self.begin(kernel, plan);
            return self.chance.millis(1, 100);
        };
        let sock = &kernel.socks[visit.sock];
        if sock.gone || visit.stays == 0 {
            self.leave(kernel);
            return self.chance.millis(1, 400);
        }
        visit.stays -= 1;
        let lingers = kernel.now - visit.since > PATIENCE && sock.standing && !sock.fin_in;
        let contends = kernel.now - visit.since > PATIENCE + plan.dead_after + CONTENTION;
        self.overstays |= plan.calm && lingers && (visit.silent || (visit.claims && contends));
        if sock.standing {
            if let Some(piece) = visit.says.pop_front() {
                // Whether it is taken whole is not for a stranger to care; but what lacks a byte claims something else.
                let taken = kernel.write(visit.sock, &[IoSlice::new(&piece)]);
                visit.claims &= taken.is_ok_and(|n| n == piece.len());
            } else if std::mem::take(&mut visit.hangs_up) {
                let _ = kernel.shutdown(visit.sock, Shutdown::Write);
            }
            if visit.reads {
                let _ = kernel.read(visit.sock, &mut [0; 4096]);
            }
        }
        self.chance.millis(1, 300)
    }

    /// Ends what it has begun, with a reset as often as not.
    pub fn leave(&mut self, kernel: &mut Kernel) {
        if let Some(visit) = self.visit.take() {
            if self.chance.percent(50) {
                kernel.abort(visit.sock);
            }
            kernel.close(visit.sock);
        }
    }

    fn begin(&mut self, kernel: &mut Kernel, plan: &Plan) -> Option<Visit> {
        let chance = &mut self.chance;
        let target = chance.below(plan.hosts.len());
        let to = SocketAddr::new(*chance.pick(&plan.hosts[target].ips), PORT);
        let whom = chance.below(plan.hosts.len());
        let (says, what) = speech(
            chance,
            plan.hosts[whom].sid,
            target == whom,
            kernel.nodes[self.node].source,
        );
        let mut says = VecDeque::from(says);
        if chance.percent(20) {
            // A byte at a time.
            let bytes: Vec<u8> = says.drain(..).flatten().take(60).collect();
            says = bytes.into_iter().map(|byte| vec![byte]).collect();
        }
        let node = self.node;
        kernel.note(node, || format!("comes to {to}: {what}"));
        let sock = kernel.dial(node, to).ok()?;
        let (silent, claims) = (says.is_empty(), what.contains(CLAIM));
        Some(Visit {
            sock,
            silent,
            claims,
            since: kernel.now,
            hangs_up: !silent && chance.percent(30),
            reads: chance.percent(60),
            stays: says.len() + *chance.pick(&[0, 1, 5, 60, 150]),
            says,
        })
    }
}

const CLAIM: &str = "claims a member's sid";

/// What a stranger says, in pieces.
fn speech(chance: &mut Chance, sid: Sid, own: bool, source: IpAddr) -> (Vec<Vec<u8>>, String) {
    let (claimed, what) = match chance.below(8) {
        0 => return (Vec::new(), "stays silent".into()),
        1 => {
            let junk = (0..chance.between(1, 60))
                .map(|_| chance.next() as u8)
                .collect();
            return (vec![junk], "sends garbage".into());
        }
        2 => {
            return (
                vec![b"GET / HTTP/1.1\r\nHost: zk\r\n\r\n".to_vec()],
                "speaks HTTP".into(),
            );
        }
        3 => (Sid::OBSERVER, "observes"),
        4 => {
            let larger = chance.percent(50);
            let (low, high) = if larger { (100, 105) } else { (0, 19) };
            (Sid(chance.between(low, high) as i64), "joins")
        }
        _ if own => (sid, "claims the host's own sid"),
        _ => (sid, CLAIM),
    };
    let mut says = vec![hello(chance, claimed, source)];
    for _ in 0..chance.below(4) {
        says.push(match chance.below(5) {
            0 => [0_i32, -1, i32::MAX, 524_289][chance.below(4)]
                .to_be_bytes()
                .to_vec(),
            1 => frame(b"", 5000)[..chance.between(5, 3000)].to_vec(),
            _ => frame(STRANGE, chance.between(0, 2000)),
        });
    }
    if chance.percent(40) {
        // All at once, frames behind the initial message.
        says = vec![says.concat()];
    }
    (says, format!("{what}, as {claimed}"))
}

fn hello(chance: &mut Chance, sid: Sid, source: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !chance.percent(30) {
        let address = format!("{source}:{PORT}");
        bytes.extend((-65_536 + chance.below(2) as i64).to_be_bytes());
        bytes.extend(sid.0.to_be_bytes());
        bytes.extend((address.len() as u32).to_be_bytes());
        bytes.extend(address.as_bytes());
    } else {
        bytes.extend(sid.0.to_be_bytes());
    }
    bytes
}

fn frame(head: &[u8], more: usize) -> Vec<u8> {
    let mut bytes = Vec::from(((head.len() + more) as u32).to_be_bytes());
    bytes.extend(head);
    bytes.resize(bytes.len() + more, b'!');
    bytes
}

/// Has a stranger act, and again later.
pub fn on_due(strangers: &mut [Stranger], index: usize, kernel: &mut Kernel, plan: &Plan) {
    let time = strangers[index].act(kernel, plan);
    kernel.after(time, Due::Stranger(index));
}
