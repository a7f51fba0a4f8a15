//! What a process asks of its sockets: read, write, shutdown, close.
//!
//! Here a short read or write, or an interruption, is made up; what follows on the wire is in `tcp`.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
};

use crate::{
    kernel::{Due, Kernel},
    tcp::EPIPE,
};

impl Kernel {
    pub fn read(&mut self, sock: usize, buf: &mut [u8]) -> io::Result<usize> {
        if self.chance.permille(self.quirks.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let it = &mut self.socks[sock];
        let node = it.node;
        if !it.rx.is_empty() {
            let mut n = buf.len().min(it.rx.len());
            let short = n > 1 && self.chance.permille(self.quirks.short_read);
            if short {
                n = self.chance.between(1, n - 1);
            }
            let (a, b) = it.rx.as_slices();
            let k = n.min(a.len());
            buf[..k].copy_from_slice(&a[..k]);
            buf[k..n].copy_from_slice(&b[..n - k]);
            it.rx.drain(..n);
            let (conn, side) = (it.conn, it.side);
            self.nodes[node].moved += 1;
            if short {
                // A short read is one after which more has arrived, with an edge of its own.
                self.edge(sock, true, false);
            }
            self.fly(conn, 1 - side);
            self.note(node, || format!("#{conn} reads {n} bytes"));
            return Ok(n);
        }
        if let Some(error) = it.error.take() {
            self.nodes[node].moved += 1;
            return Err(io::Error::from_raw_os_error(error));
        }
        if it.fin_in || it.gone || it.deaf {
            return Ok(0);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub fn write(&mut self, sock: usize, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.chance.permille(self.quirks.interrupted) {
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
        let mut room = if it.standing && now >= it.full_until {
            it.room()
        } else {
            0
        };
        // A small write into an empty buffer is taken whole; anything else may find memory short.
        let mut wait = None;
        if room > 0
            && (total > 100 || !it.tx.is_empty())
            && self.chance.permille(self.quirks.short_write)
        {
            room = self.chance.below(room.min(total) + 1);
            let time = self.chance.micros(50, 20_000);
            it.full_until = now + time;
            wait = Some(time);
        }
        let n = total.min(room);
        it.nospace |= n < total;
        let (node, conn, side) = (it.node, it.conn, it.side);
        let first = n > 0 && !std::mem::replace(&mut it.spoke, true);
        if n > 0 {
            if !it.has_work() {
                it.progress = now;
            }
            let mut left = n;
            for buf in bufs {
                let k = left.min(buf.len());
                it.tx.extend(&buf[..k]);
                left -= k;
            }
        }
        if let Some(time) = wait {
            self.after(time, Due::Room(sock));
        }
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.nodes[node].moved += 1;
        self.fly(conn, side);
        self.note(node, || {
            let sid = (first && side == 0).then(|| claimed(bufs)).flatten();
            let says = sid.map_or(String::new(), |sid| format!(" and says that it is {sid}"));
            format!("#{conn} writes {n} of {total} bytes{says}")
        });
        Ok(n)
    }

    /// As `SO_ERROR` and `getpeername(2)` say.
    pub fn connected(&mut self, sock: usize) -> io::Result<bool> {
        let it = &mut self.socks[sock];
        match it.error.take() {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(it.standing && !it.gone),
        }
    }

    pub fn shutdown(&mut self, sock: usize, how: Shutdown) -> io::Result<()> {
        let now = self.now;
        let it = &mut self.socks[sock];
        if it.gone {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if !it.standing {
            // A connect that is shut down is given up: inet_shutdown() in af_inet.c.
            it.gone = true;
            return Err(io::ErrorKind::NotConnected.into());
        }
        it.deaf |= how != Shutdown::Write;
        if how != Shutdown::Read && !it.shut {
            if !it.has_work() {
                it.progress = now;
            }
            it.shut = true;
            let (conn, side) = (it.conn, it.side);
            self.fly(conn, side);
        }
        // It wakes who polls, whatever has changed.
        self.edge(sock, false, true);
        Ok(())
    }

    /// The process lets go of it.
    pub fn close(&mut self, sock: usize) {
        let it = &mut self.socks[sock];
        if !std::mem::replace(&mut it.held, false) {
            return;
        }
        let (node, unread, standing) = (it.node, !it.rx.is_empty(), it.standing);
        self.nodes[node].held -= 1;
        self.unwatch(sock);
        let conn = self.socks[sock].conn;
        self.note(node, || format!("#{conn} is closed"));
        if !standing {
            self.socks[sock].gone = true;
        } else if unread {
            // What was received and never read is answered by a reset: RFC 2525, 2.17.
            self.abort(sock);
        } else {
            // Fails when it is gone already.
            let _ = self.shutdown(sock, Shutdown::Both);
        }
    }
}

/// The sid in an initial message that is written whole, as it should be.
fn claimed(bufs: &[IoSlice<'_>]) -> Option<i64> {
    let mut numbers = bufs.first()?.chunks_exact(8);
    let mut number = || Some(i64::from_be_bytes(numbers.next()?.try_into().ok()?));
    let first = number()?;
    // The older form is the bare sid, the newer ones begin with their version.
    if matches!(first, -65_536 | -65_535) {
        number()
    } else {
        Some(first)
    }
}
