//! What waits for one peer: one slot, newest wins, and the pen with which it is written.
//!
//! No system call happens under the lock, and callers never wait for each other's system calls: whoever finds the pen
//! resting takes it out of the state, writes, and puts it back. Whoever finds it away leaves the frame in the slot and goes;
//! the holder looks at the slot before it lays the pen down.

use std::{
    io::{self, IoSlice},
    mem,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    outbox::{Ask, Put, Tally, Wire},
    sync::{Mutex, MutexGuard, lock},
};

/// An outbox of one slot.
///
/// ```text
///   Nowhere --attach--> Resting --put--> Away --all written--> Resting
///                          ^              |
///                          |           socket full
///                          |              v
///                        Away <--edge-- Waiting            (detach: from anywhere to Nowhere)
///
///   Away --error--> Broken --attach--> Away                 (the loop ends the link)
/// ```
#[derive(Debug)]
pub(crate) struct Latest {
    state: Mutex<State>,
    frames_max: usize,
}

#[derive(Debug)]
struct State {
    pen: Pen,
    /// The slot.
    next: Option<Bytes>,
    /// The last frame that was written to its end, for the next link.
    last: Option<Bytes>,
    /// True exactly when the loop was asked for a link and has not yet given one up or brought one.
    wanted: bool,
    /// True exactly when nothing is accepted any more.
    closed: bool,
    tally: Tally,
}

#[derive(Debug)]
enum Pen {
    /// There is no link.
    Nowhere,
    /// Nobody writes, all was written, and the slot is empty.
    Resting(Arc<dyn Wire>),
    /// The link can no longer be written to, for this reason; the loop is to end it.
    Broken(io::ErrorKind),
    /// The socket is full; the loop resumes. What had begun to leave is finished first.
    Waiting(Arc<dyn Wire>, Option<Begun>),
    /// Somebody writes.
    Away {
        /// The socket became writable again meanwhile: a full socket is to be tried once more.
        edge: bool,
        /// An accepted frame is with the pen.
        carries: bool,
        /// What the loop wants done with the pen when it comes back.
        order: Option<Order>,
    },
}

#[derive(Debug)]
enum Order {
    Drop,
    Move(Arc<dyn Wire>),
}

/// A frame of which `done` bytes, prefix included, have left.
#[derive(Debug)]
struct Begun {
    frame: Bytes,
    done: usize,
    /// True exactly when the frame was accepted and not yet accounted for; false for the last frame once more.
    fresh: bool,
}

/// A frame that is done with. It is freed once the lock is released, never under it: freeing the last of a payload runs
/// the code of whoever made it, which may come back here.
type Spent = Option<Bytes>;

enum Progress {
    Done,
    Full,
    Broken(io::ErrorKind),
}

impl Latest {
    /// `frames_max`: how many frames one call writes before it leaves the rest to the loop.
    pub(crate) fn new(frames_max: usize) -> Self {
        let state = State {
            pen: Pen::Nowhere,
            next: None,
            last: None,
            wanted: false,
            closed: false,
            tally: Tally::default(),
        };
        Self {
            state: Mutex::new(state),
            frames_max,
        }
    }

    /// Puts a frame, and writes it at once if the pen rests.
    pub(crate) fn put(&self, frame: Bytes) -> (Put, Ask) {
        let mut state = lock(&self.state);
        if state.closed {
            return (Put::Closed, Ask::Nothing);
        }
        state.tally.accepted += 1;
        match mem::replace(&mut state.pen, Pen::AWAY) {
            Pen::Resting(wire) => {
                drop(state);
                self.write(wire, Begun::fresh(frame))
            }
            pen => {
                let unlinked = matches!(pen, Pen::Nowhere);
                state.pen = pen;
                let older = state.next.replace(frame);
                state.tally.superseded += u64::from(older.is_some());
                let ask = if unlinked {
                    state.ask_for_link()
                } else {
                    Ask::Nothing
                };
                // Freed after the lock: see `Spent`.
                drop(state);
                (
                    if older.is_some() {
                        Put::Superseded
                    } else {
                        Put::Queued
                    },
                    ask,
                )
            }
        }
    }

    /// The socket is writable again, or somebody asked the loop to go on.
    pub(crate) fn resume(&self) -> Ask {
        let mut spent = None;
        let mut state = lock(&self.state);
        match mem::replace(&mut state.pen, Pen::AWAY) {
            Pen::Waiting(wire, begun) => {
                let begun = state.choose(begun, &mut spent);
                self.go(state, wire, begun, spent)
            }
            Pen::Away { carries, order, .. } => {
                state.pen = Pen::Away {
                    edge: true,
                    carries,
                    order,
                };
                Ask::Nothing
            }
            pen => {
                state.pen = pen;
                Ask::Nothing
            }
        }
    }

