//! Managers in one process that link to each other. Then one is halted and started again.
//!
//! No frame is sent.

use std::{
    io,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{CnxManager, Config, Sid};
use serde_json::{Map, Value};

use crate::{
    ends::{Control, Task, meshes},
    failure::{While, failure},
};

/// How often the links are counted.
const POLL_INTERVAL: Duration = Duration::from_micros(50);

/// Timeout; only a failure takes this long.
const LONG: Duration = Duration::from_secs(20);

pub(super) fn drive(task: &Task, control: &Control) -> io::Result<Map<String, Value>> {
    let servers = task.peers as usize;
    if servers < 2 {
        return Err(failure("a mesh needs --peers 2 or more"));
    }
    meshes::measure(control, move |full, reform| {
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..servers {
            let socket = TcpListener::bind("127.0.0.1:0").context("listening on 127.0.0.1")?;
            addresses.push(socket.local_addr()?.to_string());
            sockets.push(socket);
        }
        let begun = Instant::now();
        let mut managers = Vec::new();
        for (at, socket) in sockets.into_iter().enumerate() {
            managers.push(start(&addresses, at, Some(socket))?);
        }
        wait_linked(&managers, servers - 1)?;
        full.record(begun.elapsed());
        // It has larger and smaller peers, if there are at least three managers.
        let middle = servers / 2;
        drop(managers.remove(middle));
        wait_linked(&managers, servers - 2)?;
        let begun = Instant::now();
        managers.insert(middle, start(&addresses, middle, None)?);
        wait_linked(&managers, servers - 1)?;
        reform.record(begun.elapsed());
        // All together: if they halted one by one, the others would dial them in vain.
        managers.iter().for_each(|manager| manager.request_halt());
        Ok(())
    })
}

/// Starts a manager with default options.
fn start(addresses: &[String], at: usize, socket: Option<TcpListener>) -> io::Result<CnxManager> {
    let sid = |at: usize| Sid(at as i64 + 1);
    let mut builder = Config::builder(sid(at));
    for (of, address) in addresses.iter().enumerate() {
        builder = builder.server(sid(of), address);
    }
    if let Some(socket) = socket {
        builder = builder.listener(socket);
    }
    let config = builder.build().context("configuring")?;
    CnxManager::start(config).context("starting a manager")
}

/// Waits until each has exactly this many links.
fn wait_linked(managers: &[CnxManager], links: usize) -> io::Result<()> {
    let begun = Instant::now();
    for manager in managers {
        while manager.linked_peers().len() != links {
            if begun.elapsed() > LONG {
                let (own, has) = (manager.sid(), manager.linked_peers().len());
                return Err(failure(format_args!(
                    "server {own} has {has} links of {links} after {} s",
                    LONG.as_secs()
                )));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
    Ok(())
}
