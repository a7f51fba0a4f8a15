//! The keys of one connection, and how far its handshake is.
//!
//! Nothing here makes a system call.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use rustls::{
    ClientConnection, Connection, InvalidMessage, ProtocolVersion, ServerConnection,
    pki_types::ServerName,
};

use super::{common::Common, gather::Gather, records::Records};
use crate::{
    limits::{
        TLS_AHEAD_BYTES, TLS_HANDSHAKE_BYTES_MAX, TLS_OVERHEAD_BYTES_MAX, TLS_OVERHEAD_FACTOR_MAX,
        TLS_RECORD_BYTES, TLS_RENEWED_EVERY_RECORDS, TLS_TICKET_WAIT,
    },
    net::Identity,
    proto::{Reason, Sid, TlsFailure},
    sync::{
        Guard, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
        lock,
    },
    tls::{TlsContext, failure_of},
};

/// The first byte of a TLS connection: a handshake record (RFC 8446, section 5.1). No initial message begins with it, except that of
/// a server that sends its bare sid, and whose sid is at least 0x16 << 56.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Small frames are copied into one buffer: an encryption of several slices allocates.
const SMALL_RECORD_BYTES: usize = 2 << 10;

/// At most as many slices make one record.
const SLICES_MAX: usize = 34;

/// What a connection needs that speaks TLS, or may turn out to.
pub(super) struct Session {
    pub(super) role: Role,
    /// The identities at the time at which it began.
    context: Arc<TlsContext>,
    pub(super) common: Arc<Common>,
    /// A [`mode`].
    mode: AtomicU8,
    /// The token under which it is watched.
    token: AtomicUsize,
    /// True exactly when the next read returns `error` or the end, although the socket is empty.
    has_end: AtomicBool,
    error: Mutex<Option<io::Error>>,
    connection: Mutex<Option<Connection>>,
    pub(super) records: Mutex<Records>,
    /// Bytes received in the handshake.
    received: AtomicUsize,
    /// When the handshake was over but for the ticket.
    finished: Mutex<Option<Instant>>,
}

pub(super) enum Role {
    /// It was dialed to this address.
    Dialer(IpAddr),
    Acceptor,
}

/// How far a session is. Only the loop changes it.
pub(super) mod mode {
    /// Accepted, and no byte has arrived.
    pub(in crate::net::tls) const UNDECIDED: u8 = 0;
    /// The far end speaks plaintext.
    pub(in crate::net::tls) const PLAIN: u8 = 1;
    /// Dialed, and not connected yet.
    pub(in crate::net::tls) const CONNECTING: u8 = 2;
    pub(in crate::net::tls) const HANDSHAKE: u8 = 3;
    /// Frames may be written.
    pub(in crate::net::tls) const ESTABLISHED: u8 = 4;
}

fn refused(failure: TlsFailure) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Reason::Tls(failure))
}

impl Session {
    pub(super) fn new(role: Role, mode: u8, common: Arc<Common>) -> Self {
        Self {
            role,
            context: common.context(),
            common,
            mode: AtomicU8::new(mode),
            token: AtomicUsize::new(0),
            has_end: AtomicBool::new(false),
            error: Mutex::new(None),
            connection: Mutex::new(None),
            records: Mutex::new(Records::default()),
            received: AtomicUsize::new(0),
            finished: Mutex::new(None),
        }
    }

    pub(super) fn set_token(&self, token: usize) {
        // Relaxed: set before any other thread gets the stream.
        self.token.store(token, Ordering::Relaxed);
    }

    /// Whether the next read returns an error or the end although the socket is empty.
    pub(super) fn has_end(&self) -> bool {
        self.has_end.load(Ordering::Relaxed)
    }

    /// Checks that the far end is this server, by the identities as they are now.
    pub(super) fn identify(&self, sid: Sid) -> Result<Identity, Reason> {
        let current = self.common.context();
        if self.mode() == mode::PLAIN {
            let is_allowed = match self.role {
                Role::Dialer(_) => !current.dials_tls(),
                Role::Acceptor => current.accepts_plain(),
            };
            return match is_allowed {
                true => Ok(Identity::Claimed),
                false => Err(Reason::Tls(TlsFailure::Plaintext)),
            };
        }
        let connection = self.connection();
        let chain = connection.as_ref().and_then(|it| it.peer_certificates());
        let chain = chain.unwrap_or_default();
        // The handshake has verified the chain by the identities of that time.
        let checked = match Arc::ptr_eq(&current, &self.context) {
            true => current.check(sid, chain),
            false => current.recheck(sid, chain),
        };
        checked.map(|()| Identity::Proved).map_err(Reason::Tls)
    }

