//! A place on the way to a server at which the way can be cut: what comes is held there, as by a network that loses packets
//! and a sender that sends them again, until it is healed.
//!
//! Nothing that has come is ever lost, or seen by anybody else.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    way: Arc<Way>,
}

#[derive(Default)]
struct Way {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cut: bool,
    /// True exactly when the test is over.
    over: bool,
    connections: Vec<TcpStream>,
}

impl Proxy {
    /// On the way to this address. Its own is one that the kernel chose.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let way = Arc::new(Way::default());
        let forward = Arc::clone(&way);
        // Ends with the connection that `drop` makes.
        thread::spawn(move || {
            for from in listener.incoming() {
                let is_over = forward.lock().over;
                match from {
                    Ok(from) if !is_over => drop(forward.join(from, server)),
                    _ => return,
                }
            }
        });
        Self { address, way }
    }

    pub(crate) fn cut(&self) {
        self.way.lock().cut = true;
    }

    pub(crate) fn heal(&self) {
        self.way.lock().cut = false;
        self.way.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.way.lock();
        state.over = true;
        for connection in state.connections.drain(..) {
            // Fails when it has ended by itself.
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.way.changed.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

impl Way {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a connection to one to the server. Who cannot be reached hangs up.
    fn join(self: &Arc<Self>, from: TcpStream, server: SocketAddr) -> io::Result<()> {
        let to = TcpStream::connect(server)?;
        for (mut from, mut to) in [
            (from.try_clone()?, to.try_clone()?),
            (to.try_clone()?, from.try_clone()?),
        ] {
            let way = Arc::clone(self);
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = from.read(&mut bytes) {
                    let state = way.lock();
                    let blocked = |state: &mut State| state.cut && !state.over;
                    drop(way.changed.wait_while(state, blocked));
                    if to.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
                // The end passes as well.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        self.lock().connections.extend([from, to]);
        Ok(())
    }
}
