//! The same program on real sockets and on a simulated network.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use super::*;
use crate::{Config, ConfigBuilder, Event, EventLoop, Frame, Handle, Handler, Reason, Sid};

/// Why links have ended.
#[derive(Default)]
struct Downs(Vec<Reason>);

impl Handler for Downs {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}

    fn on_event(&mut self, event: &Event, _: &Handle) {
        if let Event::Down { reason, .. } = event {
            self.0.push(reason.clone());
        }
    }
}

/// What server 2 does to its link with server 1.
type Act = fn(&Handle);

fn config(sid: i64, addresses: &[String; 2]) -> ConfigBuilder {
    Config::builder(Sid(sid))
        .server(Sid(1), &addresses[0])
        .server(Sid(2), &addresses[1])
}

/// The reasons why the first link of two servers ends. `turn` turns both of them.
fn reasons<N: Net>(
    mut loops: [EventLoop<Downs, N>; 2],
    act: Act,
    mut turn: impl FnMut(&mut [EventLoop<Downs, N>; 2]),
) -> [Reason; 2] {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut turn_until = |loops: &mut [_; 2], is_done: fn(&EventLoop<Downs, N>) -> bool| {
        while !loops.iter().all(is_done) {
            assert!(Instant::now() < deadline, "it takes too long");
            turn(loops);
        }
    };
    turn_until(&mut loops, |one| !one.handle().linked_peers().is_empty());
    act(loops[1].handle());
    turn_until(&mut loops, |one| !one.handler().0.is_empty());
    loops.map(|one| one.handler().0[0].clone())
}

fn real_reasons(act: Act) -> [Reason; 2] {
    let sockets = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [0, 1].map(|at| sockets[at].local_addr().unwrap().to_string());
    let mut sids = 1..;
    let loops = sockets.map(|socket| {
        let config = config(sids.next().unwrap(), &addresses).listener(socket);
        EventLoop::new(config.build().unwrap(), Downs::default()).unwrap()
    });
    reasons(loops, act, |loops| {
        for one in loops {
            one.turn(Some(Duration::from_millis(1))).unwrap();
        }
    })
}

fn simulated_reasons(act: Act) -> [Reason; 2] {
    let network = Network::new();
    let addresses = ["10.0.0.1:3888", "10.0.0.2:3888"].map(str::to_owned);
    let loops = [1, 2].map(|sid| {
        let config = config(sid, &addresses).build().unwrap();
        let net = network.host([10, 0, 0, sid as u8]).net();
        EventLoop::with_net(config, Downs::default(), net).unwrap()
    });
    reasons(loops, act, |loops| {
        network.run(loops, Duration::from_millis(1)).unwrap();
    })
}

#[test]
fn links_end_for_the_same_reasons_as_on_real_sockets() {
    let acts: [(&str, Act); 4] = [
        ("disconnect", |two| two.disconnect(Sid(1)).unwrap()),
        ("soft_halt", Handle::soft_halt),
        ("initiate_connection", |two| {
            two.initiate_connection(Sid(1)).unwrap();
        }),
        ("halt", Handle::request_halt),
    ];
    for (what, act) in acts {
        assert_eq!(simulated_reasons(act), real_reasons(act), "{what}");
    }
}
