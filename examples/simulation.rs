//! Three servers in a simulated network. The leader sends heartbeats. It is cut off for a minute of simulated time, and later loses
//! power and returns. Prints what each server notices, and when.
//!
//! `cargo run --example simulation`: it takes no time, and prints the same each time.

use std::{error::Error, io, time::Duration};

use quorum_cnx::{
    Config, Event, EventLoop, Frame, Handle, Handler, Sid,
    simulation::{HostNet, Network},
};

const LEADER: Sid = Sid(3);
const LEADER_IP: [u8; 4] = [10, 0, 0, 3];
/// The time between two heartbeats.
const TICK: Duration = Duration::from_millis(100);
/// The leader is lost after so many ticks without a heartbeat.
const SILENT_TICKS_MAX: u32 = 3;

/// A server that prints when it loses or finds the leader, and the links that it gets and loses.
struct Server {
    network: Network,
    silent_ticks: u32,
}

impl Server {
    fn print(&self, sid: Sid, text: &str) {
        let seconds = self.network.elapsed().as_secs_f64();
        println!("{seconds:8.4} s  server {sid}: {text}");
    }

    /// The timer of the protocol.
    fn on_tick(&mut self, handle: &Handle) {
        if handle.sid() == LEADER {
            for peer in handle.linked_peers() {
                // Never blocks. An error means that the heartbeat is not sent.
                let _ = handle.to_send(peer, "heartbeat");
            }
            return;
        }
        self.silent_ticks += 1;
        if self.silent_ticks == SILENT_TICKS_MAX {
            self.print(handle.sid(), "the leader is lost");
        }
    }
}

impl Handler for Server {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, handle: &Handle) {
        if self.silent_ticks >= SILENT_TICKS_MAX {
            self.print(handle.sid(), "the leader is there");
        }
        self.silent_ticks = 0;
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        if matches!(event, Event::Up { .. } | Event::Down { .. }) {
            self.print(handle.sid(), &event.to_string());
        }
    }
}

fn start(network: &Network, sid: u8) -> Result<EventLoop<Server, HostNet>, Box<dyn Error>> {
    let config = Config::builder(Sid(sid.into()))
        .server(Sid(1), "10.0.0.1:3888")
        .server(Sid(2), "10.0.0.2:3888")
        .server(Sid(3), "10.0.0.3:3888")
        .build()?;
    let server = Server {
        network: network.clone(),
        silent_ticks: SILENT_TICKS_MAX,
    };
    let net = network.host([10, 0, 0, sid]).net();
    Ok(EventLoop::with_net(config, server, net)?)
}

/// Lets simulated time pass, under a heading.
fn run(
    network: &Network,
    servers: &mut [EventLoop<Server, HostNet>],
    seconds: u64,
    heading: &str,
) -> io::Result<()> {
    println!("-- {heading}");
    network.run_with(servers, Duration::from_secs(seconds), TICK, Server::on_tick)
}

fn main() -> Result<(), Box<dyn Error>> {
    let network = Network::new();
    let mut servers = Vec::new();
    for sid in 1..=3 {
        servers.push(start(&network, sid)?);
    }
    run(&network, &mut servers, 1, "three servers start")?;

    network.isolate(LEADER_IP);
    run(&network, &mut servers, 60, "the leader is cut off")?;

    network.rejoin(LEADER_IP);
    run(&network, &mut servers, 10, "the partition ends")?;

    // Its loop is not turned any more. The other servers go on.
    network.host(LEADER_IP).power_off();
    run(&network, &mut servers, 10, "the leader loses power")?;

    network.host(LEADER_IP).power_on();
    servers[2] = start(&network, 3)?;
    run(&network, &mut servers, 10, "the leader returns")?;

    let is_whole = servers
        .iter()
        .all(|server| server.handle().linked_peers().len() == 2);
    println!("all servers are linked: {is_whole}");
    Ok(())
}
