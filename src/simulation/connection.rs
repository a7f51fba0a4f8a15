//! The TCP of one simulated connection: buffers, the end of each direction, resets and errors.
//!
//! Nothing here knows hosts, processes or the clock. [`State`](super::state::State) says which direction is reachable.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Read as _},
    net::{Shutdown, SocketAddr},
};

/// What holds one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nothing yet: the dial has not reached its host.
    Nothing,
    /// The test.
    Test,
    /// The process with this number.
    Process(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The dial has not ended.
    Connecting,
    Established,
    /// Refused, reset, timed out or aborted. What has arrived can still be read.
    Broken,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    pub(super) addr: SocketAddr,
    /// The token under which the loop watches this end.
    pub(super) token: Option<usize>,
    /// True exactly when an event may be due for this end, and was not queued yet.
    pub(super) changed: bool,
    /// True exactly when this end is in the queue of its process.
    pub(super) queued: bool,
    /// True exactly when a process has dialed or accepted it and has not dropped it.
    pub(super) held: bool,
    /// True exactly when its owner has dropped it.
    pub(super) closed: bool,
    phase: Phase,
    /// Bytes that were written and have not arrived.
    unsent: VecDeque<u8>,
    send_max: usize,
    /// Bytes that have arrived and were not read.
    arrived: VecDeque<u8>,
    receive_max: usize,
    /// True exactly when the last write found too little room, and has caused no event since.
    blocked: bool,
    /// True exactly when this end writes no more bytes (`FIN`).
    finished: bool,
    /// True exactly when the end of the far direction has arrived.
    far_finished: bool,
    /// True exactly when this end has sent a reset that has not arrived.
    resets: bool,
    /// True exactly when a reset of the far end has arrived.
    was_reset: bool,
    /// The error that the next call returns.
    error: Option<ErrorKind>,
}

/// A connection: the end that dialed, and the other one.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: [End; 2],
    /// Whether bytes of each end arrive at the other end now.
    pub(super) open: [bool; 2],
}

/// What an event reports of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) ended: bool,
}

impl End {
    /// `send_max`, `receive_max`: the bytes that wait to be sent, and to be read.
    pub(super) fn new(owner: Owner, addr: SocketAddr, send_max: usize, receive_max: usize) -> Self {
        Self {
            owner,
            addr,
            token: None,
            changed: false,
            queued: false,
            held: false,
            closed: false,
            phase: Phase::Connecting,
            unsent: VecDeque::new(),
            send_max,
            arrived: VecDeque::new(),
            receive_max,
            blocked: false,
            finished: false,
            far_finished: false,
            resets: false,
            was_reset: false,
            error: None,
        }
    }

    /// The connection ends for this end. The next call returns the error.
    fn break_with(&mut self, error: ErrorKind) {
        if self.phase != Phase::Broken && !self.closed {
            self.error = Some(error);
        }
        self.phase = Phase::Broken;
        self.unsent.clear();
        self.changed = true;
    }

    /// How many bytes of the far end can arrive now.
    fn room(&self) -> usize {
        self.receive_max.saturating_sub(self.arrived.len())
    }
}

impl Connection {
    pub(super) fn new(dialer: End, acceptor: End) -> Self {
        Self {
            ends: [dialer, acceptor],
            open: [true; 2],
        }
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.ends.iter().all(|end| end.phase == Phase::Connecting)
    }

    /// Whether the connection is established, and no end has closed a direction.
    pub(super) fn is_open(&self) -> bool {
        let is_open = |end: &End| end.phase == Phase::Established && !end.finished && !end.closed;
        self.ends.iter().all(is_open)
    }

