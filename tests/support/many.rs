//! The configuration of a server with many members.

use quorum_cnx::{ConfigBuilder, Dial, Sid};

use crate::{configure, listener};

/// The server. It has the smallest sid, so that all members dial it.
pub const OWN: Sid = Sid(0);

/// A configuration with so many members, which dials none of them, and the own address.
pub fn with_members(members: i64) -> (ConfigBuilder, String) {
    let (listener, own) = listener();
    let mut servers = vec![(OWN.0, own.clone())];
    // No server listens there, and none is dialed.
    servers.extend((1..=members).map(|sid| (sid, format!("127.0.0.1:{sid}"))));
    let builder = configure(OWN.0, &servers).listener(listener);
    (builder.dial(Dial::OnDemand), own)
}
