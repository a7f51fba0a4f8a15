//! Puts frames into outboxes, and asks the loop for what the outboxes leave to it.
//!
//! Nothing here waits for the network, except `wait_for_room`.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{lifecycle::Life, peer::Peer, state::Shared};
use crate::{
    copy,
    error::SendError,
    inbox::{Chunk, Refused, Source},
    limits::{FRAME_BYTES_MAX, PREFIX_BYTES, QUEUE_RUN_BYTES, WHOLE_FRAME_BYTES},
    outbox::{LoopRequest, Refusal, Run, SendOutcome},
    proto::Sid,
};

impl Shared {
    /// See [`Handle::to_send`](crate::Handle::to_send).
    pub(crate) fn to_send(&self, sid: Sid, frame: Bytes) -> Result<SendOutcome, SendError> {
        self.admit(frame.len())?;
        // The usual case first, and without a lock. This server is no member of its own registry.
        if let Some(peer) = self.peers.first_member(sid) {
            return self.put(peer, frame);
        }
        if sid == self.own {
            return self.loop_back(frame);
        }
        self.put(&self.peer(sid)?, frame)
    }

    /// See [`Handle::to_send_latest`](crate::Handle::to_send_latest).
    pub(crate) fn to_send_latest(&self, sid: Sid, frame: Bytes) -> Result<SendOutcome, SendError> {
        self.admit(frame.len())?;
        if sid == self.own {
            return self.loop_back(frame);
        }
        let peer = self.peer(sid)?;
        self.put_latest(&peer, frame)
    }

    /// See [`Handle::to_send_slice`](crate::Handle::to_send_slice).
    pub(crate) fn to_send_slice(&self, sid: Sid, frame: &[u8]) -> Result<SendOutcome, SendError> {
        match self.peers.first_member(sid) {
            Some(peer) => self.send_slice(peer, frame),
            None => {
                // Before the frame is copied, and once more with the others.
                self.admit(frame.len())?;
                self.to_send(sid, copy::to_bytes(frame))
            }
        }
    }

    /// See [`PeerHandle::send`](crate::PeerHandle::send).
    #[inline]
    pub(crate) fn send(&self, peer: &Arc<Peer>, frame: Bytes) -> Result<SendOutcome, SendError> {
        self.admit(frame.len())?;
        self.put(peer, frame)
    }

    /// See [`PeerHandle::send_latest`](crate::PeerHandle::send_latest).
    pub(crate) fn send_latest(
        &self,
        peer: &Arc<Peer>,
        frame: Bytes,
    ) -> Result<SendOutcome, SendError> {
        self.admit(frame.len())?;
        self.put_latest(peer, frame)
    }

    fn put_latest(&self, peer: &Arc<Peer>, frame: Bytes) -> Result<SendOutcome, SendError> {
        let (outcome, request) = peer.outbox.put_latest(frame);
        self.ask(peer, request)?;
        outcome.map_err(|refusal| self.error_of(peer, refusal))
    }

    /// See [`PeerHandle::send_slice`](crate::PeerHandle::send_slice).
    #[inline]
    pub(crate) fn send_slice(
        &self,
        peer: &Arc<Peer>,
        frame: &[u8],
    ) -> Result<SendOutcome, SendError> {
        self.admit(frame.len())?;
        if is_long(frame.len()) && peer.outbox.has_queue() {
            return self.put_long(peer, frame);
        }
        match self.put_in_queue(peer, frame) {
            Some(sent) => sent,
            None => self.put_copy(peer, frame),
        }
    }

    /// See [`PeerHandle::send_all`](crate::PeerHandle::send_all).
    pub(crate) fn send_all(&self, peer: &Arc<Peer>, frames: &[&[u8]]) -> Result<usize, SendError> {
        let has_long = self.admit_all(frames)?;
        self.put_all(peer, frames, has_long)
    }

    /// See [`Handle::to_send_all`](crate::Handle::to_send_all).
    pub(crate) fn to_send_all(&self, sid: Sid, frames: &[&[u8]]) -> Result<usize, SendError> {
        let has_long = self.admit_all(frames)?;
        if let Some(peer) = self.peers.first_member(sid) {
            return self.put_all(peer, frames, has_long);
        }
        if sid == self.own {
            for (taken, frame) in frames.iter().enumerate() {
                match self.loop_back(copy::to_bytes(frame)) {
                    Ok(_) => {}
                    Err(error) if taken == 0 => return Err(error),
                    Err(_) => return Ok(taken),
                }
            }
            return Ok(frames.len());
        }
        self.put_all(&self.peer(sid)?, frames, has_long)
    }

