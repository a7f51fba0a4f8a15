//! A member of the mesh, in a process of its own: a manager with the defaults, an application that answers, and round trips
//! to the other members all the time.
//!
//! Nothing here knows of strangers: what they send is received like anything else.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{CnxManager, Config, Handle, ReasonKind, Sid};
use serde_json::{Value, json};

use crate::{OBSERVERS, role};

/// Between two round trips to the same member.
const PACE: Duration = Duration::from_millis(1);

/// A round trip that takes longer is lost: a newer frame may have replaced it.
const PATIENCE: Duration = Duration::from_secs(2);

const FRAME_BYTES: usize = 64;
const PING: u8 = 1;
const PONG: u8 = 2;

/// What the threads of the member have in common.
#[derive(Default)]
struct Desk {
    /// Whom to ask.
    targets: Mutex<Vec<Sid>>,
    /// True exactly when the application is not to receive.
    deaf: Mutex<bool>,
    hears: Condvar,
    lap: Mutex<Lap>,
}

#[derive(Default)]
struct Lap {
    /// Round trips.
    micros: Vec<u64>,
    lost: u64,
}

pub(crate) fn run() {
    let mut manager = None;
    let desk = Arc::new(Desk::default());
    for order in role::orders() {
        let reply = match order["do"].as_str() {
            Some("start") => {
                let (started, ceiling) = start(&order);
                let started = Arc::new(started);
                let (pongs, answers) = channel();
                let (one, two) = (Arc::clone(&desk), Arc::clone(&desk));
                let (receiving, sending) = (Arc::clone(&started), started.handle());
                // Both end with the process.
                thread::spawn(move || answer_all(&receiving, &one, &pongs));
                thread::spawn(move || ask_all(&sending, &two, &answers));
                manager = Some(started);
                json!({ "max_memory": ceiling })
            }
            Some("ask") => {
                let sids = order["sids"].as_array().into_iter().flatten();
                *desk.targets.lock().unwrap() = sids.filter_map(Value::as_i64).map(Sid).collect();
                json!({})
            }
            Some("deaf") => {
                *desk.deaf.lock().unwrap() = order["yes"] == true;
                desk.hears.notify_all();
                json!({})
            }
            Some("lap") => {
                let lap = std::mem::take(&mut *desk.lap.lock().unwrap());
                json!({ "micros": lap.micros, "lost": lap.lost })
            }
            Some("stats") => stats(manager.as_ref().expect("it was started")),
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
    let config = config.build().expect("it can work");
    let ceiling = config.max_memory();
    (CnxManager::start(config).expect("it starts"), ceiling)
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
        // Whoever was cut off, even for a moment, shows here.
        "members": members.map(|peer| json!([peer.sid.0, peer.linked, peer.ups, peer.downs, peer.dials]))
            .collect::<Vec<_>>(),
    })
}

/// The application.
fn answer_all(manager: &CnxManager, desk: &Desk, pongs: &Sender<(Sid, u64)>) {
    loop {
        let deaf = desk.deaf.lock().unwrap();
        drop(desk.hears.wait_while(deaf, |deaf| *deaf).unwrap());
        // So that it hears of its deafness also when nobody speaks.
        let Ok(message) = manager.recv_timeout(PATIENCE) else {
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
            // An observer that is gone cannot be answered.
            let _ = manager.to_send(message.from, frame(PONG, number));
        }
    }
}

/// Round trips to all targets, one after the other, as long as somebody answers.
fn ask_all(handle: &Handle, desk: &Desk, pongs: &Receiver<(Sid, u64)>) {
    for number in 0.. {
        // The pace, and nothing that anybody waits for.
        thread::sleep(PACE);
        let targets = desk.targets.lock().unwrap().clone();
        for to in targets {
            let begun = Instant::now();
            if handle.to_send(to, frame(PING, number)).is_err() {
                return;
            }
            let arrived = await_pong(pongs, (to, number));
            let mut lap = desk.lap.lock().unwrap();
            if arrived {
                lap.micros.push(begun.elapsed().as_micros() as u64);
            } else {
                lap.lost += 1;
            }
        }
    }
}

fn await_pong(pongs: &Receiver<(Sid, u64)>, expected: (Sid, u64)) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        match pongs.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(pong) if pong == expected => return true,
            // Late, or a last frame that was sent once more.
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
