//! Target `initial_message`: the first bytes of an accepted connection.
//!
//! The loop understands them as a second implementation of the grammar, in this file, does, whether they are cut into single bytes
//! or not. A loop with this sid and these addresses sends an initial message with the same meaning.

use std::net::SocketAddr;

use quorum_cnx::{
    Address, AddressError, Config, ConfigBuilder, Event, EventLoop, InitialMessageError,
    InitialMessageVersion, Reason, Sid, Unknown,
    simulation::HostNet,
    simulation::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, INITIAL_MESSAGE_BYTES_MAX},
};

use crate::net::{OWN_ADDRESS, Recorder, Remote, Reported};

const OWN: Sid = Sid(1000);

pub(crate) fn check(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(INITIAL_MESSAGE_BYTES_MAX + 8)];
    let meaning = meaning(bytes);
    let whole = introduce(bytes, bytes.len().max(1), &meaning);
    assert_eq!(
        introduce(bytes, 1, &meaning),
        whole,
        "other events when cut"
    );
    if let Meaning::Name { sid, addresses, .. } = meaning {
        repeat(sid, &addresses);
    }
}

/// What these bytes mean.
#[derive(Debug, PartialEq)]
enum Meaning {
    /// The initial message is not complete.
    Nothing,
    /// The bytes are no initial message. That is known after so many of them.
    Nonsense {
        known: usize,
        why: InitialMessageError,
    },
    Name {
        sid: Sid,
        addresses: Vec<Address>,
        native: Option<Native>,
        bytes: usize,
    },
}

/// What only a native initial message says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Native {
    to: Sid,
    cluster: [u8; 16],
    incarnation: u64,
}

/// The grammar, as the table of the crate page states it.
fn meaning(bytes: &[u8]) -> Meaning {
    let nonsense = |known, why| Meaning::Nonsense { known, why };
    let long = |at: usize| Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    // Where the length of the addresses is.
    let at = match long(0) {
        None => return Meaning::Nothing,
        Some(-65_536 | -65_535) => 16,
        Some(-65_533) => 60,
        Some(version) if version < 0 => {
            return nonsense(8, InitialMessageError::UnknownVersion(version));
        }
        Some(sid) => {
            return Meaning::Name {
                sid: Sid(sid),
                addresses: Vec::new(),
                native: None,
                bytes: 8,
            };
        }
    };
    let (Some(sid), Some(len)) = (long(8), bytes.get(at..at + 4)) else {
        return Meaning::Nothing;
    };
    let native = (at == 60).then(|| Native {
        to: Sid(long(20).expect("before the length")),
        cluster: bytes[28..44].try_into().expect("16 bytes"),
        incarnation: long(44).expect("before the length") as u64,
    });
    let len = i32::from_be_bytes(len.try_into().expect("4 bytes"));
    if len < i32::from(native.is_none()) || len > ADDRESS_BYTES_MAX as i32 {
        return nonsense(at + 4, InitialMessageError::AddressBytes(len));
    }
    let end = at + 4 + len as usize;
    let Some(text) = bytes.get(at + 4..end) else {
        return Meaning::Nothing;
    };
    match places(text) {
        Ok(addresses) => Meaning::Name {
            sid: Sid(sid),
            addresses,
            native,
            bytes: end,
        },
        Err(why) => nonsense(end, why),
    }
}

fn places(text: &[u8]) -> Result<Vec<Address>, InitialMessageError> {
    let mut parts: Vec<&[u8]> = text.split(|byte| *byte == b'|').collect();
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    if parts.len() > ADDRESSES_MAX {
        return Err(InitialMessageError::TooManyAddresses(parts.len()));
    }
    let mut places = Vec::new();
    for part in parts {
        let (host, port) = apart(part).map_err(InitialMessageError::Address)?;
        let host = String::from_utf8(host).unwrap_or_else(|_| "?".into());
        // A host that cannot be written like this cannot be dialed, and port 0 cannot either.
        let text = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        places.extend(
            text.parse::<Address>()
                .ok()
                .filter(|place| place.port() > 0),
        );
    }
    places.retain(|place| !place.is_wildcard());
    Ok(places)
}

