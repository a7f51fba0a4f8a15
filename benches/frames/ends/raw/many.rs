//! A ping-pong over one bare connection beside many on which nothing happens.
//!
//! Nobody watches the idle ones: they are what the kernel needs for them, and nothing else.

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
    link::{Spinner, dial, listen, take},
};
use crate::{
    ends::{Control, Task, workers::Workers},
    failure::failure,
    variants::Way,
};

/// Who is busy says this number; those who are not say the following ones.
pub(crate) const BUSY: u64 = 2;

/// How long the far end may take to have all idle links.
const SETTLE: Duration = Duration::from_millis(300);

pub(super) fn serve(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let (listener, at) = listen(task)?;
    let mut workers = Workers::default();
    let idle: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let (kept, owned, connected) = (Arc::clone(&idle), task.clone(), control.connected());
    workers.spawn("accepting", move || {
        loop {
            let (stream, number) = take(&owned, &listener)?;
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
            "only {held} of {} idle links came",
            task.peers
        )));
    }
    Ok(Map::new())
}

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let _idle = idle_links(task)?;
    latency::drive(task, control)
}

/// Opens all links on which nothing will happen.
pub(crate) fn idle_links(task: &Task) -> io::Result<Vec<TcpStream>> {
    let numbers = (BUSY + 1..).take(task.peers as usize);
    let links = numbers.map(|number| dial(task, number)).collect();
    if task.variant.way == Way::Idle {
        thread::sleep(SETTLE);
    }
    links
}
