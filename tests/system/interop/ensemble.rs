//! Tests real servers with the library as one of the voters in their configuration.
//!
//! It is a voter and not an observer, since election messages are sent to voters only. The tests make up its votes, and the
//! library sends them.

use std::{collections::BTreeMap, time::Duration};

use quorum_cnx::{CnxManager, Sid};
use support::configure;

use crate::{
    deadlines::{DEADLINE, wait_until},
    notification::{Notification, State},
    program::{Program, frame},
    server::Ensemble,
};

/// After how long a vote without an effect is repeated.
const REPEAT: Duration = Duration::from_millis(300);

/// Receives and sends votes: the library, or the example `peer`.
trait Voter {
    /// The next message and its sender, if it arrives within this time.
    fn receive(&self, time: Duration) -> Option<(i64, Vec<u8>)>;
    fn send_vote(&mut self, to: i64, payload: Vec<u8>);
}

impl Voter for CnxManager {
    fn receive(&self, time: Duration) -> Option<(i64, Vec<u8>)> {
        let message = self.recv_timeout(time).ok()?;
        Some((message.from.0, message.payload.to_vec()))
    }

    fn send_vote(&mut self, to: i64, payload: Vec<u8>) {
        self.to_send(Sid(to), payload).unwrap();
    }
}

impl Voter for Program {
    fn receive(&self, time: Duration) -> Option<(i64, Vec<u8>)> {
        // Skips other events.
        while let Some(event) = self.event_within(time) {
            if let Some(frame) = frame(&event) {
                return Some(frame);
            }
        }
        None
    }

    fn send_vote(&mut self, to: i64, payload: Vec<u8>) {
        self.send(to, &payload);
    }
}

/// Starts our manager as server `sid` of the ensemble.
fn member(ensemble: &Ensemble, sid: i64) -> CnxManager {
    let listener = ensemble.election(sid).listen();
    let builder = configure(sid, &ensemble.elections()).listener(listener);
    CnxManager::start(builder.build().unwrap()).unwrap()
}

/// Starts the program as server `sid`, with the configuration file of the real servers.
fn program(ensemble: &Ensemble, sid: i64) -> Program {
    let file = ensemble.write_configuration(sid).display().to_string();
    Program::start(&["--sid".into(), sid.to_string(), "--zoo-cfg".into(), file])
}

/// Decodes a notification of a real server, and checks what holds for all of them.
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

/// Waits for a LOOKING message of each of these servers, and returns the last one of each.
#[track_caller]
fn await_looking(
    ensemble: &Ensemble,
    voter: &impl Voter,
    servers: &[i64],
) -> BTreeMap<i64, Notification> {
    let mut received = BTreeMap::new();
    while received.len() < servers.len() {
        let (from, payload) = voter.receive(DEADLINE).expect("a vote arrives in time");
        let notification = read(ensemble, &payload);
        if servers.contains(&from) && notification.state == State::Looking {
            received.insert(from, notification);
        }
    }
    received
}

