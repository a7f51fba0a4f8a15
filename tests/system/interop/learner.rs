//! Somebody who follows a real leader as a server without any data does, as far as it takes for the leader to serve
//! clients: what the example `election` does not do, so that a test can see whom it has elected.
//!
//! Nothing here is stored, and nothing is checked.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread::{self, JoinHandle},
};

use crate::patience::patiently;

/// The kinds of packets between a leader and its followers.
const PROPOSAL: i32 = 2;
const ACK: i32 = 3;
const PING: i32 = 5;
const NEW_LEADER: i32 = 10;
const FOLLOWER_INFO: i32 = 11;
const UP_TO_DATE: i32 = 12;
const LEADER_INFO: i32 = 17;
const ACK_EPOCH: i32 = 18;

/// The version of what they say to each other.
const PROTOCOL: i32 = 0x10000;

/// Longer than all that is said to somebody who lacks nothing.
const BYTES_MAX: i32 = 1 << 20;

pub(crate) struct Learner {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Learner {
    /// Follows the leader at this quorum address as server `sid`, with the data and in the epoch of its vote, so that there
    /// is nothing to be learned.
    #[track_caller]
    pub(crate) fn follow(leader: SocketAddr, sid: i64, zxid: i64, epoch: i64) -> Self {
        let mut stream = None;
        // It opens its port a moment after it was elected.
        patiently("the leader can be reached", || {
            stream = TcpStream::connect(leader).ok();
            stream.is_some()
        });
        let stream = stream.expect("it was waited for");
        let mut own = stream.try_clone().expect("a socket can be shared");
        let thread = thread::spawn(move || {
            // Ends when the leader does, or the test.
            let _ = learn(&mut own, sid, zxid, epoch);
        });
        Self {
            stream,
            thread: Some(thread),
        }
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        // Fails when the leader has hung up.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Packet {
    kind: i32,
    zxid: i64,
}

fn learn(stream: &mut TcpStream, sid: i64, zxid: i64, epoch: i64) -> io::Result<()> {
    let mut who = sid.to_be_bytes().to_vec();
    who.extend(PROTOCOL.to_be_bytes());
    // The version of the configuration.
    who.extend(0_i64.to_be_bytes());
    say(stream, FOLLOWER_INFO, epoch << 32, Some(&who))?;
    let mut led_since = 0;
    loop {
        let Packet { kind, zxid: at } = hear(stream)?;
        match kind {
            LEADER_INFO => {
                let current = (epoch as i32).to_be_bytes();
                say(stream, ACK_EPOCH, zxid, Some(&current))?;
            }
            NEW_LEADER => {
                led_since = at;
                say(stream, ACK, at, None)?;
            }
            UP_TO_DATE => say(stream, ACK, led_since, None)?,
            PROPOSAL => say(stream, ACK, at, None)?,
            // Nobody has a session here.
            PING => say(stream, PING, at, Some(&[]))?,
            _ => {}
        }
    }
}

fn say(stream: &mut TcpStream, kind: i32, zxid: i64, data: Option<&[u8]>) -> io::Result<()> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(zxid.to_be_bytes());
    let length = data.map_or(-1, |data| data.len() as i32);
    bytes.extend(length.to_be_bytes());
    bytes.extend(data.unwrap_or_default());
    // No names of whoever asked for it.
    bytes.extend((-1_i32).to_be_bytes());
    stream.write_all(&bytes)
}

fn hear(stream: &mut TcpStream) -> io::Result<Packet> {
    let kind = int(stream)?;
    let mut long = [0; 8];
    stream.read_exact(&mut long)?;
    skip(stream)?;
    for _ in 0..int(stream)? {
        // A scheme and a name.
        skip(stream)?;
        skip(stream)?;
    }
    Ok(Packet {
        kind,
        zxid: i64::from_be_bytes(long),
    })
}

fn int(stream: &mut TcpStream) -> io::Result<i32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(i32::from_be_bytes(bytes))
}

/// Bytes with their length in front, which is -1 for none.
fn skip(stream: &mut TcpStream) -> io::Result<()> {
    let length = int(stream)?;
    if length > BYTES_MAX {
        return Err(io::Error::other("this is not said to who lacks nothing"));
    }
    stream.read_exact(&mut vec![0; length.max(0) as usize])
}
