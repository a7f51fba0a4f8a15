//! Tests members behind TCP proxies that acknowledge for a dead machine: after a restart the member must be linked again.
//!
//! Each server is dialed through a proxy, and accepts connections from the address of its proxy.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use quorum_cnx::{CnxManager, Outbox, ReasonKind, Sid};
use socket2::{Domain, Protocol, Socket, Type};
use support::{ReservedAddress, configure, eventually, listener, within};

const OWN: i64 = 5;
const SMALLER: i64 = 1;
const LARGER: i64 = 9;

/// A TCP proxy with a source address of its own.
struct Proxy {
    address: String,
    /// The last byte of that address.
    source: Arc<AtomicU8>,
    connections: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
}

impl Proxy {
    fn before(to: &str) -> Self {
        let (listener, address) = listener();
        let to: SocketAddr = to.parse().unwrap();
        let proxy = Self {
            address,
            source: Arc::new(AtomicU8::new(6)),
            connections: Arc::default(),
        };
        let (source, connections) = (Arc::clone(&proxy.source), Arc::clone(&proxy.connections));
        thread::spawn(move || serve(&listener, to, &source, &connections));
        proxy
    }

    /// From now on the machine behind the proxy is dead: it sends nothing, the proxy acknowledges what is sent to it, and no
    /// connection is closed.
    fn cut_power(&self) {
        for is_dead in self.connections.lock().unwrap().iter() {
            is_dead.store(true, Ordering::Release);
        }
    }

    /// Changes the source address for new connections.
    fn change_source(&self) {
        self.source.fetch_add(1, Ordering::AcqRel);
    }
}

fn serve(
    listener: &TcpListener,
    to: SocketAddr,
    source: &AtomicU8,
    connections: &Mutex<Vec<Arc<AtomicBool>>>,
) {
    for inbound in listener.incoming().flatten() {
        let from = Ipv4Addr::new(127, 0, 0, source.load(Ordering::Acquire));
        let Ok(outbound) = connect(from, to) else {
            continue;
        };
        let is_dead = Arc::new(AtomicBool::new(false));
        connections.lock().unwrap().push(Arc::clone(&is_dead));
        for (from, to) in [(&inbound, &outbound), (&outbound, &inbound)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let is_dead = Arc::clone(&is_dead);
            thread::spawn(move || forward(from, to, &is_dead));
        }
    }
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn forward(mut from: TcpStream, mut to: TcpStream, is_dead: &AtomicBool) {
    let mut buffer = [0; 4096];
    loop {
        let n = from.read(&mut buffer).unwrap_or(0);
        if is_dead.load(Ordering::Acquire) {
            if n == 0 {
                // The other direction stays open, as at a proxy without a time limit.
                return;
            }
        } else if n == 0 || to.write_all(&buffer[..n]).is_err() {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            return;
        }
    }
}

/// A server and a peer, each behind a proxy.
struct ProxiedPair {
    sid: i64,
    ours: Arc<CnxManager>,
    theirs: Arc<CnxManager>,
    our_proxy: Proxy,
    their_proxy: Proxy,
    their_address: ReservedAddress,
}

/// Which of the two is started first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Ours,
    Theirs,
}

impl ProxiedPair {
    /// Starts both, and waits until they are linked.
    fn with(sid: i64, first: First, outbox: Outbox) -> Self {
        let (our_address, their_address) = (ReservedAddress::new(), ReservedAddress::new());
        let our_proxy = Proxy::before(&our_address.address);
        let their_proxy = Proxy::before(&their_address.address);
        let ours = [
            (OWN, our_address.address),
            (sid, their_proxy.address.clone()),
        ];
        let start_ours = move || {
            let config = configure(OWN, &ours).outbox(outbox).build().unwrap();
            Arc::new(CnxManager::start(config).unwrap())
        };
        let (ours, theirs);
        if first == First::Ours {
            ours = start_ours();
            theirs = start(sid, &our_proxy, &their_address);
        } else {
            theirs = start(sid, &our_proxy, &their_address);
            eventually("the peer has dialed in vain", || theirs.stats().dials >= 3);
            ours = start_ours();
        }
        let pair = Self {
            sid,
            ours,
            theirs,
            our_proxy,
            their_proxy,
            their_address,
        };
        pair.exchange_frames();
        pair
    }

    /// Waits until frames arrive in both directions.
    fn exchange_frames(&self) {
        let (ours, theirs) = (&self.ours, &self.theirs);
        eventually("a frame arrives at our server", || {
            let _ = theirs.to_send(Sid(OWN), "to ours");
            ours.try_recv().is_ok()
        });
        eventually("a frame arrives at the peer", || {
            let _ = ours.to_send(Sid(self.sid), "to theirs");
            theirs.try_recv().is_ok()
        });
    }

    /// The machine of the peer loses power without closing its connections, and restarts.
    fn lose_power(&mut self) {
        self.our_proxy.cut_power();
        self.their_proxy.cut_power();
        let theirs = Arc::clone(&self.theirs);
        within("halting", move || theirs.halt());
        self.theirs = start(self.sid, &self.our_proxy, &self.their_address);
        while self.ours.try_recv().is_ok() {}
    }
}

fn start(sid: i64, our_proxy: &Proxy, their_address: &ReservedAddress) -> Arc<CnxManager> {
    let servers = [(OWN, &our_proxy.address), (sid, &their_address.address)];
    let config = configure(sid, &servers).build().unwrap();
    Arc::new(CnxManager::start(config).unwrap())
}

#[test]
fn restarted_member_behind_a_proxy_is_relinked() {
    for sid in [SMALLER, LARGER] {
        let mut pair = ProxiedPair::with(sid, First::Ours, Outbox::Latest);
        pair.lose_power();
        pair.exchange_frames();
        let downs = pair.ours.stats().downs;
        assert_eq!(
            downs.get(&ReasonKind::Replaced),
            Some(&1),
            "{sid}: {downs:?}"
        );
    }
}

#[test]
fn restarted_member_is_relinked_while_frames_are_sent() {
    for sid in [SMALLER, LARGER] {
        let mut pair = ProxiedPair::with(sid, First::Ours, Outbox::QUEUE);
        let (stop, ours) = (Arc::new(AtomicBool::new(false)), Arc::clone(&pair.ours));
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Acquire) {
                    let _ = ours.to_send(Sid(sid), vec![0; 1000]);
                    // Leaves the processor to the other threads.
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        pair.lose_power();
        pair.exchange_frames();
        stop.store(true, Ordering::Release);
        sender.join().unwrap();
    }
}

#[test]
fn restarted_member_is_relinked_from_a_new_proxy_address() {
    for sid in [SMALLER, LARGER] {
        let mut pair = ProxiedPair::with(sid, First::Ours, Outbox::Latest);
        for _ in 0..2 {
            pair.our_proxy.change_source();
            pair.lose_power();
            pair.exchange_frames();
        }
    }
}

#[test]
fn member_that_knocked_in_vain_is_relinked_after_a_restart() {
    let mut pair = ProxiedPair::with(SMALLER, First::Theirs, Outbox::Latest);
    pair.lose_power();
    pair.exchange_frames();
}
