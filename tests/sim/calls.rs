//! The system calls on sockets: read, write, shutdown, close.
//!
//! They inject short reads, short writes and interruptions. What happens on the wire is in `tcp`.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
};

use crate::{
    kernel::{Kernel, SimEvent},
    tcp::EPIPE,
};

impl Kernel {
    pub fn read(&mut self, sock: usize, buf: &mut [u8]) -> io::Result<usize> {
        if self.rng.permille(self.quirks.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let it = &mut self.socks[sock];
        let node = it.node;
        if !it.rx.is_empty() {
            let mut n = buf.len().min(it.rx.len());
            let short = n > 1 && self.rng.permille(self.quirks.short_read);
            if short {
                n = self.rng.between(1, n - 1);
            }
            let (a, b) = it.rx.as_slices();
            let k = n.min(a.len());
            buf[..k].copy_from_slice(&a[..k]);
            buf[k..n].copy_from_slice(&b[..n - k]);
            it.rx.drain(..n);
            let (conn, side) = (it.conn, it.side);
            self.nodes[node].progress_calls += 1;
            if short {
                // More bytes are left, for which a new event is due.
                self.raise_edge(sock, true, false);
            }
            self.transmit(conn, 1 - side);
            self.note(node, || format!("#{conn} reads {n} bytes"));
            return Ok(n);
        }
        if let Some(error) = it.error.take() {
            self.nodes[node].progress_calls += 1;
            return Err(io::Error::from_raw_os_error(error));
        }
        if it.fin_in || it.gone || it.read_shut {
            return Ok(0);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub fn write(&mut self, sock: usize, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.rng.permille(self.quirks.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let now = self.now;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let it = &mut self.socks[sock];
        if let Some(error) = it.error.take() {
            return Err(io::Error::from_raw_os_error(error));
        }
        if it.gone || it.shut {
            return Err(io::Error::from_raw_os_error(EPIPE));
        }
        let mut room = if it.established && now >= it.full_until {
            it.room()
        } else {
            0
        };
        // A small write into an empty buffer always succeeds. Any other may find the buffer full for a while.
        let mut wait = None;
        if room > 0
            && (total > 100 || !it.tx.is_empty())
            && self.rng.permille(self.quirks.short_write)
        {
            room = self.rng.below(room.min(total) + 1);
            let time = self.rng.micros(50, 20_000);
            it.full_until = now + time;
            wait = Some(time);
        }
        let n = total.min(room);
        it.nospace |= n < total;
        let (node, conn, side) = (it.node, it.conn, it.side);
        let first = n > 0 && !std::mem::replace(&mut it.has_written, true);
        if n > 0 {
            if !it.has_work() {
                it.last_progress = now;
            }
            let mut left = n;
            for buf in bufs {
                let k = left.min(buf.len());
                it.tx.extend(&buf[..k]);
                left -= k;
            }
        }
        if let Some(time) = wait {
            self.after(time, SimEvent::BufferSpace(sock));
        }
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.nodes[node].progress_calls += 1;
        self.transmit(conn, side);
        self.note(node, || {
            let sid = (first && side == 0).then(|| claimed(bufs)).flatten();
            let claim = sid.map_or(String::new(), |sid| format!(" and claims sid {sid}"));
            format!("#{conn} writes {n} of {total} bytes{claim}")
        });
        Ok(n)
    }

    /// As `SO_ERROR` and `getpeername(2)` report.
    pub fn connected(&mut self, sock: usize) -> io::Result<bool> {
        let it = &mut self.socks[sock];
        match it.error.take() {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(it.established && !it.gone),
        }
    }

    pub fn shutdown(&mut self, sock: usize, how: Shutdown) -> io::Result<()> {
        let now = self.now;
        let it = &mut self.socks[sock];
        if it.gone {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if !it.established {
            // A shutdown cancels a connect that is in last_progress: inet_shutdown() in af_inet.c.
            it.gone = true;
            return Err(io::ErrorKind::NotConnected.into());
        }
        it.read_shut |= how != Shutdown::Write;
        if how != Shutdown::Read && !it.shut {
            if !it.has_work() {
                it.last_progress = now;
            }
            it.shut = true;
            let (conn, side) = (it.conn, it.side);
            self.transmit(conn, side);
        }
        // A shutdown always wakes the poller.
        self.raise_edge(sock, false, true);
        Ok(())
    }

    /// The process closes the descriptor.
    pub fn close(&mut self, sock: usize) {
        let it = &mut self.socks[sock];
        if !std::mem::replace(&mut it.held, false) {
            return;
        }
        let (node, unread, established) = (it.node, !it.rx.is_empty(), it.established);
        self.nodes[node].held -= 1;
        self.unwatch(sock);
        let conn = self.socks[sock].conn;
        self.note(node, || format!("#{conn} is closed"));
        if !established {
            self.socks[sock].gone = true;
        } else if unread {
            // Closing a socket with unread data sends a reset: RFC 2525, 2.17.
            self.abort(sock);
        } else {
            // Fails if the connection has ended already.
            let _ = self.shutdown(sock, Shutdown::Both);
        }
    }
}

/// The sid in an initial message that is written whole.
fn claimed(bufs: &[IoSlice<'_>]) -> Option<i64> {
    let mut numbers = bufs.first()?.chunks_exact(8);
    let mut number = || Some(i64::from_be_bytes(numbers.next()?.try_into().ok()?));
    let first = number()?;
    // The oldest form is the bare sid, the others begin with a version.
    if matches!(first, -65_536 | -65_535) {
        number()
    } else {
        Some(first)
    }
}
