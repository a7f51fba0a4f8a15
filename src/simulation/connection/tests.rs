//! Tests of the TCP of one connection, without a network.

use super::{
    ErrorKind::{BrokenPipe, ConnectionReset, WouldBlock},
    *,
};

const DIALER: usize = 0;
const ACCEPTOR: usize = 1;

/// An established connection between two processes, with buffers of this size.
fn established(buffer: usize) -> Connection {
    let mut connection = dialed(buffer);
    connection.establish();
    connection
}

fn dialed(buffer: usize) -> Connection {
    let addr = "10.0.0.1:1".parse().unwrap();
    let [dialer, acceptor] = [0, 1].map(|process| {
        let mut end = End::new(Owner::Process(process), addr, buffer, buffer);
        end.token = Some(0);
        end
    });
    Connection::new(dialer, acceptor)
}

fn write(connection: &mut Connection, side: usize, bytes: &[u8]) -> io::Result<usize> {
    connection.write(side, &[IoSlice::new(bytes)])
}

fn read(connection: &mut Connection, side: usize) -> io::Result<Vec<u8>> {
    let mut buf = [0; 64];
    let read = connection.read(side, &mut buf)?;
    Ok(buf[..read].to_vec())
}

fn take_event(connection: &mut Connection, side: usize) -> bool {
    std::mem::take(&mut connection.ends[side].changed)
}

#[track_caller]
fn assert_fails<T: std::fmt::Debug>(result: io::Result<T>, kind: ErrorKind) {
    assert_eq!(result.unwrap_err().kind(), kind);
}

#[test]
fn a_dial_is_writable_once_it_is_established() {
    let mut connection = dialed(8);
    assert!(!connection.connected(DIALER).unwrap());
    assert_fails(write(&mut connection, DIALER, b"early"), WouldBlock);
    assert!(!connection.readiness(DIALER).writable);
    connection.establish();
    assert!(take_event(&mut connection, DIALER));
    let readiness = connection.readiness(DIALER);
    assert!(readiness.writable && !readiness.readable && !readiness.ended);
    assert!(connection.connected(DIALER).unwrap());
}

#[test]
fn full_buffers_cause_partial_writes_and_an_event_later() {
    let mut connection = established(4);
    // Four bytes wait at each end.
    assert_eq!(write(&mut connection, DIALER, b"0123456789").unwrap(), 8);
    assert_fails(write(&mut connection, DIALER, b"89"), WouldBlock);
    assert!(connection.is_blocked(DIALER) && !connection.readiness(DIALER).writable);
    take_event(&mut connection, DIALER);
    take_event(&mut connection, ACCEPTOR);
    assert_eq!(read(&mut connection, ACCEPTOR).unwrap(), b"0123");
    assert!(take_event(&mut connection, DIALER), "there is room");
    assert!(take_event(&mut connection, ACCEPTOR), "more has arrived");
    assert_eq!(write(&mut connection, DIALER, b"89").unwrap(), 2);
    assert!(!connection.is_blocked(DIALER));
    assert_eq!(read(&mut connection, ACCEPTOR).unwrap(), b"4567");
    assert_eq!(read(&mut connection, ACCEPTOR).unwrap(), b"89");
    assert_fails(read(&mut connection, ACCEPTOR), WouldBlock);
}

#[test]
fn an_end_follows_the_bytes_before_it() {
    let mut connection = established(8);
    write(&mut connection, DIALER, b"last").unwrap();
    connection.shutdown(DIALER, Shutdown::Write).unwrap();
    assert_fails(write(&mut connection, DIALER, b"more"), BrokenPipe);
    assert!(connection.readiness(ACCEPTOR).ended);
    assert_eq!(read(&mut connection, ACCEPTOR).unwrap(), b"last");
    assert_eq!(read(&mut connection, ACCEPTOR).unwrap(), b"");
    // The other direction is still open.
    write(&mut connection, ACCEPTOR, b"answer").unwrap();
    assert_eq!(read(&mut connection, DIALER).unwrap(), b"answer");
}

