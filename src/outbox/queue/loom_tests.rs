//! Models of what threads share in `queue`, for loom.

use loom::{sync::Arc as LoomArc, thread};

use super::{
    super::{fixture::*, writer::Writer},
    *,
};
use crate::proto::Controls;

fn queue(bytes_max: usize) -> Writer<Queue> {
    Writer::new(Queue::new(bytes_max), clock(), 2)
}

/// Acts as the loop: resumes as often as it is asked to.
fn answer(queue: &Writer<Queue>, mut request: LoopRequest) {
    while request == LoopRequest::RESUME {
        request = queue.resume();
    }
}

#[test]
fn loom_one_of_two_senders_requests_the_write_for_both() {
    loom::model(|| {
        let pipe = Pipe::with_room(usize::MAX);
        let queue = LoomArc::new(queue(1000));
        queue.attach(pipe.clone(), false);
        let other = {
            let queue = LoomArc::clone(&queue);
            thread::spawn(move || queue.put(frame(1)).1)
        };
        // The loop may write for one sender while the other one puts its frame. Then the other one asks again.
        let mine = queue.put(frame(2)).1;
        answer(&queue, mine);
        answer(&queue, other.join().unwrap());
        let (frames, whole) = pipe.frames();
        assert!(whole);
        assert_eq!(frames.len(), 2);
        assert_eq!(queue.counts().waiting, 0);
        assert_balance(queue.counts());
    });
}

#[test]
fn loom_frames_arrive_once_in_order_while_links_change() {
    loom::model(|| {
        let (old, new) = (Pipe::with_room(9), Pipe::with_room(usize::MAX));
        let queue = LoomArc::new(queue(1000));
        queue.attach(old.clone(), false);
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
        queue.attach(new.clone(), false);
        caller.join().unwrap();
        queue.resume();
        let (mut frames, _) = old.frames();
        let (rest, whole) = new.frames();
        frames.extend(rest);
        assert!(whole);
        assert_eq!(frames, [[1, 1], [2, 2], [3, 3]]);
        assert_balance(queue.counts());
    });
}

/// The payloads before the end frame, which is the last thing that was written.
fn frames_to_the_end(pipe: &Pipe) -> Vec<Vec<u8>> {
    let end = [255, 255, 255, 253, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes = pipe.bytes();
    let at = bytes.len() - end.len();
    assert_eq!(bytes[at..], end);
    assert_eq!(at % 6, 0);
    bytes[..at]
        .chunks(6)
        .map(|frame| frame[4..].to_vec())
        .collect()
}

#[test]
fn loom_frames_arrive_once_in_order_when_a_link_is_retired() {
    loom::model(|| {
        let (old, new) = (Pipe::with_room(9), Pipe::with_room(usize::MAX));
        let queue = LoomArc::new(queue(1000));
        queue.attach(old.clone(), false);
        queue.put(frame(1));
        let caller = {
            let queue = LoomArc::clone(&queue);
            thread::spawn(move || queue.put(frame(2)).1.union(queue.put(frame(3)).1))
        };
        answer(&queue, queue.resume());
        let (is_taken, request) = queue.put_controls(Controls {
            end: true,
            ..Controls::default()
        });
        assert!(is_taken);
        answer(&queue, request);
        old.make_room(100);
        answer(&queue, queue.resume());
        answer(&queue, caller.join().unwrap());
        let mut frames = frames_to_the_end(&old);
        queue.detach();
        answer(&queue, queue.attach(new.clone(), false));
        let (rest, whole) = new.frames();
        frames.extend(rest);
        assert!(whole);
        assert_eq!(frames, [[1, 1], [2, 2], [3, 3]]);
        assert_balance(queue.counts());
    });
}

#[test]
fn loom_two_senders_write_their_frames_themselves() {
    loom::model(|| {
        let pipe = Pipe::with_room(usize::MAX);
        let queue = LoomArc::new(queue(1000));
        queue.attach(pipe.clone(), false);
        let other = {
            let queue = LoomArc::clone(&queue);
            thread::spawn(move || answer(&queue, queue.put(frame(1)).1))
        };
        answer(&queue, queue.put(frame(2)).1);
        other.join().unwrap();
        assert_eq!(pipe.frames().0.len(), 2);
        assert_eq!(queue.counts().waiting, 0);
    });
}

#[test]
fn loom_writable_event_is_not_lost_while_a_sender_resumes() {
    loom::model(|| {
        let pipe = Pipe::with_room(3);
        let queue = LoomArc::new(queue(1000));
        queue.attach(pipe.clone(), false);
        let sender = {
            let queue = LoomArc::clone(&queue);
            thread::spawn(move || answer(&queue, queue.put(frame(1)).1))
        };
        // The loop sees the edge.
        pipe.make_room(100);
        queue.resume();
        sender.join().unwrap();
        assert_eq!(pipe.frames(), (vec![vec![1, 1]], true));
    });
}