    /// See [`Sender::flush`](crate::Sender::flush).
    pub(crate) fn put_run(&self, peer: &Arc<Peer>, run: &mut Run) -> Result<(), SendError> {
        let frames = run.frames();
        let (put, request) = peer.outbox.put_run(run);
        self.ask(peer, request)?;
        put.map_err(|refusal| {
            self.peers.discard_late(peer, frames);
            self.error_of(peer, refusal)
        })
    }

    /// Takes a frame that `fill` writes for this run, which is empty. A long frame, and any frame for a slot, is sent at once.
    pub(crate) fn feed(
        &self,
        peer: &Arc<Peer>,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
        run: &mut Run,
    ) -> Result<(), SendError> {
        self.admit(payload_len)?;
        if !is_long(payload_len) {
            match peer.outbox.reserve(run, PREFIX_BYTES + payload_len) {
                Some(Ok(())) => {
                    run.append_with(payload_len, fill);
                    return Ok(());
                }
                Some(Err(refusal)) => return Err(self.error_of(peer, refusal)),
                None => {}
            }
        }
        self.put_long_with(peer, payload_len, fill).map(drop)
    }

    /// Takes a frame that `fill` writes for this server itself.
    pub(crate) fn loop_back_with(
        &self,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), SendError> {
        self.admit(payload_len)?;
        let mut frame = vec![0; payload_len];
        fill(&mut frame);
        self.loop_back(frame.into()).map(drop)
    }

    /// See [`Handle::wait_for_room`](crate::Handle::wait_for_room).
    pub(crate) fn wait_for_room(&self, sid: Sid, timeout: Duration) -> Result<bool, SendError> {
        if sid == self.own {
            let owner = Source::loopback(sid).owner();
            return Ok(self.inbox.wait_for_room(owner, self.deadline(timeout)));
        }
        let peer = self.peer(sid)?;
        Ok(self.wait_for_room_of(&peer, timeout))
    }

    /// See [`PeerHandle::wait_for_room`](crate::PeerHandle::wait_for_room).
    pub(crate) fn wait_for_room_of(&self, peer: &Peer, timeout: Duration) -> bool {
        peer.outbox.wait_for_room(self.deadline(timeout))
    }

    fn deadline(&self, timeout: Duration) -> Option<Instant> {
        // A timeout beyond the range of the clock means no deadline. The loop's own thread does not wait: only it could make room.
        if self.is_loop_thread(thread::current().id()) {
            Some(Instant::now())
        } else {
            Instant::now().checked_add(timeout)
        }
    }

    /// See [`Handle::wait_for_room_async`](crate::Handle::wait_for_room_async).
    pub(crate) async fn wait_for_room_async(&self, sid: Sid) -> Result<(), SendError> {
        // In a forked process nothing makes room: `life` notices that it runs in one, and closes the outboxes and the inbox.
        let _ = self.life();
        if sid == self.own {
            let owner = Source::loopback(sid).owner();
            self.inbox.wait_for_room_async(owner).await;
            return Ok(());
        }
        let peer = self.peer(sid)?;
        self.wait_for_room_of_async(&peer).await;
        Ok(())
    }

    /// See [`PeerHandle::wait_for_room_async`](crate::PeerHandle::wait_for_room_async).
    pub(crate) async fn wait_for_room_of_async(&self, peer: &Peer) {
        // As above.
        let _ = self.life();
        peer.outbox.wait_for_room_async().await;
    }

    /// See [`Handle::discard`](crate::Handle::discard).
    pub(crate) fn discard(&self, sid: Sid) -> Result<u64, SendError> {
        let peer = self.peer(sid)?;
        Ok(peer.outbox.discard())
    }

    /// Refuses a frame of a wrong length, and every frame after a request to halt.
    #[inline]
    fn admit(&self, frame_len: usize) -> Result<(), SendError> {
        check(frame_len)?;
        self.check_halt()
    }

    /// Does the same for several frames. Returns whether one of them is long.
    #[inline]
    fn admit_all(&self, frames: &[&[u8]]) -> Result<bool, SendError> {
        let mut longest = 0;
        for frame in frames {
            check(frame.len())?;
            longest = longest.max(frame.len());
        }
        self.check_halt()?;
        Ok(is_long(longest))
    }

