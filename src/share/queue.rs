//! Everything that waits for one peer, in order: encoded where it is put, written by the loop in large batches.
//!
//! Callers never write here. They append under the lock, and ask the loop once for all that it finds when it comes.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    outbox::{Ask, Put, Tally, Wire},
    sync::{Mutex, lock},
};
use crate::limits::{PREFIX_BYTES, QUEUE_RUN_BYTES, TURN_BYTES, WHOLE_FRAME_BYTES};

/// An outbox that holds up to so many bytes.
///
/// ```text
///   put --> pieces --taken whole by the loop--> hand --one write for many--> wire
///             ^                                  |
///             `------ what the link that ended has not taken, in front ------'
/// ```
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Used by the loop alone; locked before `state`.
    hand: Mutex<Hand>,
    bytes_max: usize,
}

#[derive(Debug)]
struct State {
    pieces: VecDeque<Piece>,
    /// Of all that waits, what the loop has in hand included; prefixes count.
    bytes: usize,
    /// Buffers of runs that have left, for the next ones.
    spare: Vec<Vec<u8>>,
    attention: Attention,
    /// True exactly when nothing is accepted any more.
    closed: bool,
    tally: Tally,
}

/// Whether the loop must be told of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attention {
    /// There is no link. `asked`: the loop was asked for one and has not yet given it up or brought it.
    Unlinked { asked: bool },
    /// All was written.
    Resting,
    /// It will come: it was asked, or the socket is full.
    Called,
}

/// Bytes that leave together.
#[derive(Debug)]
enum Piece {
    /// Small frames, each behind its prefix.
    Run { bytes: Vec<u8>, frames: u64 },
    /// One large frame, which is not copied.
    Whole {
        prefix: [u8; PREFIX_BYTES],
        frame: Bytes,
    },
}

