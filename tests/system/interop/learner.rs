//! A minimal follower of a real leader, so that the leader has a quorum and serves clients. The example `election` does not
//! follow; the tests need it to see which server is the leader.
//!
//! Nothing is stored or checked here.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread::{self, JoinHandle},
};

use crate::deadlines::wait_until;

/// The kinds of packets between a leader and its followers.
const PROPOSAL: i32 = 2;
const ACK: i32 = 3;
const PING: i32 = 5;
const NEW_LEADER: i32 = 10;
const FOLLOWER_INFO: i32 = 11;
const UP_TO_DATE: i32 = 12;
const LEADER_INFO: i32 = 17;
const ACK_EPOCH: i32 = 18;

/// The version of the protocol.
const PROTOCOL: i32 = 0x10000;

/// Longer than every packet to a follower whose data is complete.
const BYTES_MAX: i32 = 1 << 20;

pub(crate) struct Learner {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Learner {
    /// Follows the leader at this quorum address as server `sid`, with the zxid and the epoch of its vote, so that no data has to
    /// be transferred.
    #[track_caller]
    pub(crate) fn follow(leader: SocketAddr, sid: i64, zxid: i64, epoch: i64) -> Self {
        let mut stream = None;
        // The leader opens its port a moment after its election.
        wait_until("the leader can be reached", || {
            stream = TcpStream::connect(leader).ok();
            stream.is_some()
        });
        let stream = stream.expect("the wait has ended");
        let mut own = stream.try_clone().expect("a socket can be shared");
        let thread = thread::spawn(move || {
            // Ends with the leader, or with the test.
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
        // Fails when the leader has closed the connection.
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
    let mut learner_info = sid.to_be_bytes().to_vec();
    learner_info.extend(PROTOCOL.to_be_bytes());
    // The version of the configuration.
    learner_info.extend(0_i64.to_be_bytes());
    write_packet(stream, FOLLOWER_INFO, epoch << 32, Some(&learner_info))?;
    let mut new_leader_zxid = 0;
    loop {
        let Packet { kind, zxid: at } = read_packet(stream)?;
        match kind {
            LEADER_INFO => {
                let current = (epoch as i32).to_be_bytes();
                write_packet(stream, ACK_EPOCH, zxid, Some(&current))?;
            }
            NEW_LEADER => {
                new_leader_zxid = at;
                write_packet(stream, ACK, at, None)?;
            }
            UP_TO_DATE => write_packet(stream, ACK, new_leader_zxid, None)?,
            PROPOSAL => write_packet(stream, ACK, at, None)?,
            // There are no sessions.
            PING => write_packet(stream, PING, at, Some(&[]))?,
            _ => {}
        }
    }
}

fn write_packet(
    stream: &mut TcpStream,
    kind: i32,
    zxid: i64,
    data: Option<&[u8]>,
) -> io::Result<()> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(zxid.to_be_bytes());
    let length = data.map_or(-1, |data| data.len() as i32);
    bytes.extend(length.to_be_bytes());
    bytes.extend(data.unwrap_or_default());
    // No authentication data.
    bytes.extend((-1_i32).to_be_bytes());
    stream.write_all(&bytes)
}

fn read_packet(stream: &mut TcpStream) -> io::Result<Packet> {
    let kind = int(stream)?;
    let mut long = [0; 8];
    stream.read_exact(&mut long)?;
    skip(stream)?;
    for _ in 0..int(stream)? {
        // A scheme and an id.
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

/// Skips bytes with a length before them, which is -1 for none.
fn skip(stream: &mut TcpStream) -> io::Result<()> {
    let length = int(stream)?;
    if length > BYTES_MAX {
        return Err(io::Error::other("a packet is too long"));
    }
    stream.read_exact(&mut vec![0; length.max(0) as usize])
}
