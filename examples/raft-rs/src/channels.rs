//! The transport of raft-rs' example `five_mem_node`: a channel to each node, which passes messages without encoding them.
//!
//! That example sleeps for 10 ms between two looks at its channel. This one waits in the channel, so that the transport is measured.

use std::{
    collections::HashMap,
    error::Error,
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

use on_raft_rs::{Replica, TICK};
use raft::eraftpb::Message;

use crate::{Node, disk};

pub(crate) struct ChannelServer {
    replica: Replica,
    mailbox: Receiver<Message>,
    mailboxes: HashMap<u64, Sender<Message>>,
    next_tick: Instant,
}

impl ChannelServer {
    pub(crate) fn all(nodes: u64) -> Result<Vec<Self>, Box<dyn Error>> {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..nodes).map(|_| mpsc::channel()).unzip();
        let servers = receivers.into_iter().zip(1..).map(|(mailbox, id)| {
            Ok(Self {
                replica: Replica::new(id, disk())?,
                mailbox,
                mailboxes: (1..).zip(senders.iter().cloned()).collect(),
                next_tick: Instant::now() + TICK,
            })
        });
        servers.collect()
    }

    fn send(&mut self) -> Result<(), Box<dyn Error>> {
        for message in self.replica.advance()? {
            // Fails at the end, when the other thread has stopped.
            let _ = self.mailboxes[&message.to].send(message);
        }
        Ok(())
    }
}

impl Node for ChannelServer {
    fn turn(&mut self, timeout: Duration) -> Result<bool, Box<dyn Error>> {
        self.send()?;
        let until_tick = self.next_tick.saturating_duration_since(Instant::now());
        if let Ok(message) = self.mailbox.recv_timeout(timeout.min(until_tick)) {
            self.replica.step(message);
            while let Ok(message) = self.mailbox.try_recv() {
                self.replica.step(message);
            }
        }
        let now = Instant::now();
        if now >= self.next_tick {
            self.replica.tick();
            self.next_tick = now + TICK;
        }
        self.send()?;
        Ok(true)
    }

    fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }
}