/// What the loop writes.
#[derive(Debug, Default)]
struct Hand {
    wire: Option<Arc<dyn Wire>>,
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that have left.
    done: usize,
    broken: Option<io::ErrorKind>,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let state = State {
            pieces: VecDeque::new(),
            bytes: 0,
            spare: Vec::new(),
            attention: Attention::Unlinked { asked: false },
            closed: false,
            tally: Tally::default(),
        };
        Self {
            state: Mutex::new(state),
            hand: Mutex::default(),
            bytes_max,
        }
    }

    pub(crate) fn put(&self, frame: Bytes) -> (Put, Ask) {
        if frame.len() < WHOLE_FRAME_BYTES {
            let (_, put, ask) = self.put_all(&[&frame]);
            return (put, ask);
        }
        let mut state = lock(&self.state);
        if let Some(refusal) = state.refusal(frame.len(), self.bytes_max) {
            return (refusal, Ask::Nothing);
        }
        let prefix = prefix(frame.len());
        state.bytes += PREFIX_BYTES + frame.len();
        state.pieces.push_back(Piece::Whole { prefix, frame });
        (Put::Queued, state.accepted(1))
    }

    /// Takes the first of these frames, as many as there is room for: their number, and [`Put::Full`] if it is 0.
    pub(crate) fn put_all(&self, frames: &[&[u8]]) -> (usize, Put, Ask) {
        let need: usize = frames.iter().map(|frame| PREFIX_BYTES + frame.len()).sum();
        let mut state = lock(&self.state);
        if state.encode_all(frames, need, self.bytes_max) {
            return (
                frames.len(),
                Put::Queued,
                state.accepted(frames.len() as u64),
            );
        }
        let mut taken = 0;
        for frame in frames {
            if let Some(refusal) = state.refusal(frame.len(), self.bytes_max) {
                if taken == 0 {
                    return (0, refusal, Ask::Nothing);
                }
                break;
            }
            state.encode(frame);
            taken += 1;
        }
        (taken, Put::Queued, state.accepted(taken as u64))
    }

    pub(crate) fn resume(&self) -> Ask {
        self.write(&mut lock(&self.hand))
    }

    /// What was begun on an older link begins anew: of a frame that did not leave whole, nobody has seen the rest.
    pub(crate) fn attach(&self, wire: Arc<dyn Wire>) -> Ask {
        let mut hand = lock(&self.hand);
        self.let_go(&mut hand);
        hand.wire = Some(wire);
        lock(&self.state).attention = Attention::Called;
        self.write(&mut hand)
    }

    pub(crate) fn detach(&self) {
        let mut hand = lock(&self.hand);
        self.let_go(&mut hand);
        lock(&self.state).attention = Attention::Unlinked { asked: false };
    }

    pub(crate) fn close(&self) {
        self.detach();
        let mut state = lock(&self.state);
        state.closed = true;
        state.bytes = 0;
        state.tally.discarded += mem::take(&mut state.tally.waiting);
        let rest = (mem::take(&mut state.pieces), mem::take(&mut state.spare));
        // Freed after the lock: freeing the last of a payload runs the code of whoever made it, which may come back here.
        drop(state);
        drop(rest);
    }

    pub(crate) fn broken(&self) -> Option<io::ErrorKind> {
        lock(&self.hand).broken
    }

    /// Whether half of it is free.
    pub(crate) fn has_room(&self) -> bool {
        let state = lock(&self.state);
        state.bytes <= self.bytes_max / 2 || state.closed
    }

    pub(crate) fn tally(&self) -> Tally {
        lock(&self.state).tally
    }

    /// Writes until nothing waits, the socket is full or the share of the turn is used up.
    fn write(&self, hand: &mut Hand) -> Ask {
        let mut budget = TURN_BYTES;
        while let Some(wire) = &hand.wire {
            if hand.pieces.is_empty() {
                let mut state = lock(&self.state);
                if state.pieces.is_empty() {
                    state.attention = Attention::Resting;
                    // An idle link holds no buffer.
                    let spare = mem::take(&mut state.spare);
                    drop(state);
                    drop(spare);
                    return Ask::Nothing;
                }
                mem::swap(&mut hand.pieces, &mut state.pieces);
            }
            if budget == 0 {
                return Ask::Resume;
            }
            match hand.gather(|bufs| wire.write(bufs)) {
                // A socket that takes nothing of something will take nothing more.
                Ok(0) => hand.broken = Some(io::ErrorKind::WriteZero),
                Ok(n) => {
                    budget = budget.saturating_sub(n);
                    self.left(hand, n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ask::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => hand.broken = Some(error.kind()),
            }
            if hand.broken.is_some() {
                hand.wire = None;
                return Ask::Broken;
            }
        }
        Ask::Nothing
    }

    /// Accounts for `n` bytes that the socket has taken.
    fn left(&self, hand: &mut Hand, n: usize) {
        hand.done += n;
        let mut frames = 0;
        let mut bytes = 0;
        let mut gone = Vec::new();
        while let Some(piece) = hand.pieces.front() {
            let len = piece.len();
            if hand.done < len {
                break;
            }
            hand.done -= len;
            frames += piece.frames();
            bytes += len as u64;
            gone.extend(hand.pieces.pop_front());
        }
        let mut state = lock(&self.state);
        state.bytes -= n;
        state.tally.written(frames, bytes);
        for piece in &mut gone {
            if let Piece::Run { bytes, .. } = piece {
                if state.spare.len() < SPARE_RUNS && bytes.capacity() <= 2 * QUEUE_RUN_BYTES {
                    bytes.clear();
                    state.spare.push(mem::take(bytes));
                }
            }
        }
        drop(state);
        drop(gone);
    }

    /// Puts what the link has not taken back in front of what waits.
    fn let_go(&self, hand: &mut Hand) {
        hand.wire = None;
        hand.broken = None;
        let mut state = lock(&self.state);
        let done = mem::take(&mut hand.done);
        if let Some(piece) = hand.pieces.front_mut() {
            let (frames, bytes) = piece.cut(done);
            state.tally.written(frames, bytes as u64);
            // What had begun to leave begins anew.
            state.bytes += done - bytes;
        }
        while let Some(piece) = hand.pieces.pop_back() {
            state.pieces.push_front(piece);
        }
    }
}

impl State {
    /// Why a frame of this length cannot be taken.
    fn refusal(&self, len: usize, bytes_max: usize) -> Option<Put> {
        if self.closed {
            Some(Put::Closed)
        } else if self.bytes + PREFIX_BYTES + len > bytes_max {
            Some(Put::Full)
        } else {
            None
        }
    }

    /// The usual case: there is room for all of them in the last run. Returns whether it was.
    fn encode_all(&mut self, frames: &[&[u8]], need: usize, bytes_max: usize) -> bool {
        let Some(Piece::Run {
            bytes,
            frames: count,
        }) = self.pieces.back_mut()
        else {
            return false;
        };
        if bytes.len() + need > QUEUE_RUN_BYTES || self.bytes + need > bytes_max || self.closed {
            return false;
        }
        bytes.reserve(need);
        for frame in frames {
            bytes.extend_from_slice(&prefix(frame.len()));
            bytes.extend_from_slice(frame);
        }
        *count += frames.len() as u64;
        self.bytes += need;
        true
    }

    fn encode(&mut self, frame: &[u8]) {
        let need = PREFIX_BYTES + frame.len();
        self.bytes += need;
        let (bytes, frames) = match self.pieces.back_mut() {
            Some(Piece::Run { bytes, frames }) if bytes.len() + need <= QUEUE_RUN_BYTES => {
                (bytes, frames)
            }
            _ => {
                let bytes = self.spare.pop().unwrap_or_default();
                self.pieces.push_back(Piece::Run { bytes, frames: 0 });
                let Some(Piece::Run { bytes, frames }) = self.pieces.back_mut() else {
                    unreachable!("it was just put there");
                };
                (bytes, frames)
            }
        };
        bytes.extend_from_slice(&prefix(frame.len()));
        bytes.extend_from_slice(frame);
        *frames += 1;
    }

    /// Counts frames that were taken, and says what the loop is to be asked for.
    fn accepted(&mut self, frames: u64) -> Ask {
        self.tally.accepted += frames;
        self.tally.waiting += frames;
        match self.attention {
            Attention::Unlinked { asked: false } => {
                self.attention = Attention::Unlinked { asked: true };
                Ask::Link
            }
            Attention::Resting => {
                self.attention = Attention::Called;
                Ask::Resume
            }
            Attention::Unlinked { asked: true } | Attention::Called => Ask::Nothing,
        }
    }
}

impl Tally {
    fn written(&mut self, frames: u64, bytes: u64) {
        self.written += frames;
        self.waiting -= frames;
        self.bytes += bytes;
    }
}

impl Hand {
    /// Lends what is next to a vectored write.
    fn gather<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut bufs = [IoSlice::new(&[]); BUFS_MAX];
        let (mut count, mut skip) = (0, self.done);
        'full: for piece in &self.pieces {
            for part in piece.parts() {
                let Some(rest) = part.get(skip..).filter(|rest| !rest.is_empty()) else {
                    skip -= part.len();
                    continue;
                };
                skip = 0;
                bufs[count] = IoSlice::new(rest);
                count += 1;
                if count == BUFS_MAX {
                    break 'full;
                }
            }
        }
        write(&bufs[..count])
    }
}

