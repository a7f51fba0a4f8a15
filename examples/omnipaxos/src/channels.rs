//! The transport of OmniPaxos' example `kv_store`: a channel to each node, which passes messages without encoding them.
//!
//! That example takes outgoing messages with a timer. This one does so after each look at its channel, so that the transport is measured.

use std::{
    collections::HashMap,
    error::Error,
    io,
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

use omnipaxos::messages::Message;
use on_omnipaxos::{Disk, Replica, Request, TICK};

use crate::Node;

pub(crate) struct ChannelServer {
    replica: Replica,
    mailbox: Receiver<Message<Request>>,
    mailboxes: HashMap<u64, Sender<Message<Request>>>,
    next_tick: Instant,
}

impl ChannelServer {
    pub(crate) fn all(nodes: u64) -> Result<Vec<Self>, Box<dyn Error>> {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..nodes).map(|_| mpsc::channel()).unzip();
        let servers = receivers.into_iter().zip(1..).map(|(mailbox, id)| {
            Ok(Self {
                replica: Replica::new(id, (1..=nodes).collect(), Disk::default())?,
                mailbox,
                mailboxes: (1..).zip(senders.iter().cloned()).collect(),
                next_tick: Instant::now() + TICK,
            })
        });
        servers.collect()
    }

    fn send(&mut self) {
        for message in self.replica.advance() {
            // Fails at the end, when the other thread has stopped.
            let _ = self.mailboxes[&message.get_receiver()].send(message);
        }
    }
}

impl Node for ChannelServer {
    fn turn(&mut self, timeout: Duration) -> io::Result<bool> {
        self.send();
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
        self.send();
        Ok(true)
    }

    fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }
}
