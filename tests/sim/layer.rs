//! A layer between TCP and the loop that behaves like TLS at its worst, without cryptography.
//!
//! ```text
//!   dialer    --hello-->                    --certificate-->
//!   acceptor              <--certificate--                    <--finished--   then records of data, both ways
//! ```
//!
//! It gives every liberty to itself that [`Stream`] and [`Wire`] allow: flights that do not fit into the socket, short reads with more
//! to come, errors that are held back, records without data, and bytes that it holds before they are reported as written. It knows
//! nothing of the simulated kernel.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

#[cfg(feature = "tls")]
use std::sync::Arc;

use quorum_cnx::{
    Reason, Sid, TlsFailure,
    simulation::{Clock, Found, Identity, Net, Ready, Stream, Waker, Wire},
};

use crate::{
    layer_records::{
        ALERT, CLOSE, CONTROL, DATA, HANDSHAKE, Incoming, Key, flight, parse_flight, seal,
    },
    rng::Rng,
};

/// The layer of one process.
#[derive(Clone, Debug)]
pub struct Layer {
    pub key: Key,
    pub shape: Shape,
    pub rng: Rng,
}

/// How large the messages of the layer are.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of a certificate.
    pub certificate: usize,
    /// Most bytes of data in one record.
    pub record: usize,
}

/// Data that is put into records before the socket is asked.
const AHEAD_BYTES: usize = 64 << 10;

/// Bytes of one read of the socket.
const READ_BYTES: usize = 2048;

/// The number of the first message that belongs to no handshake.
const ESTABLISHED: u8 = 4;

/// A net with the layer above it, or without it.
#[derive(Debug)]
pub struct LayeredNet<N> {
    net: N,
    layer: Option<Layer>,
}

/// A stream with the layer above it, or without it.
pub struct LayeredStream<S> {
    stream: S,
    session: Option<Session>,
}

/// One end of a connection. A thread that writes locks only `output`, and the loop waits for it only during the handshake.
struct Session {
    key: Key,
    shape: Shape,
    dialed: bool,
    /// True exactly when the far end has proved that it is the server that the loop has asked for.
    proved: AtomicBool,
    input: Mutex<Input>,
    output: Mutex<Output>,
}

struct Input {
    rng: Rng,
    has_begun: bool,
    /// The message of the handshake that must come next.
    expected: u8,
    records: Incoming,
    /// Data of a record that was not read to its end.
    data: Vec<u8>,
    /// True unless the last read of the socket found it empty.
    has_more: bool,
    /// An error that was found after data.
    held: Option<io::Error>,
    /// The server that the certificate of the far end names.
    far: Option<Sid>,
}

struct Output {
    rng: Rng,
    /// Records, the first `sent` bytes of which have left.
    bytes: VecDeque<u8>,
    sent: u64,
    /// Where each record ends, counted as `sent` is, and the bytes of data in it.
    ends: VecDeque<(u64, usize)>,
    queued: u64,
    /// Data in records that have left and is not reported as written.
    unreported: usize,
    /// The data that was taken and is not reported as written.
    taken: Vec<u8>,
    /// True exactly when one byte of the first record in `ends` was reported before the record had left.
    has_reported_one: bool,
    error: Option<io::ErrorKind>,
}

enum Next {
    Data,
    Established,
    End,
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refusal(reason: Reason) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<N: Net> LayeredNet<N> {
    pub fn new(net: N, layer: Option<Layer>) -> Self {
        Self { net, layer }
    }

    fn stream(&mut self, stream: N::Stream, dialed: bool) -> LayeredStream<N::Stream> {
        let session = self.layer.as_mut().map(|layer| Session {
            key: layer.key,
            shape: layer.shape,
            dialed,
            proved: AtomicBool::new(false),
            input: Mutex::new(Input {
                rng: layer.rng.fork(),
                has_begun: false,
                expected: u8::from(dialed),
                records: Incoming::default(),
                data: Vec::new(),
                has_more: false,
                held: None,
                far: None,
            }),
            output: Mutex::new(Output {
                rng: layer.rng.fork(),
                bytes: VecDeque::new(),
                sent: 0,
                ends: VecDeque::new(),
                queued: 0,
                unreported: 0,
                taken: Vec::new(),
                has_reported_one: false,
                error: None,
            }),
        });
        LayeredStream { stream, session }
    }
}

impl<N: Net> Net for LayeredNet<N> {
    type Stream = LayeredStream<N::Stream>;

    fn set_dead_after(&mut self, time: Duration) {
        self.net.set_dead_after(time);
    }

    #[cfg(feature = "tls")]
    fn set_tls(&mut self, context: Arc<quorum_cnx::simulation::TlsContext>) -> io::Result<()> {
        self.net.set_tls(context)
    }

    fn now(&self) -> Instant {
        self.net.now()
    }

    fn clock(&self) -> Clock {
        self.net.clock()
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.net.wait(timeout, ready)
    }

    fn listen(&mut self, listener: usize, at: SocketAddr) -> io::Result<SocketAddr> {
        self.net.listen(listener, at)
    }

