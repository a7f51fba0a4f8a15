//! Control frames between the frames of the application.

use super::*;

fn ping(number: u8) -> Controls {
    let ping = Some(number.into());
    Controls {
        ping,
        ..Controls::default()
    }
}

fn ping_bytes(number: u8) -> [u8; 12] {
    [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, number]
}

#[test]
fn control_frames_go_before_the_frames_that_are_not_begun() {
    for outbox in all() {
        let pipe = Pipe::with_room(3);
        outbox.attach(pipe.clone(), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::NONE);
        assert_eq!(put_and_write(&outbox, 2), LoopRequest::NONE);
        for number in [7, 8] {
            assert_eq!(outbox.put_controls(ping(number)), (true, LoopRequest::NONE));
        }
        let pong = Controls {
            pong: Some(9),
            ..Controls::default()
        };
        assert_eq!(outbox.put_controls(pong), (true, LoopRequest::NONE));
        let mut expected = vec![0, 0, 0, 2, 1, 1];
        expected.extend([255, 255, 255, 254, 0, 0, 0, 0, 0, 0, 0, 9]);
        expected.extend(ping_bytes(8));
        expected.extend([0, 0, 0, 2, 2, 2]);
        // The socket is full again in the middle of each.
        for _ in 0..expected.len() {
            pipe.make_room(1);
            if outbox.resume() == LoopRequest::RESUME {
                outbox.resume();
            }
        }
        assert_eq!(pipe.bytes(), expected);
        let counts = outbox.counts();
        assert_eq!((counts.accepted, counts.written, counts.bytes), (2, 2, 12));
        assert_balance(counts);
        // The link is idle now.
        pipe.make_room(100);
        assert_eq!(outbox.put_controls(ping(9)), (true, LoopRequest::NONE));
        expected.extend(ping_bytes(9));
        assert_eq!(pipe.bytes(), expected);
        assert_eq!(outbox.detach(), 2);
    }
}

#[test]
fn control_frames_are_not_kept_for_another_link() {
    for outbox in all() {
        assert_eq!(outbox.put_controls(ping(1)), (false, LoopRequest::NONE));
        // One is written in part, and another one waits.
        outbox.attach(Pipe::with_room(3), false);
        outbox.put_controls(ping(1));
        outbox.put_controls(ping(2));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), true);
        assert_eq!(outbox.put_controls(ping(3)), (false, LoopRequest::NONE));
        outbox.end_probation();
        let _ = put_and_write(&outbox, 1);
        assert_eq!(pipe.frames(), (bodies(&[1]), true));
        assert_balance(outbox.counts());
    }
}

#[test]
fn control_frame_is_written_to_a_link_that_is_handed_over() {
    for outbox in all() {
        let outbox = Arc::new(outbox);
        let pipe = Pipe::with_room(100);
        let (new, of) = (pipe.clone(), Arc::downgrade(&outbox));
        // While a thread writes, the loop replaces the link, and sends a ping over the new one.
        let replace = move || {
            let outbox = of.upgrade().expect("it is in use");
            outbox.attach(new.clone(), false);
            assert_eq!(outbox.put_controls(ping(1)), (true, LoopRequest::NONE));
        };
        outbox.attach(Arc::new(OnWrite(replace)), false);
        let _ = put_and_write(&outbox, 1);
        assert!(pipe.bytes().ends_with(&ping_bytes(1)), "{outbox:?}");
    }
}

const END: Controls = Controls {
    ping: None,
    pong: None,
    end: true,
};

const END_FRAME: [u8; 12] = [255, 255, 255, 253, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn nothing_is_written_after_the_end_frame() {
    for outbox in all() {
        let (old, new) = (Pipe::with_room(3), Pipe::with_room(100));
        outbox.attach(old.clone(), false);
        let _ = put_and_write(&outbox, 1);
        let _ = put_and_write(&outbox, 2);
        outbox.put_controls(ping(7));
        assert_eq!(outbox.put_controls(END), (true, LoopRequest::NONE));
        // The socket is full again in the middle of each. What is being written is finished, and the frame that waits is not begun.
        let expected = [&[0, 0, 0, 2, 1, 1], &ping_bytes(7)[..], &END_FRAME].concat();
        for _ in 0..expected.len() {
            old.make_room(1);
            outbox.resume();
        }
        old.make_room(100);
        assert_eq!(outbox.put_controls(ping(8)), (false, LoopRequest::NONE));
        assert_eq!(outbox.put_controls(END), (false, LoopRequest::NONE));
        let _ = put_and_write(&outbox, 2);
        assert_eq!(outbox.resume(), LoopRequest::NONE);
        assert_eq!(old.bytes(), expected);
        assert!(outbox.counts().waiting_since.is_some());
        outbox.detach();
        outbox.attach(new.clone(), false);
        let frames = if outbox.has_queue() { 2 } else { 1 };
        assert_eq!(new.bytes(), [0, 0, 0, 2, 2, 2].repeat(frames));
        assert_balance(outbox.counts());
    }
}

#[test]
fn end_frame_of_an_idle_link_is_written_at_once() {
    for outbox in all() {
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), false);
        let _ = put_and_write(&outbox, 1);
        assert_eq!(outbox.put_controls(END), (true, LoopRequest::NONE));
        assert_eq!(pipe.bytes()[6..], END_FRAME);
        assert_eq!(outbox.detach(), 1);
    }
}

#[test]
fn control_frames_do_not_hide_how_long_a_frame_waits() {
    for outbox in all() {
        let pipe = Pipe::with_room(3);
        outbox.attach(pipe.clone(), false);
        outbox.put_controls(ping(1));
        let _ = put_and_write(&outbox, 1);
        let since = outbox.counts().waiting_since;
        assert!(since.is_some());
        pipe.make_room(10);
        outbox.resume();
        assert_eq!(outbox.counts().waiting_since, since);
    }
}