/// Buffers kept for runs to come, while there is something to write: one is filled while one leaves.
const SPARE_RUNS: usize = 4;

/// Buffers in one vectored write: some hundred KiB of whole frames; the system takes at most 1024 (`IOV_MAX`).
const BUFS_MAX: usize = 64;

impl Piece {
    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Run { bytes, .. } => [bytes, &[]],
            Self::Whole { prefix, frame } => [prefix, frame],
        }
    }

    fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    fn frames(&self) -> u64 {
        match self {
            Self::Run { frames, .. } => *frames,
            Self::Whole { .. } => 1,
        }
    }

    /// Takes off the whole frames in the first `done` bytes; returns their number and their bytes.
    fn cut(&mut self, done: usize) -> (u64, usize) {
        let Self::Run { bytes, frames } = self else {
            return (0, 0);
        };
        let (mut count, mut at) = (0, 0);
        while let Some(prefix) = bytes[at..].first_chunk::<PREFIX_BYTES>() {
            let end = at + PREFIX_BYTES + u32::from_be_bytes(*prefix) as usize;
            if end > done {
                break;
            }
            (count, at) = (count + 1, end);
        }
        bytes.drain(..at);
        *frames -= count;
        (count, at)
    }
}

fn prefix(len: usize) -> [u8; PREFIX_BYTES] {
    // The public calls refuse longer frames.
    u32::try_from(len)
        .expect("a frame is at most 512 KiB long")
        .to_be_bytes()
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc as LoomArc, thread};

    use super::{super::fixture::*, *};

    /// The loop, as often as it is asked to.
    fn answer(queue: &Queue, mut ask: Ask) {
        while ask == Ask::Resume {
            ask = queue.resume();
        }
    }

    #[test]
    fn loom_of_two_callers_at_once_somebody_calls_the_loop_for_both() {
        loom::model(|| {
            let pipe = Pipe::with_room(usize::MAX);
            let queue = LoomArc::new(Queue::new(1000));
            queue.attach(pipe.clone());
            let other = {
                let queue = LoomArc::clone(&queue);
                thread::spawn(move || queue.put(frame(1)).1)
            };
            // One that was called may come while the other puts: it leaves nothing behind that was not asked for again.
            let mine = queue.put(frame(2)).1;
            answer(&queue, mine);
            answer(&queue, other.join().unwrap());
            let (frames, whole) = pipe.frames();
            assert!(whole);
            assert_eq!(frames.len(), 2);
            assert_eq!(queue.tally().waiting, 0);
            assert_balance(queue.tally());
        });
    }

    #[test]
    fn loom_frames_put_while_the_link_changes_arrive_once_and_in_order() {
        loom::model(|| {
            let (old, new) = (Pipe::with_room(9), Pipe::with_room(usize::MAX));
            let queue = LoomArc::new(Queue::new(1000));
            queue.attach(old.clone());
            queue.put(frame(1));
            let caller = {
                let queue = LoomArc::clone(&queue);
                thread::spawn(move || {
                    queue.put(frame(2));
                    queue.put(frame(3));
                })
            };
            queue.resume();
            queue.detach();
            queue.attach(new.clone());
            caller.join().unwrap();
            queue.resume();
            let (mut frames, _) = old.frames();
            let (rest, whole) = new.frames();
            frames.extend(rest);
            assert!(whole);
            assert_eq!(frames, [[1, 1], [2, 2], [3, 3]]);
            assert_balance(queue.tally());
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::{super::fixture::*, *};

    #[test]
    fn frames_wait_for_the_loop_which_is_asked_once() {
        let (pipe, queue) = (Pipe::with_room(usize::MAX), Queue::new(1000));
        assert_eq!(queue.attach(pipe.clone()), Ask::Nothing);
        assert_eq!(queue.put(frame(1)), (Put::Queued, Ask::Resume));
        assert_eq!(queue.put(frame(2)), (Put::Queued, Ask::Nothing));
        assert_eq!(queue.resume(), Ask::Nothing);
        assert_eq!(pipe.frames(), (vec![vec![1, 1], vec![2, 2]], true));
        assert_eq!(queue.put(frame(3)), (Put::Queued, Ask::Resume));
    }

    #[test]
    fn without_a_link_the_loop_is_asked_for_one_once_for_each_loss() {
        let queue = Queue::new(1000);
        for _ in 0..2 {
            assert_eq!(queue.put(frame(1)), (Put::Queued, Ask::Link));
            assert_eq!(queue.put(frame(2)), (Put::Queued, Ask::Nothing));
            queue.attach(Pipe::with_room(0));
            assert_eq!(queue.put(frame(3)), (Put::Queued, Ask::Nothing));
            queue.detach();
        }
        assert_eq!(queue.tally().waiting, 6);
    }

    #[test]
    fn a_full_queue_takes_what_has_room_and_says_so() {
        let queue = Queue::new(20);
        let frame = &[7, 7][..];
        assert_eq!(queue.put_all(&[frame; 5]).0, 3);
        assert_eq!(queue.put_all(&[frame; 5]), (0, Put::Full, Ask::Nothing));
        assert_eq!(queue.put_all(&[]), (0, Put::Queued, Ask::Nothing));
        let pipe = Pipe::with_room(6);
        queue.attach(pipe.clone());
        assert_eq!(queue.put_all(&[frame; 5]).0, 1, "one has left");
        assert_eq!(queue.tally().accepted, 4);
        assert_balance(queue.tally());
    }

    #[test]
    fn a_frame_cut_off_by_the_end_of_its_link_begins_anew_and_no_other_does() {
        let (old, new) = (Pipe::with_room(9), Pipe::with_room(100));
        let queue = Queue::new(1000);
        queue.attach(old);
        for n in 1..=3 {
            queue.put(frame(n));
        }
        queue.resume();
        queue.detach();
        assert_eq!((queue.tally().written, queue.tally().waiting), (1, 2));
        assert_eq!(queue.tally().bytes, 6);
        queue.attach(new.clone());
        assert_eq!(new.frames(), (vec![vec![2, 2], vec![3, 3]], true));
        assert_eq!(queue.tally().bytes, 18);
        assert_eq!(queue.put_all(&[&[0; 996]]).0, 1, "all room is free again");
    }

    #[test]
    fn one_call_writes_its_share_only() {
        let (pipe, queue) = (Pipe::with_room(usize::MAX), Queue::new(1 << 20));
        let frame = Bytes::from(vec![1; WHOLE_FRAME_BYTES]);
        for _ in 0..BUFS_MAX / 2 + 1 {
            queue.put(frame.clone());
        }
        assert_eq!(queue.attach(pipe.clone()), Ask::Resume);
        assert_eq!(pipe.frames().0.len(), BUFS_MAX / 2);
        assert_eq!(queue.put(frame.clone()), (Put::Queued, Ask::Nothing));
        assert_eq!(queue.resume(), Ask::Nothing);
        assert_eq!(pipe.frames().0.len(), BUFS_MAX / 2 + 2);
    }

    #[test]
    fn a_broken_link_is_forgotten_when_a_new_one_is_attached() {
        let queue = Queue::new(1000);
        queue.attach(Arc::new(Cut));
        assert_eq!(queue.put(frame(1)), (Put::Queued, Ask::Resume));
        assert_eq!(queue.resume(), Ask::Broken);
        assert_eq!(queue.put(frame(2)), (Put::Queued, Ask::Nothing));
        assert_eq!(queue.resume(), Ask::Nothing);
        assert_eq!(queue.broken(), Some(io::ErrorKind::ConnectionReset));
        let pipe = Pipe::with_room(100);
        queue.attach(pipe.clone());
        assert_eq!(queue.broken(), None);
        assert_eq!(pipe.frames(), (vec![vec![1, 1], vec![2, 2]], true));
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_discards_what_waits() {
        let queue = Queue::new(1000);
        queue.attach(Pipe::with_room(9));
        for n in 1..=3 {
            queue.put(frame(n));
        }
        queue.resume();
        queue.close();
        assert_eq!(queue.put(frame(4)), (Put::Closed, Ask::Nothing));
        assert_eq!((queue.tally().written, queue.tally().discarded), (1, 2));
        assert_balance(queue.tally());
    }

    proptest! {
        /// Frames of all kinds, sockets that take any number of bytes, links that end anywhere.
        #[test]
        fn every_frame_arrives_once_and_in_order(
            lens in prop::collection::vec(prop_oneof![1_usize..100, 10_000_usize..40_000], 1..40),
            rooms in prop::collection::vec(0_usize..90_000, 1..20),
        ) {
            let queue = Queue::new(4 << 20);
            let mut pipe = Pipe::with_room(0);
            queue.attach(pipe.clone());
            let (mut came, mut room) = (Vec::new(), rooms.iter().cycle());
            for (n, &len) in lens.iter().enumerate() {
                let frame = Bytes::from(vec![n as u8; len]);
                prop_assert_eq!(queue.put(frame).0, Put::Queued);
                pipe.make_room(*room.next().unwrap());
                while queue.resume() == Ask::Resume {}
                if n % 5 == 4 {
                    queue.detach();
                    came.extend(pipe.frames().0);
                    pipe = Pipe::with_room(0);
                    queue.attach(pipe.clone());
                }
                assert_balance(queue.tally());
            }
            pipe.make_room(usize::MAX >> 1);
            while queue.resume() == Ask::Resume {}
            came.extend(pipe.frames().0);
            let sent: Vec<Vec<u8>> = lens.iter().enumerate().map(|(n, &len)| vec![n as u8; len]).collect();
            prop_assert_eq!(came, sent);
            let tally = queue.tally();
            prop_assert_eq!((tally.waiting, tally.written), (0, lens.len() as u64));
            prop_assert_eq!(lock(&queue.state).bytes, 0);
        }
    }
}
