//! Members behind TCP proxies that acknowledge for a machine that is dead: it is back, and must be linked again.
//!
//! What comes to a server comes from its proxy's address, and what a server dials is a proxy.

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
use support::{Vacant, configure, eventually, listener, within};

const OWN: i64 = 5;
const SMALLER: i64 = 1;
const LARGER: i64 = 9;

/// A proxy: takes connections and hands them on, from an address of its own.
struct Proxy {
    address: String,
    /// The last byte of that address.
    source: Arc<AtomicU8>,
    lines: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
}

impl Proxy {
    fn before(to: &str) -> Self {
        let (listener, address) = listener();
        let to: SocketAddr = to.parse().unwrap();
        let proxy = Self {
            address,
            source: Arc::new(AtomicU8::new(6)),
            lines: Arc::default(),
        };
        let (source, lines) = (Arc::clone(&proxy.source), Arc::clone(&proxy.lines));
        thread::spawn(move || serve(&listener, to, &source, &lines));
        proxy
    }

    /// The machine behind has lost its power: nothing comes of it, what is sent to it is acknowledged, and nothing is closed.
    fn lose(&self) {
        for is_lost in self.lines.lock().unwrap().iter() {
            is_lost.store(true, Ordering::Release);
        }
    }

    /// Hands on from another address from now on.
    fn change(&self) {
        self.source.fetch_add(1, Ordering::AcqRel);
    }
}

fn serve(
    listener: &TcpListener,
    to: SocketAddr,
    source: &AtomicU8,
    lines: &Mutex<Vec<Arc<AtomicBool>>>,
) {
    for near in listener.incoming().flatten() {
        let from = Ipv4Addr::new(127, 0, 0, source.load(Ordering::Acquire));
        let Ok(far) = connect(from, to) else {
            continue;
        };
        let is_lost = Arc::new(AtomicBool::new(false));
        lines.lock().unwrap().push(Arc::clone(&is_lost));
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let is_lost = Arc::clone(&is_lost);
            thread::spawn(move || hand_on(from, to, &is_lost));
        }
    }
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, is_lost: &AtomicBool) {
    let mut stage = [0; 4096];
    loop {
        let n = from.read(&mut stage).unwrap_or(0);
        if is_lost.load(Ordering::Acquire) {
            if n == 0 {
                // The other way stands for as long as the process, as it would at a proxy without a time limit.
                return;
            }
        } else if n == 0 || to.write_all(&stage[..n]).is_err() {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            return;
        }
    }
}

/// A server and a peer, and a proxy before each.
struct World {
    sid: i64,
    ours: Arc<CnxManager>,
    theirs: Arc<CnxManager>,
    our_proxy: Proxy,
    their_proxy: Proxy,
    their_place: Vacant,
}

/// Who is there first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Ours,
    Theirs,
}

impl World {
    /// Both, linked.
    fn with(sid: i64, first: First, outbox: Outbox) -> Self {
        let (our_place, their_place) = (Vacant::new(), Vacant::new());
        let our_proxy = Proxy::before(&our_place.address);
        let their_proxy = Proxy::before(&their_place.address);
        let ours = [(OWN, our_place.address), (sid, their_proxy.address.clone())];
        let start_ours = move || {
            let config = configure(OWN, &ours).outbox(outbox).build().unwrap();
            Arc::new(CnxManager::start(config).unwrap())
        };
        let (ours, theirs);
        if first == First::Ours {
            ours = start_ours();
            theirs = start(sid, &our_proxy, &their_place);
        } else {
            theirs = start(sid, &our_proxy, &their_place);
            eventually("it has found nobody", || theirs.stats().dials >= 3);
            ours = start_ours();
        }
        let world = Self {
            sid,
            ours,
            theirs,
            our_proxy,
            their_proxy,
            their_place,
        };
        world.talk();
        world
    }

    /// Both hear of each other.
    fn talk(&self) {
        let (ours, theirs) = (&self.ours, &self.theirs);
        eventually("ours hears the other one", || {
            let _ = theirs.to_send(Sid(OWN), "to ours");
            ours.try_recv().is_ok()
        });
        eventually("the other one hears ours", || {
            let _ = ours.to_send(Sid(self.sid), "to theirs");
            theirs.try_recv().is_ok()
        });
    }

    /// The other one loses its power and is back, without a word to anybody.
    fn lose_power(&mut self) {
        self.our_proxy.lose();
        self.their_proxy.lose();
        let theirs = Arc::clone(&self.theirs);
        within("halting", move || theirs.halt());
        self.theirs = start(self.sid, &self.our_proxy, &self.their_place);
        while self.ours.try_recv().is_ok() {}
    }
}

fn start(sid: i64, our_proxy: &Proxy, their_place: &Vacant) -> Arc<CnxManager> {
    let servers = [(OWN, &our_proxy.address), (sid, &their_place.address)];
    let config = configure(sid, &servers).build().unwrap();
    Arc::new(CnxManager::start(config).unwrap())
}

#[test]
fn a_larger_member_that_is_back_behind_a_proxy_is_heard() {
    let mut world = World::with(LARGER, First::Ours, Outbox::Latest);
    world.lose_power();
    world.talk();
    let downs = world.ours.stats().downs;
    assert_eq!(downs.get(&ReasonKind::Replaced), Some(&1), "{downs:?}");
}

#[test]
fn a_smaller_member_that_is_back_behind_a_proxy_is_heard() {
    let mut world = World::with(SMALLER, First::Ours, Outbox::Latest);
    world.lose_power();
    world.talk();
    let downs = world.ours.stats().downs;
    assert_eq!(downs.get(&ReasonKind::Replaced), Some(&1), "{downs:?}");
}

#[test]
fn a_member_that_is_back_is_heard_though_frames_are_sent_to_the_dead() {
    for sid in [SMALLER, LARGER] {
        let mut world = World::with(sid, First::Ours, Outbox::QUEUE);
        let (stop, ours) = (Arc::new(AtomicBool::new(false)), Arc::clone(&world.ours));
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Acquire) {
                    let _ = ours.to_send(Sid(sid), vec![0; 1000]);
                    // Leaves the processor to the others.
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        world.lose_power();
        world.talk();
        stop.store(true, Ordering::Release);
        sender.join().unwrap();
    }
}

#[test]
fn a_proxy_may_come_from_elsewhere_each_time() {
    for sid in [SMALLER, LARGER] {
        let mut world = World::with(sid, First::Ours, Outbox::Latest);
        for _ in 0..2 {
            world.our_proxy.change();
            world.lose_power();
            world.talk();
        }
    }
}

#[test]
fn a_member_whose_knocks_were_never_heard_is_heard_when_it_is_back() {
    let mut world = World::with(SMALLER, First::Theirs, Outbox::Latest);
    world.lose_power();
    world.talk();
}
