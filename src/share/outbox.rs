//! What waits for one peer, of either kind, and the words that both kinds share.
//!
//! Nothing is decided here: a [`Slot`] or a [`Queue`] is what waits, a [`Writer`] writes either.

use std::{
    fmt,
    io::{self, IoSlice},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::limits::{PEN_BATCHES_MAX, PEN_FRAMES_MAX};

use super::{
    pen::Writer,
    queue::Queue,
    slot::Slot,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
        lock, sleep,
    },
};

/// Where an outbox writes to: the write half of a connection.
pub trait Wire: Send + Sync + fmt::Debug {
    /// Writes some bytes without blocking, as `writev(2)` does.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room now; the connection is then reported writable once there is. Any other error
    /// but `Interrupted` means that nothing can be written any more.
    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// The account of one outbox, in frames: `accepted == written + superseded + discarded + waiting` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) written: u64,
    pub(crate) superseded: u64,
    pub(crate) discarded: u64,
    pub(crate) waiting: u64,
    /// Last frames written once more; they were accepted, and written, before.
    pub(crate) resent: u64,
    /// Payload and prefix bytes of all frames written to their end.
    pub(crate) bytes: u64,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Written,
    Queued,
    Superseded,
    /// There is no room; the frame was not taken.
    Full,
    /// Nothing is taken any more.
    Closed,
}

/// What is left for the loop to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Nothing,
    /// There is no link, and nobody has asked for one yet.
    Link,
    /// There is more to write than this thread may.
    Resume,
    /// The link is broken: see [`Outbox::broken`].
    Broken,
}

/// The outbox of one peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    kind: Kind,
    /// Threads in `wait_for_room`: nobody is notified when nobody sleeps.
    sleepers: AtomicUsize,
    /// Guards nothing: it is held while a sleeper makes sure that it must sleep, so that the notice cannot come in between.
    bed: Mutex<()>,
    room: Condvar,
}

#[derive(Debug)]
enum Kind {
    Latest(Writer<Slot>),
    Queue(Writer<Queue>),
}

impl Outbox {
    /// One slot.
    pub(crate) fn latest() -> Self {
        Self::new(Kind::Latest(Writer::new(Slot::default(), PEN_FRAMES_MAX)))
    }