#[test]
fn an_error_is_returned_once() {
    let mut connection = established(8);
    write(&mut connection, DIALER, b"before").unwrap();
    connection.reset(DIALER).unwrap();
    assert!(connection.was_reset(ACCEPTOR));
    assert_eq!(read(&mut connection, ACCEPTOR).unwrap(), b"before");
    assert_fails(read(&mut connection, ACCEPTOR), ConnectionReset);
    assert_eq!(read(&mut connection, ACCEPTOR).unwrap(), b"");
    assert_fails(write(&mut connection, ACCEPTOR, b"x"), BrokenPipe);
    assert!(!connection.connected(ACCEPTOR).unwrap());
}

#[test]
fn an_abort_is_the_end_unless_bytes_wait_before_it() {
    for unread in [0, 12] {
        let mut connection = established(8);
        if unread > 0 {
            write(&mut connection, DIALER, &vec![7; unread]).unwrap();
            read(&mut connection, ACCEPTOR).unwrap();
            write(&mut connection, DIALER, &vec![7; unread]).unwrap();
        }
        connection.abort(DIALER).unwrap();
        assert!(connection.was_reset(ACCEPTOR));
        if unread > 0 {
            assert_eq!(read(&mut connection, ACCEPTOR).unwrap().len(), 8);
            assert_fails(read(&mut connection, ACCEPTOR), ConnectionReset);
        }
        assert_eq!(read(&mut connection, ACCEPTOR).unwrap(), b"");
        assert_fails(write(&mut connection, ACCEPTOR, b"x"), BrokenPipe);
    }
}

#[test]
fn bytes_for_a_closed_end_are_answered_with_a_reset() {
    let mut connection = established(8);
    connection.close(ACCEPTOR);
    assert_eq!(read(&mut connection, DIALER).unwrap(), b"");
    assert_eq!(write(&mut connection, DIALER, b"late").unwrap(), 4);
    assert_fails(write(&mut connection, DIALER, b"x"), ConnectionReset);
}

#[test]
fn closing_with_unread_bytes_resets() {
    let mut connection = established(8);
    write(&mut connection, DIALER, b"unread").unwrap();
    connection.close(ACCEPTOR);
    assert!(connection.was_reset(DIALER));
    assert_fails(read(&mut connection, DIALER), ConnectionReset);
}

#[test]
fn nothing_arrives_while_a_path_is_cut() {
    let mut connection = established(4);
    connection.open = [false; 2];
    assert_eq!(write(&mut connection, DIALER, b"012345").unwrap(), 4);
    connection.reset(ACCEPTOR).unwrap();
    assert!(!connection.was_reset(DIALER));
    connection.open = [true; 2];
    connection.deliver(ACCEPTOR);
    assert!(connection.was_reset(DIALER));
}

#[test]
fn an_end_of_the_test_has_exactly_the_room_it_says() {
    let addr = "10.0.0.1:1".parse().unwrap();
    let end = |owner| End::new(owner, addr, 64, usize::MAX);
    let mut connection = Connection::new(end(Owner::Process(0)), end(Owner::Test));
    connection.establish();
    connection.set_room(ACCEPTOR, 3, false);
    assert_eq!(write(&mut connection, DIALER, b"0123456").unwrap(), 3);
    assert_fails(write(&mut connection, DIALER, b"3"), WouldBlock);
    take_event(&mut connection, DIALER);
    assert_eq!(connection.take_received(ACCEPTOR), b"012");
    assert_fails(write(&mut connection, DIALER, b"3"), WouldBlock);
    connection.set_room(ACCEPTOR, 1, true);
    assert!(take_event(&mut connection, DIALER));
    assert_eq!(write(&mut connection, DIALER, b"3456").unwrap(), 1);
    assert_eq!(connection.received(ACCEPTOR), b"3");
}
