//! How many increments five nodes commit, over quorum-cnx and over channels, as in the examples of OmniPaxos. `README.md` says more.

#[path = "../../replicated/measure.rs"]
mod measure;

use std::{error::Error, net::TcpListener};

use measure::NODES;
use on_omnipaxos::{Disk, Replica, Request, Server, TICK};

type Message = omnipaxos::messages::Message<Request>;

fn server(
    id: u64,
    members: &[(u64, String)],
    socket: TcpListener,
) -> Result<Server, Box<dyn Error>> {
    Server::new(id, members, socket, Disk::default())
}

fn replica(id: u64) -> Result<Replica, Box<dyn Error>> {
    let members = (1..=NODES).collect();
    Ok(Replica::new(id, members, Disk::default())?)
}

/// What a node has to say, and to whom.
fn messages(replica: &mut Replica) -> Result<Vec<(u64, Message)>, Box<dyn Error>> {
    let messages = replica.advance().into_iter();
    Ok(messages
        .map(|message| (message.get_receiver(), message))
        .collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    measure::run()
}
