//! Three servers in a simulated network: one is cut off for a minute of simulated time. Prints what each of them notices, and when.
//!
//! `cargo run --example simulation`: it takes no time, and prints the same each time.

use std::{error::Error, io, time::Duration};

use quorum_cnx::{
    Config, Event, EventLoop, Frame, Handle, Handler, Sid,
    simulation::{HostNet, Network},
};

/// A server that prints its frames, and the links that it gets and loses.
struct Server {
    network: Network,
}

impl Server {
    fn print(&self, sid: Sid, text: &str) {
        let seconds = self.network.elapsed().as_secs_f64();
        println!("{seconds:8.4} s  server {sid}: {text}");
    }
}

impl Handler for Server {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let text = String::from_utf8_lossy(&frame);
        self.print(handle.sid(), &format!("{text:?} from {from}"));
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
    let network = network.clone();
    let net = network.host([10, 0, 0, sid]).net();
    Ok(EventLoop::with_net(config, Server { network }, net)?)
}

/// Lets simulated time pass, under a heading.
fn run(
    network: &Network,
    servers: &mut [EventLoop<Server, HostNet>],
    seconds: u64,
    heading: &str,
) -> io::Result<()> {
    println!("-- {heading}");
    network.run(servers, Duration::from_secs(seconds))
}

fn main() -> Result<(), Box<dyn Error>> {
    let network = Network::new();
    let mut servers = Vec::new();
    for sid in 1..=3 {
        servers.push(start(&network, sid)?);
    }
    run(&network, &mut servers, 1, "three servers start")?;

    servers[2].handle().to_send(Sid(1), "vote for 3")?;
    run(&network, &mut servers, 1, "server 3 sends to server 1")?;

    for other in [2, 3] {
        network.cut([10, 0, 0, 1], [10, 0, 0, other]);
    }
    servers[2].handle().to_send(Sid(1), "vote for 2")?;
    run(
        &network,
        &mut servers,
        60,
        "server 1 is cut off, and server 3 sends once more",
    )?;

    network.heal_all();
    run(&network, &mut servers, 10, "the partition ends")?;

    let is_whole = servers
        .iter()
        .all(|server| server.handle().linked_peers().len() == 2);
    println!("all servers are linked: {is_whole}");
    Ok(())
}
