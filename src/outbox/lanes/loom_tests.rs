//! Models of what threads share in `lanes`, for loom.

use loom::{sync::Arc as LoomArc, thread};

use super::super::fixture::*;
use super::*;
use crate::outbox::PeerOutbox;

/// Acts as the loop: resumes as often as it is asked to.
fn answer(lanes: &PeerOutbox, mut request: LoopRequest) {
    while request.has(LoopRequest::RESUME) {
        request = lanes.resume();
    }
}

#[test]
fn loom_both_lanes_leave_no_frame_unwritten() {
    loom::model(|| {
        let pipe = Pipe::with_room(usize::MAX);
        let lanes = LoomArc::new(lanes(1000));
        lanes.attach(pipe.clone(), false);
        let other = {
            let lanes = LoomArc::clone(&lanes);
            thread::spawn(move || lanes.put_latest(frame(1)).1)
        };
        let mine = lanes.put(frame(2)).1;
        answer(&lanes, mine);
        answer(&lanes, other.join().unwrap());
        let (frames, whole) = pipe.frames();
        assert!(whole);
        assert_eq!(frames.len(), 2);
        assert_eq!(lanes.counts().waiting, 0);
        assert_balance(lanes.counts());
    });
}

#[test]
fn loom_new_link_during_a_write_gets_both_lanes() {
    loom::model(|| {
        let (old, new) = (Pipe::with_room(3), Pipe::with_room(usize::MAX));
        let lanes = LoomArc::new(lanes(1000));
        lanes.attach(old, false);
        let the_loop = {
            let (lanes, new) = (LoomArc::clone(&lanes), new.clone());
            thread::spawn(move || {
                lanes.detach();
                lanes.attach(new, false)
            })
        };
        let first = lanes.put_latest(frame(1)).1;
        let second = lanes.put(frame(2)).1;
        for request in [first, second, the_loop.join().unwrap()] {
            answer(&lanes, request);
        }
        let (mut frames, whole) = new.frames();
        assert!(whole);
        frames.sort();
        assert_eq!(frames, [[1, 1], [2, 2]]);
        assert_balance(lanes.counts());
    });
}
