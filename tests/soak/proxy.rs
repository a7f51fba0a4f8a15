//! The way from one member to another: a port that passes on what comes to it, unless it is told not to.
//!
//! Nothing here reads what passes through.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::common::listener;

pub(crate) struct Proxy {
    pub(crate) address: String,
    road: Arc<Road>,
    thread: Option<JoinHandle<()>>,
}

struct Road {
    state: Mutex<State>,
    /// Rung when the state has changed.
    changed: Condvar,
    ids: AtomicU64,
}

#[derive(Default)]
struct State {
    way: Way,
    /// Both ends of each connection, by number.
    open: Vec<(u64, [TcpStream; 2])>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Free,
    /// Nothing passes, and nobody is told.
    Stalled,
    /// Whoever comes is sent away.
    Closed,
    /// For good.
    Gone,
}

impl Proxy {
    pub(crate) fn start(to: &str) -> Self {
        let (listener, address) = listener();
        let road = Arc::new(Road {
            state: Mutex::default(),
            changed: Condvar::new(),
            ids: AtomicU64::new(0),
        });
        let thread = thread::spawn({
            let (road, to) = (Arc::clone(&road), to.to_owned());
            move || road.serve(&listener, &to)
        });
        Self {
            address,
            road,
            thread: Some(thread),
        }
    }

    pub(crate) fn set(&self, way: Way) {
        self.road.lock().way = way;
        self.road.changed.notify_all();
        if way == Way::Closed {
            self.cut();
        }
    }

    /// Ends all connections that there are now.
    pub(crate) fn cut(&self) {
        for (_, ends) in &self.road.lock().open {
            for end in ends {
                // Fails when it has ended already.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Way::Gone);
        self.cut();
        // So that `accept` returns.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // What came meanwhile.
        self.cut();
    }
}

impl Road {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Self>, listener: &TcpListener, to: &str) {
        for near in listener.incoming() {
            let way = self.lock().way;
            match (way, near) {
                (Way::Gone, _) => return,
                (Way::Closed, _) | (_, Err(_)) => {}
                (_, Ok(near)) => {
                    // Nobody there: whoever has come is sent away.
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
        // Without descriptors it is not passed on.
        let (Ok(one), Ok(two)) = (copy(&ends), copy(&ends)) else {
            return;
        };
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.lock().open.push((id, ends));
        let [near, far] = one;
        let there = {
            let road = Arc::clone(self);
            thread::spawn(move || road.pass(near, far))
        };
        let (road, [near, far]) = (Arc::clone(self), two);
        thread::spawn(move || {
            road.pass(far, near);
            let _ = there.join();
            road.lock().open.retain(|(other, _)| *other != id);
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
            let is_stalled = |state: &mut State| state.way == Way::Stalled;
            let state = self.changed.wait_while(self.lock(), is_stalled);
            drop(state.unwrap_or_else(PoisonError::into_inner));
            if to.write_all(&buffer[..n]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
        // The end passes as everything does: a knock is half closed.
        let _ = to.shutdown(Shutdown::Write);
    }
}

fn copy(ends: &[TcpStream; 2]) -> std::io::Result<[TcpStream; 2]> {
    Ok([ends[0].try_clone()?, ends[1].try_clone()?])
}
