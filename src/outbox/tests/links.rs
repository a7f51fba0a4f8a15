//! Links that begin, end and fail.

use super::*;

#[test]
fn attaching_a_new_link_clears_the_failure() {
    for outbox in all() {
        outbox.attach(Arc::new(Cut), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::BROKEN);
        assert_eq!(put_and_write(&outbox, 2), LoopRequest::NONE);
        assert_eq!(outbox.resume(), LoopRequest::NONE);
        assert_eq!(outbox.broken(), Some(io::ErrorKind::ConnectionReset));
        let pipe = Pipe::with_room(100);
        outbox.attach(pipe.clone(), false);
        assert_eq!(outbox.broken(), None);
        let waited: &[u8] = if outbox.has_queue() { &[1, 2] } else { &[2] };
        assert_eq!(pipe.frames(), (bodies(waited), true));
        assert_balance(outbox.counts());
    }
}

#[test]
fn write_of_zero_bytes_is_a_failure() {
    for outbox in all() {
        outbox.attach(Arc::new(Stuck), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::BROKEN);
        assert_eq!(outbox.broken(), Some(io::ErrorKind::WriteZero));
        assert_eq!(outbox.counts().waiting, 1);
    }
}

#[test]
fn interrupted_frame_restarts_on_the_replacing_link() {
    for outbox in all() {
        outbox.attach(Pipe::with_room(3), false);
        assert_eq!(put_and_write(&outbox, 1), LoopRequest::NONE);
        // The older link is not detached before.
        let new = Pipe::with_room(100);
        let request = outbox.attach(new.clone(), false);
        assert_eq!(request.without(LoopRequest::RELEASE), LoopRequest::NONE);
        assert_eq!(new.frames(), (bodies(&[1]), true));
        assert_eq!(outbox.counts().waiting, 0);
        assert_balance(outbox.counts());
    }
}

#[test]
fn denied_link_request_is_repeated_by_the_next_frame() {
    for outbox in all() {
        assert!(!outbox.update_demand(), "nothing waits");
        assert_eq!(outbox.put(frame(1)).1, LoopRequest::LINK);
        assert!(outbox.update_demand());
        // The loop knows already.
        assert_eq!(outbox.put(frame(2)).1, LoopRequest::NONE);
        outbox.attach(Pipe::with_room(100), false);
        outbox.resume();
        outbox.detach();
        assert!(!outbox.update_demand());
        assert_eq!(outbox.put(frame(3)).1, LoopRequest::LINK);
    }
}
