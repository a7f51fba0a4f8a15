//! Who is at the far end, as a native handshake says.
//!
//! Nothing here compares addresses or links.

use super::{
    super::{Native, Sid, native::Answer, reason::Reason, refusal::Refusal},
    Roster, Rules,
};

impl Rules {
    /// Refuses an initial message that is meant for another server or comes from another cluster, and one of ZooKeeper if that is not
    /// accepted.
    pub(super) fn check(&self, from: Sid, native: Option<&Native>) -> Result<(), Reason> {
        let Some(native) = native else {
            return match self.native.only {
                true => Err(Reason::NotNative),
                false => Ok(()),
            };
        };
        if native.cluster != self.native.cluster {
            return Err(Reason::WrongCluster);
        }
        // A server whose address for another one leads to itself has reached itself: its sid is used once.
        let is_self = native.incarnation == self.native.incarnation;
        if from == self.own && !is_self {
            return Err(Reason::OwnSid);
        }
        match native.to == self.own {
            true => Ok(()),
            false => Err(Reason::WrongServer(native.to)),
        }
    }
}

impl Roster {
    /// What this server says of itself to the server `to`. `retires`: its link to that server can be retired.
    pub(crate) fn native_to(&self, to: Sid, retires: bool) -> Native {
        Native {
            to,
            cluster: self.rules.native.cluster,
            incarnation: self.rules.native.incarnation,
            controls: true,
            retires,
        }
    }

    /// The answer of this server to a native initial message. `None`: it accepts the connection.
    pub(crate) fn answer(&self, refused: Option<&Reason>) -> Answer {
        Answer {
            sid: self.rules.own,
            incarnation: self.rules.native.incarnation,
            controls: true,
            refusal: refused.map(|reason| reason.refusal(self.rules.own)),
        }
    }
}

impl Answer {
    /// The incarnation of the far end, if it is this server and accepts the connection.
    pub(crate) fn accept(&self, sid: Sid) -> Result<u64, Reason> {
        match self.refusal {
            Some(refusal) => Err(Reason::Refused(refusal)),
            None if self.sid != sid => Err(Reason::Refused(Refusal::WrongServer(self.sid))),
            None => Ok(self.incarnation),
        }
    }
}
