//! A manager in `select!`: its loop has a thread of its own, and a task receives.
//!
//! Nothing here blocks.

use std::{pin::pin, time::Duration};

use quorum_cnx::{CnxManager, Received};
use tokio::time;

/// How long frames may wait for a slow peer at the end.
const LINGER: Duration = Duration::from_secs(2);

/// The time between two looks at what waits.
const PAUSE: Duration = Duration::from_millis(5);

/// Sends each message back to its sender, until `shutdown` is ready or the loop has died. Returns the number of answers.
pub async fn serve(manager: &CnxManager, shutdown: impl Future<Output = ()>) -> u64 {
    let mut shutdown = pin!(shutdown);
    let mut answers = 0;
    loop {
        tokio::select! {
            // If the other branch is ready, this future is dropped: no message is lost.
            received = manager.recv_any_async() => match received {
                Ok(Received::Message(message)) => {
                    // `to_send` never blocks. An error means that the answer is not sent.
                    answers += u64::from(manager.to_send(message.from, message.payload).is_ok());
                }
                Ok(Received::Event(event)) => println!("{}: {event}", manager.sid()),
                Ok(_) => {}
                Err(_) => break,
            },
            () = &mut shutdown => break,
        }
    }
    halt(manager).await;
    answers
}

/// Halts the manager without blocking this thread: waits a while until its frames are written, and then until the loop has ended.
pub async fn halt(manager: &CnxManager) {
    // Frames for a peer that is not linked are not waited for.
    let are_waiting = || {
        let mut peers = manager.stats().peers.into_iter();
        peers.any(|peer| peer.link.is_some() && peer.sent.waiting > 0)
    };
    let written = async {
        while are_waiting() {
            time::sleep(PAUSE).await;
        }
    };
    let _ = time::timeout(LINGER, written).await;
    manager.request_halt();
    // The queue of events ends with the loop. When the manager is dropped, its thread is about to end.
    while manager.events().recv_async().await.is_ok() {}
}
