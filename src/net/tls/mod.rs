//! TLS below the loop: a network whose connections encrypt, on top of another network.
//!
//! Nothing here decides about peers. Which certificate may be whose, the module `tls` decides.

mod common;
mod gather;
mod records;
mod session;
mod stream;
#[cfg(all(test, not(loom)))]
mod tests;
mod worn;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use super::traits::{Found, Net, Ready, Waker};
use crate::{outbox::Clock, tls::TlsContext};
use common::Common;

pub use stream::TlsStream;

/// A network that speaks TLS over the connections of another one. It passes plaintext through until TLS is configured, and after that
/// where plaintext is allowed.
pub struct TlsNet<N> {
    net: N,
    /// `None` until TLS is configured.
    common: Option<Arc<Common>>,
}

impl<N: Net> TlsNet<N> {
    /// A network on top of this one.
    pub fn new(net: N) -> Self {
        Self { net, common: None }
    }

    /// The network below.
    pub fn inner(&self) -> &N {
        &self.net
    }
}

impl<N: Net> Net for TlsNet<N> {
    type Stream = TlsStream<N::Stream>;

    fn set_dead_after(&mut self, time: Duration) {
        self.net.set_dead_after(time);
    }

    fn set_tls(&mut self, context: Arc<TlsContext>) -> io::Result<()> {
        match &self.common {
            Some(common) => common.set_context(context),
            None => {
                let common = Common::new(context, self.net.clock(), self.net.waker());
                self.common = Some(Arc::new(common));
            }
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        self.net.now()
    }

    fn clock(&self) -> Clock {
        self.net.clock()
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.net.wait(timeout, ready)?;
        if let Some(common) = &self.common {
            common.worn.report(ready);
        }
        Ok(())
    }

    fn listen(&mut self, listener: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        self.net.listen(listener, at)
    }

    fn adopt(&mut self, listener: usize, bound: TcpListener) -> io::Result<SocketAddr> {
        self.net.adopt(listener, bound)
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, SocketAddr)> {
        let (socket, from) = self.net.accept(listener)?;
        let stream = match &self.common {
            Some(common) => TlsStream::accepted(socket, Arc::clone(common)),
            None => TlsStream::plain(socket),
        };
        Ok((stream, from))
    }

    fn close_listener(&mut self, listener: usize) {
        self.net.close_listener(listener);
    }

    fn close_listeners(&mut self) {
        self.net.close_listeners();
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<Self::Stream> {
        let socket = self.net.dial(to)?;
        Ok(match &self.common {
            Some(common) if common.context().dials_tls() => {
                TlsStream::dialed(socket, to.ip(), Arc::clone(common))
            }
            Some(common) => TlsStream::dialed_plain(socket, to.ip(), Arc::clone(common)),
            None => TlsStream::plain(socket),
        })
    }

    fn watch(&mut self, stream: &Self::Stream, token: usize) -> io::Result<()> {
        stream.set_token(token);
        self.net.watch(stream.socket(), token)
    }

    fn unwatch(&mut self, stream: &Self::Stream) {
        self.net.unwatch(stream.socket());
    }

    fn lookup(&mut self, lookup_id: u64, host: &str) {
        self.net.lookup(lookup_id, host);
    }

    fn found(&mut self) -> Option<Found> {
        self.net.found()
    }

    fn waker(&self) -> Waker {
        self.net.waker()
    }

    fn incarnation(&mut self) -> u64 {
        self.net.incarnation()
    }
}

impl<N: AsFd> AsFd for TlsNet<N> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }
}

impl<N: fmt::Debug> fmt::Debug for TlsNet<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsNet")
            .field("net", &self.net)
            .finish_non_exhaustive()
    }
}
