//! Tests of simulated time: long runs, and the timers of a protocol.

use super::*;

#[test]
fn endless_answers_reach_the_end_of_a_run() {
    let (network, mut loops) = mesh(2);
    for one in &mut loops {
        one.handler_mut().answers = true;
    }
    loops[0].handle().to_send(Sid(2), "ping").unwrap();
    assert!(network.settle(&mut loops).is_err());
    let before = network.elapsed();
    for one in &mut loops {
        one.handler_mut().frames.clear();
    }
    network.run(&mut loops, millis(100)).unwrap();
    assert_eq!(network.elapsed() - before, millis(100));
    // One turn of a loop for each frame, and one round for each turn at least.
    assert!((100..=1_100).contains(&loops[0].handler().frames.len()));
}

#[test]
fn ticks_are_multiples_of_their_time_also_over_several_runs() {
    let (network, mut loops) = mesh(2);
    let mut ticks = Vec::new();
    for run in [250, 50, 100].map(millis) {
        let tick = |_: &mut Seen, handle: &Handle| {
            ticks.push((network.elapsed().as_millis(), handle.sid().0));
        };
        let every = millis(100);
        network.run_with(&mut loops, run, every, tick).unwrap();
    }
    let expected = [1_100, 1_200, 1_300, 1_400].map(|at| [(at, 1), (at, 2)]);
    assert_eq!(ticks, expected.concat());
}

#[test]
fn tick_at_the_end_of_a_run_is_sent() {
    let (network, mut loops) = mesh(2);
    let send = |_: &mut Seen, handle: &Handle| _ = handle.to_send(Sid(2), "tick");
    network
        .run_with(&mut loops, seconds(1), seconds(1), send)
        .unwrap();
    assert_eq!(loops[1].handler().frames, [b"tick", b"tick"]);
    let has_three = |loops: &mut [Loop]| loops[1].handler().frames.len() >= 3;
    let is_done = network.run_until_with(&mut loops, seconds(9), seconds(1), send, has_three);
    assert!(is_done.unwrap());
    assert_eq!(network.elapsed(), seconds(3));
}

#[test]
fn only_servers_that_run_have_ticks() {
    let (network, mut loops) = mesh(3);
    network.host(ip(1)).power_off();
    loops[1].handle().request_halt();
    network.settle(&mut loops).unwrap();
    let mut ticks = Vec::new();
    let tick = |_: &mut Seen, handle: &Handle| ticks.push(handle.sid());
    network
        .run_with(&mut loops, seconds(2), seconds(1), tick)
        .unwrap();
    assert_eq!(ticks, [Sid(3), Sid(3)]);
}

#[test]
#[should_panic(expected = "is zero")]
fn ticks_without_time_between_them_are_refused() {
    let mut loops: [Loop; 0] = [];
    let run = Network::new().run_with(&mut loops, seconds(1), Duration::ZERO, |_, _| {});
    run.unwrap();
}