/// A host without its brackets, which may contain any bytes, and a port.
fn apart(part: &[u8]) -> Result<(Vec<u8>, u16), AddressError> {
    if part.is_empty() {
        return Err(AddressError::Empty);
    }
    let pieces: Vec<&[u8]> = match part[0] {
        b'[' => part[1..].splitn(2, |byte| *byte == b']').collect(),
        _ => part.splitn(2, |byte| *byte == b':').collect(),
    };
    let (host, rest) = match pieces[..] {
        [_] if part[0] == b'[' => return Err(AddressError::Unclosed),
        [_] => return Err(AddressError::NoPort),
        [host, rest] if part[0] == b'[' => match rest {
            [b':', rest @ ..] => (host, rest),
            _ => return Err(AddressError::NoPort),
        },
        [host, rest] => (host, rest),
        _ => unreachable!("two at most"),
    };
    let mut ports: Vec<&[u8]> = rest.split(|byte| *byte == b':').collect();
    while ports.last().is_some_and(|port| port.is_empty()) {
        ports.pop();
    }
    let port = match ports[..] {
        [] => return Err(AddressError::NoPort),
        [port] => String::from_utf8_lossy(port).parse(),
        _ => return Err(AddressError::Unbracketed),
    };
    let port = port.map_err(|_| AddressError::BadPort)?;
    Ok((host.to_vec(), port))
}

fn start(config: ConfigBuilder) -> Option<(Remote, EventLoop<Recorder, HostNet>)> {
    let config = config.seed(1).build().ok()?;
    Some(Remote::start(config))
}

/// What a loop does about an initial message.
#[derive(Debug, PartialEq)]
struct Outcome {
    reported: Vec<Reported>,
    lookups: Vec<String>,
    dialed: Vec<SocketAddr>,
}

/// Sends the bytes in pieces to a loop that admits any server.
fn introduce(bytes: &[u8], piece: usize, meaning: &Meaning) -> Outcome {
    let config = Config::builder(OWN)
        .server(OWN, OWN_ADDRESS)
        .observers_max(1)
        .unknown(Unknown::admit(8));
    let (mut remote, mut event_loop) = start(config).expect("the configuration is valid");
    let addr = "10.0.0.2:40000".parse().expect("an address");
    let connection = remote.arrive(addr);
    let (decided, bytes) = match meaning {
        Meaning::Nothing => (usize::MAX, bytes),
        Meaning::Nonsense { known, .. } => (*known, bytes),
        // What follows would be frames.
        Meaning::Name { bytes: len, .. } => (*len, &bytes[..*len]),
    };
    let mut sent = 0;
    for piece in bytes.chunks(piece) {
        remote.send(connection, piece);
        sent += piece.len();
        remote.turn(&mut event_loop);
        let stats = event_loop.handle().stats();
        assert_eq!(stats.pending, u64::from(sent < decided), "after {sent}");
        if sent >= decided {
            break;
        }
    }
    // Fails if the loop has ended the connection.
    let _ = remote.get(connection).end.shutdown_write();
    let mut lookups = Vec::new();
    for _ in 0..2 {
        for name in remote.network.waiting_lookups() {
            // No name is known.
            remote.network.answer_lookups(&name);
            lookups.push(name);
        }
        remote.answer_dials(false, 0);
        remote.turn(&mut event_loop);
    }
    let outcome = Outcome {
        reported: std::mem::take(&mut event_loop.handler_mut().reported),
        lookups,
        dialed: remote.dialed_since(connection),
    };
    check_outcome(&outcome, addr, meaning);
    let stats = event_loop.handle().stats();
    assert!(stats.balances(), "{stats:?}");
    outcome
}