    /// Relaxed: the loop sets it, and another thread gets a stream to write to only after it is established, by a lock.
    pub(super) fn mode(&self) -> u8 {
        self.mode.load(Ordering::Relaxed)
    }

    pub(super) fn set_mode(&self, mode: u8) {
        self.mode.store(mode, Ordering::Relaxed);
    }

    pub(super) fn connection(&self) -> Guard<MutexGuard<'_, Option<Connection>>> {
        lock(&self.connection)
    }

    /// Begins the handshake of a connection that was dialed.
    pub(super) fn begin_as_client(&self, to: IpAddr) -> io::Result<()> {
        let config = Arc::clone(self.context.client_config());
        // Which name it is plays no part: the certificate is checked for the names of the sid, in `identify`.
        let client = ClientConnection::new(config, ServerName::from(to));
        self.begin(client.map_err(|error| refused(failure_of(&error)))?.into());
        Ok(())
    }

    /// The first byte of an accepted connection tells how it speaks.
    pub(super) fn begin_as_server(&self, first: u8) -> io::Result<()> {
        if first == HANDSHAKE_RECORD {
            let config = Arc::clone(self.context.server_config());
            let server = ServerConnection::new(config);
            self.begin(server.map_err(|error| refused(failure_of(&error)))?.into());
        } else if self.context.accepts_plain() {
            self.set_mode(mode::PLAIN);
        } else {
            return Err(refused(TlsFailure::Plaintext));
        }
        Ok(())
    }

    fn begin(&self, mut connection: Connection) {
        // The bounds are those of this module: a write encrypts no more than `TLS_AHEAD_BYTES`.
        connection.set_buffer_limit(None);
        *self.connection() = Some(connection);
        self.set_mode(mode::HANDSHAKE);
    }

    /// Takes the next step from the handshake to an established connection, if it is over.
    pub(super) fn establish(&self) {
        if self.mode() != mode::HANDSHAKE {
            return;
        }
        let guard = self.connection();
        let Some(connection) = guard.as_ref().filter(|it| !it.is_handshaking()) else {
            return;
        };
        let is_judged = match connection {
            // With TLS 1.3, the handshake of a client is over before the server has seen its certificate. A server that accepts
            // it sends a ticket. So a refusal is told from a link that ends.
            Connection::Client(client) => {
                client.protocol_version() != Some(ProtocolVersion::TLSv1_3)
                    || client.tls13_tickets_received() > 0
                    || self
                        .established_at()
                        .is_some_and(|at| at <= self.common.now())
            }
            Connection::Server(_) => true,
        };
        drop(guard);
        if is_judged {
            self.set_mode(mode::ESTABLISHED);
        } else {
            lock(&self.finished).get_or_insert_with(|| self.common.now());
        }
    }

    /// When a client stops waiting for the ticket of its server.
    pub(super) fn established_at(&self) -> Option<Instant> {
        lock(&self.finished).map(|at| at + TLS_TICKET_WAIT)
    }

    /// Takes plaintext that is decrypted. Returns `None` if the far end has ended its direction.
    pub(super) fn take_plaintext(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self.connection().as_mut().map(|it| it.reader().read(buf)) {
            Some(Ok(0)) if !buf.is_empty() => Ok(None),
            Some(Ok(n)) => Ok(Some(n)),
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Some(Err(_)) | None => Ok(Some(0)),
        }
    }

    /// A handshake that is too long is refused, since rustls keeps its messages until they are whole.
    fn limit_handshake(&self, received: usize) -> io::Result<()> {
        if self.mode() == mode::HANDSHAKE {
            let before = self.received.fetch_add(received, Ordering::Relaxed);
            if before + received > TLS_HANDSHAKE_BYTES_MAX {
                let why = format!("its handshake has more than {TLS_HANDSHAKE_BYTES_MAX} bytes");
                return Err(refused(TlsFailure::Protocol(why)));
            }
        }
        Ok(())
    }

    /// A far end that sends next to nothing but records without data is refused: no budget of the loop counts them, and a read
    /// would not end before they do.
    pub(super) fn limit_overhead(&self, received: usize, plaintext: usize) -> io::Result<()> {
        if received > TLS_OVERHEAD_BYTES_MAX + TLS_OVERHEAD_FACTOR_MAX * plaintext {
            let why = "it sends too many records without data".to_owned();
            return Err(refused(TlsFailure::Protocol(why)));
        }
        Ok(())
    }

    /// Decrypts `input` into `buf` from `filled` on. Returns whether TLS has something to send.
    pub(super) fn decrypt(
        &self,
        mut input: &[u8],
        buf: &mut [u8],
        filled: &mut usize,
    ) -> io::Result<bool> {
        self.limit_handshake(input.len())?;
        let mut wants_write = false;
        while !input.is_empty() {
            // Locked for each step, of 4 KiB or a record, so that a sender does not wait for all of a long read.
            let mut guard = self.connection();
            let Some(connection) = guard.as_mut() else {
                return Ok(false);
            };
            if connection.read_tls(&mut input)? == 0 {
                // After `close_notify` nothing counts.
                break;
            }
            let processed = connection.process_new_packets();
            wants_write |= connection.wants_write();
            // Also in front of an error: one step may have decrypted several records.
            match connection.reader().read(&mut buf[*filled..]) {
                Ok(n) => *filled += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if processed
                .map_err(|error| self.failed(&error))?
                .peer_has_closed()
            {
                // Its direction of TLS, but perhaps not that of TCP: then the socket reports nothing.
                self.has_end.store(true, Ordering::Relaxed);
            }
        }
        Ok(wants_write)
    }

    /// Encrypts the plaintext that follows what is encrypted already, at most [`TLS_AHEAD_BYTES`].
    pub(super) fn encrypt(&self, records: &mut Records, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let mut gather = Gather::new(bufs, records.ahead());
        let mut left = TLS_AHEAD_BYTES;
        while left > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let (count, len) = gather.take(left.min(TLS_RECORD_BYTES), &mut slices);
            if len == 0 {
                break;
            }
            left -= len;
            let before = records.room().len();
            let mut guard = self.connection();
            let connection = guard.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            // TLS 1.3 changes its keys by itself.
            let is_limited = connection.protocol_version() == Some(ProtocolVersion::TLSv1_2);
            write_record(connection, &slices[..count], len)?;
            move_records(connection, records)?;
            drop(guard);
            if records.room().len() < before + len {
                // The keys of TLS 1.2 are used up. rustls then takes plaintext and sends `close_notify` in its place.
                return Err(refused(TlsFailure::Protocol(
                    "the keys are used up".to_owned(),
                )));
            }
            records.end_record(len);
            if is_limited && records.count() % TLS_RENEWED_EVERY_RECORDS == 0 {
                // Relaxed: see `set_token`.
                self.common.worn.add(self.token.load(Ordering::Relaxed));
            }
        }
        Ok(())
    }

    fn failed(&self, error: &rustls::Error) -> io::Error {
        let is_first = self.mode() == mode::HANDSHAKE;
        match error {
            // What begins no record of TLS. Only at first does that mean that the far end speaks something else.
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) if !is_first => {
                refused(TlsFailure::Protocol(error.to_string()))
            }
            error => refused(failure_of(error)),
        }
    }

    /// What a read returns when an error was kept: the plaintext in front of it, then the error.
    pub(super) fn held(&self, filled: usize) -> io::Result<usize> {
        if filled > 0 {
            return Ok(filled);
        }
        self.has_end.store(false, Ordering::Relaxed);
        let error = lock(&self.error).take();
        Err(error.unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
    }

    /// Keeps an error for the next read, since this one returns plaintext.
    pub(super) fn hold(&self, error: io::Error) {
        *lock(&self.error) = Some(error);
        self.has_end.store(true, Ordering::Relaxed);
    }
}

/// Encrypts one record.
fn write_record(connection: &mut Connection, slices: &[IoSlice<'_>], len: usize) -> io::Result<()> {
    let mut writer = connection.writer();
    let written = match slices {
        [one] => writer.write(one)?,
        _ if len <= SMALL_RECORD_BYTES => {
            let mut small = [0; SMALL_RECORD_BYTES];
            let mut at = 0;
            for slice in slices {
                small[at..at + slice.len()].copy_from_slice(slice);
                at += slice.len();
            }
            writer.write(&small[..len])?
        }
        _ => writer.write_vectored(slices)?,
    };
    if written == len {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Moves what TLS has to send behind the records that are on their way.
pub(super) fn move_records(connection: &mut Connection, records: &mut Records) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(records.room())?;
    }
    Ok(())
}
