//! Tests of processes that end and hosts that lose power.

use super::*;

#[test]
fn a_process_that_ends_closes_its_connections() {
    let (network, mut loops) = mesh(2);
    loops.remove(0);
    network.run(&mut loops, millis(1)).unwrap();
    assert_eq!(loops[0].handler().downs, [Reason::Closed]);
    assert_eq!(network.host(ip(1)).listening(), []);
    loops.push(start(&network, 1, 2));
    network.run(&mut loops, seconds(2)).unwrap();
    assert!(loops[0].handle().connected_to_peer(Sid(1)));
}

#[test]
fn loop_that_is_started_before_the_old_one_ends_listens_later() {
    let (network, mut loops) = mesh(2);
    loops[0] = start(&network, 1, 2);
    let one = network.host(ip(1));
    network.run(&mut loops, millis(990)).unwrap();
    assert_eq!(one.listening(), []);
    network.run(&mut loops, millis(20)).unwrap();
    assert_eq!(one.listening(), ["10.0.0.1:3888".parse().unwrap()]);
}

#[test]
fn a_host_without_power_is_silent() {
    let (network, mut loops) = mesh(2);
    let host = network.host(ip(1));
    host.power_off();
    assert!(loops[0].turn(Some(Duration::ZERO)).is_err());
    network.run(&mut loops, seconds(4)).unwrap();
    assert_eq!(loops[1].handler().downs, []);
    network.run(&mut loops, seconds(2)).unwrap();
    assert_eq!(loops[1].handler().downs, [Reason::Dead]);
    assert_eq!(loops[0].handler().downs, []);
    host.power_on();
    loops[0] = start(&network, 1, 2);
    network.run(&mut loops, seconds(10)).unwrap();
    for one in &loops {
        assert_eq!(one.handle().linked_peers().len(), 1);
    }
}

#[test]
fn lost_server_is_skipped_until_a_new_loop_replaces_it() {
    let (network, mut loops) = mesh(3);
    let sends = |server: &Loop| server.handle().to_send(Sid(2), "lost");
    network.host(ip(1)).power_off();
    // The loop cannot know yet. The frame goes nowhere.
    assert!(sends(&loops[0]).is_ok());
    assert!(!loops[0].handle().has_died());
    network.settle(&mut loops).unwrap();
    assert!(loops[0].handle().has_died());
    assert_eq!(sends(&loops[0]), Err(SendError::Halted));
    // The same without a turn, and with power but without a new loop.
    loops[1].handle().to_send(Sid(1), "first").unwrap();
    network.run(&mut loops, seconds(10)).unwrap();
    network.host(ip(1)).power_on();
    loops[1].handle().to_send(Sid(1), "newest").unwrap();
    loops[1].handle().to_send(Sid(3), "others go on").unwrap();
    network.run(&mut loops, seconds(10)).unwrap();
    assert_eq!(loops[2].handler().frames, [b"others go on"]);
    loops[0] = start(&network, 1, 3);
    network.run(&mut loops, seconds(10)).unwrap();
    assert_eq!(loops[0].handler().frames, [b"newest"]);
    assert_eq!(loops[1].handler().frames.len(), 0);
}

#[test]
fn error_of_a_run_says_which_server_has_failed() {
    let (network, mut loops) = mesh(2);
    let error = io::Error::other("no event queue");
    network.host(ip(2)).fail_next(Call::Wait, error);
    let error = network.run(&mut loops, seconds(1)).unwrap_err();
    assert_eq!(error.to_string(), "server 2 at 10.0.0.2: no event queue");
    let error = network.run(&mut loops, seconds(1)).unwrap_err();
    let text = "server 2 at 10.0.0.2: an earlier turn was cut off";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_host_that_is_back_resets_its_old_connections() {
    let (network, mut loops) = mesh(2);
    network.host(ip(1)).power_off();
    loops.remove(0);
    network.host(ip(1)).power_on();
    network.run(&mut loops, millis(1)).unwrap();
    let reset = Reason::Io(io::ErrorKind::ConnectionReset);
    assert_eq!(loops[0].handler().downs, [reset]);
}
