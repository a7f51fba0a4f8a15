//! Untrusted connections: they claim a member's sid, send garbage, knock, stay silent, or observe.
//!
//! They use the simulated kernel directly, without the library.

use std::{
    collections::VecDeque,
    io::IoSlice,
    net::{IpAddr, Shutdown},
    time::Duration,
};

use quorum_cnx::Sid;

use crate::{
    kernel::Kernel,
    layer_records::{Key, speak},
    oracle::STRANGER_MARK,
    plan::{PORT, Plan, UNKNOWN},
    rng::Rng,
    tls::Session,
};

#[derive(Debug)]
pub struct Stranger {
    node: usize,
    index: usize,
    /// Its certificate is valid, and names the first of the servers that nobody has configured.
    names: Sid,
    rng: Rng,
    connection: Option<Connection>,
    /// True exactly when a host has not closed its connection in time, although it was silent or claimed the sid of a linked
    /// member.
    pub is_overdue: bool,
    /// True exactly when it has received a frame, although it has not proved to be a server.
    pub has_frame: bool,
}

/// A silent connection is closed within this time: the handshake timeout, and the latency of the FIN.
const SILENT_MAX: Duration = Duration::from_secs(7);

/// How much longer than `peer_dead_after` a contender may wait.
const CONTENDER_EXTRA: Duration = Duration::from_secs(2);

/// One connection of a stranger.
#[derive(Debug)]
struct Connection {
    sock: usize,
    /// It speaks TLS.
    session: Option<Session>,
    pieces: VecDeque<Vec<u8>>,
    /// It shuts its write half down after the last piece.
    shuts_down: bool,
    reads: bool,
    silent: bool,
    claims: bool,
    since: Duration,
    /// Steps until it disconnects.
    steps_left: usize,
}

impl Stranger {
    pub fn new(kernel: &mut Kernel, index: usize, rng: Rng) -> Self {
        let ip = IpAddr::from([10, 9, 0, u8::try_from(index).expect("few strangers") + 1]);
        let node = kernel.add_node(format!("stranger{index}"), vec![ip]);
        let names = Sid((UNKNOWN + index) as i64);
        kernel.nodes[node].key = Some(names);
        Self {
            node,
            index,
            names,
            rng,
            connection: None,
            is_overdue: false,
            has_frame: false,
        }
    }

    /// Does the next step. Returns the time until the one after it.
    pub fn step(&mut self, kernel: &mut Kernel, plan: &Plan) -> Duration {
        let Some(connection) = &mut self.connection else {
            self.connection = self.begin(kernel, plan);
            return self.rng.millis(1, 100);
        };
        let sock = &kernel.socks[connection.sock];
        if sock.gone || connection.steps_left == 0 {
            self.disconnect(kernel);
            return self.rng.millis(1, 400);
        }
        connection.steps_left -= 1;
        // A stranger that does not read may never get the FIN.
        let far = kernel.conns[sock.conn].socks[1];
        let is_open = far.is_none_or(|far| !kernel.socks[far].closed());
        let lingers = kernel.now - connection.since > SILENT_MAX
            && sock.established
            && !sock.fin_in
            && is_open;
        let contends =
            kernel.now - connection.since > SILENT_MAX + plan.dead_after + CONTENDER_EXTRA;
        self.is_overdue |= plan.strangers_only
            && lingers
            && (connection.silent || (connection.claims && contends));
        if let Some(session) = connection.session.as_mut().filter(|_| sock.established) {
            let pieces = &mut connection.pieces;
            session.step(kernel, connection.sock, || {
                pieces.pop_front().unwrap_or_default()
            });
            // Whom it claims to be is never what its certificate says, except for one that is admitted.
            self.has_frame |= !plan.admits && !is_answer(session.received());
        } else if sock.established {
            if let Some(piece) = connection.pieces.pop_front() {
                // A message of which a byte is missing claims no sid.
                let written = kernel.write(connection.sock, &[IoSlice::new(&piece)]);
                connection.claims &= written.is_ok_and(|n| n == piece.len());
            } else if std::mem::take(&mut connection.shuts_down) {
                let _ = kernel.shutdown(connection.sock, Shutdown::Write);
            }
            if connection.reads {
                let _ = kernel.read(connection.sock, &mut [0; 4096]);
            }
        }
        self.rng.millis(1, 300)
    }

    /// Closes its connection, with a reset in half of the cases.
    pub fn disconnect(&mut self, kernel: &mut Kernel) {
        if let Some(connection) = self.connection.take() {
            if self.rng.percent(50) {
                kernel.abort(connection.sock);
            }
            kernel.close(connection.sock);
        }
    }