    /// A queue of so many bytes.
    pub(crate) fn queue(bytes_max: usize) -> Self {
        Self::new(Kind::Queue(Writer::new(
            Queue::new(bytes_max),
            PEN_BATCHES_MAX,
        )))
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            room: Condvar::new(),
        }
    }

    pub(crate) fn is_queue(&self) -> bool {
        matches!(self.kind, Kind::Queue(_))
    }

    /// Takes a frame.
    pub(crate) fn put(&self, frame: Bytes) -> (Put, Ask) {
        let done = match &self.kind {
            Kind::Latest(latest) => latest.put(frame),
            Kind::Queue(queue) => queue.put(frame),
        };
        // It may have been written out for others.
        self.tell_room();
        done
    }

    /// Takes the first of these frames, as many as there is room for and as may leave together: their number, with what became
    /// of the last.
    // Always: with one frame the loops below this are gone, and a quarter of all instructions of a call with them.
    #[inline(always)]
    pub(crate) fn put_all(&self, frames: &[&[u8]]) -> (usize, Put, Ask) {
        if let Kind::Queue(queue) = &self.kind {
            let done = queue.put_all(frames);
            self.tell_room();
            return done;
        }
        let (mut put, mut ask) = (Put::Queued, Ask::Nothing);
        for frame in frames {
            let (next, more) = self.put(Bytes::copy_from_slice(frame));
            put = next;
            if more != Ask::Nothing {
                ask = more;
            }
        }
        let taken = if put == Put::Closed { 0 } else { frames.len() };
        (taken, put, ask)
    }

    /// The socket is writable again, or somebody asked the loop to go on.
    pub(crate) fn resume(&self) -> Ask {
        let ask = match &self.kind {
            Kind::Latest(latest) => latest.resume(),
            Kind::Queue(queue) => queue.resume(),
        };
        self.tell_room();
        ask
    }

    /// A link has come up, perhaps in place of an older one.
    pub(crate) fn attach(&self, wire: Arc<dyn Wire>) -> Ask {
        let ask = match &self.kind {
            Kind::Latest(latest) => latest.attach(wire),
            Kind::Queue(queue) => queue.attach(wire),
        };
        self.tell_room();
        ask
    }

    /// The link has ended.
    pub(crate) fn detach(&self) {
        match &self.kind {
            Kind::Latest(latest) => latest.detach(),
            Kind::Queue(queue) => queue.detach(),
        }
    }

    /// The peer is gone for good: what waits is discarded, nothing more is accepted.
    pub(crate) fn close(&self) {
        match &self.kind {
            Kind::Latest(latest) => latest.close(),
            Kind::Queue(queue) => queue.close(),
        }
        self.tell_room();
    }

    /// Why the link that was attached last cannot be written to. Whoever was told [`Ask::Broken`] asks this before he
    /// ends a link: a new one may have taken the place of the broken one by then.
    pub(crate) fn broken(&self) -> Option<io::ErrorKind> {
        match &self.kind {
            Kind::Latest(latest) => latest.broken(),
            Kind::Queue(queue) => queue.broken(),
        }
    }

    /// Whether every accepted frame has been written, replaced or discarded.
    pub(crate) fn is_empty(&self) -> bool {
        self.tally().waiting == 0
    }

    pub(crate) fn tally(&self) -> Tally {
        match &self.kind {
            Kind::Latest(latest) => latest.tally(),
            Kind::Queue(queue) => queue.tally(),
        }
    }

    /// Whether the slot is free, or at least half of the queue. A closed outbox has room: who puts into it learns more.
    pub(crate) fn has_room(&self) -> bool {
        match &self.kind {
            Kind::Latest(latest) => latest.has_room(),
            Kind::Queue(queue) => queue.has_room(),
        }
    }

    /// Waits until there is room or the deadline has passed (`None`: for ever); says whether there is.
    pub(crate) fn wait_for_room(&self, deadline: Option<Instant>) -> bool {
        // Relaxed: it is the lock of the kind that orders this before or after what makes room. Who makes room after our look
        // has that lock after us, and then sees the count.
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        let mut bed = lock(&self.bed);
        let has_room = loop {
            if self.has_room() {
                break true;
            }
            let left = match deadline {
                None => None,
                Some(at) => match at.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => break false,
                    left => Some(left),
                },
            };
            bed = sleep(&self.room, bed, left);
        };
        drop(bed);
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        has_room
    }

    #[inline]
    fn tell_room(&self) {
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.wake_sleepers();
        }
    }

    #[cold]
    fn wake_sleepers(&self) {
        if self.has_room() {
            // Whoever has found no room is asleep once we have had this.
            drop(lock(&self.bed));
            self.room.notify_all();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc as LoomArc, thread};

    use super::{super::fixture::*, *};

    #[test]
    fn loom_who_waits_for_room_is_told_of_it() {
        for outbox in [Outbox::latest, || Outbox::queue(12)] {
            loom::model(move || {
                let pipe = Pipe::with_room(0);
                let outbox = LoomArc::new(outbox());
                outbox.attach(pipe.clone());
                outbox.put(frame(1));
                outbox.put(frame(2));
                let sender = {
                    let outbox = LoomArc::clone(&outbox);
                    thread::spawn(move || {
                        assert!(outbox.wait_for_room(None));
                        outbox.put(frame(3));
                    })
                };
                pipe.make_room(100);
                outbox.resume();
                sender.join().unwrap();
                outbox.resume();
                assert_eq!(pipe.frames().0.last(), Some(&vec![3, 3]));
            });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::{super::fixture::*, *};

    #[test]
    fn who_waits_for_room_sleeps_until_there_is_some() {
        let pipe = Pipe::with_room(0);
        let outbox = Arc::new(Outbox::latest());
        outbox.attach(pipe.clone());
        assert_eq!(outbox.put(frame(1)).0, Put::Queued);
        let sleeper = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || outbox.wait_for_room(None))
        };
        while outbox.sleepers.load(Ordering::Relaxed) == 0 && !sleeper.is_finished() {
            thread::yield_now();
        }
        assert_eq!(outbox.put(frame(2)).0, Put::Superseded);
        assert!(!outbox.has_room() && !sleeper.is_finished());
        pipe.make_room(100);
        outbox.resume();
        assert!(sleeper.join().unwrap());
        assert_eq!(pipe.frames(), (vec![vec![2, 2]], true));
    }

    #[test]
    fn of_many_frames_a_closed_slot_takes_none() {
        let outbox = Outbox::latest();
        assert_eq!(outbox.put_all(&[&[1], &[2]]).0, 2);
        outbox.close();
        assert_eq!(
            outbox.put_all(&[&[3], &[4]]),
            (0, Put::Closed, Ask::Nothing)
        );
        assert_balance(outbox.tally());
    }
}
