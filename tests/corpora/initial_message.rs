//! Fuzz target `initial_message`: the first bytes of an accepted connection.
//!
//! The loop decodes them like the independent decoder in this file, in one piece and byte by byte. An initial message that a loop
//! sends is decoded to the sid and the addresses of that loop.

use quorum_cnx::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Address, AddressError, Config, ConfigBuilder, Event,
    EventLoop, INITIAL_MESSAGE_BYTES_MAX, InitialMessageError, InitialMessageVersion, Reason, Sid,
    Unknown,
};

use crate::net::{Inside, Outside, Recorder, Told};

const OWN: Sid = Sid(1000);

pub(crate) fn check(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(INITIAL_MESSAGE_BYTES_MAX + 8)];
    let meaning = meaning(bytes);
    let whole = introduce(bytes, bytes.len().max(1), &meaning);
    assert_eq!(
        introduce(bytes, 1, &meaning),
        whole,
        "the splitting changes the result"
    );
    if let Meaning::Message { sid, addresses, .. } = meaning {
        repeat(sid, &addresses);
    }
}

/// What the bytes mean.
#[derive(Debug, PartialEq)]
enum Meaning {
    /// The message is not complete.
    Incomplete,
    /// The message is invalid, which is known after `known` bytes.
    Invalid {
        known: usize,
        why: InitialMessageError,
    },
    Message {
        sid: Sid,
        addresses: Vec<Address>,
        bytes: usize,
    },
}

/// An independent decoder, after the table in the crate page.
fn meaning(bytes: &[u8]) -> Meaning {
    let invalid = |known, why| Meaning::Invalid { known, why };
    let long = |at: usize| Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    match long(0) {
        None => return Meaning::Incomplete,
        Some(-65_536 | -65_535) => {}
        Some(version) if version < 0 => {
            return invalid(8, InitialMessageError::UnknownVersion(version));
        }
        Some(sid) => {
            return Meaning::Message {
                sid: Sid(sid),
                addresses: Vec::new(),
                bytes: 8,
            };
        }
    }
    let (Some(sid), Some(len)) = (long(8), bytes.get(16..20)) else {
        return Meaning::Incomplete;
    };
    let len = i32::from_be_bytes(len.try_into().expect("4 bytes"));
    if len < 1 || len > ADDRESS_BYTES_MAX as i32 {
        return invalid(20, InitialMessageError::AddressBytes(len));
    }
    let end = 20 + len as usize;
    let Some(text) = bytes.get(20..end) else {
        return Meaning::Incomplete;
    };
    match parse_addresses(text) {
        Ok(addresses) => Meaning::Message {
            sid: Sid(sid),
            addresses,
            bytes: end,
        },
        Err(why) => invalid(end, why),
    }
}

fn parse_addresses(text: &[u8]) -> Result<Vec<Address>, InitialMessageError> {
    let mut parts: Vec<&[u8]> = text.split(|byte| *byte == b'|').collect();
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    if parts.len() > ADDRESSES_MAX {
        return Err(InitialMessageError::TooManyAddresses(parts.len()));
    }
    let mut addresses = Vec::new();
    for part in parts {
        let (host, port) = split(part).map_err(InitialMessageError::Address)?;
        let host = String::from_utf8(host).unwrap_or_else(|_| "?".into());
        // A host without this form cannot be dialed, nor can port 0.
        let text = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        addresses.extend(
            text.parse::<Address>()
                .ok()
                .filter(|address| address.port() > 0),
        );
    }
    addresses.retain(|address| !address.is_wildcard());
    Ok(addresses)
}

