//! The driver: gives every member a frame for every other, again and again.
//!
//! Nothing here looks at what becomes of them.

use std::{
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

/// The place of a member, with its process or without.
pub(crate) struct Seat {
    pub(crate) member: i64,
    pub(crate) process: Mutex<Option<Process>>,
}

pub(crate) struct Process {
    pub(crate) peer: Peer,
    pub(crate) reader: JoinHandle<()>,
    /// True exactly when it was told to stand still: it is given nothing, since it would not take it.
    pub(crate) is_stopped: bool,
}

/// A thread that gives frames; it ends when dropped.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_paused: AtomicBool,
    /// Who is given nothing, and for whom nobody is.
    left_out: Mutex<Vec<i64>>,
    /// Held during a round.
    round: Mutex<()>,
}

impl Traffic {
    /// Each way gets a frame in each `pace`.
    pub(crate) fn start(seats: Arc<Vec<Seat>>, ledger: Arc<Mutex<Ledger>>, pace: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let (end, ended) = channel();
        let here = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut due = Instant::now() + pace;
            loop {
                let left = due.saturating_duration_since(Instant::now());
                match ended.recv_timeout(left) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
                // What was missed is not made up for.
                due = Instant::now().max(due + pace);
                let _round = here.round.lock().unwrap();
                if !here.is_paused.load(Ordering::Relaxed) {
                    let left_out = here.left_out.lock().unwrap();
                    let is_in = |seat: &&Seat| !left_out.contains(&seat.member);
                    let talkers: Vec<&Seat> = seats.iter().filter(is_in).collect();
                    for seat in &talkers {
                        give(seat, &talkers, &ledger);
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

    /// From now on nothing is given, or again.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.shared.is_paused.store(is_paused, Ordering::Relaxed);
        // A round that has begun is waited for.
        drop(self.shared.round.lock().unwrap());
    }

    /// From now on these are given nothing, nor is anybody for them.
    pub(crate) fn leave_out(&self, members: &[i64]) {
        *self.shared.left_out.lock().unwrap() = members.to_vec();
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and the test has waited in vain.
            let _ = thread.join();
        }
    }
}

/// A frame for each other member.
fn give(seat: &Seat, all: &[&Seat], ledger: &Mutex<Ledger>) {
    let mut process = seat.process.lock().unwrap();
    let Some(process) = process.as_mut().filter(|process| !process.is_stopped) else {
        return;
    };
    let mut commands = String::new();
    {
        let mut ledger = ledger.lock().unwrap();
        for to in all.iter().map(|seat| seat.member) {
            if to != seat.member {
                let text = ledger.give(seat.member, to);
                let _ = writeln!(commands, "send {to} {text}");
            }
        }
    }
    process.peer.tell(commands.trim_end());
}
