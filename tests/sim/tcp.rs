//! Simulates TCP: handshakes, bytes in order, acknowledgements, FIN, reset, keepalive, user timeout.
//!
//! The system calls are in `calls`. There are no packets: the model is what each kernel knows of the other one, and when. Bytes
//! stay with their sender until they are acknowledged, and are sent again while the path is cut. The behaviour is that of Linux
//! (tcp(7), tcp_input.c, tcp_timer.c).

use std::{cmp::Ordering, collections::VecDeque, io, net::SocketAddr, time::Duration};

use crate::{
    kernel::{EMFILE, Kernel, SimEvent},
    own_addresses::takes,
};

pub const EPIPE: i32 = 32;
pub const ECONNRESET: i32 = 104;
pub const ETIMEDOUT: i32 = 110;
pub const ECONNREFUSED: i32 = 111;

/// Interval of keepalive probes.
const PROBE: Duration = Duration::from_secs(1);

/// Retransmissions of a socket without a user timeout.
const TRIES_MAX: u32 = 9;

/// A connection between two machines: side 0 has dialed, side 1 accepts.
#[derive(Debug)]
pub struct Conn {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub nodes: [usize; 2],
    pub socks: [Option<usize>; 2],
    /// When its first packet was sent.
    pub begun: Duration,
    syns: u32,
    /// A machine has lost its power, and a proxy acknowledges in its place.
    pub kept_by_proxy: bool,
    /// The next bytes that arrive in this direction are damaged. TCP does not notice it.
    pub is_damaged: [bool; 2],
    /// Bytes of this direction are in flight.
    in_flight: [bool; 2],
    tries: [u32; 2],
}

/// One end of a connection.
#[derive(Debug, Default)]
pub struct Sock {
    pub node: usize,
    pub conn: usize,
    pub side: usize,
    /// A process has its descriptor.
    pub held: bool,
    /// It waits in the backlog of a listening socket.
    pub queued: bool,
    /// The TCP handshake is complete.
    pub established: bool,
    /// The connection is broken, or its machine has no state for it any more.
    pub gone: bool,
    pub error: Option<i32>,
    pub rx: VecDeque<u8>,
    pub fin_in: bool,
    /// Bytes that are not acknowledged. The first `sent` of them have arrived.
    pub tx: VecDeque<u8>,
    pub sent: usize,
    /// True exactly when a byte was written.
    pub has_written: bool,
    /// The write half is shut down.
    pub shut: bool,
    pub fin_out: bool,
    pub fin_acked: bool,
    /// The read half is shut down.
    pub read_shut: bool,
    /// A write found too little room: a writable event is due.
    pub nospace: bool,
    /// Until then, writes find no room.
    pub full_until: Duration,
    pub rx_cap: usize,
    pub tx_cap: usize,
    pub watched: Option<usize>,
    pub edge_in: bool,
    pub edge_out: bool,
    pub in_ready_list: bool,
    /// When the FIN came, or the connection broke.
    pub ended_at: Option<Duration>,
    pub queued_at: Duration,
    pub last_progress: Duration,
    pub last_received: Duration,
    pub dead_after: Option<Duration>,
}

impl Sock {
    pub fn room(&self) -> usize {
        self.tx_cap.saturating_sub(self.tx.len())
    }

    /// A socket is writable if a third of its buffer is free, as on Linux.
    fn writable(&self, now: Duration) -> bool {
        self.shut
            || self.gone
            || (self.established && now >= self.full_until && self.room() * 3 >= self.tx_cap)
    }