    /// Refuses to send as soon as a halt is requested, before the loop has seen the request: threads that go on sending would keep
    /// the loop from the locks that it needs to halt.
    #[inline]
    fn check_halt(&self) -> Result<(), SendError> {
        if self.halt.is_given() {
            return Err(SendError::Halted);
        }
        Ok(())
    }

    // Inlined always, so that a slot and a queue each have code of their own: it saves only the registers that it needs.
    #[inline(always)]
    fn put(&self, peer: &Arc<Peer>, frame: Bytes) -> Result<SendOutcome, SendError> {
        if peer.outbox.has_queue() {
            self.put_queued(peer, frame)
        } else {
            self.put_any(peer, frame)
        }
    }

    #[inline(never)]
    fn put_queued(&self, peer: &Arc<Peer>, frame: Bytes) -> Result<SendOutcome, SendError> {
        if frame.len() < WHOLE_FRAME_BYTES {
            if let Some(sent) = self.put_in_queue(peer, &frame) {
                return sent;
            }
        }
        self.put_any(peer, frame)
    }

    /// Puts a frame into an outbox of any kind.
    // Inlined always: where the caller has looked at the kind, it is not looked at again.
    #[inline(always)]
    fn put_any(&self, peer: &Arc<Peer>, frame: Bytes) -> Result<SendOutcome, SendError> {
        let (outcome, request) = peer.outbox.put(frame);
        // In a forked process the frame is now in a copy of the outbox that nothing empties: so the error, and not the outcome.
        self.ask(peer, request)?;
        outcome.map_err(|refusal| self.error_of(peer, refusal))
    }

    /// Puts a copy of a short frame, if there is a queue and no slot. That is the only thing that many callers do, so that it has code
    /// of its own, with one look at the kind of the outbox.
    #[inline(always)]
    fn put_in_queue(
        &self,
        peer: &Arc<Peer>,
        frame: &[u8],
    ) -> Option<Result<SendOutcome, SendError>> {
        let (taken, request) = peer.outbox.put_in_queue(&[frame])?;
        let asked = self.ask(peer, request);
        let taken = taken.map_err(|refusal| self.error_of(peer, refusal));
        Some(asked.and(taken).map(|_| SendOutcome::Queued))
    }

    /// Puts a copy of a short frame into a slot, or into the queue of lanes.
    #[inline(never)]
    fn put_copy(&self, peer: &Arc<Peer>, frame: &[u8]) -> Result<SendOutcome, SendError> {
        if peer.outbox.has_lanes() {
            return self
                .put_all_queued(peer, &[frame])
                .map(|_| SendOutcome::Queued);
        }
        self.put(peer, copy::to_bytes(frame))
    }

    fn put_long(&self, peer: &Arc<Peer>, frame: &[u8]) -> Result<SendOutcome, SendError> {
        self.put_long_with(peer, frame.len(), |payload| copy::overwrite(payload, frame))
    }

