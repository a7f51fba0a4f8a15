//! What a member may send that no correct node sends.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use omnipaxos::{
    ballot_leader_election::Ballot,
    messages::{
        Message,
        sequence_paxos::{PaxosMessage, PaxosMsg, Prepare},
    },
};
use on_omnipaxos::{Disk, Request, Server};
use quorum_cnx::{CnxManager, Config, InitialMessageVersion, Outbox, Sid};

/// A deadline for what takes milliseconds. Reaching it is a failure.
const LONG: Duration = Duration::from_secs(60);

/// Asks node 1, in the name of this node, for a promise to this leader.
fn prepare(from: u64, n: u32, leader: u64) -> Vec<u8> {
    let prepare = Prepare {
        n: Ballot::with(1, n, 0, leader),
        decided_idx: 0,
        n_accepted: Ballot::default(),
        accepted_idx: 0,
    };
    let message = Message::<Request>::SequencePaxos(PaxosMessage {
        from,
        to: 1,
        msg: PaxosMsg::Prepare(prepare),
    });
    postcard::to_allocvec(&message).unwrap()
}

/// Whether it is a promise to this leader.
fn is_promise(message: &[u8], leader: u64) -> bool {
    let Ok(Message::<Request>::SequencePaxos(message)) = postcard::from_bytes(message) else {
        return false;
    };
    matches!(message.msg, PaxosMsg::Promise(promise) if promise.n.pid == leader)
}

/// Node 1, and member 2, which is not OmniPaxos.
fn pair() -> (Server, CnxManager) {
    let sockets = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = |socket: &TcpListener| socket.local_addr().unwrap().to_string();
    let addresses = sockets.each_ref().map(address);
    let members: Vec<_> = (1..).zip(addresses).collect();
    let [one, two] = sockets;
    let server = Server::new(1, &members, one, Disk::default()).unwrap();
    let sid = |id: u64| Sid::try_from(id).unwrap();
    let servers = members.iter().map(|(id, address)| (sid(*id), address));
    let config = Config::builder(Sid(2))
        .servers(servers)
        .listener(two)
        .outbox(Outbox::QUEUE)
        .initial_message(InitialMessageVersion::Native);
    (server, CnxManager::start(config.build().unwrap()).unwrap())
}

#[test]
fn what_is_no_message_of_the_peer_ends_the_link() {
    for frame in [b"no message".to_vec(), prepare(3, 1_000, 3)] {
        let (mut server, peer) = pair();
        peer.to_send(Sid(1), frame).unwrap();
        let deadline = Instant::now() + LONG;
        while peer.stats().downs.is_empty() {
            assert!(Instant::now() < deadline, "the link does not end");
            assert!(server.turn(Duration::from_millis(10)).unwrap());
        }
    }
}

#[test]
fn leader_that_is_no_member_is_sent_nothing() {
    let (mut server, peer) = pair();
    let deadline = Instant::now() + LONG;
    let mut turn_until_promise = |leader| {
        let promised = |frame: &[u8]| is_promise(frame, leader);
        while !peer
            .try_recv()
            .is_ok_and(|message| promised(&message.payload))
        {
            assert!(Instant::now() < deadline, "no promise");
            // Nobody can pass it on to a leader that is no member.
            server.replica().request(Request {
                client: 1,
                number: 1,
                is_increment: true,
            });
            assert!(server.turn(Duration::from_millis(10)).unwrap());
        }
    };
    for (n, leader) in [(1_000, u64::MAX), (2_000, 2)] {
        peer.to_send(Sid(1), prepare(2, n, leader)).unwrap();
        turn_until_promise(leader);
    }
}
