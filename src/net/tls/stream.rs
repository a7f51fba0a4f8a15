//! A connection that speaks TLS, or plaintext where that is configured.
//!
//! Nothing here decides which certificate is whose: the module `tls` does.
//!
//! Two locks, since the loop reads while another thread writes: `records` for what is on its way to the socket, and `connection` for
//! the keys. They are taken in this order. `connection` is held for one record at most, and never during a system call. A thread that
//! writes holds `records` during its system call; the loop, which must not wait for that, only tries to take it once frames may be
//! written.

use std::{
    cell::Cell,
    fmt,
    io::{self, IoSlice},
    net::{IpAddr, Shutdown},
    sync::{Arc, PoisonError},
    time::Instant,
};

use super::{
    common::Common,
    records::Records,
    session::{Role, Session, mode, move_records},
};
use crate::{
    limits::TLS_HANDSHAKE_READ_BYTES,
    net::{Identity, Stream},
    outbox::Wire,
    proto::{Reason, Sid},
};

thread_local! {
    /// The buffer that this thread has used last, for the ciphertext of the next stream that it writes to.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection of a [`TlsNet`](super::TlsNet).
pub struct TlsStream<S> {
    socket: S,
    /// `None` exactly when TLS is not configured. A connection that speaks plaintext all the same has a session, which knows whether
    /// that is still allowed.
    session: Option<Box<Session>>,
}

impl<S> TlsStream<S> {
    pub(super) fn plain(socket: S) -> Self {
        Self {
            socket,
            session: None,
        }
    }

    pub(super) fn dialed(socket: S, to: IpAddr, common: Arc<Common>) -> Self {
        Self::with_session(socket, Role::Dialer(to), mode::CONNECTING, common)
    }

    /// A connection that speaks plaintext although TLS is configured.
    pub(super) fn dialed_plain(socket: S, to: IpAddr, common: Arc<Common>) -> Self {
        Self::with_session(socket, Role::Dialer(to), mode::PLAIN, common)
    }

    pub(super) fn accepted(socket: S, common: Arc<Common>) -> Self {
        Self::with_session(socket, Role::Acceptor, mode::UNDECIDED, common)
    }

    fn with_session(socket: S, role: Role, mode: u8, common: Arc<Common>) -> Self {
        Self {
            socket,
            session: Some(Box::new(Session::new(role, mode, common))),
        }
    }

    pub(super) fn set_token(&self, token: usize) {
        if let Some(session) = &self.session {
            session.set_token(token);
        }
    }

    /// As if this many records had been written.
    #[cfg(test)]
    pub(crate) fn set_records(&self, count: u64) {
        if let Some(session) = &self.session {
            session.records.lock().unwrap().set_count(count);
        }
    }

    /// The session of rustls, for records that it does not write.
    #[cfg(test)]
    pub(super) fn take_connection(&self) -> Option<rustls::Connection> {
        self.session.as_ref()?.connection().take()
    }

    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    /// The session, if the connection does not speak plaintext.
    fn tls(&self) -> Option<&Session> {
        self.session
            .as_deref()
            .filter(|session| session.mode() != mode::PLAIN)
    }
}

impl<S: Stream> TlsStream<S> {
    /// Sends ciphertext. Returns whether all of it has left; else the socket is full.
    fn send(&self, records: &mut Records) -> io::Result<bool> {
        while !records.is_empty() {
            match self.socket.write(&[IoSlice::new(records.unsent())]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => records.on_sent(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends what TLS itself has to send: a step of the handshake, an alert, an answer to a key update. If another thread writes, it
    /// leaves with the next record of that thread.
    fn send_control(&self, session: &Session) -> io::Result<()> {
        let Ok(mut records) = session.records.try_lock() else {
            return Ok(());
        };
        if let Some(connection) = session.connection().as_mut() {
            move_records(connection, &mut records)?;
        }
        self.send(&mut records)?;
        Ok(())
    }

    fn read_tls(&self, session: &Session, buf: &mut [u8]) -> io::Result<usize> {
        let Some(mut filled) = session.take_plaintext(buf)? else {
            return Ok(0);
        };
        if session.has_end() {
            return session.held(filled);
        }
        let mut scratch = session.common.scratch();
        let mut received = 0;
        loop {
            let is_established = session.mode() == mode::ESTABLISHED;
            if filled == buf.len() && is_established {
                return Ok(filled);
            }
            // No more than there is room for: plaintext is shorter than its ciphertext, so that at most one record stays inside
            // rustls, and none is refused.
            let want = match session.mode() {
                mode::HANDSHAKE => TLS_HANDSHAKE_READ_BYTES,
                _ => (buf.len() - filled).min(scratch.len()),
            };
            let n = match self.socket.read(&mut scratch[..want]) {
                Ok(0) => return Ok(filled),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        session.hold(error);
                    }
                    return Ok(filled);
                }
            };
            if session.mode() == mode::UNDECIDED {
                session.begin_as_server(scratch[0])?;
            }
            if session.mode() == mode::PLAIN {
                buf[..n].copy_from_slice(&scratch[..n]);
                return Ok(n);
            }
            received += n;
            let decrypted = session.decrypt(&scratch[..n], buf, &mut filled);
            let decrypted = decrypted.and_then(|wants_write| {
                session.limit_overhead(received, filled)?;
                Ok(wants_write)
            });
            let wants_write = *decrypted.as_ref().unwrap_or(&true);
            if wants_write {
                // An error of the socket is found by the next read; the alert is only a courtesy.
                let _ = self.send_control(session);
            }
            if let Err(error) = decrypted {
                if filled == 0 {
                    return Err(error);
                }
                session.hold(error);
                return Ok(filled);
            }
            session.establish();
            if session.has_end() || (filled > 0 && n < want) {
                return Ok(filled);
            }
        }
    }
}

impl<S: Stream> Wire for TlsStream<S> {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(session) = self.tls() else {
            return self.socket.write(bufs);
        };
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        // Not by `sync::lock`, which is for critical sections without a system call: this makes the thread the one that writes.
        let mut records = session
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !records.has_buffer() {
            // None in a thread that is about to end.
            records.give_buffer(SPARE.try_with(Cell::take).unwrap_or_default());
        }
        let sent = self.write_records(session, &mut records, bufs, offered);
        let reported = records.report(offered);
        let buffer = records.take_buffer();
        drop(records);
        if buffer.capacity() > 0 {
            let _ = SPARE.try_with(|spare| spare.set(buffer));
        }
        match sent {
            // An error is found by the next write.
            _ if reported > 0 => Ok(reported),
            Ok(()) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        }
    }
}

impl<S: Stream> TlsStream<S> {
    /// Encrypts and sends until the socket is full or all that is offered has left.
    fn write_records(
        &self,
        session: &Session,
        records: &mut Records,
        bufs: &[IoSlice<'_>],
        offered: usize,
    ) -> io::Result<()> {
        while self.send(records)? && records.ahead() < offered {
            session.encrypt(records, bufs)?;
        }
        Ok(())
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.tls() {
            Some(session) => self.read_tls(session, buf),
            None => self.socket.read(buf),
        }
    }

    fn has_more(&self) -> bool {
        self.tls().is_some_and(Session::has_end)
    }

    fn connected(&self) -> io::Result<bool> {
        let Some(session) = self.tls() else {
            return self.socket.connected();
        };
        if let (mode::CONNECTING, Role::Dialer(to)) = (session.mode(), &session.role) {
            if !self.socket.connected()? {
                return Ok(false);
            }
            session.begin_as_client(*to)?;
        }
        if session.mode() == mode::HANDSHAKE {
            self.send_control(session)?;
            let read = self.read_tls(session, &mut []);
            session.establish();
            match read {
                // First: the socket reports its error once, and the wait for the ticket may be over at the same time.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ if session.mode() == mode::ESTABLISHED => {}
                Ok(_) => return Err(io::Error::other(Reason::ClosedEarly)),
                Err(_) => return Ok(false),
            }
        }
        self.socket.connected()
    }

    fn is_handshaking(&self) -> bool {
        self.tls()
            .is_some_and(|session| session.mode() != mode::ESTABLISHED)
    }

    fn connected_at(&self) -> Option<Instant> {
        self.tls()?.established_at()
    }

    fn on_writable(&self) {
        // If another thread writes, it finds the room itself.
        if let Some(mut records) = self.tls().and_then(|it| it.records.try_lock().ok()) {
            // An error is found by the next read or write.
            let _ = self.send(&mut records);
        }
    }

    fn identify(&self, sid: Sid) -> Result<Identity, Reason> {
        match &self.session {
            Some(session) => session.identify(sid),
            None => Ok(Identity::Claimed),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let established = self.tls().filter(|it| it.mode() == mode::ESTABLISHED);
        // Not for one direction: rustls must find no error afterwards (an assertion of its debug builds), and the end of TCP says it, too.
        if let Some(session) = established.filter(|_| how == Shutdown::Both) {
            if let Some(connection) = session.connection().as_mut() {
                connection.send_close_notify();
            }
            // A courtesy, for which nothing waits: frames have lengths, so that a cut is noticed without it.
            let _ = self.send_control(session);
        }
        self.socket.shutdown(how)
    }

    fn abort(&self) -> io::Result<()> {
        self.socket.abort()
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the session, which has the keys.
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .field("mode", &self.session.as_deref().map(Session::mode))
            .finish_non_exhaustive()
    }
}
