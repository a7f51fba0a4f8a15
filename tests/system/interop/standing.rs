//! Tests that the program `election`, which serves no clients, does not keep a fresh ensemble of real servers from electing a
//! leader.

use crate::{
    deadlines::wait_until,
    server::{Ensemble, Server, Times},
    voter::Voter,
};

const TIMES: Times = Times {
    tick_ms: 500,
    init_limit: 10,
    sync_limit: 5,
};

/// Waits until one of these serves as leader and the others as followers.
#[track_caller]
fn await_served(servers: &[Server]) {
    let count = |mode| {
        let matches = |server: &&Server| server.is_in_mode(mode);
        servers.iter().filter(matches).count()
    };
    wait_until("a real server leads all real servers", || {
        (count("leader"), count("follower")) == (1, servers.len() - 1)
    });
}

/// The sids of our voters, and of the real servers in the order in which they start.
const LAYOUTS: [([i64; 2], [i64; 3]); 2] = [([1, 4], [2, 3, 5]), ([4, 5], [1, 2, 3])];

#[test]
fn a_voter_without_data_lets_a_real_server_lead() {
    for (ours, real) in LAYOUTS {
        let ensemble = Ensemble::with_times(5, TIMES);
        let voters = ours.map(|sid| Voter::start(&ensemble, sid, &[]));
        let mut servers: Vec<_> = real[..2].iter().map(|sid| ensemble.start(*sid)).collect();
        for server in &servers {
            server.await_in_log("LEADER ELECTION TOOK");
        }
        servers.push(ensemble.start(real[2]));
        await_served(&servers);
        voters.into_iter().for_each(Voter::quit);
    }
}

#[test]
fn voter_steps_down_when_real_followers_leave() {
    let options = ["--zxid", "0", "--follow-leader-port"];
    for ((ours, real), has_port) in LAYOUTS.into_iter().zip([false, true]) {
        let options = &options[..2 + usize::from(has_port)];
        let ensemble = Ensemble::with_times(5, TIMES);
        let voters = ours.map(|sid| Voter::start(&ensemble, sid, options));
        let mut servers: Vec<_> = real[..2].iter().map(|sid| ensemble.start(*sid)).collect();
        // It claims no data, like the real servers, and has a larger id than those.
        voters[1].await_elected(ours[1]);
        servers.push(ensemble.start(real[2]));
        let lost = voters[1].await_event("leader-lost");
        // Without the port the followers are refused at once, and may be LOOKING for so long that none reports that it follows.
        let why = lost["why"].as_str().unwrap();
        assert!(!has_port || why.contains("initLimit"), "{lost}");
        await_served(&servers);
        voters.into_iter().for_each(Voter::quit);
    }
}
