//! Unit tests of `slot`.

use std::sync::Arc;

use super::{super::fixture::*, *};

fn slot() -> Writer<Slot> {
    Writer::new(Slot::default(), clock(), 16)
}

/// A slot that is linked by a socket with this much room.
fn linked(room: usize) -> (Arc<Pipe>, Writer<Slot>) {
    let (pipe, slot) = (Pipe::with_room(room), slot());
    assert_eq!(slot.attach(pipe.clone(), false), LoopRequest::NONE);
    (pipe, slot)
}

#[test]
fn frame_is_written_by_the_sender() {
    let (pipe, outbox) = linked(usize::MAX);
    assert_eq!(
        outbox.put_latest(frame(1)),
        (Ok(SendOutcome::Written), LoopRequest::NONE)
    );
    assert_eq!(pipe.frames(), (bodies(&[1]), true));
}

#[test]
fn newest_frame_waits_and_requests_a_link_once() {
    let outbox = slot();
    assert_eq!(outbox.put_latest(frame(1)), queued(LoopRequest::LINK));
    assert_eq!(
        outbox.put_latest(frame(2)),
        (Ok(SendOutcome::Superseded), LoopRequest::NONE)
    );
    let pipe = Pipe::with_room(usize::MAX);
    outbox.attach(pipe.clone(), false);
    assert_eq!(pipe.frames(), (bodies(&[2]), true));
    assert_balance(outbox.counts());
}

#[test]
fn frame_written_in_part_is_finished_and_others_replaced() {
    let (pipe, outbox) = linked(8);
    assert_eq!(outbox.put_latest(frame(1)).0, Ok(SendOutcome::Written));
    assert_eq!(
        outbox.put_latest(frame(2)).0,
        Ok(SendOutcome::Queued),
        "two of its bytes have left"
    );
    assert_eq!(outbox.put_latest(frame(3)).0, Ok(SendOutcome::Queued));
    assert_eq!(outbox.put_latest(frame(4)).0, Ok(SendOutcome::Superseded));
    pipe.make_room(100);
    outbox.resume();
    assert_eq!(pipe.frames(), (bodies(&[1, 2, 4]), true));
    assert_balance(outbox.counts());
}

#[test]
fn unwritten_frame_can_be_superseded() {
    let (pipe, outbox) = linked(6);
    outbox.put_latest(frame(1));
    assert_eq!(
        outbox.put_latest(frame(2)).0,
        Ok(SendOutcome::Queued),
        "the socket is full"
    );
    assert_eq!(outbox.put_latest(frame(3)).0, Ok(SendOutcome::Superseded));
    pipe.make_room(100);
    outbox.resume();
    assert_eq!(pipe.frames(), (bodies(&[1, 3]), true));
}

#[test]
fn last_frame_is_resent_on_a_new_link() {
    let (_, outbox) = linked(100);
    let new = Pipe::with_room(100);
    outbox.put_latest(frame(1));
    outbox.detach();
    outbox.attach(new.clone(), false);
    assert_eq!(new.frames(), (bodies(&[1]), true));
    assert_eq!((outbox.counts().written, outbox.counts().resent), (1, 1));
}

#[test]
fn waiting_frame_is_sent_instead_of_the_last_one() {
    let (_, outbox) = linked(100);
    let new = Pipe::with_room(100);
    outbox.put_latest(frame(1));
    outbox.detach();
    outbox.put_latest(frame(2));
    outbox.attach(new.clone(), false);
    assert_eq!(new.frames(), (bodies(&[2]), true));
    assert_eq!(outbox.counts().resent, 0);
}

#[test]
fn interrupted_frame_waits_for_the_next_link() {
    let (_, outbox) = linked(9);
    let new = Pipe::with_room(100);
    outbox.put_latest(frame(1));
    outbox.put_latest(frame(2));
    outbox.detach();
    assert_eq!(outbox.counts().waiting, 1);
    outbox.attach(new.clone(), false);
    assert_eq!(new.frames(), (bodies(&[2]), true));
    assert_balance(outbox.counts());
}

#[test]
fn unwritten_last_frame_is_superseded_by_a_newer_one() {
    let (_, outbox) = linked(100);
    let new = Pipe::with_room(0);
    outbox.put_latest(frame(1));
    outbox.attach(new.clone(), false);
    outbox.put_latest(frame(2));
    new.make_room(100);
    outbox.resume();
    assert_eq!(new.frames(), (bodies(&[2]), true));
    assert_balance(outbox.counts());
}

#[test]
fn frame_put_while_a_resend_fails_requests_a_link() {
    let outbox = Arc::new(slot());
    outbox.attach(Pipe::with_room(100), false);
    outbox.put_latest(frame(1));
    let meanwhile = Arc::clone(&outbox);
    let request = outbox.attach(
        Arc::new(Meanwhile(move || {
            // The loop finds no frame that waits, so it does not ask for a link.
            meanwhile.detach();
            assert!(meanwhile.counts().waiting == 0);
            assert_eq!(meanwhile.put_latest(frame(2)), queued(LoopRequest::NONE));
        })),
        false,
    );
    assert_eq!(request, LoopRequest::LINK);
    assert_eq!(
        outbox.put_latest(frame(3)),
        (Ok(SendOutcome::Superseded), LoopRequest::NONE)
    );
    let pipe = Pipe::with_room(100);
    outbox.attach(pipe.clone(), false);
    assert_eq!(pipe.frames(), (bodies(&[3]), true));
    assert_balance(outbox.counts());
}

/// A full socket. While it is written to, the function is called.
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
