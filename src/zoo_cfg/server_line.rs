//! Parses the value of a `server.N` line: the addresses of one server, and its role.
//!
//! Nothing here refuses empty pieces at the end, such as `host:2888:3888:` and `host:2888:3888|`, which a template produces for an
//! empty variable. ZooKeeper ignores them too, because Java's `String.split` drops them.

use super::{
    properties::{Property, trim},
    types::{ZooCfgError, ZooServer},
};
use crate::proto::{Address, Sid};

/// Parses `address[|address...][;client[;secure client]]`.
pub(super) fn server(property: &Property, sid: Sid) -> Result<ZooServer, ZooCfgError> {
    let (mut quorum, mut election, mut observer) = (Vec::new(), Vec::new(), None);
    let (addresses, clients) = match property.raw.split_once(';') {
        Some((addresses, clients)) => (addresses, Some(clients)),
        None => (property.raw.as_str(), None),
    };
    let addresses = pieces(addresses, '|');
    if addresses.is_empty() {
        return Err(property.bad(NO_ADDRESS));
    }
    for address in addresses {
        let place = place(property, address)?;
        if place.observer.is_some() {
            if observer.is_some() && observer != place.observer {
                return Err(property.bad("its addresses have different roles"));
            }
            observer = place.observer;
        }
        quorum.push(place.quorum);
        election.push(place.election);
    }
    if let Some(clients) = clients {
        check_clients(property, clients)?;
    }
    Ok(ZooServer {
        sid,
        line: property.line,
        quorum,
        election,
        observer: observer == Some(true),
        client: clients.map(str::to_owned),
    })
}

const NO_ADDRESS: &str = "an address is missing, write host:quorumPort:electionPort";

/// The pieces between separators, without empty pieces at the end.
pub(super) fn pieces(text: &str, separator: char) -> Vec<&str> {
    let text = text.trim_end_matches(separator);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(separator).collect()
}

struct Place {
    quorum: Address,
    election: Address,
    /// Whether the role is observer, if there is a role.
    observer: Option<bool>,
}

/// Parses one `host:quorumPort:electionPort[:role]`.
fn place(property: &Property, text: &str) -> Result<Place, ZooCfgError> {
    if text.is_empty() {
        return Err(property.bad(NO_ADDRESS));
    }
    let (host, ports) = host_and_ports(property, text)?;
    let (quorum, election, role) = match pieces(ports, ':')[..] {
        [] => {
            return Err(property.bad(format!(
                "no ports in {text:?}, write host:quorumPort:electionPort"
            )));
        }
        [_] => {
            return Err(property.bad(format!(
                "no election port in {text:?}, write host:quorumPort:electionPort"
            )));
        }
        [quorum, election] => (quorum, election, None),
        [quorum, election, role] => (quorum, election, Some(role)),
        _ => {
            return Err(property.bad(format!(
                "{text:?} is not host:quorumPort:electionPort, with an IPv6 literal in brackets"
            )));
        }
    };
    let observer = match role.map(|role| trim(role).to_ascii_lowercase()).as_deref() {
        None => None,
        Some("participant") => Some(false),
        Some("observer") => Some(true),
        Some(role) => {
            let why = format!("role {role:?} is neither participant nor observer");
            return Err(property.bad(why));
        }
    };
    let place = Place {
        quorum: address(property, "quorum", host, quorum)?,
        election: address(property, "election", host, election)?,
        observer,
    };
    if place.quorum.port() == place.election.port() {
        let port = place.quorum.port();
        return Err(property.bad(format!("port {port} is both quorum and election port")));
    }
    for (what, address) in [("quorum", &place.quorum), ("election", &place.election)] {
        if address.port() == 0 {
            let why = format!("{what} address \"{address}\": the port is 0");
            return Err(property.bad(why));
        }
    }
    Ok(place)
}

/// The host without its brackets, and the text after its colon. ZooKeeper accepts names and IPv4 literals in brackets too.
fn host_and_ports<'a>(
    property: &Property,
    text: &'a str,
) -> Result<(&'a str, &'a str), ZooCfgError> {
    let Some(rest) = text.strip_prefix('[') else {
        return Ok(text.split_once(':').unwrap_or((text, "")));
    };
    let Some((host, rest)) = rest.split_once(']') else {
        return Err(property.bad(format!("no ']' closes the '[' of {text:?}")));
    };
    match rest.strip_prefix(':') {
        Some(ports) => Ok((host, ports)),
        None if rest.is_empty() => Ok((host, "")),
        None => Err(property.bad(format!("no colon behind the ']' of {text:?}"))),
    }
}

fn address(
    property: &Property,
    what: &str,
    host: &str,
    port: &str,
) -> Result<Address, ZooCfgError> {
    let bad = |why: &dyn std::fmt::Display| {
        let text = Address::new(host, 0).to_string();
        let host = text.strip_suffix('0').unwrap_or(&text);
        property.bad(format!(
            "{what} address {:?}: {why}",
            format!("{host}{port}")
        ))
    };
    if port.is_empty() {
        return Err(bad(&"the port is missing"));
    }
    // A sign in front is accepted, as in Java.
    let Ok(port) = port.parse() else {
        return Err(bad(&"the port is not a number from 0 to 65535"));
    };
    Address::checked(host, port).map_err(|why| bad(&why))
}

/// Checks the client addresses. This crate does not use them, but a mistake in them may come from a mistake earlier in the line.
/// Releases before 3.10 have no secure address. Port 0 means none (ZOOKEEPER-4303), and an empty host means any.
fn check_clients(property: &Property, text: &str) -> Result<(), ZooCfgError> {
    let clients = pieces(text, ';');
    if clients.len() > 2 {
        return Err(property.bad("more than two client addresses"));
    }
    for client in clients.into_iter().filter(|client| !client.is_empty()) {
        let (host, port) = match client.contains(':') {
            true => host_and_ports(property, client)?,
            false => ("0.0.0.0", client),
        };
        let port = match pieces(port, ':')[..] {
            [port] => port,
            [] => "",
            _ => {
                let why = "more than one ':', an IPv6 literal must stand in brackets";
                return Err(property.bad(format!("client address {client:?}: {why}")));
            }
        };
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        address(property, "client", host, port)?;
    }
    Ok(())
}
