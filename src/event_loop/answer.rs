//! The answer to a native initial message: writing that of this server, and reading that of the far end.
//!
//! Nothing is decided here: the roster decides what becomes of the connection.

use std::{
    io::{self, IoSlice},
    mem,
    time::{Duration, Instant},
};

use super::{EventLoop, connections::Phase, read_stream::read_message};
use crate::{
    handler::Handler,
    limits::{CONTENDER_MARGIN, RETIRING_MAX},
    net::{Net, Stream},
    proto::{Answer, ConnectionKey, PeerId, Reason},
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// How long the answer to a native initial message may take. The far end may let this connection wait until an older one is found
    /// dead, and it may be configured like this server. `retires`: or until it is retired.
    pub(super) fn answer_timeout(&self, retires: bool) -> Duration {
        let contends = self.options.peer_dead_after + 2 * CONTENDER_MARGIN;
        let retiring = match retires {
            true => RETIRING_MAX + CONTENDER_MARGIN,
            false => Duration::ZERO,
        };
        contends.max(retiring).max(self.options.handshake_timeout)
    }

    /// Tells the dialer of an accepted connection that it is accepted, or why it is refused, if it expects an answer.
    ///
    /// # Errors
    ///
    /// Why the answer could not be written.
    pub(super) fn answer(
        &mut self,
        key: ConnectionKey,
        refused: Option<&Reason>,
    ) -> Result<(), Reason> {
        let Some(connection) = self.connections.get_mut(key) else {
            return Ok(());
        };
        if connection.arrival.is_none() || connection.incarnation.is_none() {
            return Ok(());
        }
        // It is the first thing that is written to this connection, so that there is room for it.
        let answer = self.roster.answer(refused).encode();
        let written = write_whole(&*connection.stream, &answer);
        if written.is_err() {
            // A part of it may be on its way: nothing must follow.
            connection.incarnation = None;
        }
        written
    }

    /// The connection of a dial of this peer that has not been answered yet.
    pub(super) fn unanswered_dial(&mut self, peer: PeerId) -> Option<ConnectionKey> {
        let mut dialed = self.endpoints.underway(peer);
        dialed.find(|key| {
            let dialed = self.connections.get_mut(*key);
            dialed.is_some_and(|it| matches!(it.phase, Phase::AwaitingAnswer { .. }))
        })
    }

    /// Reads more of the answer to the initial message of a dialed connection.
    pub(super) fn receive_answer(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (id, received, is_knock) = match &mut connection.phase {
            Phase::AwaitingAnswer { peer, received } => (*peer, received, false),
            Phase::Knocking {
                peer,
                answer: Some(received),
            } => (*peer, received, true),
            _ => return,
        };
        let decode = |bytes: &[u8]| Answer::decode(bytes).map_err(Reason::BadAnswer);
        let answer = match read_message(&*connection.stream, received, decode) {
            Ok(None) => return,
            Ok(Some(answer)) => answer,
            Err(reason) => return self.end(key, unanswered(reason), now),
        };
        let leftover = mem::take(received);
        match self.accepts(id, &answer) {
            Err(reason) => self.end(key, reason, now),
            // The far end closes it, too.
            Ok(_) if is_knock => self.end(key, Reason::Closed, now),
            Ok(incarnation) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.incarnation = Some(incarnation);
                    connection.controls = answer.controls;
                }
                self.on_dialed(key, id, leftover, now);
            }
        }
    }

    /// The incarnation of the peer, if it is the peer that answers, and if it accepts the connection.
    fn accepts(&self, id: PeerId, answer: &Answer) -> Result<u64, Reason> {
        let peer = self.peer(id).ok_or(Reason::Superfluous)?;
        answer.accept(peer.sid)
    }
}

/// Why a connection has ended before it was answered: the far end may not know this kind of initial message.
fn unanswered(reason: Reason) -> Reason {
    match reason {
        Reason::ClosedEarly | Reason::Io(io::ErrorKind::ConnectionReset) => Reason::ClosedAtOnce,
        reason => reason,
    }
}

/// Writes all of a short message that begins a connection, with one write.
///
/// # Errors
///
/// The reason for which the connection is to be ended.
pub(super) fn write_whole<S: Stream>(stream: &S, message: &[u8]) -> Result<(), Reason> {
    loop {
        match stream.write(&[IoSlice::new(message)]) {
            // A signal says nothing about the peer.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(n) if n == message.len() => return Ok(()),
            Ok(_) => return Err(Reason::Io(io::ErrorKind::WriteZero)),
            Err(error) => return Err(Reason::of_io(&error)),
        }
    }
}