    /// A link has come up, perhaps in place of an older one. The slot goes out, or the last frame once more.
    pub(crate) fn attach(&self, wire: Arc<dyn Wire>) -> Ask {
        let mut spent = None;
        let mut state = lock(&self.state);
        state.wanted = false;
        match mem::replace(&mut state.pen, Pen::AWAY) {
            Pen::Away { edge, carries, .. } => {
                state.pen = Pen::Away {
                    edge,
                    carries,
                    order: Some(Order::Move(wire)),
                };
                return Ask::Nothing;
            }
            Pen::Waiting(_, begun) => state.take_back(begun, &mut spent),
            Pen::Nowhere | Pen::Broken(_) | Pen::Resting(_) => {}
        }
        let begun = state.begin();
        self.go(state, wire, begun, spent)
    }

    /// The link has ended.
    pub(crate) fn detach(&self) {
        let mut spent = None;
        lock(&self.state).detach(&mut spent);
    }

    /// The peer is gone for good: what waits is discarded, nothing more is accepted.
    pub(crate) fn close(&self) {
        let mut spent = None;
        let mut state = lock(&self.state);
        state.closed = true;
        state.detach(&mut spent);
        let slot = state.next.take();
        state.tally.discarded += u64::from(slot.is_some());
        let last = state.last.take();
        drop(state);
        drop((slot, last));
    }

    /// Why the link that was attached last cannot be written to. Whoever was told [`Ask::Broken`] asks this before he
    /// ends a link: a new one may have taken the place of the broken one by then.
    pub(crate) fn broken(&self) -> Option<io::ErrorKind> {
        match lock(&self.state).pen {
            Pen::Broken(kind) => Some(kind),
            _ => None,
        }
    }

    /// Whether the slot is free.
    pub(crate) fn has_room(&self) -> bool {
        let state = lock(&self.state);
        state.next.is_none() || state.closed
    }

    pub(crate) fn tally(&self) -> Tally {
        let state = lock(&self.state);
        let with_pen = match &state.pen {
            Pen::Waiting(_, Some(begun)) => begun.fresh,
            Pen::Away { carries, .. } => *carries,
            _ => false,
        };
        Tally {
            waiting: u64::from(state.next.is_some()) + u64::from(with_pen),
            ..state.tally
        }
    }

    /// Starts to write `begun`, or lets the pen rest if there is nothing. `state.pen` is `Away`.
    fn go(
        &self,
        mut state: MutexGuard<'_, State>,
        wire: Arc<dyn Wire>,
        begun: Option<Begun>,
        spent: Spent,
    ) -> Ask {
        let Some(begun) = begun else {
            state.pen = Pen::Resting(wire);
            drop(state);
            drop(spent);
            return Ask::Nothing;
        };
        state.pen = Pen::Away {
            edge: false,
            carries: begun.fresh,
            order: None,
        };
        drop(state);
        drop(spent);
        self.write(wire, begun).1
    }

    /// Writes with the pen in hand until the slot is empty or the socket full. `Put` is what became of `begun`.
    fn write(&self, mut wire: Arc<dyn Wire>, mut begun: Begun) -> (Put, Ask) {
        let mut first = Put::Queued;
        let mut frames = 0;
        loop {
            let progress = begun.write_to(&*wire);
            // Declared before the lock, so that they go after it, on every way out.
            let (mut spent, mut old_wire) = (None, None);
            let mut state = lock(&self.state);
            let Pen::Away { edge, order, .. } = mem::replace(&mut state.pen, Pen::AWAY) else {
                unreachable!("only the holder of the pen puts it back");
            };
            let done = matches!(progress, Progress::Done);
            let rest = if done {
                spent = state.finished(begun);
                None
            } else {
                Some(begun)
            };
            if done && frames == 0 {
                first = Put::Written;
            }
            frames += 1;
            let next = match (order, progress) {
                (Some(Order::Drop), _) => {
                    state.take_back(rest, &mut spent);
                    state.pen = Pen::Nowhere;
                    // Whoever put it while the pen was away asked for nothing, and the loop may have looked before.
                    let ask = if state.next.is_some() {
                        state.ask_for_link()
                    } else {
                        Ask::Nothing
                    };
                    return (first, ask);
                }
                (Some(Order::Move(to)), _) => {
                    state.take_back(rest, &mut spent);
                    old_wire = Some(mem::replace(&mut wire, to));
                    state.begin()
                }
                (None, Progress::Done) if frames >= self.frames_max && state.next.is_some() => {
                    state.pen = Pen::Waiting(wire, None);
                    return (first, Ask::Resume);
                }
                (None, Progress::Done) => state.choose(None, &mut spent),
                (None, Progress::Full) if edge => state.choose(rest, &mut spent),
                (None, Progress::Full) => {
                    let rest = state.unbegin(rest, &mut spent);
                    state.pen = Pen::Waiting(wire, rest);
                    return (first, Ask::Nothing);
                }
                (None, Progress::Broken(kind)) => {
                    state.take_back(rest, &mut spent);
                    state.pen = Pen::Broken(kind);
                    return (first, Ask::Broken);
                }
            };
            let Some(next) = next else {
                state.pen = Pen::Resting(wire);
                return (first, Ask::Nothing);
            };
            state.pen = Pen::Away {
                edge: false,
                carries: next.fresh,
                order: None,
            };
            drop(state);
            drop((spent, old_wire));
            begun = next;
        }
    }
}