fn check_outcome(outcome: &Outcome, addr: SocketAddr, meaning: &Meaning) {
    let refused = |expected, claimed| {
        let [
            Reported::Event(Event::Rejected {
                addr: from,
                sid,
                reason,
                ..
            }),
        ] = &outcome.reported[..]
        else {
            panic!("{outcome:?}");
        };
        assert_eq!((*from, *sid, reason), (addr, claimed, &expected));
        assert_eq!(outcome.lookups, [""; 0]);
        assert_eq!(outcome.dialed, []);
    };
    match meaning {
        Meaning::Nothing => refused(Reason::ClosedEarly, None),
        Meaning::Nonsense { why, .. } => refused(Reason::BadInitialMessage(why.clone()), None),
        Meaning::Name {
            sid,
            native: Some(native),
            ..
        } if native.cluster != [0; 16] => {
            let claimed = (*sid != Sid::OBSERVER).then_some(*sid);
            refused(Reason::WrongCluster, claimed);
        }
        // The loop has the incarnation 1.
        Meaning::Name {
            sid,
            native: Some(native),
            ..
        } if native.to != OWN && (*sid != OWN || native.incarnation == 1) => {
            let claimed = (*sid != Sid::OBSERVER).then_some(*sid);
            refused(Reason::WrongServer(native.to), claimed);
        }
        Meaning::Name { sid, addresses, .. } => match *sid {
            OWN => refused(Reason::OwnSid, Some(OWN)),
            sid if sid.0 < 0 || (sid < OWN && addresses.is_empty()) => {
                refused(Reason::UnknownSid(sid), Some(sid));
            }
            sid if sid < OWN => check_dials(outcome, addresses),
            sid => {
                let named = if sid == Sid::OBSERVER { Sid(-1) } else { sid };
                let Some(Reported::Event(Event::Up {
                    sid,
                    dialed: false,
                    addr: from,
                    link: 1,
                    ..
                })) = outcome.reported.first()
                else {
                    panic!("{outcome:?}");
                };
                assert_eq!((*sid, *from), (named, addr));
            }
        },
    }
}

/// After a knock, the loop looks up all names at once, and dials the literal addresses, of which each refuses.
fn check_dials(outcome: &Outcome, addresses: &[Address]) {
    let names: Vec<&str> = addresses
        .iter()
        .filter(|address| address.ip().is_none())
        .map(Address::host)
        .collect();
    assert_eq!(outcome.lookups, names);
    let own: SocketAddr = OWN_ADDRESS.parse().expect("an address");
    let literal = |address: &Address| Some((address.ip()?, address.port()).into());
    let mut literals: Vec<SocketAddr> = addresses.iter().filter_map(literal).collect();
    // A dial of the loop to its own host is no dial to the test.
    literals.retain(|literal| literal.ip() != own.ip());
    for dialed in &outcome.dialed {
        assert!(literals.contains(dialed), "{dialed} is not in {literals:?}");
    }
    assert_eq!(outcome.dialed.is_empty(), literals.is_empty());
}

/// A server with this sid and these addresses sends an initial message with the same meaning.
fn repeat(sid: Sid, addresses: &[Address]) {
    let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
    let text = texts.join("|");
    let other = Sid(if sid.0 == 0 { 1 } else { 0 });
    for (version, advertised) in [
        (InitialMessageVersion::Native, addresses),
        (InitialMessageVersion::V2, addresses),
        (
            InitialMessageVersion::V1,
            &addresses[..addresses.len().min(1)],
        ),
    ] {
        let config = Config::builder(sid)
            .server(sid, &text)
            .server(other, "10.0.0.9:3888")
            .initial_message(version);
        // Some initial messages are of servers that cannot be configured, for example without an address.
        let Some((mut remote, mut event_loop)) = start(config) else {
            return;
        };
        remote.answer_dials(true, usize::MAX);
        remote.turn(&mut event_loop);
        let received = remote.get(0).end.received();
        let again = Meaning::Name {
            sid,
            addresses: advertised.to_vec(),
            native: (version == InitialMessageVersion::Native).then_some(Native {
                to: other,
                cluster: [0; 16],
                incarnation: 1,
            }),
            bytes: received.len(),
        };
        assert_eq!(meaning(&received), again);
    }
}
