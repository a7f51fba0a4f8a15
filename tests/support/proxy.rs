//! A TCP proxy that can be stalled, closed and cut.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::listener;

pub struct Proxy {
    pub address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Notified when the state has changed.
    changed: Condvar,
    ids: AtomicU64,
}

#[derive(Default)]
struct State {
    path: PathState,
    /// Both ends of each connection, by number.
    open: Vec<(u64, [TcpStream; 2])>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathState {
    #[default]
    Open,
    /// No bytes pass, and no connection ends.
    Stalled,
    /// Connections are closed at once.
    Closed,
    /// The proxy ends.
    Gone,
}

impl Proxy {
    pub fn start(to: &str) -> Self {
        let (listener, address) = listener();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            ids: AtomicU64::new(0),
        });
        let thread = thread::spawn({
            let (shared, to) = (Arc::clone(&shared), to.to_owned());
            move || shared.serve(&listener, &to)
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    pub fn set(&self, path: PathState) {
        self.shared.lock().path = path;
        self.shared.changed.notify_all();
        if path == PathState::Closed {
            self.cut();
        }
    }

    /// Ends all current connections.
    pub fn cut(&self) {
        for (_, ends) in &self.shared.lock().open {
            for end in ends {
                // Fails if the connection has ended already.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(PathState::Gone);
        self.cut();
        // So that `accept` returns.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Connections that came in the meantime.
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Self>, listener: &TcpListener, to: &str) {
        for near in listener.incoming() {
            let path = self.lock().path;
            match (path, near) {
                (PathState::Gone, _) => return,
                (PathState::Closed, _) | (_, Err(_)) => {}
                (_, Ok(near)) => {
                    // If the member does not listen, the connection is closed.
                    if let Ok(far) = TcpStream::connect(to) {
                        self.join(near, far);
                    }
                }
            }
        }
    }

    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let ends = [near, far];
        for end in &ends {
            let _ = end.set_nodelay(true);
        }
        // Without a free descriptor the connection is closed.
        let (Ok(one), Ok(two)) = (copy(&ends), copy(&ends)) else {
            return;
        };
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.lock().open.push((id, ends));
        let [near, far] = one;
        let other = {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pass(near, far))
        };
        let (shared, [near, far]) = (Arc::clone(self), two);
        thread::spawn(move || {
            shared.pass(far, near);
            let _ = other.join();
            shared.lock().open.retain(|(other, _)| *other != id);
        });
    }

    /// One direction, until it ends.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(_) => {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            };
            let is_stalled = |state: &mut State| state.path == PathState::Stalled;
            let state = self.changed.wait_while(self.lock(), is_stalled);
            drop(state.unwrap_or_else(PoisonError::into_inner));
            if to.write_all(&buffer[..n]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
        // Forward the end of this direction only: a knock is half closed.
        let _ = to.shutdown(Shutdown::Write);
    }
}

fn copy(ends: &[TcpStream; 2]) -> std::io::Result<[TcpStream; 2]> {
    Ok([ends[0].try_clone()?, ends[1].try_clone()?])
}