impl Pen {
    const AWAY: Self = Self::Away {
        edge: false,
        carries: true,
        order: None,
    };
}

impl State {
    /// Something waits, and there is no link.
    fn ask_for_link(&mut self) -> Ask {
        if mem::replace(&mut self.wanted, true) {
            Ask::Nothing
        } else {
            Ask::Link
        }
    }

    /// What goes first over a new link: the slot, else the last frame once more.
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

    /// What goes next over the same link: what has begun, unless nothing of it has left and the slot is newer.
    fn choose(&mut self, begun: Option<Begun>, spent: &mut Spent) -> Option<Begun> {
        match self.unbegin(begun, spent) {
            Some(begun) if begun.done > 0 || self.next.is_none() => Some(begun),
            last => {
                self.take_back(last, spent);
                self.next.take().map(Begun::fresh)
            }
        }
    }

    /// An accepted frame of which nothing has left is not begun: it goes back to the slot, where a newer one wins.
    fn unbegin(&mut self, begun: Option<Begun>, spent: &mut Spent) -> Option<Begun> {
        match begun {
            Some(begun) if begun.done == 0 && begun.fresh => {
                self.take_back(Some(begun), spent);
                None
            }
            begun => begun,
        }
    }

    /// Takes back what cannot be finished on its link: it waits again, unless the slot has something newer.
    fn take_back(&mut self, begun: Option<Begun>, spent: &mut Spent) {
        let Some(Begun { frame, fresh, .. }) = begun else {
            return;
        };
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
        debug_assert!(spent.is_none(), "one frame at a time is with the pen");
        *spent = Some(frame);
    }

    /// Accounts for a frame that was written to its end. Returns the one that was the last before, to be freed.
    fn finished(&mut self, begun: Begun) -> Option<Bytes> {
        if begun.fresh {
            self.tally.written += 1;
        } else {
            self.tally.resent += 1;
        }
        self.tally.bytes += begun.done as u64;
        if self.closed {
            Some(begun.frame)
        } else {
            self.last.replace(begun.frame)
        }
    }

