//! Turns loops in simulated time.
//!
//! Nothing here looks into a loop: its public methods say when it is due.

use std::{io, time::Duration};

use super::{net::HostNet, network::Network};
use crate::{event_loop::EventLoop, handler::Handler};

/// The time that one round of turns takes, if anything happened in it. So a message and its answer take time, and two loops that
/// answer each other for ever reach the end of a run.
const ROUND: Duration = Duration::from_micros(100);

impl Network {
    /// Turns these loops, and moves the clock, until this time has passed.
    ///
    /// In each round every loop runs one turn, in order. If something happened, 0.1 ms pass before the next round. Otherwise the
    /// clock moves to the next deadline of a loop or of a connection. So an hour in which nothing happens takes no time.
    ///
    /// A loop that has halted is not turned any more.
    ///
    /// # Errors
    ///
    /// The errors of [`EventLoop::turn`].
    pub fn run<H: Handler>(
        &self,
        loops: &mut [EventLoop<H, HostNet>],
        time: Duration,
    ) -> io::Result<()> {
        self.run_until(loops, time, |_| false).map(|_| ())
    }

    /// The same, until `is_done` returns `true` after a round. Returns whether it did.
    ///
    /// # Errors
    ///
    /// The errors of [`EventLoop::turn`].
    pub fn run_until<H: Handler>(
        &self,
        loops: &mut [EventLoop<H, HostNet>],
        time: Duration,
        mut is_done: impl FnMut(&mut [EventLoop<H, HostNet>]) -> bool,
    ) -> io::Result<bool> {
        let end = self.elapsed() + time;
        loop {
            let before = self.shared.lock().changes;
            let mut due = Duration::MAX;
            for event_loop in &mut *loops {
                // What a later loop does to this one is an event, for which no deadline is needed.
                if event_loop.turn(Some(Duration::ZERO))? {
                    due = due.min(event_loop.timeout().unwrap_or(Duration::MAX));
                }
            }
            if is_done(loops) {
                return Ok(true);
            }
            let now = self.elapsed();
            if now >= end {
                return Ok(false);
            }
            let state = self.shared.lock();
            let happened = state.changes != before || due.is_zero();
            let until_deadline = state.deadline().map_or(Duration::MAX, |at| at - now);
            drop(state);
            let step = if happened {
                ROUND
            } else {
                due.min(until_deadline)
            };
            self.advance(step.min(end - now));
        }
    }
}
