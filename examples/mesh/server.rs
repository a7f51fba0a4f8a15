//! The two kinds of servers: a manager, and a loop in this program's own hands that can die without a halt.
//!
//! Nothing here judges; what happens is noted in `seen`.

use std::{
    error::Error,
    net::TcpListener,
    panic,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{
    CnxManager, Config, ConfigError, Event, EventLoop, Frame, Handle, Handler, Sid, Stats,
};

use crate::{
    seen::{Order, Promise, Seen},
    sids,
};

/// Time between two values.
const TICK: Duration = Duration::from_millis(10);

fn config(seen: &Seen, own: Sid) -> Result<Config, ConfigError> {
    let mut builder = Config::builder(own);
    for (sid, server) in &seen.lock().servers {
        builder = builder.server(*sid, &server.address);
    }
    builder.build()
}

/// A server as most are: the loop has a thread of its own, and the application's threads send and receive.
pub(crate) fn start_manager(seen: &Arc<Seen>, own: Sid) -> Result<(), Box<dyn Error>> {
    let manager = CnxManager::start(config(seen, own)?)?;
    seen.lock().begin(own, manager.handle());
    let (events, seen_there) = (manager.events().clone(), Arc::clone(seen));
    thread::spawn(move || {
        while let Ok(event) = events.recv() {
            seen_there.lock().note_event(own, &event);
        }
    });
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        let mut next = Instant::now();
        while seen.lock().server(own).order != Order::Halt && !manager.is_halted() {
            let left = hold_out(&seen, &manager.handle(), &mut next);
            if let Ok(message) = manager.recv_timeout(left) {
                seen.lock().note_frame(own, message.from, &message.payload);
            }
        }
        manager.halt();
        end(&seen, &manager.handle(), &manager.stats());
    });
    Ok(())
}

/// The server that dies: its loop is turned here.
pub(crate) fn start_victim(seen: &Arc<Seen>, own: Sid) -> Result<(), Box<dyn Error>> {
    let handler = Victim(Arc::clone(seen));
    let mut event_loop = EventLoop::new(config(seen, own)?, handler)?;
    let handle = event_loop.handle().clone();
    seen.lock().begin(own, handle.clone());
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        let mut next = Instant::now();
        while let Ok(true) = event_loop.turn(Some(hold_out(&seen, &handle, &mut next))) {
            if seen.lock().server(own).order == Order::Halt {
                handle.request_halt();
            }
        }
        end(&seen, &handle, &handle.stats());
    });
    Ok(())
}

struct Victim(Arc<Seen>);

impl Handler for Victim {
    /// The death is here. A thread cannot be killed from outside, so it unwinds out of the turn, past everything that the
    /// loop was about to do: the rest of what it has read is lost, nothing is answered, nobody is told. `halt` is never
    /// called, which `has_died` confirms; a [`CnxManager`] would halt when it is dropped. The destructors on the way close
    /// the accounts for this process and, towards the peers, do nothing but close the sockets, as the kernel does for a
    /// process that is killed. What cannot be seen here is a machine that is gone without closing anything.
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let mut state = self.0.lock();
        if state.server(handle.sid()).order == Order::Die {
            drop(state);
            // Not `panic!`, which would print something.
            panic::resume_unwind(Box::new("killed"));
        }
        state.note_frame(handle.sid(), from, &frame);
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        self.0.lock().note_event(handle.sid(), event);
    }
}

/// Gives a new value to everybody if it is time for one, as long as values change, and says when the next is due.
fn hold_out(seen: &Seen, handle: &Handle, next: &mut Instant) -> Duration {
    let own = handle.sid();
    if Instant::now() >= *next {
        *next += TICK;
        let value = seen.lock().next_value(own);
        for peer in sids().filter(|sid| *sid != own) {
            let Some(value) = &value else { break };
            if let Err(error) = handle.to_send(peer, value.clone()) {
                let why = format!("server {own} cannot send to {peer}: {error}");
                seen.lock().blame(Promise::Newest, why);
            }
        }
    }
    next.saturating_duration_since(Instant::now())
}

/// It has halted: its accounts are closed, and its port is free.
fn end(seen: &Seen, handle: &Handle, stats: &Stats) {
    let own = handle.sid();
    let mut state = seen.lock();
    if let Err(error) = TcpListener::bind(&state.server(own).address) {
        state.blame(Promise::Ports, format!("that of server {own}: {error}"));
    }
    state.close(own, stats, stats.balances());
    state.server(own).is_over = handle.is_halted() && !handle.has_died();
}