    fn begin(&mut self, kernel: &mut Kernel, plan: &Plan) -> Option<Connection> {
        let rng = &mut self.rng;
        let target = rng.below(plan.hosts.len());
        let to = *rng.pick(&plan.hosts[target].dialable());
        let claimed = rng.below(plan.hosts.len());
        let (pieces, what) = payload(
            rng,
            plan.hosts[claimed].sid,
            target == claimed,
            kernel.nodes[self.node].source,
            plan.native.then_some(plan.hosts[target].sid),
        );
        let (silent, claims) = (pieces.is_empty(), what.contains(CLAIM));
        let mut pieces = VecDeque::from(pieces);
        let speaks_tls = plan.secure.is_some() && !rng.percent(20);
        let session = match speaks_tls {
            true => Session::new(self.index, target, !rng.percent(20)),
            false => None,
        };
        let is_layered = plan.layer.is_some() && !rng.percent(20);
        if is_layered {
            let (names, is_signed) = (self.names, !rng.percent(20));
            pieces = speak(Key { names, is_signed }, pieces.into()).into();
        }
        if rng.percent(20) {
            // One byte at a time.
            let bytes: Vec<u8> = pieces.drain(..).flatten().take(60).collect();
            pieces = bytes.into_iter().map(|byte| vec![byte]).collect();
        }
        let node = self.node;
        kernel.note(node, || format!("dials {to}: {what}"));
        let sock = kernel.dial(node, to).ok()?;
        Some(Connection {
            sock,
            session,
            silent,
            claims,
            since: kernel.now,
            shuts_down: !silent && rng.percent(30),
            reads: rng.percent(60),
            steps_left: pieces.len() + *rng.pick(&[0, 1, 5, 60, 150]),
            pieces,
        })
    }
}

/// Whether these bytes are nothing, or the beginning of the answer to a native initial message.
fn is_answer(bytes: &[u8]) -> bool {
    const ANSWER_BYTES: usize = 36;
    let version = (-65_533_i64).to_be_bytes();
    let same = bytes.iter().zip(version).all(|(byte, of)| *byte == of);
    same && bytes.len() <= ANSWER_BYTES
}

const CLAIM: &str = "claims a member's sid";

/// The bytes of a stranger, in pieces, and a description of them.
fn payload(
    rng: &mut Rng,
    sid: Sid,
    own: bool,
    source: IpAddr,
    native_to: Option<Sid>,
) -> (Vec<Vec<u8>>, String) {
    let (claimed, what) = match rng.below(8) {
        0 => return (Vec::new(), "stays silent".into()),
        1 => {
            let junk = (0..rng.between(1, 60)).map(|_| rng.next() as u8).collect();
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
            let larger = rng.percent(50);
            let (low, high) = if larger {
                (UNKNOWN, UNKNOWN + 5)
            } else {
                (0, 19)
            };
            (Sid(rng.between(low, high) as i64), "joins")
        }
        _ if own => (sid, "claims the host's own sid"),
        _ => (sid, CLAIM),
    };
    let native_to = native_to.filter(|_| rng.percent(50));
    let mut pieces = vec![match native_to {
        Some(to) => native_initial_message(rng, claimed, to),
        None => initial_message(rng, claimed, source),
    }];
    for _ in 0..rng.below(4) {
        pieces.push(match rng.below(5) {
            0 => [0_i32, -1, i32::MAX, 524_289][rng.below(4)]
                .to_be_bytes()
                .to_vec(),
            1 => frame(b"", 5000)[..rng.between(5, 3000)].to_vec(),
            _ => frame(STRANGER_MARK, rng.between(0, 2000)),
        });
    }
    if rng.percent(40) {
        // The initial message and the frames in one piece.
        pieces = vec![pieces.concat()];
    }
    (pieces, format!("{what}, as {claimed}"))
}

fn initial_message(rng: &mut Rng, sid: Sid, source: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !rng.percent(30) {
        let address = format!("{source}:{PORT}");
        bytes.extend((-65_536 + rng.below(2) as i64).to_be_bytes());
        bytes.extend(sid.0.to_be_bytes());
        bytes.extend((address.len() as u32).to_be_bytes());
        bytes.extend(address.as_bytes());
    } else {
        bytes.extend(sid.0.to_be_bytes());
    }
    bytes
}

fn native_initial_message(rng: &mut Rng, sid: Sid, to: Sid) -> Vec<u8> {
    let mut bytes = Vec::from((-65_533_i64).to_be_bytes());
    bytes.extend(sid.0.to_be_bytes());
    bytes.extend((-1_i32).to_be_bytes());
    bytes.extend(to.0.to_be_bytes());
    bytes.extend([0; 16]);
    bytes.extend(rng.next().to_be_bytes());
    bytes.extend(rng.next().to_be_bytes());
    bytes.extend(0_i32.to_be_bytes());
    bytes
}

fn frame(head: &[u8], more: usize) -> Vec<u8> {
    let mut bytes = Vec::from(((head.len() + more) as u32).to_be_bytes());
    bytes.extend(head);
    bytes.resize(bytes.len() + more, b'!');
    bytes
}
