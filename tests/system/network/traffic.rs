//! The driver: sends frames from every member to every other, again and again.
//!
//! What happens to the frames is recorded in `ledger`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use support::program::Peer;

use crate::ledger::Ledger;

/// All members, with or without a process.
pub(crate) type Seats = BTreeMap<i64, Mutex<Option<Process>>>;

pub(crate) struct Process {
    pub(crate) peer: Peer,
    pub(crate) reader: JoinHandle<()>,
    /// True exactly when the process is stopped. It is given no frames, since it does not read commands.
    pub(crate) is_stopped: bool,
}

/// The thread of the driver. It ends when this is dropped.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_paused: AtomicBool,
    /// Members that neither send nor receive.
    left_out: Mutex<Vec<i64>>,
    /// Locked during a round.
    round: Mutex<()>,
}

impl Traffic {
    /// Sends a frame in each direction in each interval of `pace`.
    pub(crate) fn start(seats: Arc<Seats>, ledger: Arc<Mutex<Ledger>>, pace: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let (end, ended) = channel();
        let worker = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut due = Instant::now() + pace;
            loop {
                let left = due.saturating_duration_since(Instant::now());
                match ended.recv_timeout(left) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
                // Missed rounds are not repeated.
                due = Instant::now().max(due + pace);
                let _round = worker.round.lock().unwrap();
                if !worker.is_paused.load(Ordering::Relaxed) {
                    let left_out = worker.left_out.lock().unwrap();
                    let is_active = |member: &i64| !left_out.contains(member);
                    let active: Vec<i64> = seats.keys().copied().filter(is_active).collect();
                    for member in &active {
                        let mut process = seats[member].lock().unwrap();
                        let is_running = |process: &&mut Process| !process.is_stopped;
                        if let Some(process) = process.as_mut().filter(is_running) {
                            send_to_all(*member, process, &active, &ledger);
                        }
                    }
                }
            }
        });
        Self {
            shared,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// Pauses or continues. Returns when no round is under way.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.shared.is_paused.store(is_paused, Ordering::Relaxed);
        // Waits for the end of a round.
        drop(self.shared.round.lock().unwrap());
    }

    /// From now on these members neither send nor receive.
    pub(crate) fn leave_out(&self, members: &[i64]) {
        *self.shared.left_out.lock().unwrap() = members.to_vec();
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

/// Sends a frame from one member to each other one.
fn send_to_all(member: i64, process: &mut Process, all: &[i64], ledger: &Mutex<Ledger>) {
    let mut commands = String::new();
    let mut ledger = ledger.lock().unwrap();
    for to in all.iter().filter(|to| **to != member) {
        let text = ledger.next_frame(member, *to);
        let _ = writeln!(commands, "send {to} {text}");
    }
    drop(ledger);
    process.peer.tell(commands.trim_end());
}
