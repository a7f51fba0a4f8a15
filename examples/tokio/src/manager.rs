//! A manager in `select!`: its loop has a thread of its own, and a task receives.
//!
//! Nothing here blocks.

use std::{pin::pin, time::Duration};

use quorum_cnx::{CnxManager, Received};

/// How long a slow peer may take to read its last frames.
const LINGER: Duration = Duration::from_secs(2);

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

/// Halts the manager without blocking this thread. Before that, waits a while until each peer has read all frames for it.
pub async fn halt(manager: &CnxManager) {
    manager.request_shutdown(LINGER);
    // What still arrives is taken: while the inbox is full, links are not read, and their ends are not seen. When the manager is dropped,
    // its thread is about to end.
    while manager.recv_any_async().await.is_ok() {}
}
