//! Starts the servers: managers, and one event loop that this program turns itself and that can die without a halt.
//!
//! Everything that happens is recorded in `seen`, which checks it.

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

/// Time between two values of a server.
const TICK: Duration = Duration::from_millis(10);

fn config(seen: &Seen, own: Sid) -> Result<Config, ConfigError> {
    let mut builder = Config::builder(own);
    for (sid, server) in &seen.lock().servers {
        builder = builder.server(*sid, &server.address);
    }
    if let Some(certificates) = &seen.certificates {
        builder = certificates.configure(own, builder);
    }
    builder.build()
}

/// Starts a manager: the loop has a thread of its own, and threads of the application send and receive.
pub(crate) fn start_manager(seen: &Arc<Seen>, own: Sid) -> Result<(), Box<dyn Error>> {
    let manager = CnxManager::start(config(seen, own)?)?;
    seen.lock().begin(own, manager.handle());
    let (events, seen_there) = (manager.events().clone(), Arc::clone(seen));
    thread::spawn(move || {
        while let Ok(event) = events.recv() {
            seen_there.lock().on_event(own, &event);
        }
    });
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        let mut next = Instant::now();
        while seen.lock().server(own).order != Order::Halt && !manager.is_halted() {
            let left = send_value(&seen, &manager.handle(), &mut next);
            if let Ok(message) = manager.recv_timeout(left) {
                seen.lock().on_frame(own, message.from, &message.payload);
            }
        }
        manager.halt();
        end(&seen, &manager.handle(), &manager.stats());
    });
    Ok(())
}

/// Starts the server that dies: an event loop that a thread of this program turns.
pub(crate) fn start_victim(seen: &Arc<Seen>, own: Sid) -> Result<(), Box<dyn Error>> {
    let handler = Victim(Arc::clone(seen));
    let mut event_loop = EventLoop::new(config(seen, own)?, handler)?;
    let handle = event_loop.handle().clone();
    seen.lock().begin(own, handle.clone());
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        let mut next = Instant::now();
        while let Ok(true) = event_loop.turn(Some(send_value(&seen, &handle, &mut next))) {
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
    /// On `Order::Die` the server dies here. A thread cannot be killed from outside. So it unwinds out of the turn, and skips
    /// everything that the loop was about to do: the rest of what was read is lost, nothing is answered, no event is emitted.
    /// `halt` is never called, which `has_died` confirms; a [`CnxManager`] would halt when it is dropped. The destructors that
    /// run finish the counters and close the sockets, as the kernel does for a process that is killed. This does not show a
    /// machine that fails without closing its connections.
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let mut state = self.0.lock();
        if state.server(handle.sid()).order == Order::Die {
            drop(state);
            // Not `panic!`, which would print something.
            panic::resume_unwind(Box::new("killed"));
        }
        state.on_frame(handle.sid(), from, &frame);
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        self.0.lock().on_event(handle.sid(), event);
    }
}

/// Sends a new value to all others if one is due and values still change. Returns the time until the next one.
fn send_value(seen: &Seen, handle: &Handle, next: &mut Instant) -> Duration {
    let own = handle.sid();
    if Instant::now() >= *next {
        *next += TICK;
        let value = seen.lock().next_value(own);
        for peer in sids().filter(|sid| *sid != own) {
            let Some(value) = &value else { break };
            if let Err(error) = handle.to_send(peer, value.clone()) {
                let why = format!("server {own} cannot send to {peer}: {error}");
                seen.lock().break_promise(Promise::Newest, why);
            }
        }
    }
    next.saturating_duration_since(Instant::now())
}

/// The server has ended: checks that its port is free, and adds its counters.
fn end(seen: &Seen, handle: &Handle, stats: &Stats) {
    let own = handle.sid();
    let mut state = seen.lock();
    if let Err(error) = TcpListener::bind(&state.server(own).address) {
        state.break_promise(Promise::Ports, format!("the port of server {own}: {error}"));
    }
    state.close(own, stats, stats.balances());
    state.server(own).is_over = handle.is_halted() && !handle.has_died();
}