    fn detach(&mut self, spent: &mut Spent) {
        match mem::replace(&mut self.pen, Pen::Nowhere) {
            Pen::Away { edge, carries, .. } => {
                self.pen = Pen::Away {
                    edge,
                    carries,
                    order: Some(Order::Drop),
                };
            }
            Pen::Waiting(_, begun) => self.take_back(begun, spent),
            Pen::Nowhere | Pen::Broken(_) | Pen::Resting(_) => {}
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
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc as LoomArc, thread};

    use super::{super::fixture::*, *};

    #[test]
    fn loom_of_two_callers_at_once_no_frame_is_left_behind() {
        loom::model(|| {
            let pipe = Pipe::with_room(usize::MAX);
            let outbox = LoomArc::new(Latest::new(16));
            outbox.attach(pipe.clone());
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
            let outbox = LoomArc::new(Latest::new(16));
            outbox.attach(pipe.clone());
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
            let outbox = LoomArc::new(Latest::new(16));
            outbox.attach(old);
            let the_loop = {
                let (outbox, new) = (LoomArc::clone(&outbox), new.clone());
                thread::spawn(move || {
                    outbox.detach();
                    outbox.attach(new);
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
            let outbox = LoomArc::new(Latest::new(16));
            outbox.attach(Pipe::with_room(3));
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
    use super::{super::fixture::*, *};

    #[test]
    fn a_frame_is_written_where_it_is_put() {
        let (pipe, outbox) = (Pipe::with_room(usize::MAX), Latest::new(16));
        assert_eq!(outbox.attach(pipe.clone()), Ask::Nothing);
        assert_eq!(outbox.put(frame(1)), (Put::Written, Ask::Nothing));
        assert_eq!(pipe.frames(), (vec![vec![1, 1]], true));
    }

    #[test]
    fn without_a_link_the_newest_waits_and_the_loop_is_asked_once() {
        let outbox = Latest::new(16);
        assert_eq!(outbox.put(frame(1)), (Put::Queued, Ask::Link));
        assert_eq!(outbox.put(frame(2)), (Put::Superseded, Ask::Nothing));
        let pipe = Pipe::with_room(usize::MAX);
        outbox.attach(pipe.clone());
        assert_eq!(pipe.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_frame_that_has_begun_is_finished_and_one_that_has_not_is_replaced() {
        let (pipe, outbox) = (Pipe::with_room(8), Latest::new(16));
        outbox.attach(pipe.clone());
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
        let (pipe, outbox) = (Pipe::with_room(6), Latest::new(16));
        outbox.attach(pipe.clone());
        outbox.put(frame(1));
        assert_eq!(outbox.put(frame(2)).0, Put::Queued, "the socket is full");
        assert_eq!(outbox.put(frame(3)).0, Put::Superseded);
        pipe.make_room(100);
        outbox.resume();
        assert_eq!(pipe.frames(), (vec![vec![1, 1], vec![3, 3]], true));
    }

    #[test]
    fn the_last_frame_goes_over_a_new_link_once_more() {
        let (old, new, outbox) = (Pipe::with_room(100), Pipe::with_room(100), Latest::new(16));
        outbox.attach(old);
        outbox.put(frame(1));
        outbox.detach();
        outbox.attach(new.clone());
        assert_eq!(new.frames(), (vec![vec![1, 1]], true));
        assert_eq!((outbox.tally().written, outbox.tally().resent), (1, 1));
    }

    #[test]
    fn a_waiting_frame_goes_over_a_new_link_in_place_of_the_last() {
        let (old, new, outbox) = (Pipe::with_room(100), Pipe::with_room(100), Latest::new(16));
        outbox.attach(old);
        outbox.put(frame(1));
        outbox.detach();
        outbox.put(frame(2));
        outbox.attach(new.clone());
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_eq!(outbox.tally().resent, 0);
    }

    #[test]
    fn a_frame_cut_off_by_the_end_of_its_link_waits_again() {
        let (old, new, outbox) = (Pipe::with_room(9), Pipe::with_room(100), Latest::new(16));
        outbox.attach(old);
        outbox.put(frame(1));
        outbox.put(frame(2));
        outbox.detach();
        assert_eq!(outbox.tally().waiting, 1);
        outbox.attach(new.clone());
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_last_frame_that_has_not_begun_gives_way_to_a_newer_one() {
        let (old, new, outbox) = (Pipe::with_room(100), Pipe::with_room(0), Latest::new(16));
        outbox.attach(old);
        outbox.put(frame(1));
        outbox.attach(new.clone());
        outbox.put(frame(2));
        new.make_room(100);
        outbox.resume();
        assert_eq!(new.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_broken_link_is_forgotten_when_a_new_one_is_attached() {
        let outbox = Latest::new(16);
        outbox.attach(Arc::new(Cut));
        assert_eq!(outbox.put(frame(1)), (Put::Queued, Ask::Broken));
        assert_eq!(outbox.put(frame(2)), (Put::Superseded, Ask::Nothing));
        assert_eq!(outbox.broken(), Some(io::ErrorKind::ConnectionReset));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone());
        assert_eq!(outbox.broken(), None);
        assert_eq!(pipe.frames(), (vec![vec![2, 2]], true));
        assert_balance(outbox.tally());
    }

    #[test]
    fn a_frame_put_while_the_last_one_goes_over_a_link_that_ends_asks_for_another() {
        let outbox = Arc::new(Latest::new(16));
        outbox.attach(Pipe::with_room(100));
        outbox.put(frame(1));
        let meanwhile = Arc::clone(&outbox);
        let ask = outbox.attach(Arc::new(Meanwhile(move || {
            // The loop finds nothing that waits, so it sees no demand.
            meanwhile.detach();
            assert!(meanwhile.tally().waiting == 0);
            assert_eq!(meanwhile.put(frame(2)), (Put::Queued, Ask::Nothing));
        })));
        assert_eq!(ask, Ask::Link);
        assert_eq!(outbox.put(frame(3)), (Put::Superseded, Ask::Nothing));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone());
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
        let outbox = Latest::new(16);
        outbox.put(frame(1));
        outbox.close();
        assert_eq!(outbox.put(frame(2)), (Put::Closed, Ask::Nothing));
        assert_eq!(outbox.tally().discarded, 1);
        assert_balance(outbox.tally());
    }
}
