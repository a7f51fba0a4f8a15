//! A system under the loop of which the test is the other side: it connects, speaks, listens, hangs up and moves the clock.
//!
//! Nothing happens here by itself, by chance or in time; what comes when is the input's to say.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quorum_cnx::{
    Event, Frame, Handle, Handler, Sid,
    simulation::{Found, Net, Ready, Stream, Waker, Wire},
};

/// The time at which every run begins.
static DAWN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What is outside of the loop, in the hands of the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    now: Duration,
    lines: Vec<Line>,
    /// Lines that wait to be accepted.
    waiting: VecDeque<usize>,
    ready: Vec<Ready>,
    lookups: VecDeque<(u64, String)>,
    found: VecDeque<Found>,
    /// What the system refuses next.
    faults: Vec<Fault>,
    /// Where the loop wanted to go: hosts that it asked for, addresses that it dialed.
    sought: Vec<String>,
    is_open: bool,
}

/// What a system can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Accept,
    Dial,
    Watch,
    Shutdown,
    Wait,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) addr: SocketAddr,
    /// True exactly when the loop opened it.
    pub(crate) dialed: bool,
    /// All that the far end has said, and how much of it the loop has read.
    pub(crate) said: Vec<u8>,
    pub(crate) read: usize,
    /// All that the loop has written.
    pub(crate) heard: Vec<u8>,
    /// How many bytes more the loop may write.
    room: usize,
    /// True exactly when the loop found no room, and waits for an edge.
    full: bool,
    token: Option<usize>,
    fate: Fate,
    /// What a writer is told once it is reset.
    broken: io::ErrorKind,
    /// True exactly when the loop has ended its side, or the line.
    pub(crate) closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Connecting,
    Refused,
    Open,
    /// The far end has ended its side.
    Finished,
    Reset,
}

