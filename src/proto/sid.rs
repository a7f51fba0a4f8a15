//! The id of a server.
//!
//! Nothing here knows which server has which id.

use std::{
    fmt,
    num::{ParseIntError, TryFromIntError},
    str::FromStr,
};

/// The id of a server: the signed 64-bit number that ZooKeeper keeps in its `myid` file.
///
/// Valid ids of members are `0..i64::MAX`. An observer without an id sends [`Sid::OBSERVER`], and this server assigns a negative id
/// to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid(pub i64);

impl Sid {
    /// The value that an observer without an id of its own sends (`Long.MAX_VALUE`, ZOOKEEPER-599).
    pub const OBSERVER: Self = Self(i64::MAX);

    /// An id that a member can have: 0 to `i64::MAX - 1`. `None` for any other number.
    ///
    /// # Examples
    ///
    /// ```
    /// use quorum_cnx::Sid;
    ///
    /// assert_eq!(Sid::new(3), Some(Sid(3)));
    /// assert_eq!(Sid::new(-1), None);
    /// ```
    #[must_use]
    pub const fn new(id: i64) -> Option<Self> {
        if id < 0 || id == i64::MAX {
            return None;
        }
        Some(Self(id))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Sid {
    type Err = ParseIntError;

    /// Reads a decimal number, as in a `myid` file. Whether it can be the id of a member is checked with the configuration.
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// Each number is an id that can arrive in an initial message. Whether it can be the id of a member is checked with the
/// configuration.
impl From<i64> for Sid {
    fn from(id: i64) -> Self {
        Self(id)
    }
}

impl From<Sid> for i64 {
    fn from(sid: Sid) -> Self {
        sid.0
    }
}

/// For applications whose ids are unsigned: those beyond `i64::MAX` are the id of no server.
impl TryFrom<u64> for Sid {
    type Error = TryFromIntError;

    fn try_from(id: u64) -> Result<Self, TryFromIntError> {
        i64::try_from(id).map(Self)
    }
}

/// Fails for the negative id of an observer.
impl TryFrom<Sid> for u64 {
    type Error = TryFromIntError;

    fn try_from(sid: Sid) -> Result<Self, TryFromIntError> {
        sid.0.try_into()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn unsigned_ids_are_sids_if_they_fit() {
        for id in [0, 1, i64::MAX as u64] {
            assert_eq!(Sid::try_from(id).map(u64::try_from), Ok(Ok(id)));
        }
        assert!(Sid::try_from(1_u64 << 63).is_err());
        assert!(u64::try_from(Sid(-1)).is_err());
    }
}
