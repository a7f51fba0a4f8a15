//! The connections of a whole mesh, one after the other on one thread, with the socket options of the library.
//!
//! There are no rules here for which connection is kept.

use std::{
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use serde_json::{Map, Value};

use super::link::{accept, dial, listen};
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
        // All links are closed. Then one server listens again and connects to all others.
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

/// Both ends of a new connection, after the number was sent and read.
fn connect(task: &Task, listener: &TcpListener) -> io::Result<[TcpStream; 2]> {
    let to = Some(listener.local_addr()?);
    let mut near = dial(&Task { to, ..task.clone() }, 1)?;
    let (far, _) = accept(task, listener)?;
    near.flush()?;
    Ok([near, far])
}