impl Outside {
    /// The system to turn a loop on.
    pub(crate) fn net(&self) -> Inside {
        Inside(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody connects from there.
    pub(crate) fn arrive(&self, addr: SocketAddr) -> usize {
        let mut world = self.lock();
        let line = world.open(addr, Fate::Open);
        world.waiting.push_back(line);
        world.ready.push(Ready::Listener(0));
        line
    }

    /// The far end says this.
    pub(crate) fn say(&self, line: usize, bytes: &[u8]) {
        let mut world = self.lock();
        if world.lines[line].fate == Fate::Open {
            world.lines[line].said.extend_from_slice(bytes);
            world.report(line, false);
        }
    }

    /// The far end has said all.
    pub(crate) fn finish(&self, line: usize) {
        self.lock().end(line, Fate::Finished);
    }

    /// The connection breaks, which a writer may be told in other words than a reader.
    pub(crate) fn reset(&self, line: usize, to_writers: io::ErrorKind) {
        let mut world = self.lock();
        world.lines[line].broken = to_writers;
        world.end(line, Fate::Reset);
    }

    /// The far end takes so many bytes more.
    pub(crate) fn make_room(&self, line: usize, bytes: usize) {
        let mut world = self.lock();
        let there = &mut world.lines[line];
        there.room = there.room.saturating_add(bytes);
        if bytes > 0 && std::mem::take(&mut there.full) {
            world.report(line, true);
        }
    }

    /// Dials end, well or not.
    pub(crate) fn answer_dials(&self, yes: bool, room: usize) {
        let mut world = self.lock();
        for line in 0..world.lines.len() {
            if world.lines[line].fate == Fate::Connecting {
                let there = &mut world.lines[line];
                there.fate = if yes { Fate::Open } else { Fate::Refused };
                there.room = room;
                world.report(line, true);
            }
        }
    }

    /// All names that are asked for are unknown.
    pub(crate) fn know_no_names(&self) {
        let mut world = self.lock();
        while let Some((lookup_id, _)) = world.lookups.pop_front() {
            let answer = Err(io::ErrorKind::NotFound.into());
            world.found.push_back(Found { lookup_id, answer });
            world.ready.push(Ready::Waker);
        }
    }

    /// The next call of this kind fails.
    pub(crate) fn refuse(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    pub(crate) fn time(&self) -> Duration {
        self.lock().now
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.lock().now += time;
    }

    /// Where the loop wanted to go since the last call.
    pub(crate) fn sought(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().sought)
    }

    pub(crate) fn lines(&self) -> usize {
        self.lock().lines.len()
    }

    pub(crate) fn look<T>(&self, line: usize, look: impl FnOnce(&Line) -> T) -> T {
        look(&self.lock().lines[line])
    }

    /// The newest line to or from this address.
    pub(crate) fn newest(&self, addr: SocketAddr) -> usize {
        let world = self.lock();
        let found = world.lines.iter().rposition(|line| line.addr == addr);
        found.expect("the loop names addresses that exist")
    }

    /// Whether the loop holds a listening socket, or a connection.
    pub(crate) fn holds_something(&self) -> bool {
        self.lock().is_open || self.holds_lines()
    }

    /// Whether the loop holds a line open.
    pub(crate) fn holds_lines(&self) -> bool {
        self.lock().lines.iter().any(|line| line.token.is_some())
    }
}

impl World {
    fn fails(&mut self, fault: Fault) -> io::Result<()> {
        match self.faults.iter().position(|next| *next == fault) {
            Some(at) => {
                self.faults.swap_remove(at);
                Err(io::ErrorKind::OutOfMemory.into())
            }
            None => Ok(()),
        }
    }

    fn open(&mut self, addr: SocketAddr, fate: Fate) -> usize {
        self.lines.push(Line {
            addr,
            dialed: fate == Fate::Connecting,
            said: Vec::new(),
            read: 0,
            heard: Vec::new(),
            room: 0,
            full: false,
            token: None,
            fate,
            broken: io::ErrorKind::ConnectionReset,
            closed: false,
        });
        self.lines.len() - 1
    }

    fn end(&mut self, line: usize, fate: Fate) {
        if self.lines[line].fate == Fate::Open || fate == Fate::Reset {
            self.lines[line].fate = fate;
            self.report(line, fate == Fate::Reset);
        }
    }

    /// An edge, if the loop watches.
    fn report(&mut self, line: usize, writable: bool) {
        let there = &self.lines[line];
        if let Some(token) = there.token {
            self.ready.push(Ready::Connection {
                token,
                readable: true,
                writable,
                ended: there.is_ended(),
            });
        }
    }
}

impl Line {
    fn is_ended(&self) -> bool {
        matches!(self.fate, Fate::Finished | Fate::Reset | Fate::Refused)
    }

    /// Whether both ends stand by it.
    pub(crate) fn is_alive(&self) -> bool {
        self.fate == Fate::Open && !self.closed
    }

    /// Whether all that was to be written has found room.
    pub(crate) fn is_roomy(&self) -> bool {
        !self.full
    }
}

/// What the loop sees.
#[derive(Debug)]
pub(crate) struct Inside(Outside);

impl Net for Inside {
    type Stream = End;

    fn now(&self) -> Instant {
        *DAWN + self.0.lock().now
    }

    fn wait(&mut self, _: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let mut world = self.0.lock();
        world.fails(Fault::Wait)?;
        ready.append(&mut world.ready);
        Ok(())
    }

    fn listen(&mut self, _: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        self.0.lock().is_open = true;
        Ok(at)
    }

    fn adopt(&mut self, _: usize, _: TcpListener) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, _: usize) -> io::Result<(End, SocketAddr)> {
        let mut world = self.0.lock();
        world.fails(Fault::Accept)?;
        let line = world.waiting.pop_front();
        let line = line.ok_or(io::ErrorKind::WouldBlock)?;
        Ok((End(self.0.clone(), line), world.lines[line].addr))
    }

    fn close_listeners(&mut self) {
        self.0.lock().is_open = false;
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<End> {
        let mut world = self.0.lock();
        world.sought.push(to.to_string());
        world.fails(Fault::Dial)?;
        let line = world.open(to, Fate::Connecting);
        Ok(End(self.0.clone(), line))
    }

    fn watch(&mut self, stream: &End, token: usize) -> io::Result<()> {
        let mut world = self.0.lock();
        world.fails(Fault::Watch)?;
        world.lines[stream.1].token = Some(token);
        // As epoll does, for what was there before.
        world.report(stream.1, false);
        Ok(())
    }

    fn unwatch(&mut self, stream: &End) {
        self.0.lock().lines[stream.1].token = None;
    }

    fn lookup(&mut self, lookup_id: u64, host: &str) {
        let mut world = self.0.lock();
        world.sought.push(host.to_owned());
        world.lookups.push_back((lookup_id, host.to_owned()));
    }

    fn found(&mut self) -> Option<Found> {
        self.0.lock().found.pop_front()
    }

    fn waker(&self) -> Waker {
        let outside = self.0.clone();
        Arc::new(move || outside.lock().ready.push(Ready::Waker))
    }
}

/// The loop's end of a line.
pub(crate) struct End(Outside, usize);

impl Wire for End {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let line = &mut self.0.lock().lines[self.1];
        if line.fate == Fate::Reset {
            return Err(line.broken.into());
        }
        if line.room == 0 {
            line.full = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        for buf in bufs {
            let taken = &buf[..buf.len().min(line.room)];
            line.heard.extend_from_slice(taken);
            line.room -= taken.len();
            written += taken.len();
        }
        Ok(written)
    }
}

impl Stream for End {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let line = &mut self.0.lock().lines[self.1];
        let rest = &line.said[line.read..];
        let taken = rest.len().min(buf.len());
        if taken > 0 {
            buf[..taken].copy_from_slice(&rest[..taken]);
            line.read += taken;
            return Ok(taken);
        }
        match line.fate {
            Fate::Connecting | Fate::Open => Err(io::ErrorKind::WouldBlock.into()),
            Fate::Finished => Ok(0),
            Fate::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            Fate::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn connected(&self) -> io::Result<bool> {
        let line = &self.0.lock().lines[self.1];
        match line.fate {
            Fate::Connecting => Ok(false),
            Fate::Open | Fate::Finished => Ok(true),
            Fate::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
            // The error may have been told before.
            Fate::Reset if line.broken == io::ErrorKind::BrokenPipe => Ok(false),
            Fate::Reset => Err(line.broken.into()),
        }
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        let mut world = self.0.lock();
        world.lines[self.1].closed = true;
        world.fails(Fault::Shutdown)
    }

    fn abort(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let line = &mut self.0.lock().lines[self.1];
        line.closed = true;
        line.token = None;
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "End({})", self.1)
    }
}

/// Writes down what the loop tells.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) told: Vec<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Frame(Sid, Vec<u8>),
    Event(Event),
}

impl Handler for Recorder {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        self.told.push(Told::Frame(from, frame.to_vec()));
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if !matches!(event, Event::Listening { .. } | Event::SlowTurn { .. }) {
            self.told.push(Told::Event(event.clone()));
        }
    }
}
