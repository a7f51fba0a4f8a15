//! The connects and accepts of a whole mesh, one after the other on one thread, with the options of the library.
//!
//! Nobody decides here who keeps which connection.

use std::{
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use serde_json::{Map, Value};

use super::link::{dial, listen, take};
use crate::ends::{Control, Task, meshes};

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let options = task.clone();
    meshes::measure(control, move |full, reform| {
        let start = Instant::now();
        let mut listeners = Vec::new();
        for _ in 0..options.peers {
            listeners.push(listen(&options)?.0);
        }
        let mut links = Vec::new();
        for dialer in 1..options.peers as usize {
            for listener in &listeners[..dialer] {
                links.extend(connect(&options, listener)?);
            }
        }
        full.record(start.elapsed());
        // Everybody hangs up, the last one comes back and is linked to all others.
        drop(links);
        let start = Instant::now();
        let (_listener, others) = (listen(&options)?, &listeners[1..]);
        let mut links = Vec::new();
        for listener in others {
            links.extend(connect(&options, listener)?);
        }
        reform.record(start.elapsed());
        Ok(())
    })
}

/// Both ends of a new connection, of which each has said its number or heard it.
fn connect(task: &Task, listener: &TcpListener) -> io::Result<[TcpStream; 2]> {
    let to = Some(listener.local_addr()?);
    let mut near = dial(&Task { to, ..task.clone() }, 1)?;
    let (far, _) = take(task, listener)?;
    near.flush()?;
    Ok([near, far])
}
