//! A TCP proxy that can be stalled, closed and cut.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, JoinHandle},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{MEMBER_IP, ReservedAddress};

pub struct Proxy {
    pub address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when the state has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    path: PathState,
    /// Both ends of each connection.
    open: Vec<Weak<[TcpStream; 2]>>,
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
        Self::at(MEMBER_IP, to)
    }

    /// Listens at this address of the machine, and dials from there.
    pub fn at(ip: Ipv4Addr, to: &str) -> Self {
        let (listener, address) = ReservedAddress::at(ip).open();
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let (shared, to) = (Arc::clone(&shared), to.parse().expect("an address"));
            move || shared.serve(&listener, ip, to)
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
        for ends in self.shared.lock().open.iter().filter_map(Weak::upgrade) {
            for end in &*ends {
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

fn dial(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Self>, listener: &TcpListener, ip: Ipv4Addr, to: SocketAddr) {
        for near in listener.incoming() {
            let path = self.lock().path;
            match (path, near) {
                (PathState::Gone, _) => return,
                (PathState::Closed, _) | (_, Err(_)) => {}
                (_, Ok(near)) => {
                    // If the member does not listen, the connection is closed.
                    if let Ok(far) = dial(ip, to) {
                        self.join(near, far);
                    }
                }
            }
        }
    }

    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let ends = Arc::new([near, far]);
        let mut state = self.lock();
        state.open.retain(|ends| ends.strong_count() > 0);
        state.open.push(Arc::downgrade(&ends));
        drop(state);
        for (from, to) in [(0, 1), (1, 0)] {
            let _ = ends[from].set_nodelay(true);
            let (shared, ends) = (Arc::clone(self), Arc::clone(&ends));
            // Closed when both directions have ended.
            thread::spawn(move || shared.pass(&ends[from], &ends[to]));
        }
    }

    /// One direction, until it ends.
    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream) {
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
