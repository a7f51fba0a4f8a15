//! One slot: a frame that has not begun to leave is replaced by a newer one, and the last one written is kept.
//!
//! Nothing here writes: see [`Writer`]. Whoever puts a frame takes the pen with it if it rests.

use std::io::{self, IoSlice};

use bytes::Bytes;

use super::{
    pen::{self, Load, Progress, Store, Writer},
    types::{Ask, Put, Tally, Wire},
};
use crate::sync::release;

#[derive(Debug, Default)]
pub(super) struct Slot {
    next: Option<Bytes>,
    /// The last frame that was written to its end, for the next link.
    last: Option<Bytes>,
    /// True exactly when nothing is accepted any more.
    closed: bool,
    tally: Tally,
}

/// A frame of which `done` bytes, prefix included, have left.
#[derive(Debug)]
pub(super) struct Begun {
    frame: Bytes,
    done: usize,
    /// True exactly when the frame was accepted and not yet accounted for; false for the last frame once more.
    fresh: bool,
}

/// Frames that are done with, at most one of each kind at a time.
#[derive(Debug, Default)]
pub(super) struct Spent {
    taken_back: Option<Bytes>,
    last: Option<Bytes>,
    slot: Option<Bytes>,
}

impl pen::Spent for Spent {
    #[inline]
    fn release(self) {
        // Not as a loop: this is on the way of every frame.
        if let Some(frame) = self.last {
            release(frame);
        }
        if let Some(frame) = self.slot {
            release(frame);
        }
        if let Some(frame) = self.taken_back {
            release(frame);
        }
    }
}

impl Writer<Slot> {
    /// Puts a frame, and writes it at once if the pen rests.
    pub(super) fn put(&self, frame: Bytes) -> (Put, Ask) {
        let mut state = self.step();
        if state.store.closed {
            // The frame is the caller's, and is dropped behind the lock as the last of all.
            return (Put::Closed, Ask::Nothing);
        }
        state.store.tally.accepted += 1;
        let wire = state.take_pen();
        // With a pen that rested: the loop was asked to write the older one, and has not come yet.
        let older = state.store.next.take();
        state.store.tally.superseded += u64::from(older.is_some());
        if let Some(wire) = wire {
            let begun = Begun::fresh(frame);
            state.carry(&begun);
            drop(state);
            if let Some(older) = older {
                release(older);
            }
            return match self.write(wire, begun) {
                (true, ask) => (Put::Written, ask),
                (false, ask) => (Put::Queued, ask),
            };
        }
        state.store.next = Some(frame);
        let ask = state.want_link();
        drop(state);
        let Some(older) = older else {
            return (Put::Queued, ask);
        };
        release(older);
        (Put::Superseded, ask)
    }
}

impl Slot {
    /// An accepted frame of which nothing has left is not begun: it goes back to the slot, where a newer one wins.
    #[inline]
    fn unbegin(&mut self, begun: Option<Begun>, spent: &mut Spent) -> Option<Begun> {
        match begun {
            Some(begun) if begun.done == 0 && begun.fresh => {
                self.take_back(begun, spent);
                None
            }
            begun => begun,
        }
    }
}

impl Store for Slot {
    type Load = Begun;
    type Spent = Spent;

    /// The slot, else the last frame once more.
    fn begin(&mut self) -> Option<Begun> {
        match self.next.take() {
            Some(frame) => Some(Begun::fresh(frame)),
            None => self.last.clone().map(|frame| Begun {
                frame,
                done: 0,
                fresh: false,
            }),
        }
    }

    /// What has begun, unless nothing of it has left and the slot is newer.
    #[inline]
    fn choose(&mut self, begun: Option<Begun>, spent: &mut Spent) -> Option<Begun> {
        match self.unbegin(begun, spent) {
            Some(begun) if begun.done > 0 || self.next.is_none() => Some(begun),
            last => {
                if let Some(last) = last {
                    self.take_back(last, spent);
                }
                self.next.take().map(Begun::fresh)
            }
        }
    }

    fn set_aside(&mut self, begun: Begun, spent: &mut Spent) -> Option<Begun> {
        self.unbegin(Some(begun), spent)
    }

