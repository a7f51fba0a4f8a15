//! Checks the servers of a quorum: their sids and addresses.
//!
//! Nothing here opens a socket or resolves a name. Names are compared as text.

use std::collections::HashMap;

use super::options::Server;
use crate::{
    error::ConfigError,
    limits::{self, ADDRESS_BYTES_MAX, ADDRESSES_MAX},
    proto::{Address, Sid, parse_list},
};

/// The addresses of a server as the application gives them.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    Text(String),
    Addresses(Vec<Address>),
}

/// Parses and checks all servers. Returns them sorted by sid.
///
/// # Errors
///
/// A [`ConfigError`] that says which server cannot work.
pub(crate) fn check_servers(servers: Vec<(Sid, Given)>) -> Result<Vec<Server>, ConfigError> {
    let mut members = Vec::with_capacity(servers.len());
    for (sid, given) in servers {
        members.push(Server {
            sid,
            addresses: addresses_of(sid, given)?,
        });
    }
    members.sort_by_key(|server| server.sid);
    if let Some(pair) = members.windows(2).find(|pair| pair[0].sid == pair[1].sid) {
        return Err(ConfigError::DuplicateSid(pair[0].sid));
    }
    if members.len() > limits::MEMBERS_MAX {
        let why = format!(
            "{} servers, at most {} are served",
            members.len(),
            limits::MEMBERS_MAX
        );
        return bad(why);
    }
    refuse_shared_addresses(&members)?;
    Ok(members)
}

/// Takes this server out of all servers, and checks that the others can be dialed.
///
/// # Errors
///
/// [`ConfigError::OwnSidMissing`], or the server that cannot be dialed.
pub(crate) fn take_own(own: Sid, members: &mut Vec<Server>) -> Result<Vec<Address>, ConfigError> {
    let Some(index) = members.iter().position(|server| server.sid == own) else {
        return Err(ConfigError::OwnSidMissing(own));
    };
    let own_addresses = members.remove(index).addresses;
    for server in members {
        // Port 0 and wildcards are for listening sockets only: they cannot be dialed.
        let useless = |address: &&Address| address.port() == 0 || address.is_wildcard();
        if let Some(address) = server.addresses.iter().find(useless) {
            return bad(format!(
                "server {} cannot be dialed at {address}",
                server.sid
            ));
        }
    }
    Ok(own_addresses)
}

pub(super) fn addresses_of(sid: Sid, given: Given) -> Result<Vec<Address>, ConfigError> {
    if Sid::new(sid.0).is_none() {
        return Err(ConfigError::ReservedSid(sid));
    }
    let addresses = match given {
        Given::Addresses(addresses) => addresses,
        Given::Text(text) if text.trim().is_empty() => return Err(ConfigError::NoAddress(sid)),
        Given::Text(text) => match parse_list(&text) {
            Ok(addresses) => addresses,
            Err(why) => return Err(ConfigError::BadAddress { sid, text, why }),
        },
    };
    check_addresses(sid, &addresses)?;
    Ok(addresses)
}

/// Checks that a server has an address, and no more addresses than an initial message can carry.
fn check_addresses(sid: Sid, addresses: &[Address]) -> Result<(), ConfigError> {
    if addresses.is_empty() {
        return Err(ConfigError::NoAddress(sid));
    }
    let bytes: usize = addresses
        .iter()
        // With the longest port: the kernel replaces port 0 by one of its choice.
        .map(|address| address.host().len() + "[]:65535|".len())
        .sum();
    if addresses.len() > ADDRESSES_MAX || bytes > ADDRESS_BYTES_MAX {
        let why = format!(
            "server {sid} has {} addresses of {bytes} bytes, too many to be sent",
            addresses.len()
        );
        return bad(why);
    }
    Ok(())
}

/// Refuses an address that two servers have. A wildcard or port 0 names no definite address, so several servers may have it.
fn refuse_shared_addresses(servers: &[Server]) -> Result<(), ConfigError> {
    let mut owners = HashMap::new();
    for server in servers {
        for address in &server.addresses {
            if address.port() == 0 || address.is_wildcard() {
                continue;
            }
            let first = *owners.entry(address.canonical()).or_insert(server.sid);
            if first != server.sid {
                return Err(ConfigError::SharedAddress {
                    first,
                    second: server.sid,
                    address: address.clone(),
                });
            }
        }
    }
    Ok(())
}

fn bad<T>(why: String) -> Result<T, ConfigError> {
    Err(ConfigError::BadOption {
        option: "server",
        why,
    })
}
