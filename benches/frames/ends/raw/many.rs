//! Ping-pong over one bare connection beside many idle ones.
//!
//! The idle ones are not registered with a readiness queue: only the kernel holds state for them.

use std::{
    io,
    net::TcpStream,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread,
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    latency,
    link::{Spinner, accept, dial, listen},
};
use crate::{
    ends::{Control, Task, workers::Workers},
    failure::failure,
    variants::Api,
};

/// The number of the busy connection. The idle ones have the numbers after it.
pub(crate) const BUSY: u64 = 2;

/// Time for the other end to accept all idle links.
const SETTLE: Duration = Duration::from_millis(300);

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let mut workers = Workers::default();
    let idle: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let (kept, owned, connected) = (Arc::clone(&idle), task.clone(), control.connected());
    workers.spawn("accepting", move || {
        loop {
            let (stream, number) = accept(&owned, &listener)?;
            if number == BUSY {
                connected.store(true, Ordering::Release);
                return latency::echo(Spinner::new(stream, owned.spins())?, owned.bytes());
            }
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(stream);
        }
    })?;
    control.ready(at);
    control.measure(&mut workers, || {})?;
    let held = idle.lock().unwrap_or_else(PoisonError::into_inner).len();
    if held < task.peers as usize {
        return Err(failure(format_args!(
            "only {held} of {} idle links came up",
            task.peers
        )));
    }
    Ok(Map::new())
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let _idle = idle_links(task)?;
    latency::drive(task, control)
}

/// Opens all idle links.
pub(crate) fn idle_links(task: &Task) -> io::Result<Vec<TcpStream>> {
    let numbers = (BUSY + 1..).take(task.peers as usize);
    let links = numbers.map(|number| dial(task, number)).collect();
    if task.variant.api == Api::Idle {
        thread::sleep(SETTLE);
    }
    links
}