/// Waits until a server has decided, by LOOKING messages that change no vote, and returns its answer.
#[track_caller]
fn await_decided(
    ensemble: &Ensemble,
    voter: &mut impl Voter,
    server: i64,
    question: &Notification,
) -> Notification {
    let mut answer = None;
    wait_until("the election is decided", || {
        voter.send_vote(server, question.write());
        while let Some((from, payload)) = voter.receive(REPEAT) {
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

/// A vote that loses against every other: for the smallest server of the ensemble, in the first round.
fn question(received: &Notification) -> Notification {
    Notification {
        state: State::Looking,
        leader: 1,
        zxid: 0,
        round: 1,
        peer_epoch: 0,
        config: received.config.clone(),
    }
}

#[test]
fn two_real_servers_elect_and_answer_our_question() {
    let ensemble = Ensemble::new(3);
    let servers = [ensemble.start(1), ensemble.start(2)];
    let mut ours = member(&ensemble, 3);
    let received = await_looking(&ensemble, &ours, &[1, 2]);
    for notification in received.values() {
        // There is no data: the larger sid wins.
        assert!([1, 2].contains(&notification.leader));
        assert_eq!((notification.zxid, notification.peer_epoch), (0, 0));
    }
    servers[0].await_in_log("FOLLOWING - LEADER ELECTION TOOK");
    servers[1].await_in_log("LEADING - LEADER ELECTION TOOK");
    servers[0].await_mode("follower");
    servers[1].await_mode("leader");
    for (server, state) in [(1, State::Following), (2, State::Leading)] {
        let answer = await_decided(&ensemble, &mut ours, server, &question(&received[&1]));
        assert_eq!((answer.state, answer.leader), (state, 2));
    }
    wait_until("one connection to each server", || {
        ours.stats().connections == 2
    });
    assert!(ours.stats().sent.balances());
}

/// Votes for `leader` until the single real server 2 has decided.
#[track_caller]
fn vote(ensemble: &Ensemble, voter: &mut impl Voter, leader: i64) -> Notification {
    let mut last = None;
    let mut decided = None;
    wait_until("the election is decided", || {
        // Without a message the vote is repeated: the server waits for votes, or answers once it has decided.
        if let Some((from, payload)) = voter.receive(REPEAT) {
            assert_eq!(from, 2);
            let notification = read(ensemble, &payload);
            if notification.state != State::Looking {
                decided = Some(notification);
                return true;
            }
            // Our vote is in its round: a vote of an older round is answered at once and not counted.
            last = Some(Notification {
                leader,
                ..notification
            });
        }
        if let Some(vote) = &last {
            voter.send_vote(2, vote.write());
        }
        false
    });
    decided.unwrap()
}

#[test]
fn vote_of_our_program_lets_a_single_real_server_lead() {
    let ensemble = Ensemble::new(3);
    let server = ensemble.start(2);
    let mut peer = program(&ensemble, 1);
    peer.await_event("listening", None);
    let decided = vote(&ensemble, &mut peer, 2);
    assert_eq!((decided.state, decided.leader), (State::Leading, 2));
    server.await_in_log("LEADING - LEADER ELECTION TOOK");
    peer.quit();
}

#[test]
fn single_real_server_follows_our_larger_sid() {
    let ensemble = Ensemble::new(3);
    let server = ensemble.start(2);
    let mut ours = member(&ensemble, 3);
    // The server connects to its leader there, and waits for a packet while the port is open.
    let _silent = ensemble.quorum(3).listen();
    let decided = vote(&ensemble, &mut ours, 3);
    assert_eq!((decided.state, decided.leader), (State::Following, 3));
    server.await_in_log("FOLLOWING - LEADER ELECTION TOOK");
}

#[test]
fn our_program_receives_all_votes_of_three_real_servers() {
    // Four servers are configured, so that three are a quorum without ours.
    let ensemble = Ensemble::new(4);
    let mut servers: Vec<_> = [1, 2, 3].map(|sid| ensemble.start(sid)).into();
    let mut peer = program(&ensemble, 4);
    let received = await_looking(&ensemble, &peer, &[1, 2, 3]);
    servers[2].await_mode("leader");
    for sid in [1, 2, 3] {
        let answer = await_decided(&ensemble, &mut peer, sid, &question(&received[&1]));
        let state = if sid == 3 {
            State::Leading
        } else {
            State::Following
        };
        assert_eq!((answer.state, answer.leader), (state, 3));
    }

    // The leader dies: the others are LOOKING, and have no quorum without it or ours.
    servers[2].process.kill();
    let down = peer.await_event("down", Some(3));
    assert_eq!(down["reason"], "closed");
    let again = await_looking(&ensemble, &peer, &[1, 2]);
    for (sid, notification) in &again {
        assert!(notification.round > received[sid].round, "{notification:?}");
    }

    // It is restarted, and the ensemble has a leader again.
    servers[2] = ensemble.start(3);
    let up = peer.await_event("up", Some(3));
    assert_eq!(up["dialed"], true);
    servers[2].await_mode("leader");
    let answer = await_decided(&ensemble, &mut peer, 3, &question(&received[&1]));
    assert_eq!((answer.state, answer.leader), (State::Leading, 3));
    peer.quit();
}
