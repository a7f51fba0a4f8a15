//! A TCP proxy whose connections can be cut: it holds all bytes until it is healed, like a network that loses packets which
//! their sender retransmits.
//!
//! No byte is lost.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cut: bool,
    /// True exactly when the proxy was dropped.
    stopped: bool,
    connections: Vec<TcpStream>,
}

impl Proxy {
    /// A proxy before this address, on a port that the kernel chooses.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let forward = Arc::clone(&shared);
        // Ends with the connection that `drop` makes.
        thread::spawn(move || {
            for from in listener.incoming() {
                let is_stopped = forward.lock().stopped;
                match from {
                    Ok(from) if !is_stopped => drop(forward.join(from, server)),
                    _ => return,
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn cut(&self) {
        self.shared.lock().cut = true;
    }

    pub(crate) fn heal(&self) {
        self.shared.lock().cut = false;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        for connection in state.connections.drain(..) {
            // Fails when the connection has ended.
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to the server, and forwards in both directions. If that fails, the connection is closed.
    fn join(self: &Arc<Self>, from: TcpStream, server: SocketAddr) -> io::Result<()> {
        let to = TcpStream::connect(server)?;
        for (mut from, mut to) in [
            (from.try_clone()?, to.try_clone()?),
            (to.try_clone()?, from.try_clone()?),
        ] {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = from.read(&mut bytes) {
                    let state = shared.lock();
                    let blocked = |state: &mut State| state.cut && !state.stopped;
                    drop(shared.changed.wait_while(state, blocked));
                    if to.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
                // Forwards the end, too.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        self.lock().connections.extend([from, to]);
        Ok(())
    }
}
