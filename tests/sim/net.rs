//! Implements `Net` on the simulated machines, for the event loop under test.
//!
//! It only forwards calls to the kernel, except [`during_next_write`].

use std::{
    cell::{Cell, RefCell},
    fmt,
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quorum_cnx::simulation::{Clock, Found, Net, Ready, Stream, Waker, Wire};

use crate::{
    kernel::Kernel,
    layer::{Layer, LayeredNet},
};

/// The time at which every run begins.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static DURING_NEXT_WRITE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Runs `then`, and calls `what` in the middle of its first write. To the outbox it looks as if another thread had made the call
/// while this thread was in the system call.
pub fn during_next_write<T>(what: impl FnOnce() + 'static, then: impl FnOnce() -> T) -> T {
    DURING_NEXT_WRITE.set(Some(Box::new(what)));
    let result = then();
    DURING_NEXT_WRITE.take();
    result
}

/// The kernel of all machines, shared. Only one thread uses it. The lock is needed because a stream is `Send` and `Sync`.
#[derive(Clone, Debug)]
pub struct Machines(Arc<Mutex<Kernel>>);

impl Machines {
    pub fn new(kernel: Kernel) -> Self {
        Self(Arc::new(Mutex::new(kernel)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network of one process.
#[derive(Debug)]
pub struct SimNet {
    pub machines: Machines,
    pub node: usize,
    /// Events reported so far. The world reads it while the loop has the net.
    reported: Rc<Cell<u64>>,
}

/// The network of one process, as its loop sees it: with a layer above TCP, with TLS, or with neither.
pub type ProcessNet = LayeredNet<TlsNet>;

#[cfg(feature = "tls")]
type TlsNet = quorum_cnx::simulation::TlsNet<SimNet>;
#[cfg(not(feature = "tls"))]
type TlsNet = SimNet;

/// Puts the layer above the network of a process, if there is one.
pub fn process_net(net: SimNet, layer: Option<Layer>) -> ProcessNet {
    #[cfg(feature = "tls")]
    let net = TlsNet::new(net);
    LayeredNet::new(net, layer)
}

/// A socket of a process; closed when it is dropped.
pub struct SimStream {
    machines: Machines,
    sock: usize,
}

impl SimNet {
    pub fn new(machines: Machines, node: usize) -> Self {
        Self {
            machines,
            node,
            reported: Rc::default(),
        }
    }

    pub fn reported(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.reported)
    }

    fn stream(&self, sock: usize) -> SimStream {
        SimStream {
            machines: self.machines.clone(),
            sock,
        }
    }
}

impl Net for SimNet {
    type Stream = SimStream;

    fn incarnation(&mut self) -> u64 {
        let mut kernel = self.machines.lock();
        kernel.starts += 1;
        kernel.starts
    }

    fn now(&self) -> Instant {
        let kernel = self.machines.lock();
        *START + kernel.now + kernel.nodes[self.node].skew
    }

    fn clock(&self) -> Clock {
        let (machines, node) = (self.machines.clone(), self.node);
        Clock::new(move || {
            let kernel = machines.lock();
            *START + kernel.now + kernel.nodes[node].skew
        })
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        assert_eq!(
            timeout,
            Some(Duration::ZERO),
            "the simulator advances the time, the loop never blocks"
        );
        let woken = self.machines.lock().collect(self.node, ready);
        let reported = ready.len() as u64 + u64::from(woken);
        self.reported.set(self.reported.get() + reported);
        Ok(())
    }

    fn listen(&mut self, listener: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        self.machines.lock().listen(self.node, listener, at)
    }

    fn adopt(&mut self, _: usize, _: TcpListener) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, listener: usize) -> io::Result<(SimStream, SocketAddr)> {
        let (sock, from) = self.machines.lock().accept(self.node, listener)?;
        Ok((self.stream(sock), from))
    }

    fn close_listener(&mut self, listener: usize) {
        self.machines.lock().close_listener(self.node, listener);
    }

    fn close_listeners(&mut self) {
        self.machines.lock().close_listeners(self.node);
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<SimStream> {
        let sock = self.machines.lock().dial(self.node, to)?;
        Ok(self.stream(sock))
    }

    fn watch(&mut self, stream: &SimStream, token: usize) -> io::Result<()> {
        self.machines.lock().watch(stream.sock, token);
        Ok(())
    }

    fn unwatch(&mut self, stream: &SimStream) {
        self.machines.lock().unwatch(stream.sock);
    }

    fn lookup(&mut self, lookup_id: u64, host: &str) {
        self.machines.lock().lookup(self.node, lookup_id, host);
    }

    fn found(&mut self) -> Option<Found> {
        self.machines.lock().nodes[self.node].found.pop_front()
    }

    fn waker(&self) -> Waker {
        let (machines, node) = (self.machines.clone(), self.node);
        Arc::new(move || machines.lock().notify(node))
    }
}

impl Drop for SimNet {
    /// The process has ended, and its kernel closes its listening sockets.
    fn drop(&mut self) {
        self.machines.lock().close_listeners(self.node);
    }
}

impl Wire for SimStream {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.machines.lock().write(self.sock, bufs);
        let what = DURING_NEXT_WRITE.take();
        if let Some(what) = what {
            // A socket that was full may have room again before the writer is told that it is full.
            self.machines.lock().free_buffer(self.sock);
            what();
        }
        written
    }
}

impl Stream for SimStream {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.machines.lock().read(self.sock, buf)
    }

    fn connected(&self) -> io::Result<bool> {
        self.machines.lock().connected(self.sock)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.machines.lock().shutdown(self.sock, how)
    }

    fn abort(&self) -> io::Result<()> {
        self.machines.lock().abort(self.sock);
        Ok(())
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.machines.lock().close(self.sock);
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStream({})", self.sock)
    }
}
