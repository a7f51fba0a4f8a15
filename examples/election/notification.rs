//! Reads and writes ZooKeeper's notification, the message of an election. No bytes make it panic.

use std::{error, fmt};

use quorum_cnx::{Sid, ZooCfg};

/// The state of a server, as its messages have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It looks for a leader.
    Looking,
    Following,
    Leading,
    /// It follows without a vote.
    Observing,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Looking => "looking",
            Self::Following => "following",
            Self::Leading => "leading",
            Self::Observing => "observing",
        }
    }
}

/// A candidate, how recent its data is, and the round of the vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) leader: Sid,
    /// The last transaction of `leader`.
    pub(crate) zxid: i64,
    /// The election in which the vote is cast: the logical clock of the voter.
    pub(crate) round: i64,
    /// The epoch of `leader`. It is compared before the transaction.
    pub(crate) epoch: i64,
}

/// A message of an election, without the configuration that it may carry.
///
/// ```text
///  state (4)  leader (8)  zxid (8)  round (8) | epoch (8) | version (4) | length (4), configuration (length)
///                                   3.3: 28 B   3.4: 36 B   3.4.6: 40 B   3.5 and later: 44 B and more
/// ```
///
/// All integers are signed and big-endian. The sender is known from the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) state: State,
    pub(crate) vote: Vote,
    /// 0 before 3.4.6, when the epoch had another meaning; 1 before 3.5, 2 since.
    pub(crate) version: i32,
}

/// The format of sent notifications. The oldest server that must read them decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// ZooKeeper 3.3: 28 bytes.
    Bare,
    /// 3.4.0 to 3.4.5: 36 bytes. Servers from 3.5 on drop it.
    Epoch,
    /// 3.4.6 and later 3.4: 40 bytes.
    V1,
    /// 3.5 and later. Servers from 3.4.6 on read the fields that they know.
    V2,
}

/// Why a frame is no notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// It ends in the middle of a field.
    Length(usize),
    /// There is no such state of a server.
    State(i32),
    /// The length of the configuration is negative, or larger than the rest of the message.
    Configuration { claimed: i32, there: usize },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(
                f,
                "a notification has 28, 36, 40, 44 or more bytes, this one {bytes}"
            ),
            Self::State(state) => write!(f, "{state} is no state of a server, which are 0 to 3"),
            Self::Configuration { claimed, there } => write!(
                f,
                "a configuration of {claimed} bytes is announced, {there} bytes follow"
            ),
        }
    }
}

impl error::Error for Malformed {}

impl Notification {
    /// Asks a server for its vote without casting one, as a real observer does. A vote for no server is not counted, and a vote
    /// of the earliest round is answered at once.
    pub(crate) const QUESTION: Self = Self {
        state: State::Looking,
        vote: Vote {
            leader: Sid(i64::MIN),
            zxid: i64::MIN,
            round: i64::MIN,
            epoch: i64::MIN,
        },
        version: 2,
    };

    /// Asks this server for its vote. If a voter sends [`QUESTION`](Self::QUESTION), a real server that looks logs a warning about
    /// a non-cluster member each time; this avoids it. It is not counted either, since its round is before all others.
    pub(crate) fn question(to: Sid) -> Self {
        let leader = to;
        let vote = Vote {
            leader,
            ..Self::QUESTION.vote
        };
        Self {
            vote,
            ..Self::QUESTION
        }
    }

    /// Whether it asks for a vote and casts none.
    pub(crate) fn is_question(&self) -> bool {
        let none = Self::QUESTION.vote;
        self.state == State::Looking
            && (self.vote.leader == none.leader || self.vote.round == none.round)
    }

    /// Reads a notification and the configuration that it carries, which is empty before 3.5.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut fields = Fields(bytes);
        let short = Malformed::Length(bytes.len());
        let state = fields.int().ok_or(short)?;
        let [leader, zxid, round] = [fields.long(), fields.long(), fields.long()];
        let leader = Sid(leader.ok_or(short)?);
        let (zxid, round) = (zxid.ok_or(short)?, round.ok_or(short)?);
        let epoch = match fields.0 {
            // The high half of a transaction's number is the epoch in which it was made.
            [] => zxid >> 32,
            _ => fields.long().ok_or(short)?,
        };
        let version = match fields.0 {
            [] => 0,
            _ => fields.int().ok_or(short)?,
        };
        let mut configuration: &[u8] = &[];
        if version >= 2 {
            let claimed = fields.int().ok_or(short)?;
            let there = fields.0.len();
            let whole = usize::try_from(claimed)
                .ok()
                .and_then(|length| fields.0.get(..length));
            configuration = whole.ok_or(Malformed::Configuration { claimed, there })?;
        }
        let state = match state {
            0 => State::Looking,
            1 => State::Following,
            2 => State::Leading,
            3 => State::Observing,
            other => return Err(Malformed::State(other)),
        };
        let vote = Vote {
            leader,
            zxid,
            round,
            epoch,
        };
        let notification = Self {
            state,
            vote,
            version,
        };
        Ok((notification, configuration))
    }

    pub(crate) fn write(&self, format: Format, configuration: &str) -> Vec<u8> {
        let state: i32 = match self.state {
            State::Looking => 0,
            State::Following => 1,
            State::Leading => 2,
            State::Observing => 3,
        };
        let Vote {
            leader,
            zxid,
            round,
            epoch,
        } = self.vote;
        let mut bytes = state.to_be_bytes().to_vec();
        for long in [leader.0, zxid, round] {
            bytes.extend(long.to_be_bytes());
        }
        if format == Format::Bare {
            return bytes;
        }
        bytes.extend(epoch.to_be_bytes());
        match format {
            Format::Bare | Format::Epoch => {}
            Format::V1 => bytes.extend(1_i32.to_be_bytes()),
            Format::V2 => {
                bytes.extend(2_i32.to_be_bytes());
                let length = i32::try_from(configuration.len());
                // A frame holds far less: the library refuses to send such a configuration.
                bytes.extend(length.unwrap_or(i32::MAX).to_be_bytes());
                bytes.extend(configuration.as_bytes());
            }
        }
        bytes
    }
}

/// The fields of a message that are not read yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn int(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn long(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
}

/// The configuration as servers since 3.5 send it to each other: the servers, groups and weights, and at the end the
/// version, without a line break.
pub(crate) fn configuration(cfg: &ZooCfg) -> String {
    let mut text = String::new();
    for server in &cfg.servers {
        let addresses = server.quorum.iter().zip(&server.election);
        let addresses = addresses.map(|(quorum, election)| format!("{quorum}:{}", election.port()));
        let addresses = addresses.collect::<Vec<_>>().join("|");
        let role = if server.observer {
            "observer"
        } else {
            "participant"
        };
        text += &format!("server.{}={addresses}:{role}", server.sid);
        if let Some(client) = &server.client {
            text += &format!(";{client}");
        }
        text.push('\n');
    }
    for (group, sids) in &cfg.groups {
        let sids: Vec<String> = sids.iter().map(ToString::to_string).collect();
        text += &format!("group.{group}={}\n", sids.join(":"));
    }
    for (sid, weight) in &cfg.weights {
        text += &format!("weight.{sid}={weight}\n");
    }
    text + &format!("version={:x}", cfg.version)
}
