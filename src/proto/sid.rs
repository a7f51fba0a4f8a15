//! The id of a server.
//!
//! Nothing here knows who has which.

use std::fmt;

/// The id of a server: the signed 64-bit number that ZooKeeper keeps in its `myid` file.
///
/// Valid ids of members are `0..i64::MAX`. [`Sid::OBSERVER`] is what an observer without an id sends; negative ids are
/// what this side gives to such observers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid(pub i64);

impl Sid {
    /// What an observer without an id of its own sends in place of one (`Long.MAX_VALUE`, ZOOKEEPER-599).
    pub const OBSERVER: Self = Self(i64::MAX);
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
