//! A member of the mesh in a process of its own: a manager with default options, an application that answers, and permanent
//! round trips to the other members.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{CnxManager, Config, Handle, ReasonKind, Sid};
use serde_json::{Value, json};
use support::gate::Gate;

use crate::{OBSERVERS, role};

/// The pause between two round trips to the same member.
const PACE: Duration = Duration::from_millis(1);

/// A round trip that takes longer counts as lost: a newer frame may have replaced its frame.
const TIMEOUT: Duration = Duration::from_secs(2);

const FRAME_BYTES: usize = 64;
const PING: u8 = 1;
const PONG: u8 = 2;

/// What the threads of the member share.
#[derive(Default)]
struct Shared {
    /// The members to which round trips are made.
    targets: Mutex<Vec<Sid>>,
    /// Closed while the application must not receive.
    gate: Gate,
    round_trips: Mutex<RoundTrips>,
}

#[derive(Default)]
struct RoundTrips {
    /// In microseconds.
    micros: Vec<u64>,
    lost: u64,
}

pub(crate) fn run() {
    let mut manager = None;
    let shared = Arc::new(Shared::default());
    for order in role::orders() {
        let reply = match order["do"].as_str() {
            Some("start") => {
                let (started, ceiling) = start(&order);
                let started = Arc::new(started);
                let (pongs, answers) = channel();
                let (one, two) = (Arc::clone(&shared), Arc::clone(&shared));
                let (receiving, sending) = (Arc::clone(&started), started.handle());
                // Both end with the process.
                thread::spawn(move || answer_all(&receiving, &one, &pongs));
                thread::spawn(move || ask_all(&sending, &two, &answers));
                manager = Some(started);
                json!({ "max_memory": ceiling })
            }
            Some("ask") => {
                let sids = order["sids"].as_array().into_iter().flatten();
                *shared.targets.lock().unwrap() = sids.filter_map(Value::as_i64).map(Sid).collect();
                json!({})
            }
            Some("deaf") => {
                match order["yes"] == true {
                    true => shared.gate.close(),
                    false => shared.gate.open(),
                }
                json!({})
            }
            Some("lap") => {
                let round_trips = std::mem::take(&mut *shared.round_trips.lock().unwrap());
                json!({ "micros": round_trips.micros, "lost": round_trips.lost })
            }
            Some("stats") => stats(manager.as_ref().expect("the member was started")),
            other => panic!("no order: {other:?}"),
        };
        role::answer(&reply);
    }
}

fn start(order: &Value) -> (CnxManager, u64) {
    let sid = Sid(order["sid"].as_i64().expect("a sid"));
    let servers = order["servers"].as_array().expect("servers");
    let config = (1..).zip(servers).fold(
        Config::builder(sid).observers_max(OBSERVERS),
        |builder, (sid, address)| builder.server(Sid(sid), address.as_str().expect("text")),
    );
    let config = config.build().expect("the configuration is valid");
    let ceiling = config.max_memory();
    (
        CnxManager::start(config).expect("the manager starts"),
        ceiling,
    )
}

fn by_name(counts: &BTreeMap<ReasonKind, u64>) -> BTreeMap<&'static str, u64> {
    counts
        .iter()
        .map(|(kind, count)| (kind.name(), *count))
        .collect()
}

fn stats(manager: &CnxManager) -> Value {
    let stats = manager.stats();
    let members = stats.peers.iter().filter(|peer| peer.sid.0 >= 0);
    json!({
        "balances": stats.balances(),
        "connections": stats.connections,
        "pending": stats.pending,
        "accepted": stats.accepted,
        "accept_failures": stats.accept_failures,
        "knocks": stats.knocks,
        "rejected": by_name(&stats.rejected),
        "downs": by_name(&stats.downs),
        "dropped": stats.inbox.dropped,
        "received": stats.received.frames,
        "peers": stats.peers.len(),
        // A link that ended, even for a moment, changes these numbers.
        "members": members.map(|peer| json!([peer.sid.0, peer.linked, peer.ups, peer.downs.values().sum::<u64>(), peer.dials]))
            .collect::<Vec<_>>(),
    })
}

/// The application: answers pings, and passes pongs on.
fn answer_all(manager: &CnxManager, shared: &Shared, pongs: &Sender<(Sid, u64)>) {
    loop {
        shared.gate.pass();
        // With a timeout, so that it notices a pause even without messages.
        let Ok(message) = manager.recv_timeout(TIMEOUT) else {
            continue;
        };
        let Some((kind, number)) = parse(&message.payload) else {
            continue;
        };
        if kind == PONG {
            if pongs.send((message.from, number)).is_err() {
                return;
            }
        } else {
            // Fails for an observer that is unlinked.
            let _ = manager.to_send(message.from, frame(PONG, number));
        }
    }
}

/// Makes round trips to all targets, one after the other, until the manager halts.
fn ask_all(handle: &Handle, shared: &Shared, pongs: &Receiver<(Sid, u64)>) {
    for number in 0.. {
        // The pace: no test depends on it.
        thread::sleep(PACE);
        let targets = shared.targets.lock().unwrap().clone();
        for to in targets {
            let start = Instant::now();
            if handle.to_send(to, frame(PING, number)).is_err() {
                return;
            }
            let arrived = await_pong(pongs, (to, number));
            let mut round_trips = shared.round_trips.lock().unwrap();
            if arrived {
                round_trips.micros.push(start.elapsed().as_micros() as u64);
            } else {
                round_trips.lost += 1;
            }
        }
    }
}

fn await_pong(pongs: &Receiver<(Sid, u64)>, expected: (Sid, u64)) -> bool {
    let until = Instant::now() + TIMEOUT;
    loop {
        match pongs.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(pong) if pong == expected => return true,
            // A late pong, or a last frame that was sent once more.
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

fn frame(kind: u8, number: u64) -> Vec<u8> {
    let mut frame = vec![kind; FRAME_BYTES];
    frame[1..9].copy_from_slice(&number.to_be_bytes());
    frame
}

fn parse(payload: &[u8]) -> Option<(u8, u64)> {
    let (kind, rest) = payload.split_first()?;
    let number = rest.first_chunk()?;
    (payload.len() == FRAME_BYTES).then_some((*kind, u64::from_be_bytes(*number)))
}
