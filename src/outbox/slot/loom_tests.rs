//! Models of what threads share in `slot`, for loom.

use loom::{sync::Arc as LoomArc, thread};

use super::{super::fixture::*, *};

#[test]
fn loom_two_senders_leave_no_frame_unwritten() {
    loom::model(|| {
        let pipe = Pipe::with_room(usize::MAX);
        let outbox = LoomArc::new(Writer::new(Slot::default(), clock(), 16));
        outbox.attach(pipe.clone(), false);
        let other = {
            let outbox = LoomArc::clone(&outbox);
            thread::spawn(move || outbox.put_latest(frame(1)))
        };
        outbox.put_latest(frame(2));
        other.join().unwrap();
        let (frames, whole) = pipe.frames();
        assert!(whole);
        let counts = outbox.counts();
        assert_eq!((counts.accepted, counts.waiting), (2, 0));
        assert_eq!(counts.written + counts.superseded, 2);
        assert_eq!(frames.len() as u64, counts.written);
    });
}

#[test]
fn loom_writable_event_during_a_write_is_not_lost() {
    loom::model(|| {
        // Room for half a frame: the writer finds the socket full while the loop makes room.
        let pipe = Pipe::with_room(3);
        let outbox = LoomArc::new(Writer::new(Slot::default(), clock(), 16));
        outbox.attach(pipe.clone(), false);
        let the_loop = {
            let (outbox, pipe) = (LoomArc::clone(&outbox), pipe.clone());
            thread::spawn(move || {
                // The socket becomes writable once, and not again.
                pipe.make_room(100);
                outbox.resume();
            })
        };
        outbox.put_latest(frame(1));
        outbox.put_latest(frame(2));
        the_loop.join().unwrap();
        let (frames, whole) = pipe.frames();
        assert!(whole, "the remainder was left behind");
        assert_eq!(frames.last().map(Vec::as_slice), Some(&[2, 2][..]));
        assert_eq!(outbox.counts().waiting, 0);
        assert_balance(outbox.counts());
    });
}

#[test]
fn loom_new_link_during_a_write_gets_the_newest_frame() {
    loom::model(|| {
        let (old, new) = (Pipe::with_room(3), Pipe::with_room(usize::MAX));
        let outbox = LoomArc::new(Writer::new(Slot::default(), clock(), 16));
        outbox.attach(old, false);
        let the_loop = {
            let (outbox, new) = (LoomArc::clone(&outbox), new.clone());
            thread::spawn(move || {
                outbox.detach();
                outbox.attach(new, false);
            })
        };
        outbox.put_latest(frame(1));
        outbox.put_latest(frame(2));
        the_loop.join().unwrap();
        let (frames, whole) = new.frames();
        assert!(whole);
        assert!(
            frames.is_sorted(),
            "an older frame came after a newer one: {frames:?}"
        );
        assert_eq!(frames.last().map(Vec::as_slice), Some(&[2, 2][..]));
        assert_balance(outbox.counts());
    });
}

#[test]
fn loom_close_during_a_write_accounts_for_every_frame() {
    loom::model(|| {
        let outbox = LoomArc::new(Writer::new(Slot::default(), clock(), 16));
        outbox.attach(Pipe::with_room(3), false);
        let the_loop = {
            let outbox = LoomArc::clone(&outbox);
            thread::spawn(move || outbox.close())
        };
        outbox.put_latest(frame(1));
        outbox.put_latest(frame(2));
        the_loop.join().unwrap();
        assert_eq!(outbox.counts().waiting, 0);
        assert_balance(outbox.counts());
    });
}