    /// It waits again, unless the slot has something newer.
    fn take_back(&mut self, begun: Begun, spent: &mut Spent) {
        let Begun { frame, fresh, .. } = begun;
        // Not fresh: it is the last frame, which is kept anyway.
        if fresh {
            if self.closed {
                self.tally.discarded += 1;
            } else if self.next.is_some() {
                self.tally.superseded += 1;
            } else {
                self.next = Some(frame);
                return;
            }
        }
        spent.taken_back = Some(frame);
    }

    /// It is the last from now on; the one before is done with.
    #[inline]
    fn finished(&mut self, begun: Begun, spent: &mut Spent) {
        if begun.fresh {
            self.tally.written += 1;
        } else {
            self.tally.resent += 1;
        }
        self.tally.bytes += begun.done as u64;
        spent.last = if self.closed {
            Some(begun.frame)
        } else {
            self.last.replace(begun.frame)
        };
    }

    fn loop_came(&mut self) {}

    fn is_waiting(&self) -> bool {
        self.next.is_some()
    }

    fn has_room(&self) -> bool {
        self.next.is_none() || self.closed
    }

    fn tidy(&mut self, _: &mut Spent) {}

    fn close(&mut self, spent: &mut Spent) {
        self.closed = true;
        self.discard(spent);
        spent.last = self.last.take();
    }

    fn discard(&mut self, spent: &mut Spent) {
        spent.slot = self.next.take();
        self.tally.discarded += u64::from(spent.slot.is_some());
    }

    fn tally(&self) -> Tally {
        Tally {
            waiting: u64::from(self.next.is_some()),
            ..self.tally
        }
    }
}

impl Begun {
    fn fresh(frame: Bytes) -> Self {
        Self {
            frame,
            done: 0,
            fresh: true,
        }
    }
}

impl Load for Begun {
    #[inline]
    fn write_to(&mut self, wire: &dyn Wire) -> Progress {
        // The public calls refuse longer frames.
        let len = u32::try_from(self.frame.len()).expect("a frame is at most 512 KiB long");
        let prefix = len.to_be_bytes();
        loop {
            let written = match self.done.checked_sub(prefix.len()) {
                None => wire.write(&[
                    IoSlice::new(&prefix[self.done..]),
                    IoSlice::new(&self.frame),
                ]),
                Some(at) => wire.write(&[IoSlice::new(&self.frame[at..])]),
            };
            match written {
                // A socket that takes nothing of something will take nothing more.
                Ok(0) => return Progress::Broken(io::ErrorKind::WriteZero),
                Ok(n) => self.done += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Full,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Progress::Broken(error.kind()),
            }
            if self.done == prefix.len() + self.frame.len() {
                return Progress::Done;
            }
        }
    }

    fn frames(&self) -> u64 {
        u64::from(self.fresh)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc as LoomArc, thread};

    use super::{super::fixture::*, *};

    #[test]
    fn loom_of_two_callers_at_once_no_frame_is_left_behind() {
        loom::model(|| {
            let pipe = Pipe::with_room(usize::MAX);
            let outbox = LoomArc::new(Writer::new(Slot::default(), 16));
            outbox.attach(pipe.clone(), false);
            let other = {
                let outbox = LoomArc::clone(&outbox);
                thread::spawn(move || outbox.put(frame(1)))
            };
            outbox.put(frame(2));
            other.join().unwrap();
            let (frames, whole) = pipe.frames();
            assert!(whole);
            let tally = outbox.tally();
            assert_eq!((tally.accepted, tally.waiting), (2, 0));
            assert_eq!(tally.written + tally.superseded, 2);
            assert_eq!(frames.len() as u64, tally.written);
        });
    }

    #[test]
    fn loom_an_edge_while_somebody_writes_is_not_lost() {
        loom::model(|| {
            // Room for half a frame: the writer finds the socket full while the loop makes room.
            let pipe = Pipe::with_room(3);
            let outbox = LoomArc::new(Writer::new(Slot::default(), 16));
            outbox.attach(pipe.clone(), false);
            let the_loop = {
                let (outbox, pipe) = (LoomArc::clone(&outbox), pipe.clone());
                thread::spawn(move || {
                    // One edge, and never another.
                    pipe.make_room(100);
                    outbox.resume();
                })
            };
            outbox.put(frame(1));
            outbox.put(frame(2));
            the_loop.join().unwrap();
            let (frames, whole) = pipe.frames();
            assert!(whole, "the remainder was left behind");
            assert_eq!(frames.last().map(Vec::as_slice), Some(&[2, 2][..]));
            assert_eq!(outbox.tally().waiting, 0);
            assert_balance(outbox.tally());
        });
    }

