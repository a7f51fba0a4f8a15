//! Real servers, and one of us among the voters of their configuration.
//!
//! We are a voter and not an observer, since election messages are sent to voters only. What we vote is made up here; the
//! library carries it.

use std::{collections::BTreeMap, time::Duration};

use quorum_cnx::{CnxManager, Sid};
use support::configure;

use crate::{
    notification::{Notification, State},
    patience::{PATIENCE, patiently},
    program::{Program, frame},
    server::Ensemble,
};

/// How soon a vote is repeated when nothing comes of it.
const REPEAT: Duration = Duration::from_millis(300);

/// One who hears votes and votes itself: the library, or the program around it.
trait Voter {
    /// The next message and its sender, if one comes soon.
    fn hear(&self, time: Duration) -> Option<(i64, Vec<u8>)>;
    fn say(&mut self, to: i64, payload: Vec<u8>);
}

impl Voter for CnxManager {
    fn hear(&self, time: Duration) -> Option<(i64, Vec<u8>)> {
        let message = self.recv_timeout(time).ok()?;
        Some((message.from.0, message.payload.to_vec()))
    }

    fn say(&mut self, to: i64, payload: Vec<u8>) {
        self.to_send(Sid(to), payload).unwrap();
    }
}

impl Voter for Program {
    fn hear(&self, time: Duration) -> Option<(i64, Vec<u8>)> {
        // Other events say only how the frames came.
        while let Some(event) = self.event_within(time) {
            if let Some(frame) = frame(&event) {
                return Some(frame);
            }
        }
        None
    }

    fn say(&mut self, to: i64, payload: Vec<u8>) {
        self.send(to, &payload);
    }
}

/// Ours, in this place of an ensemble.
fn member(ensemble: &Ensemble, sid: i64) -> CnxManager {
    let listener = ensemble.election(sid).listen();
    let builder = configure(sid, &ensemble.elections()).listener(listener);
    CnxManager::start(builder.build().unwrap()).unwrap()
}

/// The program, in this place of an ensemble, with the configuration file of the real servers.
fn program(ensemble: &Ensemble, sid: i64) -> Program {
    let file = ensemble.write_configuration(sid).display().to_string();
    Program::start(&["--sid".into(), sid.to_string(), "--zoo-cfg".into(), file])
}

/// Reads what a real server has sent, and checks what must be true of every message of theirs.
#[track_caller]
fn read(ensemble: &Ensemble, payload: &[u8]) -> Notification {
    let notification = Notification::read(payload);
    assert!(ensemble.sids().any(|sid| sid == notification.leader));
    assert!(notification.zxid >= 0 && notification.peer_epoch >= 0);
    assert!(notification.round >= 1, "{notification:?}");
    for (sid, address) in ensemble.elections() {
        let port = address.rsplit_once(':').unwrap().1;
        let server = format!(
            "server.{sid}={}:{port}:participant",
            ensemble.quorum(sid).address
        );
        assert!(notification.config.contains(&server), "{notification:?}");
    }
    assert!(notification.config.ends_with("version=0"));
    notification
}

/// Hears until a LOOKING message has come from each of these servers; gives the last one of each.
#[track_caller]
fn await_looking(
    ensemble: &Ensemble,
    voter: &impl Voter,
    servers: &[i64],
) -> BTreeMap<i64, Notification> {
    let mut heard = BTreeMap::new();
    while heard.len() < servers.len() {
        let (from, payload) = voter.hear(PATIENCE).expect("they vote in time");
        let notification = read(ensemble, &payload);
        if servers.contains(&from) && notification.state == State::Looking {
            heard.insert(from, notification);
        }
    }
    heard
}

/// Asks a server what it has decided, by a LOOKING message that changes nobody's mind, until it has.
#[track_caller]
fn await_decided(
    ensemble: &Ensemble,
    voter: &mut impl Voter,
    server: i64,
    question: &Notification,
) -> Notification {
    let mut answer = None;
    patiently("the election is decided", || {
        voter.say(server, question.write());
        while let Some((from, payload)) = voter.hear(REPEAT) {
            let notification = read(ensemble, &payload);
            if from == server && notification.state != State::Looking {
                answer = Some(notification);
                return true;
            }
        }
        false
    });
    answer.unwrap()
}

/// A vote that is worse than every other: for the smallest server of the ensemble, in the first round.
fn question(heard: &Notification) -> Notification {
    Notification {
        state: State::Looking,
        leader: 1,
        zxid: 0,
        round: 1,
        peer_epoch: 0,
        config: heard.config.clone(),
    }
}

