//! Target `answer`: the first bytes that a loop reads after it has sent a native initial message.
//!
//! The loop understands them as a second implementation of the grammar, in this file, does, whether they are cut into single bytes or
//! not.

use quorum_cnx::{Config, Event, InitialMessageVersion, Reason, Refusal, Sid};

use crate::net::{OWN_ADDRESS, Remote, Reported};

const OWN: Sid = Sid(5);

/// Bytes of an answer.
const ANSWER: usize = 36;

pub(crate) fn check(bytes: &[u8]) {
    let (flags, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    // The peer with the larger sid is knocked at.
    let far = Sid(if flags & 1 == 0 { 2 } else { 9 });
    // What follows an answer would be frames.
    let bytes = &bytes[..bytes.len().min(ANSWER)];
    let whole = answer(far, bytes, ANSWER);
    assert_eq!(whole, meaning(far, bytes));
    assert_eq!(answer(far, bytes, 1), whole, "other events when cut");
}

/// What becomes of the dial.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The peer is linked, and has this incarnation.
    Linked(u64),
    /// The knock is taken.
    Taken,
    Failed(Reason),
}

/// The grammar, as the table of the crate page states it.
fn meaning(far: Sid, bytes: &[u8]) -> Outcome {
    let long = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let failed = Outcome::Failed;
    match long(0).map(|version| version as i64) {
        // The far end then closes the connection.
        None => return failed(Reason::ClosedAtOnce),
        Some(-65_533) => {}
        Some(other) => return failed(Reason::BadAnswer(other)),
    }
    let (Some(sid), Some(incarnation), Some(code)) = (long(8), long(16), bytes.get(32..36)) else {
        return failed(Reason::ClosedAtOnce);
    };
    let sid = Sid(sid as i64);
    let refused = |refusal| failed(Reason::Refused(refusal));
    match i32::from_be_bytes(code.try_into().expect("4 bytes")) {
        0 if sid != far => refused(Refusal::WrongServer(sid)),
        0 if far > OWN => Outcome::Taken,
        0 => Outcome::Linked(incarnation),
        2 => refused(Refusal::WrongServer(sid)),
        3 => refused(Refusal::WrongCluster),
        4 => refused(Refusal::UnknownSid),
        5 => refused(Refusal::DuplicateSid),
        6 => refused(Refusal::OlderLinkAlive),
        7 => refused(Refusal::NoRoom),
        _ => refused(Refusal::Other),
    }
}

/// Answers a loop that dials with these bytes, in pieces.
fn answer(far: Sid, bytes: &[u8], piece: usize) -> Outcome {
    let config = Config::builder(OWN)
        .server(OWN, OWN_ADDRESS)
        .server(far, "10.0.0.2:3888")
        .initial_message(InitialMessageVersion::Native)
        .seed(1)
        .build()
        .expect("the configuration is valid");
    let (mut remote, mut event_loop) = Remote::start(config);
    remote.answer_dials(true, usize::MAX);
    remote.turn(&mut event_loop);
    assert!(remote.get(0).end.received().len() >= 64);
    for piece in bytes.chunks(piece) {
        remote.send(0, piece);
        remote.turn(&mut event_loop);
    }
    let linked = event_loop.handle().connected_to_peer(far);
    let incarnation = event_loop.handle().stats().peers[0].incarnation;
    assert_eq!(linked, incarnation.is_some());
    // Fails if the loop has ended the connection.
    let _ = remote.get(0).end.shutdown_write();
    for _ in 0..2 {
        remote.turn(&mut event_loop);
    }
    assert!(remote.get(0).end.is_closed(), "the far end has closed it");
    let stats = event_loop.handle().stats();
    assert!(stats.balances(), "{stats:?}");
    match &event_loop.handler().reported[..] {
        [] => Outcome::Taken,
        [Reported::Event(Event::DialFailed { sid, reason, .. })] if *sid == far => {
            Outcome::Failed(reason.clone())
        }
        [
            Reported::Event(Event::Up { dialed: true, .. }),
            Reported::Event(Event::Down { .. }),
        ] if linked => Outcome::Linked(incarnation.expect("it is linked")),
        other => panic!("{other:?}"),
    }
}
