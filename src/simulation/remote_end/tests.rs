//! Tests of the ends that a test holds.

use super::*;
use crate::{
    net::{Net as _, Stream as _},
    outbox::Wire as _,
    simulation::{HostNet, HostStream, Network},
};

fn network() -> (Network, HostNet) {
    let network = Network::new();
    let net = network.host([10, 0, 0, 1]).net();
    (network, net)
}

/// A stream that a host has dialed, and the end that the test holds.
fn dialed() -> (HostNet, HostStream, RemoteEnd) {
    let (network, mut net) = network();
    let stream = net.dial("10.0.0.2:1".parse().unwrap()).unwrap();
    (net, stream, network.take_dials().remove(0))
}

#[test]
fn a_dial_waits_until_it_is_accepted_or_refused() {
    let (network, mut net) = network();
    let to: SocketAddr = "10.0.0.2:1".parse().unwrap();
    let streams = [(); 2].map(|()| net.dial(to).unwrap());
    let [one, two] = &network.take_dials()[..] else {
        panic!("two dials wait");
    };
    assert_eq!(one.local_addr(), to);
    assert!(one.was_dialed() && !one.is_open());
    assert!(one.send(b"early").is_err() && one.shutdown_write().is_err());
    one.accept().unwrap();
    two.refuse().unwrap();
    assert!(one.accept().is_err() && two.refuse().is_err());
    assert!(streams[0].connected().unwrap() && one.is_open());
    assert_eq!(
        streams[1].connected().unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    assert!(network.take_dials().is_empty());
}

#[test]
fn a_dial_that_is_given_up_cannot_be_accepted() {
    let (_net, stream, end) = dialed();
    assert!(!end.is_closed());
    stream.abort().unwrap();
    assert!(end.is_closed() && end.was_reset());
    assert!(end.accept().is_err());
}

#[test]
fn the_test_sees_what_the_loop_does_with_its_end() {
    let (_net, stream, end) = dialed();
    end.accept().unwrap();
    end.set_room(2);
    assert_eq!(stream.write(&[io::IoSlice::new(b"abc")]).unwrap(), 2);
    assert!(end.is_blocked());
    assert_eq!(end.received(), b"ab");
    end.make_room(1);
    assert!(!end.is_blocked());
    assert_eq!(stream.write(&[io::IoSlice::new(b"c")]).unwrap(), 1);
    assert_eq!(end.take_received(), b"abc");
    assert_eq!(end.received(), b"");
    end.shutdown_write().unwrap();
    assert!(end.send(b"more").is_err());
    assert!(!end.is_closed());
    drop(stream);
    assert!(end.is_closed() && !end.was_reset());
}

#[test]
fn a_broken_connection_fails_once() {
    let (_net, stream, end) = dialed();
    end.accept().unwrap();
    end.fail(ErrorKind::TimedOut);
    let read = || stream.read(&mut [0; 4]);
    assert_eq!(read().unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(read().unwrap(), 0);
    assert!(end.send(b"late").is_err());
}
