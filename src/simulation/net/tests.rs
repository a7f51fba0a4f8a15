//! Tests of the calls that a loop makes of its simulated host.

use super::*;
use crate::simulation::Network;

const HOST: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];

fn events(net: &mut HostNet) -> Vec<Ready> {
    let mut ready = Vec::new();
    net.wait(Some(Duration::ZERO), &mut ready).unwrap();
    ready
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_listener_takes_only_addresses_of_its_host() {
    let network = Network::new();
    let host = network.host(HOST);
    let mut net = host.net();
    let kind = |result: io::Result<SocketAddr>| result.unwrap_err().kind();
    assert_eq!(
        kind(net.listen(0, addr("10.0.0.2:1"))),
        io::ErrorKind::AddrNotAvailable
    );
    assert_eq!(
        net.listen(0, addr("10.0.0.1:0")).unwrap(),
        addr("10.0.0.1:50001")
    );
    assert_eq!(
        kind(net.listen(1, addr("0.0.0.0:50001"))),
        io::ErrorKind::AddrInUse
    );
    assert_eq!(net.listen(1, addr("[::]:7")).unwrap(), addr("[::]:7"));
    assert!(
        network
            .connect(addr("10.0.0.9:9"), addr("10.0.0.1:7"))
            .is_ok()
    );
    assert_eq!(events(&mut net), [Ready::Listener(1)]);
    assert!(net.accept(0).is_err());
    assert_eq!(net.accept(1).unwrap().1, addr("10.0.0.9:9"));
    net.close_listeners();
    assert_eq!(host.listening(), []);
    assert!(
        network
            .connect(addr("10.0.0.9:9"), addr("10.0.0.1:7"))
            .is_err()
    );
}

#[test]
fn chosen_ports_begin_again_after_the_last_one() {
    let mut net = Network::new().host(HOST).net();
    let any = addr("10.0.0.1:0");
    let first = net.listen(0, any).unwrap();
    for _ in 0..u16::MAX - 50_001 {
        net.listen(1, any).unwrap();
    }
    assert_eq!(net.listen(1, any).unwrap(), addr("10.0.0.1:50002"));
    assert_eq!(first, addr("10.0.0.1:50001"));
}

#[test]
fn two_hosts_exchange_bytes_and_are_told_once() {
    let network = Network::new();
    let (mut one, mut two) = (network.host(HOST).net(), network.host(PEER).net());
    two.listen(0, addr("10.0.0.2:1")).unwrap();
    let dialed = one.dial(addr("10.0.0.2:1")).unwrap();
    one.watch(&dialed, 5).unwrap();
    let (accepted, from) = two.accept(0).unwrap();
    assert_eq!(from, addr("10.0.0.1:32768"));
    two.watch(&accepted, 6).unwrap();
    let is_writable = |ready: &[Ready], at| matches!(ready, [Ready::Connection { token, readable: false, writable: true, ended: false }] if *token == at);
    assert!(is_writable(&events(&mut one), 5));
    assert_eq!(events(&mut one), []);
    dialed
        .write(&[IoSlice::new(b"he"), IoSlice::new(b"llo")])
        .unwrap();
    assert!(matches!(
        events(&mut two)[..],
        [Ready::Listener(0), Ready::Connection { readable: true, .. }]
    ));
    let mut buf = [0; 9];
    assert_eq!(accepted.read(&mut buf).unwrap(), 5);
    assert_eq!(&buf[..5], b"hello");
    // The process of the first host ends.
    drop((one, dialed));
    assert!(matches!(
        events(&mut two)[..],
        [Ready::Connection { ended: true, .. }]
    ));
    assert_eq!(accepted.read(&mut buf).unwrap(), 0);
}

#[test]
fn a_failure_is_returned_by_one_call() {
    let network = Network::new();
    let host = network.host(HOST);
    let mut net = host.net();
    net.listen(0, addr("10.0.0.1:1")).unwrap();
    for kind in [io::ErrorKind::ConnectionAborted, io::ErrorKind::OutOfMemory] {
        host.fail_next(Call::Accept, kind.into());
    }
    host.fail_next(Call::Dial, io::ErrorKind::OutOfMemory.into());
    host.fail_next(Call::Wait, io::ErrorKind::OutOfMemory.into());
    for kind in [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::OutOfMemory,
        io::ErrorKind::WouldBlock,
    ] {
        assert_eq!(net.accept(0).unwrap_err().kind(), kind);
    }
    assert_eq!(host.calls(Call::Accept), 3);
    assert!(net.wait(None, &mut Vec::new()).is_err());
    assert!(net.wait(None, &mut Vec::new()).is_ok());
    host.clear_failures();
    assert!(net.dial(addr("10.0.0.2:1")).is_ok());
}

#[test]
#[should_panic(expected = "no event would follow")]
fn failures_after_which_a_loop_waits_are_refused() {
    let host = Network::new().host(HOST);
    host.fail_next(Call::Write, io::ErrorKind::WouldBlock.into());
}

#[test]
fn a_waker_works_from_any_thread() {
    let mut net = Network::new().host(HOST).net();
    let waker = net.waker();
    std::thread::spawn(move || waker()).join().unwrap();
    assert_eq!(events(&mut net), [Ready::Waker]);
    assert_eq!(events(&mut net), []);
}

#[test]
fn a_wait_moves_the_clock_only_where_it_is_asked_to() {
    let network = Network::new();
    let mut net = network.host(HOST).net();
    let (second, least) = (Duration::from_secs(1), Duration::from_millis(1));
    net.wait(Some(second), &mut Vec::new()).unwrap();
    assert_eq!(network.elapsed(), Duration::ZERO);
    network.move_time_in_waits(least);
    net.wait(Some(second), &mut Vec::new()).unwrap();
    assert_eq!(network.elapsed(), second);
    (net.waker())();
    net.wait(Some(second), &mut Vec::new()).unwrap();
    assert_eq!(network.elapsed(), second + least);
    assert!(net.wait(None, &mut Vec::new()).is_err());
}