    fn adopt(&mut self, listener: usize, bound: TcpListener) -> io::Result<SocketAddr> {
        self.net.adopt(listener, bound)
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, SocketAddr)> {
        let (stream, from) = self.net.accept(listener)?;
        Ok((self.stream(stream, false), from))
    }

    fn close_listener(&mut self, listener: usize) {
        self.net.close_listener(listener);
    }

    fn close_listeners(&mut self) {
        self.net.close_listeners();
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<Self::Stream> {
        let stream = self.net.dial(to)?;
        Ok(self.stream(stream, true))
    }

    fn watch(&mut self, stream: &Self::Stream, token: usize) -> io::Result<()> {
        self.net.watch(&stream.stream, token)
    }

    fn unwatch(&mut self, stream: &Self::Stream) {
        self.net.unwatch(&stream.stream);
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

impl<S: Stream> Wire for LayeredStream<S> {
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(session) = &self.session else {
            return self.stream.write(bufs);
        };
        assert!(
            session.proved.load(Ordering::Relaxed),
            "bytes are written before the far end was identified"
        );
        let output = &mut *lock(&session.output);
        output.check_repeated(bufs);
        if output.flush(&self.stream)? {
            output.take(bufs, session.shape.record);
            output.flush(&self.stream)?;
        }
        output.report()
    }
}

impl<S: Stream> Stream for LayeredStream<S> {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &self.session else {
            return self.stream.read(buf);
        };
        let input = &mut *lock(&session.input);
        if let Some(error) = input.held.take() {
            return Err(error);
        }
        let mut read = 0;
        loop {
            let len = input.data.len().min(buf.len() - read);
            buf[read..read + len].copy_from_slice(&input.data[..len]);
            input.data.drain(..len);
            read += len;
            // More data may be here than is handed out.
            input.has_more = true;
            if read == buf.len() || (read > 0 && input.rng.percent(30)) {
                return Ok(read);
            }
            match session.next(&self.stream, input) {
                Ok(Next::Data | Next::Established) => {}
                Ok(Next::End) => return Ok(read),
                Err(error) => {
                    let is_empty = error.kind() == io::ErrorKind::WouldBlock;
                    input.has_more = !is_empty;
                    if read == 0 {
                        return Err(error);
                    }
                    input.held = (!is_empty).then_some(error);
                    return Ok(read);
                }
            }
        }
    }

    fn has_more(&self) -> bool {
        match &self.session {
            Some(session) => lock(&session.input).has_more,
            None => self.stream.has_more(),
        }
    }

    fn connected(&self) -> io::Result<bool> {
        let Some(session) = self.session.as_ref().filter(|session| session.dialed) else {
            return self.stream.connected();
        };
        if !self.stream.connected()? {
            return Ok(false);
        }
        let input = &mut *lock(&session.input);
        if !std::mem::replace(&mut input.has_begun, true) {
            lock(&session.output).push(HANDSHAKE, &flight(0, session.key, 0), 0);
        }
        lock(&session.output).flush(&self.stream)?;
        if input.expected == ESTABLISHED {
            return Ok(true);
        }
        match session.next(&self.stream, input) {
            Ok(Next::Established) => Ok(true),
            Ok(Next::Data) => unreachable!("data before the end of the handshake is an error"),
            Ok(Next::End) => Err(refusal(Reason::ClosedEarly)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_handshaking(&self) -> bool {
        match &self.session {
            Some(session) => lock(&session.input).expected < ESTABLISHED,
            None => self.stream.is_handshaking(),
        }
    }

    fn connected_at(&self) -> Option<Instant> {
        self.stream.connected_at()
    }

    fn on_writable(&self) {
        let Some(session) = &self.session else {
            return self.stream.on_writable();
        };
        // A thread that is just writing tries once more, since the outbox learns of this edge too.
        if let Ok(mut output) = session.output.try_lock() {
            let error = output.flush(&self.stream).err().map(|error| error.kind());
            output.error = error;
        }
    }

    fn identify(&self, sid: Sid) -> Result<Identity, Reason> {
        let Some(session) = &self.session else {
            return self.stream.identify(sid);
        };
        let far = lock(&session.input).far;
        if far != Some(sid) {
            let names = far.map_or_else(String::new, |far| far.to_string());
            return Err(Reason::Tls(TlsFailure::WrongName { sid, names }));
        }
        session.proved.store(true, Ordering::Relaxed);
        Ok(Identity::Proved)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if let Some(session) = &self.session {
            let is_established = lock(&session.input).expected == ESTABLISHED;
            if how != Shutdown::Read && is_established {
                session.send(&self.stream, CLOSE, &[]);
            }
        }
        self.stream.shutdown(how)
    }

    fn abort(&self) -> io::Result<()> {
        self.stream.abort()
    }
}

impl Session {
    /// Reads up to the next data, to the end of the handshake, or to the end of the stream.
    fn next<S: Stream>(&self, stream: &S, input: &mut Input) -> io::Result<Next> {
        loop {
            let is_established = input.expected == ESTABLISHED;
            let record = match input.records.next(is_established) {
                Ok(record) => record,
                Err(failure) => return Err(self.fail(stream, failure)),
            };
            match record {
                Some((DATA, data)) if is_established => {
                    input.data = data;
                    return Ok(Next::Data);
                }
                Some((CONTROL | CLOSE, _)) if is_established => {}
                Some((ALERT, _)) => {
                    let alert = TlsFailure::Alert("any".to_owned());
                    return Err(refusal(Reason::Tls(alert)));
                }
                Some((HANDSHAKE, body)) if !is_established => {
                    self.on_flight(stream, input, &body)?;
                    if input.expected == ESTABLISHED {
                        return Ok(Next::Established);
                    }
                }
                Some(_) => {
                    let what = "a record that does not belong here".to_owned();
                    return Err(self.fail(stream, TlsFailure::Protocol(what)));
                }
                None => {
                    let mut bytes = [0; READ_BYTES];
                    match stream.read(&mut bytes) {
                        Ok(0) => return Ok(Next::End),
                        Ok(n) => input.records.add(&bytes[..n]),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    fn on_flight<S: Stream>(&self, stream: &S, input: &mut Input, body: &[u8]) -> io::Result<()> {
        let Some((number, key)) = parse_flight(body).filter(|(n, _)| *n == input.expected) else {
            let what = "an unexpected message in the handshake".to_owned();
            return Err(self.fail(stream, TlsFailure::Protocol(what)));
        };
        if matches!(number, 1 | 2) {
            if !key.is_signed {
                return Err(self.fail(stream, TlsFailure::UnknownIssuer));
            }
            input.far = Some(key.names);
        }
        input.expected = (number + 2).min(ESTABLISHED);
        if number < 3 {
            let answer = flight(number + 1, self.key, self.shape.certificate);
            let output = &mut *lock(&self.output);
            output.push(HANDSHAKE, &answer, 0);
            output.flush(stream)?;
        }
        Ok(())
    }

    /// Tells the far end that the session has failed.
    fn fail<S: Stream>(&self, stream: &S, failure: TlsFailure) -> io::Error {
        self.send(stream, ALERT, &[]);
        refusal(Reason::Tls(failure))
    }

    /// Sends a record without data, unless a thread is just writing.
    fn send<S: Stream>(&self, stream: &S, kind: u8, body: &[u8]) {
        if let Ok(mut output) = self.output.try_lock() {
            output.push(kind, body, 0);
            // The session ends in any case.
            let _ = output.flush(stream);
        }
    }
}

impl Output {
    fn push(&mut self, kind: u8, body: &[u8], data: usize) {
        let record = seal(kind, body);
        self.queued += record.len() as u64;
        self.ends.push_back((self.queued, data));
        self.bytes.extend(record);
    }

    /// Writes what is left of the records. Returns whether all of it has left.
    fn flush<S: Stream>(&mut self, stream: &S) -> io::Result<bool> {
        if let Some(kind) = self.error.take() {
            return Err(kind.into());
        }
        while !self.bytes.is_empty() {
            let (first, rest) = self.bytes.as_slices();
            match stream.write(&[IoSlice::new(first), IoSlice::new(rest)]) {
                Ok(n) => {
                    self.bytes.drain(..n);
                    self.sent += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let sent = self.sent;
            let has_left = |(end, _): &&(u64, usize)| *end <= sent;
            while let Some(&(_, data)) = self.ends.front().filter(has_left) {
                self.ends.pop_front();
                self.unreported += data - usize::from(data > 0 && self.has_reported_one);
                self.has_reported_one &= data == 0;
            }
        }
        Ok(self.bytes.is_empty())
    }

    /// The caller must repeat the bytes that it was not told of.
    fn check_repeated(&self, bufs: &[IoSlice<'_>]) {
        let mut taken = &self.taken[..];
        for buf in bufs {
            let (same, rest) = taken.split_at(buf.len().min(taken.len()));
            assert!(
                buf.starts_with(same),
                "another frame takes the place of one that has begun"
            );
            taken = rest;
        }
        assert!(taken.is_empty(), "a frame that has begun is cut short");
    }

    /// Puts what follows the bytes that were taken before into records.
    fn take(&mut self, bufs: &[IoSlice<'_>], most: usize) {
        let mut skip = self.taken.len();
        let mut data = Vec::new();
        for buf in bufs {
            let rest = &buf[skip.min(buf.len())..];
            skip -= skip.min(buf.len());
            data.extend(&rest[..rest.len().min(AHEAD_BYTES - data.len())]);
        }
        for piece in data.chunks(most) {
            if self.rng.percent(5) {
                self.push(CONTROL, &[], 0);
            }
            self.push(DATA, piece, piece.len());
        }
        self.taken.extend(data);
    }

    /// Reports the data of records that have left, and at least a byte of one that has begun.
    fn report(&mut self) -> io::Result<usize> {
        let mut n = std::mem::take(&mut self.unreported);
        if n == 0 && self.taken.len() > 1 && !self.has_reported_one {
            self.has_reported_one = true;
            n = 1;
        }
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.taken.drain(..n);
        Ok(n)
    }
}

impl<S> fmt::Debug for LayeredStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayeredStream")
    }
}