    /// Whether the connection is over: nobody can notice any more what arrives at either end.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| match end.owner {
            Owner::Nothing => true,
            Owner::Test => end.phase != Phase::Established,
            Owner::Process(_) => end.closed,
        })
    }

    /// How many bytes its buffers can hold as they are.
    #[cfg(all(test, not(loom)))]
    pub(super) fn capacity(&self) -> usize {
        let of_end = |end: &End| end.unsent.capacity() + end.arrived.capacity();
        self.ends.iter().map(of_end).sum()
    }

    /// Frees the buffers of a connection that is over, except what the test can still take.
    pub(super) fn release_buffers(&mut self) {
        for end in &mut self.ends {
            end.unsent = VecDeque::new();
            if end.owner != Owner::Test {
                end.arrived = VecDeque::new();
            }
        }
    }

    /// Whether this end waits for the other one. Such an end notices when the other one cannot be reached.
    pub(super) fn is_established(&self, side: usize) -> bool {
        let end = &self.ends[side];
        end.phase == Phase::Established && !end.closed
    }

    pub(super) fn establish(&mut self) {
        for end in &mut self.ends {
            end.phase = Phase::Established;
            end.changed = true;
        }
    }

    /// Ends both ends with this error.
    pub(super) fn break_both(&mut self, error: ErrorKind) {
        for end in &mut self.ends {
            end.break_with(error);
        }
    }

    /// The far end gave no sign of life for too long. The host of this end sends it a reset.
    pub(super) fn time_out(&mut self, side: usize) {
        self.ends[side].break_with(ErrorKind::TimedOut);
        self.ends[side].resets = true;
    }

    pub(super) fn write(&mut self, side: usize, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let end = &mut self.ends[side];
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        match end.phase {
            Phase::Connecting => {
                end.blocked = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            Phase::Established if !end.finished => {}
            Phase::Established | Phase::Broken => return Err(ErrorKind::BrokenPipe.into()),
        }
        let (mut written, mut is_full) = (0, false);
        for buf in bufs {
            let taken = self.write_one(side, buf);
            written += taken;
            is_full = taken < buf.len();
            if is_full {
                break;
            }
        }
        self.ends[side].blocked = is_full;
        match written {
            0 if is_full => Err(ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    fn write_one(&mut self, side: usize, buf: &[u8]) -> usize {
        let mut rest = buf;
        while !rest.is_empty() && self.ends[side].phase == Phase::Established {
            let (now, later) = rest.split_at(rest.len().min(self.send_room(side)));
            if now.is_empty() {
                return buf.len() - rest.len();
            }
            self.ends[side].unsent.extend(now);
            self.deliver(side);
            rest = later;
        }
        // What is written to a connection that has just been reset is lost, as all that is under way.
        buf.len()
    }

    /// How many bytes this end may write now.
    fn send_room(&self, side: usize) -> usize {
        let [end, far] = [&self.ends[side], &self.ends[1 - side]];
        let room = end.send_max - end.unsent.len();
        match far.owner {
            // The test says exactly how many bytes it takes, so none beyond them may wait here.
            Owner::Test => room.min(far.room().saturating_sub(end.unsent.len())),
            Owner::Nothing | Owner::Process(_) => room,
        }
    }

    /// Has everything of this end arrive that can arrive now.
    pub(super) fn deliver(&mut self, side: usize) {
        if !self.open[side] {
            return;
        }
        let is_answered = self.open[1 - side];
        let [dialer, acceptor] = &mut self.ends;
        let (end, far) = match side {
            0 => (dialer, acceptor),
            _ => (acceptor, dialer),
        };
        if std::mem::take(&mut end.resets) {
            if far.phase != Phase::Broken {
                far.was_reset = true;
                far.break_with(ErrorKind::ConnectionReset);
                if far.far_finished {
                    // As on Linux: a reset after the end is no error of a read.
                    far.error = None;
                }
            }
            return;
        }
        if far.closed || far.phase == Phase::Broken {
            // The kernel of the far end answers bytes for a closed connection with a reset.
            if !end.unsent.is_empty() && is_answered {
                end.was_reset = true;
                end.break_with(ErrorKind::ConnectionReset);
            }
            return;
        }
        let bytes = end.unsent.len().min(far.room());
        if bytes > 0 {
            let later = end.unsent.split_off(bytes);
            far.arrived.append(&mut end.unsent);
            end.unsent = later;
            far.changed = true;
        }
        if end.finished && end.unsent.is_empty() && !far.far_finished {
            far.far_finished = true;
            far.changed = true;
        }
        self.unblock(side);
    }

    /// An end that found no room has an event once it has some.
    fn unblock(&mut self, side: usize) {
        if self.ends[side].blocked && self.send_room(side) > 0 {
            let end = &mut self.ends[side];
            end.blocked = false;
            end.changed = true;
        }
    }

    pub(super) fn read(&mut self, side: usize, buf: &mut [u8]) -> io::Result<usize> {
        let end = &mut self.ends[side];
        let mut read = 0;
        while !end.arrived.is_empty() && read < buf.len() {
            read += end.arrived.read(&mut buf[read..])?;
        }
        if read > 0 {
            self.deliver(1 - side);
            return Ok(read);
        }
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        if end.far_finished || end.phase == Phase::Broken {
            return Ok(0);
        }
        Err(ErrorKind::WouldBlock.into())
    }

    pub(super) fn connected(&mut self, side: usize) -> io::Result<bool> {
        let end = &mut self.ends[side];
        match end.error.take() {
            Some(error) => Err(error.into()),
            None => Ok(end.phase == Phase::Established),
        }
    }

    pub(super) fn shutdown(&mut self, side: usize, how: Shutdown) -> io::Result<()> {
        let end = &mut self.ends[side];
        match end.phase {
            Phase::Connecting => self.give_up(side),
            Phase::Established => {}
            Phase::Broken => return Err(ErrorKind::NotConnected.into()),
        }
        let end = &mut self.ends[side];
        if how != Shutdown::Read {
            end.finished = true;
            self.deliver(side);
        }
        Ok(())
    }

    /// The dialer gives up before the dial has ended.
    fn give_up(&mut self, side: usize) {
        self.ends[side].finished = true;
        for end in &mut self.ends {
            end.phase = Phase::Broken;
        }
    }

    /// Closes both directions, and then ends the connection with a reset, as an abort of a real loop does. Unless bytes wait before it,
    /// the end arrives before the reset.
    pub(super) fn abort(&mut self, side: usize) -> io::Result<()> {
        if self.ends[side].phase == Phase::Established {
            self.shutdown(side, Shutdown::Both)?;
        }
        self.reset(side)
    }

    /// Ends the connection with a reset. Bytes that have not arrived are lost.
    pub(super) fn reset(&mut self, side: usize) -> io::Result<()> {
        let end = &mut self.ends[side];
        let was_broken = end.phase == Phase::Broken;
        end.phase = Phase::Broken;
        end.finished = true;
        end.unsent.clear();
        if was_broken {
            return Err(ErrorKind::NotConnected.into());
        }
        end.resets = true;
        self.deliver(side);
        Ok(())
    }

    /// The owner drops its end, as `close(2)` does. Bytes that were not read end the connection with a reset.
    pub(super) fn close(&mut self, side: usize) {
        let end = &mut self.ends[side];
        (end.token, end.held) = (None, false);
        if std::mem::replace(&mut end.closed, true) || end.phase == Phase::Broken {
            return;
        }
        end.finished = true;
        if end.phase == Phase::Connecting {
            self.give_up(side);
        } else if end.arrived.is_empty() {
            self.deliver(side);
        } else {
            let _ = self.reset(side);
        }
    }

    /// The host of this end loses power. The far end hears of it by a reset, once the host is back and can be reached.
    pub(super) fn lose(&mut self, side: usize) {
        let end = &mut self.ends[side];
        end.token = None;
        end.closed = true;
        end.phase = Phase::Broken;
        end.resets = true;
        end.unsent.clear();
        end.arrived.clear();
    }

    pub(super) fn readiness(&self, side: usize) -> Readiness {
        let end = &self.ends[side];
        let ended = end.far_finished || end.phase == Phase::Broken;
        let has_room = end.phase == Phase::Established && self.send_room(side) > 0;
        Readiness {
            readable: ended || !end.arrived.is_empty(),
            writable: ended || has_room,
            ended,
        }
    }

    /// Writes without a bound, for the test.
    pub(super) fn send(&mut self, side: usize, bytes: &[u8]) -> io::Result<()> {
        let end = &mut self.ends[side];
        match end.phase {
            Phase::Connecting => return Err(ErrorKind::NotConnected.into()),
            Phase::Broken => return Err(ErrorKind::ConnectionReset.into()),
            Phase::Established if end.finished => return Err(ErrorKind::BrokenPipe.into()),
            Phase::Established => {}
        }
        end.unsent.extend(bytes);
        self.deliver(side);
        Ok(())
    }

    /// Has the far end of this side write at most so many bytes more, or so many more than it could.
    pub(super) fn set_room(&mut self, side: usize, bytes: usize, is_more: bool) {
        let end = &mut self.ends[side];
        let before = match is_more {
            true => end.receive_max,
            false => end.arrived.len(),
        };
        end.receive_max = before.saturating_add(bytes);
        self.deliver(1 - side);
        self.unblock(1 - side);
    }

    /// The bytes that have arrived at the end of the test.
    pub(super) fn received(&self, side: usize) -> Vec<u8> {
        self.ends[side].arrived.iter().copied().collect()
    }

    /// The same, which are taken. That makes no room.
    pub(super) fn take_received(&mut self, side: usize) -> Vec<u8> {
        let end = &mut self.ends[side];
        if end.receive_max < usize::MAX {
            end.receive_max -= end.arrived.len();
        }
        std::mem::take(&mut end.arrived).into()
    }

    /// Whether the last write of this end found too little room, and there has been none since.
    pub(super) fn is_blocked(&self, side: usize) -> bool {
        self.ends[side].blocked
    }

    /// Whether the far end of this side has ended its direction, or the connection.
    pub(super) fn far_has_closed(&self, side: usize) -> bool {
        let far = &self.ends[1 - side];
        far.finished || far.closed
    }

    pub(super) fn was_reset(&self, side: usize) -> bool {
        self.ends[side].was_reset
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
