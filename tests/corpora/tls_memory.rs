//! Both ends of a TLS connection in memory. The target says how many bytes each call takes.
//!
//! Nothing here happens by itself.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quorum_cnx::{
    Config, EventLoop, PeerName, Sid, Tls,
    simulation::{Clock, Found, Net, Ready, Stream, TlsContext, TlsNet, TlsStream, Waker, Wire},
};

use crate::net::Recorder;

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    /// Bytes that it takes until it is full.
    pub(crate) room: usize,
    /// Most bytes of one read.
    pub(crate) at_once: usize,
    is_closed: bool,
}

/// One end.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    sends: Arc<Mutex<Pipe>>,
    receives: Arc<Mutex<Pipe>>,
}

/// A network that has one connection, whose end is dialed or accepted.
struct MemoryNet {
    end: End,
    now: Instant,
    context: Arc<Mutex<Option<Arc<TlsContext>>>>,
}

/// Both ends of a connection, of which the first one has dialed.
pub(crate) fn connect(
    dialer: Tls,
    acceptor: Tls,
    names: &[(Sid, PeerName)],
) -> [(TlsStream<End>, End); 2] {
    let [a, b] = [(); 2].map(|()| Arc::<Mutex<Pipe>>::default());
    let end = |sends: &Arc<_>, receives: &Arc<_>| End {
        sends: Arc::clone(sends),
        receives: Arc::clone(receives),
    };
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    let [near, far] = [end(&a, &b), end(&b, &a)];
    let mut dialing = net(near.clone(), dialer, names);
    let mut accepting = net(far.clone(), acceptor, names);
    let dialed = dialing.dial(to).expect("it never fails");
    let accepted = accepting.accept(0).expect("it never fails").0;
    [(dialed, near), (accepted, far)]
}

/// Only a configuration can make the context of a network: that of a loop which runs nothing.
fn net(end: End, tls: Tls, names: &[(Sid, PeerName)]) -> TlsNet<MemoryNet> {
    let mut builder = Config::builder(Sid(0))
        .server(Sid(0), "own.example:1")
        .tls(tls);
    for (sid, name) in names {
        builder = builder
            .server(*sid, format!("zk{sid}.example:1"))
            .peer_names(*sid, [name.clone()]);
    }
    let net = || MemoryNet {
        end: end.clone(),
        now: Instant::now(),
        context: Arc::default(),
    };
    let asked = net();
    let context = Arc::clone(&asked.context);
    let config = builder.build().expect("the configuration is valid");
    drop(EventLoop::with_net(config, Recorder::default(), asked).expect("it never fails"));
    let context = lock(&context).take().expect("TLS is configured");
    let mut net = TlsNet::new(net());
    net.set_tls(context).expect("it speaks TLS");
    net
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl End {
    /// What this end sends into.
    pub(crate) fn pipe(&self) -> MutexGuard<'_, Pipe> {
        lock(&self.sends)
    }
}

impl Wire for End {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let pipe = &mut *self.pipe();
        let mut taken = 0;
        for buf in bufs {
            let part = &buf[..buf.len().min(pipe.room)];
            pipe.bytes.extend(part);
            pipe.room -= part.len();
            taken += part.len();
        }
        match taken {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }
}

impl Stream for End {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let pipe = &mut *lock(&self.receives);
        let taken = buf.len().min(pipe.bytes.len()).min(pipe.at_once.max(1));
        if taken == 0 && !pipe.is_closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (byte, from) in buf.iter_mut().zip(pipe.bytes.drain(..taken)) {
            *byte = from;
        }
        Ok(taken)
    }

    fn connected(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        self.pipe().is_closed = true;
        Ok(())
    }

    fn abort(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

impl Net for MemoryNet {
    type Stream = End;

    fn set_tls(&mut self, context: Arc<TlsContext>) -> io::Result<()> {
        *lock(&self.context) = Some(context);
        Ok(())
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn clock(&self) -> Clock {
        let now = self.now;
        Clock::new(move || now)
    }

    fn wait(&mut self, _: Option<Duration>, _: &mut Vec<Ready>) -> io::Result<()> {
        Ok(())
    }

    fn listen(&mut self, _: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        Ok(at)
    }

    fn adopt(&mut self, _: usize, _: TcpListener) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, _: usize) -> io::Result<(End, SocketAddr)> {
        Ok((self.end.clone(), SocketAddr::from(([127, 0, 0, 1], 2))))
    }

    fn close_listener(&mut self, _: usize) {}

    fn close_listeners(&mut self) {}

    fn dial(&mut self, _: SocketAddr) -> io::Result<End> {
        Ok(self.end.clone())
    }

    fn watch(&mut self, _: &End, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn unwatch(&mut self, _: &End) {}

    fn lookup(&mut self, _: u64, _: &str) {}

    fn found(&mut self) -> Option<Found> {
        None
    }

    fn waker(&self) -> Waker {
        Arc::new(|| {})
    }
}