    #[test]
    fn loom_a_new_link_under_a_writer_gets_the_newest_frame() {
        loom::model(|| {
            let (old, new) = (Pipe::with_room(3), Pipe::with_room(usize::MAX));
            let outbox = LoomArc::new(Writer::new(Slot::default(), 16));
            outbox.attach(old, false);
            let the_loop = {
                let (outbox, new) = (LoomArc::clone(&outbox), new.clone());
                thread::spawn(move || {
                    outbox.detach();
                    outbox.attach(new, false);
                })
            };
            outbox.put(frame(1));
            outbox.put(frame(2));
            the_loop.join().unwrap();
            let (frames, whole) = new.frames();
            assert!(whole);
            assert!(
                frames.is_sorted(),
                "an older frame came after a newer one: {frames:?}"
            );
            assert_eq!(frames.last().map(Vec::as_slice), Some(&[2, 2][..]));
            assert_balance(outbox.tally());
        });
    }

    #[test]
    fn loom_closing_under_a_writer_accounts_for_every_frame() {
        loom::model(|| {
            let outbox = LoomArc::new(Writer::new(Slot::default(), 16));
            outbox.attach(Pipe::with_room(3), false);
            let the_loop = {
                let outbox = LoomArc::clone(&outbox);
                thread::spawn(move || outbox.close())
            };
            outbox.put(frame(1));
            outbox.put(frame(2));
            the_loop.join().unwrap();
            assert_eq!(outbox.tally().waiting, 0);
            assert_balance(outbox.tally());
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::{super::fixture::*, *};

    #[test]
    fn a_frame_is_written_where_it_is_put() {
        let (pipe, outbox) = (
            Pipe::with_room(usize::MAX),
            Writer::new(Slot::default(), 16),
        );
        assert_eq!(outbox.attach(pipe.clone(), false), Ask::Nothing);
        assert_eq!(outbox.put(frame(1)), (Put::Written, Ask::Nothing));
        assert_eq!(pipe.frames(), (vec![vec![1, 1]], true));
    }

    #[test]
    fn without_a_link_the_newest_waits_and_the_loop_is_asked_once() {
        let outbox = Writer::new(Slot::default(), 16);
        assert_eq!(outbox.put(frame(1)), (Put::Queued, Ask::Link));
        assert_eq!(outbox.put(frame(2)), (Put::Superseded, Ask::Nothing));
        let pipe = Pipe::with_room(usize::MAX);
        outbox.attach(pipe.clone(), false);
        assert_eq!(pipe.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_frame_that_has_begun_is_finished_and_one_that_has_not_is_replaced() {
        let (pipe, outbox) = (Pipe::with_room(8), Writer::new(Slot::default(), 16));
        outbox.attach(pipe.clone(), false);
        assert_eq!(outbox.put(frame(1)).0, Put::Written);
        assert_eq!(
            outbox.put(frame(2)).0,
            Put::Queued,
            "two of its bytes have left"
        );
        assert_eq!(outbox.put(frame(3)).0, Put::Queued);
        assert_eq!(outbox.put(frame(4)).0, Put::Superseded);
        pipe.make_room(100);
        outbox.resume();
        assert_eq!(
            pipe.frames(),
            (vec![vec![1, 1], vec![2, 2], vec![4, 4]], true)
        );
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_frame_of_which_nothing_has_left_can_be_replaced() {
        let (pipe, outbox) = (Pipe::with_room(6), Writer::new(Slot::default(), 16));
        outbox.attach(pipe.clone(), false);
        outbox.put(frame(1));
        assert_eq!(outbox.put(frame(2)).0, Put::Queued, "the socket is full");
        assert_eq!(outbox.put(frame(3)).0, Put::Superseded);
        pipe.make_room(100);
        outbox.resume();
        assert_eq!(pipe.frames(), (vec![vec![1, 1], vec![3, 3]], true));
    }

    #[test]
    fn the_last_frame_goes_over_a_new_link_once_more() {
        let (old, new, outbox) = (
            Pipe::with_room(100),
            Pipe::with_room(100),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        outbox.put(frame(1));
        outbox.detach();
        outbox.attach(new.clone(), false);
        assert_eq!(new.frames(), (vec![vec![1, 1]], true));
        assert_eq!((outbox.tally().written, outbox.tally().resent), (1, 1));
    }

    #[test]
    fn a_waiting_frame_goes_over_a_new_link_in_place_of_the_last() {
        let (old, new, outbox) = (
            Pipe::with_room(100),
            Pipe::with_room(100),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        outbox.put(frame(1));
        outbox.detach();
        outbox.put(frame(2));
        outbox.attach(new.clone(), false);
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_eq!(outbox.tally().resent, 0);
    }

    #[test]
    fn a_frame_cut_off_by_the_end_of_its_link_waits_again() {
        let (old, new, outbox) = (
            Pipe::with_room(9),
            Pipe::with_room(100),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        outbox.put(frame(1));
        outbox.put(frame(2));
        outbox.detach();
        assert_eq!(outbox.tally().waiting, 1);
        outbox.attach(new.clone(), false);
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_last_frame_that_has_not_begun_gives_way_to_a_newer_one() {
        let (old, new, outbox) = (
            Pipe::with_room(100),
            Pipe::with_room(0),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        outbox.put(frame(1));
        outbox.attach(new.clone(), false);
        outbox.put(frame(2));
        new.make_room(100);
        outbox.resume();
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_broken_link_is_forgotten_when_a_new_one_is_attached() {
        let outbox = Writer::new(Slot::default(), 16);
        outbox.attach(Arc::new(Cut), false);
        assert_eq!(outbox.put(frame(1)), (Put::Queued, Ask::Broken));
        assert_eq!(outbox.put(frame(2)), (Put::Superseded, Ask::Nothing));
        assert_eq!(outbox.broken(), Some(io::ErrorKind::ConnectionReset));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), false);
        assert_eq!(outbox.broken(), None);
        assert_eq!(pipe.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_socket_that_takes_nothing_of_something_is_broken() {
        let outbox = Writer::new(Slot::default(), 16);
        outbox.attach(Arc::new(Stuck), false);
        assert_eq!(outbox.put(frame(1)), (Put::Queued, Ask::Broken));
        assert_eq!(outbox.broken(), Some(io::ErrorKind::WriteZero));
        assert_eq!(outbox.tally().waiting, 1);
    }

    #[test]
    fn a_frame_that_has_begun_over_a_link_that_is_replaced_begins_anew() {
        let (old, new, outbox) = (
            Pipe::with_room(3),
            Pipe::with_room(100),
            Writer::new(Slot::default(), 16),
        );
        outbox.attach(old, false);
        assert_eq!(outbox.put(frame(1)).0, Put::Queued);
        // No end of the older one is told before.
        assert_eq!(outbox.attach(new.clone(), false), Ask::Nothing);
        assert_eq!(new.frames(), (vec![vec![1, 1]], true));
        assert_eq!(outbox.tally().waiting, 0);
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_frame_put_while_the_last_one_goes_over_a_link_that_ends_asks_for_another() {
        let outbox = Arc::new(Writer::new(Slot::default(), 16));
        outbox.attach(Pipe::with_room(100), false);
        outbox.put(frame(1));
        let meanwhile = Arc::clone(&outbox);
        let ask = outbox.attach(
            Arc::new(Meanwhile(move || {
                // The loop finds nothing that waits, so it sees no demand.
                meanwhile.detach();
                assert!(meanwhile.tally().waiting == 0);
                assert_eq!(meanwhile.put(frame(2)), (Put::Queued, Ask::Nothing));
            })),
            false,
        );
        assert_eq!(ask, Ask::Link);
        assert_eq!(outbox.put(frame(3)), (Put::Superseded, Ask::Nothing));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), false);
        assert_eq!(pipe.frames(), (vec![vec![3, 3]], true));
        assert_balance(outbox.tally());
    }

    /// A socket that is full, and something that happens while it is written to.
    struct Meanwhile<F>(F);

    impl<F: Fn() + Send + Sync> Wire for Meanwhile<F> {
        fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            (self.0)();
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    impl<F> std::fmt::Debug for Meanwhile<F> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Meanwhile")
        }
    }

    #[test]
    fn a_closed_outbox_takes_nothing_and_discards_what_waits() {
        let outbox = Writer::new(Slot::default(), 16);
        outbox.put(frame(1));
        outbox.close();
        assert_eq!(outbox.put(frame(2)), (Put::Closed, Ask::Nothing));
        assert_eq!(outbox.tally().discarded, 1);
        assert_balance(outbox.tally());
    }
}
