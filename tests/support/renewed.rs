//! Streams in both directions at full rate over a link that is renewed again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use quorum_cnx::{
    Batch, CnxManager, ConfigBuilder, Event, InboxFull, InitialMessageVersion, Outbox, Reason,
    SendError, Sid,
};

use crate::{
    LONG, Mesh, eventually,
    pair::{number_of, numbered},
};

/// Mostly small; some are longer than a TLS record, some than what a socket takes at once.
fn len_of(number: u64) -> usize {
    match number % 500 {
        0 => 400_000,
        1..10 => 20_000,
        _ => 8 + number as usize % 200,
    }
}

/// The configuration of both members: no frame is dropped, and their link can be renewed in order.
pub fn lossless(builder: ConfigBuilder) -> ConfigBuilder {
    builder
        .outbox(Outbox::QUEUE)
        .inbox_full(InboxFull::PushBack)
        .initial_message(InitialMessageVersion::Native)
}

/// Has the member at this place renew the link of a mesh of two so often, and checks that every frame arrives once and in order.
pub fn check(mesh: Mesh, renewing: usize, times: u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let received = [0, 1].map(|_| Arc::new(AtomicU64::new(0)));
    let sids = [0, 1].map(|at: usize| mesh.managers[at].sid());
    let sending = [0, 1].map(|at: usize| {
        let (handle, stop, to) = (mesh.managers[at].handle(), stop.clone(), sids[1 - at]);
        thread::spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                match handle.to_send_slice(to, &numbered(number, len_of(number))) {
                    Ok(_) => number += 1,
                    Err(SendError::Full) => drop(handle.wait_for_room(to, LONG)),
                    Err(error) => panic!("frame {number}: {error}"),
                }
            }
            number
        })
    });
    let receiving = [0, 1].map(|at: usize| {
        let (manager, received) = (mesh.managers[at].clone(), received[at].clone());
        thread::spawn(move || {
            let mut batch = Batch::new();
            while manager.recv_all(&mut batch).is_ok() {
                for (_, payload) in &batch {
                    let next = received.load(Ordering::Relaxed);
                    assert_eq!(number_of(payload), next, "lost, twice, or out of order");
                    assert_eq!(payload.len(), len_of(next));
                    received.store(next + 1, Ordering::Relaxed);
                }
            }
        })
    });
    let flow = || {
        for received in &received {
            let before = received.load(Ordering::Relaxed);
            eventually("frames arrive", || {
                received.load(Ordering::Relaxed) > before + 2000
            });
        }
    };
    flow();
    for renewals in 1..=times {
        mesh.managers[renewing].handle().renew();
        for manager in &mesh.managers {
            eventually("the link is a new one, and the old one has ended", || {
                let stats = manager.stats();
                (stats.ups, stats.connections) == (renewals + 1, 1)
            });
        }
        flow();
    }
    stop.store(true, Ordering::Relaxed);
    let sent = sending.map(|thread| thread.join().unwrap());
    for at in [0, 1] {
        eventually("all frames have arrived", || {
            received[1 - at].load(Ordering::Relaxed) == sent[at]
        });
        assert_eq!(downs(&mesh.managers[at], sids[1 - at]), times);
        assert!(mesh.managers[at].stats().balances());
    }
    for manager in &mesh.managers {
        manager.halt();
    }
    for thread in receiving {
        thread.join().unwrap();
    }
}

/// How many links have ended. All were replaced.
fn downs(manager: &CnxManager, of: Sid) -> u64 {
    let mut count = 0;
    while let Ok(event) = manager.events().try_recv() {
        if let Event::Down { sid, reason, .. } = event {
            assert_eq!((sid, reason), (of, Reason::Replaced));
            count += 1;
        }
    }
    count
}
