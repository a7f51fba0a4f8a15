//! The servers of a quorum at one version, which replace those that a running server knows.
//!
//! Nothing here is checked: `Handle::reconfigure` does that.

#[cfg(feature = "tls")]
use std::collections::BTreeMap;
use std::time::Duration;

use super::servers::Given;
use crate::proto::{Address, Sid};
#[cfg(feature = "tls")]
use crate::tls::PeerName;

/// The servers of a quorum, this one included, and the version of this set. [`Handle::reconfigure`](crate::Handle::reconfigure) checks
/// them, and makes them the members of a running server.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Members, Sid};
///
/// let members = Members::new(7)
///     .server(Sid(1), "zk1.example:3888")
///     .server(Sid(2), "zk2.example:3888|10.0.0.2:3888");
/// assert_eq!(members.version(), 7);
/// ```
#[derive(Clone, Debug)]
#[must_use = "members have no effect before `reconfigure`"]
pub struct Members {
    version: u64,
    pub(crate) servers: Vec<(Sid, Given)>,
    pub(crate) leave: Leave,
    #[cfg(feature = "tls")]
    pub(crate) names: BTreeMap<Sid, Vec<PeerName>>,
}

impl Members {
    /// Begins a set of members with this version. A server starts with version 0.
    pub fn new(version: u64) -> Self {
        Self {
            version,
            servers: Vec::new(),
            leave: Leave::Now,
            #[cfg(feature = "tls")]
            names: BTreeMap::new(),
        }
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Adds a server with its election addresses, as [`ConfigBuilder::server`](crate::ConfigBuilder::server) does. Call this for every
    /// server, this one included.
    pub fn server(mut self, sid: Sid, addresses: impl Into<String>) -> Self {
        self.servers.push((sid, Given::Text(addresses.into())));
        self
    }

    /// Adds several servers, each as [`server`](Self::server) does.
    pub fn servers<A: Into<String>>(mut self, servers: impl IntoIterator<Item = (Sid, A)>) -> Self {
        for (sid, addresses) in servers {
            self = self.server(sid, addresses);
        }
        self
    }

    /// The same, with addresses that are already parsed.
    pub(crate) fn server_at(mut self, sid: Sid, addresses: Vec<Address>) -> Self {
        self.servers.push((sid, Given::Addresses(addresses)));
        self
    }

    /// Sets the names that the certificate of this server may have, as
    /// [`ConfigBuilder::peer_names`](crate::ConfigBuilder::peer_names) does. Default: the hosts of its addresses.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn peer_names(mut self, sid: Sid, names: impl IntoIterator<Item = PeerName>) -> Self {
        self.names.insert(sid, names.into_iter().collect());
        self
    }

    /// Sets how the servers leave that are members now and are not in this set. Default: [`Leave::Now`].
    pub fn leave(mut self, leave: Leave) -> Self {
        self.leave = leave;
        self
    }
}

/// How a server leaves that is no longer a member. In both cases new frames for it are refused at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leave {
    /// Its link is closed, and the frames that wait for it are discarded.
    Now,
    /// The frames that wait for it are written first, for at most this time, at most 24 hours. It is dialed for them if it is not linked.
    After(Duration),
}