    fn put_long_with(
        &self,
        peer: &Arc<Peer>,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<SendOutcome, SendError> {
        let (outcome, request) = peer.outbox.put_long(payload_len, fill);
        self.ask(peer, request)?;
        outcome.map_err(|refusal| self.error_of(peer, refusal))
    }

    fn put_all(
        &self,
        peer: &Arc<Peer>,
        frames: &[&[u8]],
        has_long: bool,
    ) -> Result<usize, SendError> {
        let mut taken = 0;
        while taken < frames.len() {
            let rest = &frames[taken..];
            // The lock is released between two parts. Other threads may have added frames meanwhile, or filled or closed the
            // outbox: then the parts so far were taken, and the rest was not.
            let part = if has_long {
                self.put_part(peer, rest)
            } else {
                self.put_short(peer, rest)
            };
            match part {
                Ok(more) => taken += more,
                Err(error) if taken == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    /// Puts the first of these frames: one long frame, or the short ones before the next long one. A long frame is copied before
    /// the lock is taken.
    #[cold]
    fn put_part(&self, peer: &Arc<Peer>, frames: &[&[u8]]) -> Result<usize, SendError> {
        match frames {
            [frame, ..] if is_long(frame.len()) => self.put_long(peer, frame).map(|_| 1),
            frames => {
                let short = frames
                    .iter()
                    .take_while(|frame| !is_long(frame.len()))
                    .count();
                self.put_short(peer, &frames[..short])
            }
        }
    }

    // Inlined always: for one frame, the compiler then removes the loops over frames, a fifth of all instructions of the call.
    #[inline(always)]
    fn put_short(&self, peer: &Arc<Peer>, frames: &[&[u8]]) -> Result<usize, SendError> {
        if peer.outbox.has_lanes() {
            return self.put_all_queued(peer, frames);
        }
        let (taken, request) = peer.outbox.put_all(frames);
        self.ask(peer, request)?;
        taken.map_err(|refusal| self.error_of(peer, refusal))
    }

    /// Puts frames into the queue of lanes.
    // Not inlined: the callers would save registers for this too when they put a frame into another outbox.
    #[inline(never)]
    fn put_all_queued(&self, peer: &Arc<Peer>, frames: &[&[u8]]) -> Result<usize, SendError> {
        let (taken, request) = peer.outbox.put_all(frames);
        self.ask(peer, request)?;
        taken.map_err(|refusal| self.error_of(peer, refusal))
    }

    #[cold]
    fn error_of(&self, peer: &Peer, refusal: Refusal) -> SendError {
        match refusal {
            Refusal::Full => SendError::Full,
            // Closed while the loop runs: the peer was removed after it was found here.
            Refusal::Closed if self.life() == Life::Running && !self.is_shutting_down() => {
                SendError::Removed(peer.sid)
            }
            Refusal::Closed => SendError::Halted,
        }
    }

    fn loop_back(&self, frame: Bytes) -> Result<SendOutcome, SendError> {
        let chunk = Chunk::whole(Source::loopback(self.own), frame);
        let has_dropped = match self.inbox.offer(chunk) {
            Ok(has_dropped) => has_dropped,
            Err(Refused::Full) => return Err(SendError::Full),
            Err(Refused::Closed) => return Err(SendError::Halted),
        };
        self.counters.loopback.add(1);
        // In an `EventLoop`, the loop delivers the frame. In a manager it only reports dropped messages, and is woken for the first
        // one.
        if self.inbox_is_for_the_loop || has_dropped {
            self.wake_flag.notify();
        }
        Ok(SendOutcome::Loopback)
    }

    /// Asks the loop to do this for a peer. Each peer is in the pending requests at most once.
    ///
    /// # Errors
    ///
    /// [`SendError::Halted`] in a forked process, which has no loop.
    #[inline]
    pub(crate) fn ask(&self, peer: &Arc<Peer>, request: LoopRequest) -> Result<(), SendError> {
        if request == LoopRequest::NONE {
            return Ok(());
        }
        self.ask_the_loop(peer, request)
    }

    fn ask_the_loop(&self, peer: &Arc<Peer>, request: LoopRequest) -> Result<(), SendError> {
        if !self.home.is_here_or_turns() {
            // This process has no loop, and the waker belongs to the parent process.
            self.end(Life::Halted);
            return Err(SendError::Halted);
        }
        let request = match request {
            LoopRequest::RESUME if self.writes_here(peer) => peer.outbox.resume(),
            request => request,
        };
        if request != LoopRequest::NONE {
            self.ask_here(peer, request);
        }
        Ok(())
    }

    /// Whether this thread writes what it has put into the idle queue of this peer, rather than wake the loop to write it.
    ///
    /// It does so with the reply to a frame that came alone, and with the request after such a reply. Nothing else is likely to follow
    /// soon, and to wake the loop takes as long as to write, and then a switch of threads. If no frame or several have come since a
    /// sender last had something for the loop, this one has probably more to send, which is written together while the loop wakes. A loop
    /// that does not block looks at its requests anyway.
    fn writes_here(&self, peer: &Peer) -> bool {
        peer.received_one() && self.wake_flag.is_blocked()
    }

    /// Asks the loop, which is in this process: the caller has checked that.
    pub(crate) fn ask_here(&self, peer: &Arc<Peer>, request: LoopRequest) {
        // First the bits, then the list, then the notification. The loop looks in the opposite order. If it takes the bits of a
        // peer before the peer is pushed, it finds none when it comes to the peer, which does no harm.
        if peer.ask(request) {
            self.requests.push(Arc::clone(peer));
        }
        self.wake_flag.notify();
    }
}

fn check(frame_len: usize) -> Result<(), SendError> {
    match frame_len {
        1..=FRAME_BYTES_MAX => Ok(()),
        0 => Err(SendError::Empty),
        len => Err(SendError::TooLarge(len)),
    }
}

/// Whether a frame is so long that it is copied before the queue is locked. It fills at least half a run.
fn is_long(frame_len: usize) -> bool {
    frame_len >= QUEUE_RUN_BYTES / 2
}