/// Splits an address into a host without brackets, which may be any bytes, and a port.
fn split(part: &[u8]) -> Result<(Vec<u8>, u16), AddressError> {
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
        _ => unreachable!("at most two pieces"),
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

fn turn_on(config: ConfigBuilder) -> Option<(Outside, EventLoop<Recorder, Inside>)> {
    let outside = Outside::default();
    let config = config.seed(1).build().ok()?;
    let event_loop = EventLoop::with_net(config, Recorder::default(), outside.net());
    Some((outside, event_loop.expect("no socket was handed over")))
}

fn turn(event_loop: &mut EventLoop<Recorder, Inside>) {
    event_loop.turn(None).expect("this system never fails");
}

/// Sends the bytes in pieces to a loop that admits unknown servers. Returns the loop's events, and its lookups and dials.
fn introduce(bytes: &[u8], piece: usize, meaning: &Meaning) -> (Vec<Told>, Vec<String>) {
    let config = Config::builder(OWN)
        .server(OWN, "10.0.0.1:3888")
        .observers_max(1)
        .unknown(Unknown::Admit { max: 8 });
    let (outside, mut event_loop) = turn_on(config).expect("the configuration is valid");
    let addr = "10.0.0.2:40000".parse().expect("an address");
    let line = outside.arrive(addr);
    let (decided, bytes) = match meaning {
        Meaning::Incomplete => (usize::MAX, bytes),
        Meaning::Invalid { known, .. } => (*known, bytes),
        // The bytes after the message would be frames.
        Meaning::Message { bytes: len, .. } => (*len, &bytes[..*len]),
    };
    let mut said = 0;
    for piece in bytes.chunks(piece) {
        outside.say(line, piece);
        said += piece.len();
        turn(&mut event_loop);
        let stats = event_loop.handle().stats();
        assert_eq!(stats.pending, u64::from(said < decided), "after {said}");
        if said >= decided {
            break;
        }
    }
    outside.finish(line);
    let mut sought = outside.sought();
    for _ in 0..2 {
        outside.know_no_names();
        outside.answer_dials(false, 0);
        turn(&mut event_loop);
        sought.extend(outside.sought());
    }
    let told = std::mem::take(&mut event_loop.handler_mut().told);
    let refused = |expected, claimed| {
        let [
            Told::Event(Event::Rejected {
                addr: from,
                sid,
                reason,
                ..
            }),
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!((*from, *sid, reason), (addr, claimed, &expected));
        assert_eq!(sought, [""; 0]);
    };
    match meaning {
        Meaning::Incomplete => refused(Reason::ClosedEarly, None),
        Meaning::Invalid { why, .. } => refused(Reason::BadInitialMessage(why.clone()), None),
        Meaning::Message { sid, addresses, .. } => match *sid {
            OWN => refused(Reason::OwnSid, Some(OWN)),
            sid if sid.0 < 0 || (sid < OWN && addresses.is_empty()) => {
                refused(Reason::UnknownSid(sid), Some(sid));
            }
            sid if sid < OWN => check_sought(&sought, addresses),
            sid => {
                let named = if sid == Sid::OBSERVER { Sid(-1) } else { sid };
                let Some(Told::Event(Event::Up {
                    sid,
                    dialed: false,
                    addr: from,
                    link: 1,
                    ..
                })) = told.first()
                else {
                    panic!("{told:?}");
                };
                assert_eq!((*sid, *from), (named, addr));
            }
        },
    }
    let stats = event_loop.handle().stats();
    assert!(stats.balances(), "{stats:?}");
    (told, sought)
}

/// The message was a knock: the loop looks all names up at once, and dials one IP address after the other.
fn check_sought(sought: &[String], addresses: &[Address]) {
    let names: Vec<&str> = addresses
        .iter()
        .filter(|address| address.ip().is_none())
        .map(Address::host)
        .collect();
    assert_eq!(sought[..names.len()], names);
    let literal = |address: &Address| Some((address.ip()?, address.port()).into());
    let literals: Vec<std::net::SocketAddr> = addresses.iter().filter_map(literal).collect();
    for dialed in &sought[names.len()..] {
        let dialed = dialed.parse().expect("an address was dialed");
        assert!(
            literals.contains(&dialed),
            "{dialed} is not in {literals:?}"
        );
    }
    assert_eq!(sought.len() > names.len(), !literals.is_empty());
}

/// A server with this sid and these addresses sends them in its own initial message.
fn repeat(sid: Sid, addresses: &[Address]) {
    let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
    let text = texts.join("|");
    let other = Sid(if sid.0 == 0 { 1 } else { 0 });
    for (form, said) in [
        (InitialMessageVersion::V2, addresses),
        (
            InitialMessageVersion::V1,
            &addresses[..addresses.len().min(1)],
        ),
    ] {
        let config = Config::builder(sid)
            .server(sid, &text)
            .server(other, "10.0.0.9:3888")
            .initial_message(form);
        // Not every valid message is a valid configuration: it may have no address.
        let Some((outside, mut event_loop)) = turn_on(config) else {
            return;
        };
        outside.answer_dials(true, 1 << 20);
        turn(&mut event_loop);
        let heard = outside.look(0, |line| line.heard.clone());
        let again = Meaning::Message {
            sid,
            addresses: said.to_vec(),
            bytes: heard.len(),
        };
        assert_eq!(meaning(&heard), again);
    }
}
