//! Target `initial_message`: an accepted connection begins with these bytes.
//!
//! The loop makes of them what is written down here once more, in other words; cut into single bytes or not; and of what one
//! loop says of itself, another understands the same.

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
    assert_eq!(introduce(bytes, 1, &meaning), whole, "cut it is another");
    if let Meaning::Name { sid, addresses, .. } = meaning {
        repeat(sid, &addresses);
    }
}

/// What an initial message says.
#[derive(Debug, PartialEq)]
enum Meaning {
    /// It is not whole.
    Nothing,
    /// It is none, which is known from so many bytes on.
    Nonsense {
        known: usize,
        why: InitialMessageError,
    },
    Name {
        sid: Sid,
        addresses: Vec<Address>,
        bytes: usize,
    },
}

/// The grammar, by its table in the crate page.
fn meaning(bytes: &[u8]) -> Meaning {
    let nonsense = |known, why| Meaning::Nonsense { known, why };
    let long = |at: usize| Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    match long(0) {
        None => return Meaning::Nothing,
        Some(-65_536 | -65_535) => {}
        Some(version) if version < 0 => {
            return nonsense(8, InitialMessageError::UnknownVersion(version));
        }
        Some(sid) => {
            return Meaning::Name {
                sid: Sid(sid),
                addresses: Vec::new(),
                bytes: 8,
            };
        }
    }
    let (Some(sid), Some(len)) = (long(8), bytes.get(16..20)) else {
        return Meaning::Nothing;
    };
    let len = i32::from_be_bytes(len.try_into().expect("4 bytes"));
    if len < 1 || len > ADDRESS_BYTES_MAX as i32 {
        return nonsense(20, InitialMessageError::AddressBytes(len));
    }
    let end = 20 + len as usize;
    let Some(text) = bytes.get(20..end) else {
        return Meaning::Nothing;
    };
    match places(text) {
        Ok(addresses) => Meaning::Name {
            sid: Sid(sid),
            addresses,
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
        // A host that cannot be written like this cannot be dialed, nor can port 0.
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

/// A host without its brackets, which may be any bytes, and a port.
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

fn turn_on(config: ConfigBuilder) -> Option<(Outside, EventLoop<Recorder, Inside>)> {
    let outside = Outside::default();
    let config = config.seed(1).build().ok()?;
    let event_loop = EventLoop::on_net(config, Recorder::default(), outside.net());
    Some((outside, event_loop.expect("no socket was handed over")))
}

fn turn(event_loop: &mut EventLoop<Recorder, Inside>) {
    event_loop.turn(None).expect("this system never fails");
}

/// Says it in pieces to a loop that admits everybody. Returns what the loop tells, and where it goes.
fn introduce(bytes: &[u8], piece: usize, meaning: &Meaning) -> (Vec<Told>, Vec<String>) {
    let config = Config::builder(OWN)
        .server(OWN, "10.0.0.1:3888")
        .observers_max(1)
        .unknown(Unknown::Admit { max: 8 });
    let (outside, mut event_loop) = turn_on(config).expect("it is sound");
    let addr = "10.0.0.2:40000".parse().expect("an address");
    let line = outside.arrive(addr);
    let (decided, bytes) = match meaning {
        Meaning::Nothing => (usize::MAX, bytes),
        Meaning::Nonsense { known, .. } => (*known, bytes),
        // What follows would be frames.
        Meaning::Name { bytes: len, .. } => (*len, &bytes[..*len]),
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
        Meaning::Nothing => refused(Reason::ClosedEarly, None),
        Meaning::Nonsense { why, .. } => refused(Reason::BadInitialMessage(why.clone()), None),
        Meaning::Name { sid, addresses, .. } => match *sid {
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

/// It was a knock: the loop asks for all names at once, else dials one literal after the other.
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

/// A server that is called so and can be reached there says as much of itself.
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
        // Not everybody who can be understood can be configured: one without an address cannot.
        let Some((outside, mut event_loop)) = turn_on(config) else {
            return;
        };
        outside.answer_dials(true, 1 << 20);
        turn(&mut event_loop);
        let heard = outside.look(0, |line| line.heard.clone());
        let again = Meaning::Name {
            sid,
            addresses: said.to_vec(),
            bytes: heard.len(),
        };
        assert_eq!(meaning(&heard), again);
    }
}
