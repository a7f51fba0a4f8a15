//! What TCP does: handshakes, bytes in order, acknowledgements, FIN, reset, keepalive, user timeout.
//!
//! What a process asks of its sockets is in `calls`. No packet is modelled, only what two kernels know of each other and when: bytes stay with their sender until they
//! are acknowledged, and are tried again while the way is cut. The facts are those of Linux (tcp(7), tcp_input.c,
//! tcp_timer.c), each named where it matters.

use std::{cmp::Ordering, collections::VecDeque, io, net::SocketAddr, time::Duration};

use crate::kernel::{Due, EMFILE, Kernel};

pub const EPIPE: i32 = 32;
pub const ECONNRESET: i32 = 104;
pub const ETIMEDOUT: i32 = 110;
pub const ECONNREFUSED: i32 = 111;

/// Keepalive asks this often.
const PROBE: Duration = Duration::from_secs(1);

/// A sender that nobody keeps a timer for gives up after so many tries.
const TRIES_MAX: u32 = 9;

/// A connection between two machines: side 0 has dialed, side 1 was dialed.
#[derive(Debug)]
pub struct Conn {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub nodes: [usize; 2],
    pub socks: [Option<usize>; 2],
    syns: u32,
    /// One machine has lost its power, and a proxy goes on acknowledging in its name.
    pub haunted: bool,
    /// Something of this direction is on its way.
    flying: [bool; 2],
    tries: [u32; 2],
}

/// One end of a connection.
#[derive(Debug)]
pub struct Sock {
    pub node: usize,
    pub conn: usize,
    pub side: usize,
    /// A process has it.
    pub held: bool,
    /// It waits in the queue of a listening socket.
    pub queued: bool,
    /// The connection stands.
    pub standing: bool,
    /// The machine knows it no more, or it is broken.
    pub gone: bool,
    pub error: Option<i32>,
    pub rx: VecDeque<u8>,
    pub fin_in: bool,
    /// Not acknowledged; the first `sent` of them are with the far end.
    pub tx: VecDeque<u8>,
    pub sent: usize,
    /// True exactly when something was written.
    pub spoke: bool,
    /// Nothing is written any more.
    pub shut: bool,
    pub fin_out: bool,
    pub fin_acked: bool,
    /// Reads say the end.
    pub deaf: bool,
    /// A write found too little room: an edge is owed.
    pub nospace: bool,
    /// No room before, whatever the buffer says.
    pub full_until: Duration,
    pub rx_cap: usize,
    pub tx_cap: usize,
    pub watched: Option<usize>,
    pub edge_in: bool,
    pub edge_out: bool,
    pub listed: bool,
    /// When the far end had ended it, or it broke.
    pub ended_at: Option<Duration>,
    pub queued_at: Duration,
    pub progress: Duration,
    pub heard: Duration,
    pub dead_after: Option<Duration>,
}

impl Sock {
    pub fn room(&self) -> usize {
        self.tx_cap.saturating_sub(self.tx.len())
    }

    /// Linux calls a socket writable when a third of its buffer is free.
    fn writable(&self, now: Duration) -> bool {
        self.shut
            || self.gone
            || (self.standing && now >= self.full_until && self.room() * 3 >= self.tx_cap)
    }

    /// `readable`, `writable`, `ended`, as `poll(2)` would say.
    pub fn stand(&self) -> (bool, bool, bool) {
        let hung = self.gone || self.error.is_some() || (self.fin_in && self.shut);
        let ended = hung || self.fin_in;
        // `full_until` is a fault of its own and looks like a full buffer only to who writes.
        (
            ended || !self.rx.is_empty(),
            hung || self.writable(Duration::MAX),
            ended,
        )
    }

    pub fn closed(&self) -> bool {
        !self.held && !self.queued
    }

    pub fn has_work(&self) -> bool {
        !self.tx.is_empty() || (self.shut && !self.fin_acked)
    }
}

impl Kernel {
    fn new_sock(&mut self, node: usize, conn: usize, side: usize) -> usize {
        let (quirks, now) = (self.quirks, self.now);
        self.socks.push(Sock {
            node,
            conn,
            side,
            held: false,
            queued: false,
            standing: side == 1,
            gone: false,
            error: None,
            rx: VecDeque::new(),
            fin_in: false,
            tx: VecDeque::new(),
            sent: 0,
            spoke: false,
            shut: false,
            fin_out: false,
            fin_acked: false,
            deaf: false,
            nospace: false,
            full_until: Duration::ZERO,
            rx_cap: quirks.rx_bytes,
            tx_cap: quirks.tx_bytes,
            watched: None,
            edge_in: false,
            edge_out: false,
            listed: false,
            ended_at: None,
            queued_at: now,
            progress: now,
            heard: now,
            dead_after: self.nodes[node].dead_after,
        });
        let sock = self.socks.len() - 1;
        self.conns[conn].socks[side] = Some(sock);
        sock
    }