    /// `readable`, `writable` and `ended`, as `poll(2)` would report them.
    pub fn readiness(&self) -> (bool, bool, bool) {
        let hung = self.gone || self.error.is_some() || (self.fin_in && self.shut);
        let ended = hung || self.fin_in;
        // `full_until` concerns only writes.
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
            established: side == 1,
            rx_cap: quirks.rx_bytes,
            tx_cap: quirks.tx_bytes,
            queued_at: now,
            last_progress: now,
            last_received: now,
            dead_after: self.nodes[node].dead_after,
            ..Sock::default()
        });
        let sock = self.socks.len() - 1;
        self.conns[conn].socks[side] = Some(sock);
        sock
    }

    fn latency(&mut self) -> Duration {
        if self.rng.permille(20) {
            return self.rng.millis(1, 20 * self.latency_ms);
        }
        self.rng.micros(40, 400 * self.latency_ms)
    }

    fn rto(tries: u32) -> Duration {
        Duration::from_millis(200 << tries.min(4))
    }

    /// Whether packets arrive from one machine at another now.
    pub fn can_reach(&self, from: usize, to: usize) -> bool {
        self.nodes[from].on && self.nodes[to].on && !self.cut.contains_key(&(from, to))
    }

    pub fn dial(&mut self, node: usize, to: SocketAddr) -> io::Result<usize> {
        if self.nodes[node].emfile {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let from = self.ephemeral(node);
        // For an address that no machine has, the dialer is the far end. It never answers.
        let far = self.node_at(to.ip()).unwrap_or(node);
        self.conns.push(Conn {
            begun: self.now,
            from,
            to,
            nodes: [node, far],
            socks: [None, None],
            syns: 0,
            kept_by_proxy: false,
            is_damaged: [false; 2],
            in_flight: [false; 2],
            tries: [0; 2],
        });
        let conn = self.conns.len() - 1;
        let sock = self.new_sock(node, conn, 0);
        self.socks[sock].held = true;
        self.nodes[node].held += 1;
        self.nodes[node].progress_calls += 1;
        self.note(node, || format!("#{conn} dials {to} from {from}"));
        let time = self.latency();
        self.after(time, SimEvent::Syn(conn));
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
        let dialer = socks[0].expect("a dialer has a socket");
        if self.socks[dialer].gone || self.socks[dialer].established || syns > 6 {
            return;
        }
        self.conns[conn].syns += 1;
        let lost = near == far || !self.can_reach(near, far) || self.blackholed.contains(&to.ip());
        if !lost {
            let open = self.nodes[far]
                .listeners
                .iter()
                .any(|listener| takes(listener.at, to));
            let answer = if open || self.nodes[far].accepts_and_closes {
                SimEvent::SynAck(conn)
            } else {
                SimEvent::Refused(conn)
            };
            let time = self.latency();
            self.after(time, answer);
        }
        self.after(Duration::from_secs(1 << syns), SimEvent::Syn(conn));
    }

    pub fn on_syn_ack(&mut self, conn: usize) {
        let Conn {
            nodes: [near, far],
            socks,
            ..
        } = self.conns[conn];
        let dialer = socks[0].expect("a dialer has a socket");
        if !self.can_reach(far, near) || self.socks[dialer].gone || self.socks[dialer].established {
            return;
        }
        let now = self.now;
        let it = &mut self.socks[dialer];
        (it.established, it.last_received, it.last_progress) = (true, now, now);
        self.note(near, || format!("#{conn} is established"));
        self.raise_edge(dialer, false, true);
        self.after(PROBE, SimEvent::Timer(dialer));
        let time = self.latency();
        self.after(time, SimEvent::FinalAck(conn));
        self.transmit(conn, 0);
    }

    pub fn on_refused(&mut self, conn: usize) {
        let [near, far] = self.conns[conn].nodes;
        let dialer = self.conns[conn].socks[0].expect("a dialer has a socket");
        if self.can_reach(far, near) && !self.socks[dialer].established {
            self.kill(dialer, ECONNREFUSED);
        }
    }

    /// The last packet of the handshake or the first data arrives: the connection is established at the far end.
    pub fn on_final_ack(&mut self, conn: usize) {
        let Conn {
            to,
            nodes: [near, far],
            socks: [dialer, acceptor],
            ..
        } = self.conns[conn];
        if acceptor.is_some()
            || !self.can_reach(near, far)
            || self.socks[dialer.expect("a dialer has a socket")].gone
        {
            return;
        }
        if self.nodes[far].accepts_and_closes {
            let sock = self.new_sock(far, conn, 1);
            self.note(far, || format!("#{conn} is accepted and closed"));
            self.socks[sock].shut = true;
            return self.transmit(conn, 1);
        }
        if !self.nodes[far]
            .listeners
            .iter()
            .any(|listener| takes(listener.at, to))
        {
            return self.send_reset(conn, 0);
        }
        let sock = self.new_sock(far, conn, 1);
        self.socks[sock].queued = true;
        self.enqueue(far, to, sock);
    }

    /// Sends bytes of this direction, or its FIN, unless some are in flight.
    pub fn transmit(&mut self, conn: usize, side: usize) {
        let Conn {
            socks, in_flight, ..
        } = &self.conns[conn];
        let Some(sock) = socks[side].filter(|_| !in_flight[side]) else {
            return;
        };
        let it = &self.socks[sock];
        if it.gone || !it.established {
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
            self.conns[conn].in_flight[side] = true;
            let time = self.latency();
            self.after(time, SimEvent::Arrive(conn, side));
        }
    }

    /// Sends again later what was lost.
    fn retransmit(&mut self, conn: usize, side: usize, event: SimEvent) {
        let tries = &mut self.conns[conn].tries[side];
        *tries += 1;
        if *tries > TRIES_MAX {
            let sock = self.conns[conn].socks[side].expect("a sender has a socket");
            return self.kill(sock, ETIMEDOUT);
        }
        let time = Self::rto(*tries - 1);
        self.after(time, event);
    }

    pub fn on_arrive(&mut self, conn: usize, side: usize) {
        self.conns[conn].in_flight[side] = false;
        let nodes = self.conns[conn].nodes;
        let (from, to) = (nodes[side], nodes[1 - side]);
        let sender = self.conns[conn].socks[side].expect("a sender has a socket");
        if self.socks[sender].gone {
            return;
        }
        if self.conns[conn].kept_by_proxy {
            let it = &mut self.socks[sender];
            it.sent = it.tx.len();
            it.fin_out |= it.shut;
            let time = self.latency();
            self.after(time, SimEvent::Ack(conn, side));
            return;
        }
        if !self.can_reach(from, to) {
            self.conns[conn].in_flight[side] = true;
            return self.retransmit(conn, side, SimEvent::Arrive(conn, side));
        }
        if side == 0 && self.conns[conn].socks[1].is_none() {
            self.on_final_ack(conn);
        }
        let alive = self.conns[conn].socks[1 - side].filter(|&sock| !self.socks[sock].gone);
        let Some(receiver) = alive else {
            self.send_reset(conn, side);
            // The reset may be lost, too.
            self.conns[conn].in_flight[side] = true;
            return self.retransmit(conn, side, SimEvent::Arrive(conn, side));
        };
        let unsent = self.socks[sender].tx.len() - self.socks[sender].sent;
        if self.socks[receiver].closed() && unsent > 0 {
            // Data for a closed socket causes a reset.
            self.kill(receiver, EPIPE);
            return self.send_reset(conn, side);
        }
        let window = self.socks[receiver]
            .rx_cap
            .saturating_sub(self.socks[receiver].rx.len());
        let mut n = unsent.min(window);
        if n > 1 && self.rng.permille(self.quirks.tiny_segments) {
            n = self.rng.between(1, n.min(40));
        }
        let now = self.now;
        let (it, to) = pair_mut(&mut self.socks, sender, receiver);
        let (a, b) = it.tx.as_slices();
        let (from, until) = (it.sent, it.sent + n);
        to.rx.extend(&a[from.min(a.len())..until.min(a.len())]);
        to.rx
            .extend(&b[from.saturating_sub(a.len())..until.saturating_sub(a.len())]);
        if n > 0 && std::mem::take(&mut self.conns[conn].is_damaged[side]) {
            *to.rx.back_mut().expect("bytes have arrived") ^= 0x10;
        }
        it.sent = until;
        let fin = it.shut && it.sent == it.tx.len();
        it.fin_out |= fin;
        to.last_received = now;
        to.fin_in |= fin;
        if fin {
            to.ended_at.get_or_insert(now);
        }
        if n > 0 || fin {
            self.raise_edge(receiver, true, false);
        }
        self.conns[conn].tries[side] = 0;
        let time = self.latency();
        self.after(time, SimEvent::Ack(conn, side));
        self.transmit(conn, side);
    }

    pub fn on_ack(&mut self, conn: usize, side: usize) {
        let nodes = self.conns[conn].nodes;
        let (from, to) = (nodes[side], nodes[1 - side]);
        let sender = self.conns[conn].socks[side].expect("a sender has a socket");
        if self.socks[sender].gone {
            return;
        }
        let kept_by_proxy = self.conns[conn].kept_by_proxy;
        if !kept_by_proxy && (!self.can_reach(to, from) || !self.can_reach(from, to)) {
            return self.retransmit(conn, side, SimEvent::Ack(conn, side));
        }
        self.conns[conn].tries[side] = 0;
        let now = self.now;
        let it = &mut self.socks[sender];
        (it.last_progress, it.last_received) = (now, now);
        it.tx.drain(..it.sent);
        it.sent = 0;
        it.fin_acked = it.fin_out;
        self.report_space(sender);
        if kept_by_proxy {
            self.transmit(conn, side);
        }
    }

    /// Reports that the socket is writable, if that is due and there is room.
    fn report_space(&mut self, sock: usize) {
        let now = self.now;
        let it = &mut self.socks[sock];
        if it.nospace && it.writable(now) {
            it.nospace = false;
            self.raise_edge(sock, false, true);
        }
    }

    pub fn on_buffer_space(&mut self, sock: usize) {
        self.report_space(sock);
    }

    /// Ends `full_until` at once.
    pub fn free_buffer(&mut self, sock: usize) {
        self.socks[sock].full_until = self.now;
        self.report_space(sock);
    }

    /// Sends a reset to this side.
    pub fn send_reset(&mut self, conn: usize, side: usize) {
        let time = self.latency();
        self.after(time, SimEvent::Reset(conn, side));
    }

    pub fn on_reset(&mut self, conn: usize, side: usize) {
        let nodes = self.conns[conn].nodes;
        let Some(sock) = self.conns[conn].socks[side].filter(|&sock| !self.socks[sock].gone) else {
            return;
        };
        if self.can_reach(nodes[1 - side], nodes[side]) {
            // tcp_reset() in tcp_input.c: the error after a FIN is a different one.
            let error = if self.socks[sock].fin_in {
                EPIPE
            } else {
                ECONNRESET
            };
            self.kill(sock, error);
        }
    }

    /// Breaks the connection at this end. Received bytes can still be read.
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
        self.raise_edge(sock, true, true);
    }

    /// Closes with a reset.
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
        let mut next = it.last_received + idle;
        if self.conns[conn].kept_by_proxy {
            self.socks[sock].last_received = now;
            next = now + idle;
        } else if it.has_work() {
            next = it.last_progress + dead_after;
            // Also if the window stays closed: RFC 5482, and tcp_probe_timer().
            if now - it.last_progress >= dead_after {
                return self.kill(sock, ETIMEDOUT);
            }
        } else if now - it.last_received >= dead_after {
            self.send_reset(conn, 1 - side);
            return self.kill(sock, ETIMEDOUT);
        } else if now >= next && self.can_reach(node, far_node) {
            match self.conns[conn].socks[1 - side].filter(|&far| !self.socks[far].gone) {
                None => self.send_reset(conn, side),
                Some(far) => {
                    self.socks[far].last_received = now;
                    if self.can_reach(far_node, node) {
                        self.socks[sock].last_received = now;
                        next = now + idle;
                    }
                }
            }
        }
        // Bytes that arrive or are written before then move the time on.
        self.at(next.max(now + PROBE), SimEvent::Timer(sock));
    }
}

/// Two elements of a slice, both mutable.
fn pair_mut<T>(all: &mut [T], a: usize, b: usize) -> (&mut T, &mut T) {
    let (low, high) = all.split_at_mut(a.max(b));
    match a.cmp(&b) {
        Ordering::Less => (&mut low[a], &mut high[0]),
        _ => (&mut high[0], &mut low[b]),
    }
}
