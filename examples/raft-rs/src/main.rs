//! How many increments five nodes commit, over quorum-cnx and over channels, as in raft-rs' own example. `README.md` says more.

#[path = "../../replicated/measure.rs"]
mod measure;

use std::{error::Error, net::TcpListener};

use measure::NODES;
use on_raft_rs::{Disk, Replica, Request, Server, TICK};
use raft::eraftpb::Message;

fn disk() -> Disk {
    Disk::new((1..=NODES).collect())
}

fn server(
    id: u64,
    members: &[(u64, String)],
    socket: TcpListener,
) -> Result<Server, Box<dyn Error>> {
    Server::new(id, members, socket, disk())
}

fn replica(id: u64) -> Result<Replica, Box<dyn Error>> {
    Ok(Replica::new(id, disk())?)
}

/// What a node has to say, and to whom.
fn messages(replica: &mut Replica) -> Result<Vec<(u64, Message)>, Box<dyn Error>> {
    let messages = replica.advance()?.into_iter();
    Ok(messages.map(|message| (message.to, message)).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    measure::run()
}