    fn latency(&mut self) -> Duration {
        if self.chance.permille(20) {
            return self.chance.millis(1, 20 * self.latency_ms);
        }
        self.chance.micros(40, 400 * self.latency_ms)
    }

    fn rto(tries: u32) -> Duration {
        Duration::from_millis(200 << tries.min(4))
    }

    /// Whether packets get from one machine to another now.
    pub fn way(&self, from: usize, to: usize) -> bool {
        self.nodes[from].on && self.nodes[to].on && !self.cut.contains_key(&(from, to))
    }

    pub fn dial(&mut self, node: usize, to: SocketAddr) -> io::Result<usize> {
        if self.nodes[node].emfile {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let from = self.ephemeral(node);
        // An address that nobody has is a machine that never answers: the dialer itself stands in for it.
        let far = self.node_at(to.ip()).unwrap_or(node);
        self.conns.push(Conn {
            from,
            to,
            nodes: [node, far],
            socks: [None, None],
            syns: 0,
            haunted: false,
            flying: [false; 2],
            tries: [0; 2],
        });
        let conn = self.conns.len() - 1;
        let sock = self.new_sock(node, conn, 0);
        self.socks[sock].held = true;
        self.nodes[node].held += 1;
        self.nodes[node].moved += 1;
        self.note(node, || format!("#{conn} dials {to} from {from}"));
        let time = self.latency();
        self.after(time, Due::Syn(conn));
        Ok(sock)
    }

    pub fn on_syn(&mut self, conn: usize) {
        let Conn {
            to,
            nodes: [near, far],
            socks,
            syns,
            ..
        } = self.conns[conn];
        let dialer = socks[0].expect("it has dialed");
        if self.socks[dialer].gone || self.socks[dialer].standing || syns > 6 {
            return;
        }
        self.conns[conn].syns += 1;
        let lost = near == far || !self.way(near, far) || self.black.contains(&to.ip());
        if !lost {
            let open = self.nodes[far]
                .listeners
                .iter()
                .any(|listener| listener.at == to);
            let answer = if open || self.nodes[far].slams {
                Due::SynAck(conn)
            } else {
                Due::Refused(conn)
            };
            let time = self.latency();
            self.after(time, answer);
        }
        self.after(Duration::from_secs(1 << syns), Due::Syn(conn));
    }

    pub fn on_syn_ack(&mut self, conn: usize) {
        let Conn {
            nodes: [near, far],
            socks,
            ..
        } = self.conns[conn];
        let dialer = socks[0].expect("it has dialed");
        if !self.way(far, near) || self.socks[dialer].gone || self.socks[dialer].standing {
            return;
        }
        let now = self.now;
        let it = &mut self.socks[dialer];
        (it.standing, it.heard, it.progress) = (true, now, now);
        self.note(near, || format!("#{conn} stands"));
        self.edge(dialer, false, true);
        self.after(PROBE, Due::Timer(dialer));
        let time = self.latency();
        self.after(time, Due::Third(conn));
        self.fly(conn, 0);
    }

    pub fn on_refused(&mut self, conn: usize) {
        let [near, far] = self.conns[conn].nodes;
        let dialer = self.conns[conn].socks[0].expect("it has dialed");
        if self.way(far, near) && !self.socks[dialer].standing {
            self.kill(dialer, ECONNREFUSED);
        }
    }

    /// The far end learns that the connection stands, by the packet that says so or by the first data.
    pub fn on_third(&mut self, conn: usize) {
        let Conn {
            to,
            nodes: [near, far],
            socks: [dialer, acceptor],
            ..
        } = self.conns[conn];
        if acceptor.is_some()
            || !self.way(near, far)
            || self.socks[dialer.expect("it has dialed")].gone
        {
            return;
        }
        if self.nodes[far].slams {
            let sock = self.new_sock(far, conn, 1);
            self.note(far, || format!("#{conn} is accepted and hung up on"));
            self.socks[sock].shut = true;
            return self.fly(conn, 1);
        }
        if !self.nodes[far]
            .listeners
            .iter()
            .any(|listener| listener.at == to)
        {
            return self.send_reset(conn, 0);
        }
        let sock = self.new_sock(far, conn, 1);
        self.socks[sock].queued = true;
        self.enqueue(far, to, sock);
    }

    /// Something of this direction leaves, if there is something and nothing is on its way.
    pub fn fly(&mut self, conn: usize, side: usize) {
        let Conn { socks, flying, .. } = &self.conns[conn];
        let Some(sock) = socks[side].filter(|_| !flying[side]) else {
            return;
        };
        let it = &self.socks[sock];
        if it.gone || !it.standing {
            return;
        }
        let unsent = it.tx.len() - it.sent;
        let window = socks[1 - side].map_or(1, |far| {
            let far = &self.socks[far];
            if far.gone {
                1
            } else {
                far.rx_cap.saturating_sub(far.rx.len())
            }
        });
        let fin = it.shut && !it.fin_out && unsent == 0;
        if (unsent > 0 && window > 0) || fin {
            self.conns[conn].flying[side] = true;
            let time = self.latency();
            self.after(time, Due::Arrive(conn, side));
        }
    }

    /// Tries again later what was lost on the way.
    fn again(&mut self, conn: usize, side: usize, due: Due) {
        let tries = &mut self.conns[conn].tries[side];
        *tries += 1;
        if *tries > TRIES_MAX {
            let sock = self.conns[conn].socks[side].expect("it has sent");
            return self.kill(sock, ETIMEDOUT);
        }
        let time = Self::rto(*tries - 1);
        self.after(time, due);
    }

    pub fn on_arrive(&mut self, conn: usize, side: usize) {
        self.conns[conn].flying[side] = false;
        let nodes = self.conns[conn].nodes;
        let (from, to) = (nodes[side], nodes[1 - side]);
        let sender = self.conns[conn].socks[side].expect("it has sent");
        if self.socks[sender].gone {
            return;
        }
        if self.conns[conn].haunted {
            let it = &mut self.socks[sender];
            it.sent = it.tx.len();
            it.fin_out |= it.shut;
            let time = self.latency();
            self.after(time, Due::Ack(conn, side));
            return;
        }
        if !self.way(from, to) {
            self.conns[conn].flying[side] = true;
            return self.again(conn, side, Due::Arrive(conn, side));
        }
        if side == 0 && self.conns[conn].socks[1].is_none() {
            self.on_third(conn);
        }
        let alive = self.conns[conn].socks[1 - side].filter(|&sock| !self.socks[sock].gone);
        let Some(receiver) = alive else {
            self.send_reset(conn, side);
            // The reset may be lost as well.
            self.conns[conn].flying[side] = true;
            return self.again(conn, side, Due::Arrive(conn, side));
        };
        let unsent = self.socks[sender].tx.len() - self.socks[sender].sent;
        if self.socks[receiver].closed() && unsent > 0 {
            // Data for a socket that nobody reads any more: a reset, and it is gone.
            self.kill(receiver, EPIPE);
            return self.send_reset(conn, side);
        }
        let window = self.socks[receiver]
            .rx_cap
            .saturating_sub(self.socks[receiver].rx.len());
        let mut n = unsent.min(window);
        if n > 1 && self.chance.permille(self.quirks.tiny_segments) {
            n = self.chance.between(1, n.min(40));
        }
        let now = self.now;
        let (it, to) = two(&mut self.socks, sender, receiver);
        let (a, b) = it.tx.as_slices();
        let (from, until) = (it.sent, it.sent + n);
        to.rx.extend(&a[from.min(a.len())..until.min(a.len())]);
        to.rx
            .extend(&b[from.saturating_sub(a.len())..until.saturating_sub(a.len())]);
        it.sent = until;
        let fin = it.shut && it.sent == it.tx.len();
        it.fin_out |= fin;
        to.heard = now;
        to.fin_in |= fin;
        if fin {
            to.ended_at.get_or_insert(now);
        }
        if n > 0 || fin {
            self.edge(receiver, true, false);
        }
        self.conns[conn].tries[side] = 0;
        let time = self.latency();
        self.after(time, Due::Ack(conn, side));
        self.fly(conn, side);
    }

    pub fn on_ack(&mut self, conn: usize, side: usize) {
        let nodes = self.conns[conn].nodes;
        let (from, to) = (nodes[side], nodes[1 - side]);
        let sender = self.conns[conn].socks[side].expect("it has sent");
        if self.socks[sender].gone {
            return;
        }
        let haunted = self.conns[conn].haunted;
        if !haunted && (!self.way(to, from) || !self.way(from, to)) {
            return self.again(conn, side, Due::Ack(conn, side));
        }
        self.conns[conn].tries[side] = 0;
        let now = self.now;
        let it = &mut self.socks[sender];
        (it.progress, it.heard) = (now, now);
        it.tx.drain(..it.sent);
        it.sent = 0;
        it.fin_acked = it.fin_out;
        self.owe(sender);
        if haunted {
            self.fly(conn, side);
        }
    }

    /// Pays the writable edge that is owed, if there is room by now.
    fn owe(&mut self, sock: usize) {
        let now = self.now;
        let it = &mut self.socks[sock];
        if it.nospace && it.writable(now) {
            it.nospace = false;
            self.edge(sock, false, true);
        }
    }

    pub fn on_room(&mut self, sock: usize) {
        self.owe(sock);
    }

    /// There is room after all, at once.
    pub fn relieve(&mut self, sock: usize) {
        self.socks[sock].full_until = self.now;
        self.owe(sock);
    }

    /// A reset leaves for this side.
    pub fn send_reset(&mut self, conn: usize, side: usize) {
        let time = self.latency();
        self.after(time, Due::Reset(conn, side));
    }

    pub fn on_reset(&mut self, conn: usize, side: usize) {
        let nodes = self.conns[conn].nodes;
        let Some(sock) = self.conns[conn].socks[side].filter(|&sock| !self.socks[sock].gone) else {
            return;
        };
        if self.way(nodes[1 - side], nodes[side]) {
            // tcp_reset() in tcp_input.c: after a FIN the error is another one.
            let error = if self.socks[sock].fin_in {
                EPIPE
            } else {
                ECONNRESET
            };
            self.kill(sock, error);
        }
    }

    /// The connection is over for this end. What was received can still be read.
    pub fn kill(&mut self, sock: usize, error: i32) {
        let now = self.now;
        let it = &mut self.socks[sock];
        if it.gone {
            return;
        }
        (it.gone, it.error) = (true, Some(error));
        it.ended_at.get_or_insert(now);
        it.tx.clear();
        it.sent = 0;
        let (node, conn) = (it.node, it.conn);
        self.note(node, || {
            format!("#{conn} breaks: {}", io::Error::from_raw_os_error(error))
        });
        self.edge(sock, true, true);
    }

    /// Closes without a word of farewell but a reset.
    pub fn abort(&mut self, sock: usize) {
        let it = &mut self.socks[sock];
        if !it.gone {
            let (conn, side) = (it.conn, it.side);
            it.gone = true;
            it.tx.clear();
            self.send_reset(conn, 1 - side);
        }
    }

    pub fn on_timer(&mut self, sock: usize) {
        let now = self.now;
        let it = &self.socks[sock];
        let Some(dead_after) = it
            .dead_after
            .filter(|_| !(it.gone || (it.closed() && it.fin_acked)))
        else {
            return;
        };
        let (node, conn, side) = (it.node, it.conn, it.side);
        let far_node = self.conns[conn].nodes[1 - side];
        let idle = (dead_after * 2 / 5).max(PROBE);
        let mut next = it.heard + idle;
        if self.conns[conn].haunted {
            self.socks[sock].heard = now;
            next = now + idle;
        } else if it.has_work() {
            next = it.progress + dead_after;
            // Also for a window that stays shut: RFC 5482, and tcp_probe_timer().
            if now - it.progress >= dead_after {
                return self.kill(sock, ETIMEDOUT);
            }
        } else if now - it.heard >= dead_after {
            self.send_reset(conn, 1 - side);
            return self.kill(sock, ETIMEDOUT);
        } else if now >= next && self.way(node, far_node) {
            match self.conns[conn].socks[1 - side].filter(|&far| !self.socks[far].gone) {
                None => self.send_reset(conn, side),
                Some(far) => {
                    self.socks[far].heard = now;
                    if self.way(far_node, node) {
                        self.socks[sock].heard = now;
                        next = now + idle;
                    }
                }
            }
        }
        // Nothing happens before: whatever is heard or written meanwhile moves it on.
        self.at(next.max(now + PROBE), Due::Timer(sock));
    }
}

/// Two of them at once.
fn two<T>(all: &mut [T], a: usize, b: usize) -> (&mut T, &mut T) {
    let (low, high) = all.split_at_mut(a.max(b));
    match a.cmp(&b) {
        Ordering::Less => (&mut low[a], &mut high[0]),
        _ => (&mut high[0], &mut low[b]),
    }
}
