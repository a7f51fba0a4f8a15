//! Turns loops in simulated time.
//!
//! Nothing here looks into a loop: its public methods say when it is due, and its host says whether it runs.

use std::{io, time::Duration};

use super::{net::HostNet, network::Network, state::NOW_MAX};
use crate::{event_loop::EventLoop, handle::Handle, handler::Handler, shared::Life};

/// The time that one round of turns takes, if anything happened in it. So a message and its answer take time, and two loops that
/// answer each other for ever reach the end of a run.
const ROUND: Duration = Duration::from_micros(100);

/// More rounds than any number of loops takes to do what is due at one time.
const ROUNDS_MAX: u32 = 10_000;

impl Network {
    /// Turns these loops, and moves the clock, until this time has passed.
    ///
    /// In each round every loop runs one turn, in the order of the slice. If something happened, 0.1 ms pass before the next round. Otherwise the
    /// clock moves to the next deadline of a loop or of a connection. So an hour in which nothing happens takes no time.
    ///
    /// A loop that has halted is not turned any more. Nor is a loop whose host has lost power ([`Host::power_off`]): its handle reports
    /// that it [has died](crate::Handle::has_died), and refuses to send. The other loops go on.
    ///
    /// # Errors
    ///
    /// The errors of [`EventLoop::turn`], with the sid of the server and the address of its host.
    ///
    /// [`Host::power_off`]: super::Host::power_off
    pub fn run<H: Handler>(
        &self,
        loops: &mut [EventLoop<H, HostNet>],
        time: Duration,
    ) -> io::Result<()> {
        self.run_until(loops, time, |_| false).map(|_| ())
    }

    /// Does what [`run`](Self::run) does, until `is_done` returns `true` after a round. Returns whether it did. `Duration::MAX` means no limit but the 100 years
    /// after which the clock stops.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn run_until<H: Handler>(
        &self,
        loops: &mut [EventLoop<H, HostNet>],
        time: Duration,
        is_done: impl FnMut(&mut [EventLoop<H, HostNet>]) -> bool,
    ) -> io::Result<bool> {
        self.run_until_with(loops, time, Duration::MAX, |_, _| {}, is_done)
    }

    /// Does what [`run`](Self::run) does, and calls `tick` for each loop that runs, in order, once every `every` of simulated time: the
    /// timer of a protocol.
    ///
    /// The times are the multiples of `every` since the network was created. So a second has ten ticks of 100 ms, whether it is one
    /// run or several. At the end of a run, a tick that is due is called, and what it sends is written.
    ///
    /// `tick` has the arguments of a method of the handler, such as `Server::on_tick`. The [module](super#timers) has an example, and
    /// [How to](crate::how_to#test-an-application) says what calls the same method in production.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// If `every` is zero.
    pub fn run_with<H: Handler>(
        &self,
        loops: &mut [EventLoop<H, HostNet>],
        time: Duration,
        every: Duration,
        tick: impl FnMut(&mut H, &Handle),
    ) -> io::Result<()> {
        self.run_until_with(loops, time, every, tick, |_| false)
            .map(|_| ())
    }

    /// Does what [`run_with`](Self::run_with) does, until `is_done` returns `true` after a round. Returns whether it did.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// If `every` is zero.
    pub fn run_until_with<H: Handler>(
        &self,
        loops: &mut [EventLoop<H, HostNet>],
        time: Duration,
        every: Duration,
        mut tick: impl FnMut(&mut H, &Handle),
        mut is_done: impl FnMut(&mut [EventLoop<H, HostNet>]) -> bool,
    ) -> io::Result<bool> {
        let end = self.elapsed().saturating_add(time).min(NOW_MAX);
        let mut next_tick = next_multiple(every, self.elapsed());
        loop {
            let before = self.changes();
            let due = turn_all(loops)?;
            if is_done(loops) {
                return Ok(true);
            }
            let now = self.elapsed();
            if now >= end {
                return Ok(false);
            }
            let step = if self.changes() != before || due.is_zero() {
                ROUND
            } else {
                let deadline = self.shared.lock().deadline();
                due.min(deadline.map_or(Duration::MAX, |at| at - now))
            };
            self.advance(step.min(end.min(next_tick).saturating_sub(now)));
            if self.elapsed() >= next_tick {
                tick_all(loops, &mut tick);
                next_tick = next_multiple(every, self.elapsed());
            }
        }
    }

    /// Turns these loops, as [`run`](Self::run) does, until nothing is ready, without moving the clock.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run), and an error after 10 000 rounds, for example if two loops answer each other for ever.
    pub fn settle<H: Handler>(&self, loops: &mut [EventLoop<H, HostNet>]) -> io::Result<()> {
        for _ in 0..ROUNDS_MAX {
            let before = self.changes();
            let due = turn_all(loops)?;
            if self.changes() == before && !due.is_zero() {
                return Ok(());
            }
        }
        Err(io::Error::other(
            "the loops still have something to do after 10 000 rounds: do two of them answer each other for ever?",
        ))
    }

    fn changes(&self) -> u64 {
        self.shared.lock().changes
    }
}

/// Turns each loop that runs once. Returns the time until the next one is due: what one loop does to another is an event, and is not due at a
/// time.
fn turn_all<H: Handler>(loops: &mut [EventLoop<H, HostNet>]) -> io::Result<Duration> {
    let mut due = Duration::MAX;
    for event_loop in loops {
        if !event_loop.net().runs() {
            // As if it were dropped: a call to send with its handle returns an error from now on.
            event_loop.handle().shared().end(Life::Died);
            continue;
        }
        let turned = event_loop.turn(Some(Duration::ZERO));
        if turned.map_err(|error| of_server(event_loop, &error))? {
            due = due.min(event_loop.timeout().unwrap_or(Duration::MAX));
        }
    }
    Ok(due)
}

/// Calls `tick` for each loop that runs.
fn tick_all<H: Handler>(
    loops: &mut [EventLoop<H, HostNet>],
    mut tick: impl FnMut(&mut H, &Handle),
) {
    for event_loop in loops {
        let handle = event_loop.handle().clone();
        if event_loop.net().runs() && !handle.is_halted() {
            tick(event_loop.handler_mut(), &handle);
        }
    }
}

/// The first multiple of `every` after `now`.
fn next_multiple(every: Duration, now: Duration) -> Duration {
    assert!(!every.is_zero(), "the time between two ticks is zero");
    let passed = now.as_nanos() % every.as_nanos();
    let rest = every - Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX));
    now.saturating_add(rest)
}

/// The error of a loop, with the server that it concerns.
fn of_server<H: Handler>(event_loop: &EventLoop<H, HostNet>, error: &io::Error) -> io::Error {
    let sid = event_loop.handle().sid();
    let text = match event_loop.net().ip() {
        Some(ip) => format!("server {sid} at {ip}: {error}"),
        None => format!("server {sid}: {error}"),
    };
    io::Error::new(error.kind(), text)
}