#[test]
fn two_real_servers_elect_one_of_them_and_we_are_told() {
    let ensemble = Ensemble::new(3);
    let servers = [ensemble.start(1), ensemble.start(2)];
    let mut ours = member(&ensemble, 3);
    let heard = await_looking(&ensemble, &ours, &[1, 2]);
    for notification in heard.values() {
        // Nothing was ever written: the larger one of the two is the better one.
        assert!([1, 2].contains(&notification.leader));
        assert_eq!((notification.zxid, notification.peer_epoch), (0, 0));
    }
    servers[0].await_said("FOLLOWING - LEADER ELECTION TOOK");
    servers[1].await_said("LEADING - LEADER ELECTION TOOK");
    servers[0].await_mode("follower");
    servers[1].await_mode("leader");
    for (server, state) in [(1, State::Following), (2, State::Leading)] {
        let answer = await_decided(&ensemble, &mut ours, server, &question(&heard[&1]));
        assert_eq!((answer.state, answer.leader), (state, 2));
    }
    patiently("one connection joins us to each", || {
        ours.stats().connections == 2
    });
    assert!(ours.stats().sent.balances());
}

/// Votes for `leader` until the lone real server 2 has made up its mind.
#[track_caller]
fn vote(ensemble: &Ensemble, voter: &mut impl Voter, leader: i64) -> Notification {
    let mut last = None;
    let mut decided = None;
    patiently("the election is decided", || {
        // Nothing new: it waits for votes, or has decided and tells those who ask.
        if let Some((from, payload)) = voter.hear(REPEAT) {
            assert_eq!(from, 2);
            let notification = read(ensemble, &payload);
            if notification.state != State::Looking {
                decided = Some(notification);
                return true;
            }
            // Our vote in its round: a vote of an older one is answered at once and not counted.
            last = Some(Notification {
                leader,
                ..notification
            });
        }
        if let Some(vote) = &last {
            voter.say(2, vote.write());
        }
        false
    });
    decided.unwrap()
}

#[test]
fn the_vote_of_our_program_makes_a_lone_real_server_lead() {
    let ensemble = Ensemble::new(3);
    let server = ensemble.start(2);
    let mut peer = program(&ensemble, 1);
    peer.await_event("listening", None);
    let decided = vote(&ensemble, &mut peer, 2);
    assert_eq!((decided.state, decided.leader), (State::Leading, 2));
    server.await_said("LEADING - LEADER ELECTION TOOK");
    peer.quit();
}

#[test]
fn a_lone_real_server_follows_us_when_we_are_larger_and_vote_for_ourselves() {
    let ensemble = Ensemble::new(3);
    let server = ensemble.start(2);
    let mut ours = member(&ensemble, 3);
    // It looks for its leader there, and waits for a word of it, as long as somebody listens.
    let _silent = ensemble.quorum(3).listen();
    let decided = vote(&ensemble, &mut ours, 3);
    assert_eq!((decided.state, decided.leader), (State::Following, 3));
    server.await_said("FOLLOWING - LEADER ELECTION TOOK");
}

#[test]
fn our_program_hears_every_election_of_three_real_servers() {
    // Four are configured, so that the three make a quorum without us.
    let ensemble = Ensemble::new(4);
    let mut servers: Vec<_> = [1, 2, 3].map(|sid| ensemble.start(sid)).into();
    let mut peer = program(&ensemble, 4);
    let heard = await_looking(&ensemble, &peer, &[1, 2, 3]);
    servers[2].await_mode("leader");
    for sid in [1, 2, 3] {
        let answer = await_decided(&ensemble, &mut peer, sid, &question(&heard[&1]));
        let state = if sid == 3 {
            State::Leading
        } else {
            State::Following
        };
        assert_eq!((answer.state, answer.leader), (state, 3));
    }

    // The leader dies: the others look for a new one, and cannot have one without it or us.
    servers[2].process.kill();
    let down = peer.await_event("down", Some(3));
    assert_eq!(down["reason"], "closed");
    let again = await_looking(&ensemble, &peer, &[1, 2]);
    for (sid, notification) in &again {
        assert!(notification.round > heard[sid].round, "{notification:?}");
    }

    // It comes back, and so does the ensemble.
    servers[2] = ensemble.start(3);
    let up = peer.await_event("up", Some(3));
    assert_eq!(up["dialed"], true);
    servers[2].await_mode("leader");
    let answer = await_decided(&ensemble, &mut peer, 3, &question(&heard[&1]));
    assert_eq!((answer.state, answer.leader), (State::Leading, 3));
    peer.quit();
}
