//! A network and a clock in memory, on which an application tests its protocol with the real [`EventLoop`](crate::EventLoop).
//!
//! This module exists with the feature `simulation`. Nothing here starts a thread, sleeps or opens a socket.
//!
//! A test creates a [`Network`] and a [`Host`] for each server, starts an `EventLoop` on each host
//! ([`EventLoop::with_net`](crate::EventLoop::with_net)), and lets simulated time pass ([`Network::run`]). In between it sends, cuts and
//! heals paths, takes the power of a host, or drops a loop as if its process had ended. The same test does the same each time:
//! the [`seed`](crate::ConfigBuilder::seed) of a server is its sid, if none is configured. For another history,
//! configure other seeds.
//!
//! # What is simulated
//!
//! | | |
//! |---|---|
//! | connections | bytes in order, bounded buffers, partial writes, half close, reset, errors that are reported once |
//! | listening sockets | wildcards, ports that are taken or chosen, addresses that the host does not have |
//! | paths | a partition in one direction or both; what was written waits, and arrives after the end of the partition |
//! | dead peers | found after [`peer_dead_after`](crate::ConfigBuilder::peer_dead_after) without a path there and back |
//! | hosts | several addresses, several processes, loss of power |
//! | names | known, unknown, failing, or not answered |
//! | failures | one call after the other: no descriptors, no memory, an interrupt |
//!
//! There is no latency, no loss and no order among connections that differs from the order of writes. The clock moves only between
//! turns of loops. A dial to an address that no host has waits for the test, which can be the far end itself ([`RemoteEnd`]), or until a
//! host gets the address. So servers can be started in any order.
//!
//! # A partition
//!
//! Three servers: server 3 is the leader, and forwards what the others propose. It is cut off from server 1, and comes back.
//!
//! ```
//! use quorum_cnx::{Config, Event, EventLoop, Frame, Handle, Handler, Reason, Sid};
//! use quorum_cnx::simulation::{HostNet, Network};
//! use std::time::Duration;
//!
//! const LEADER: Sid = Sid(3);
//!
//! /// The protocol under test: the leader sends what it receives to all its peers.
//! #[derive(Default)]
//! struct Server {
//!     values: Vec<String>,
//!     lost: Vec<(Sid, Reason)>,
//! }
//!
//! impl Handler for Server {
//!     fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
//!         self.values.push(String::from_utf8_lossy(&frame).into_owned());
//!         if handle.sid() == LEADER && from != LEADER {
//!             for peer in [Sid(1), Sid(2)] {
//!                 let _ = handle.to_send(peer, frame.to_vec());
//!             }
//!         }
//!     }
//!
//!     fn on_event(&mut self, event: &Event, _: &Handle) {
//!         if let Event::Down { sid, reason, .. } = event {
//!             self.lost.push((*sid, reason.clone()));
//!         }
//!     }
//! }
//!
//! fn start(network: &Network, sid: u8) -> std::io::Result<EventLoop<Server, HostNet>> {
//!     let config = Config::builder(Sid(sid.into()))
//!         .server(Sid(1), "10.0.0.1:3888")
//!         .server(Sid(2), "10.0.0.2:3888")
//!         .server(Sid(3), "10.0.0.3:3888")
//!         .build()
//!         .expect("the configuration is valid");
//!     EventLoop::with_net(config, Server::default(), network.host([10, 0, 0, sid]).net())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Network::new();
//! let mut servers = [start(&network, 1)?, start(&network, 2)?, start(&network, 3)?];
//! let all_linked = |servers: &mut [EventLoop<Server, HostNet>]| {
//!     servers.iter().all(|server| server.handle().linked_peers().len() == 2)
//! };
//! assert!(network.run_until(&mut servers, Duration::from_secs(5), all_linked)?);
//!
//! servers[0].handle().to_send(LEADER, "one")?;
//! network.run(&mut servers, Duration::from_millis(10))?;
//! assert_eq!(servers[1].handler().values, ["one"]);
//!
//! // Server 1 is cut off from the leader, and both notice within 5 s. The frame waits.
//! network.cut([10, 0, 0, 1], [10, 0, 0, 3]);
//! network.run(&mut servers, Duration::from_secs(10))?;
//! assert_eq!(servers[0].handler().lost, [(LEADER, Reason::Dead)]);
//! servers[0].handle().to_send(LEADER, "two")?;
//! network.run(&mut servers, Duration::from_secs(3600))?;
//! assert_eq!(servers[1].handler().values, ["one"]);
//!
//! network.heal([10, 0, 0, 1], [10, 0, 0, 3]);
//! assert!(network.run_until(&mut servers, Duration::from_secs(10), |servers| {
//!     servers[1].handler().values == ["one", "two"]
//! })?);
//! # Ok(())
//! # }
//! ```
//!
//! # Timers
//!
//! A protocol has timeouts: a leader sends heartbeats, and its followers notice when none come. Such a protocol has a method that is
//! called at fixed times. [`Network::run_with`] calls it in simulated time. [How to](crate::how_to#test-an-application) has the loop
//! that calls it in production.
//!
//! ```
//! use quorum_cnx::{Config, EventLoop, Frame, Handle, Handler, Sid};
//! use quorum_cnx::simulation::{HostNet, Network};
//! use std::time::Duration;
//!
//! const LEADER: Sid = Sid(3);
//! const TICK: Duration = Duration::from_millis(100);
//!
//! /// Follows the leader until three ticks have passed without a heartbeat.
//! #[derive(Default)]
//! struct Server {
//!     silent_ticks: u32,
//! }
//!
//! impl Server {
//!     fn on_tick(&mut self, handle: &Handle) {
//!         if handle.sid() != LEADER {
//!             self.silent_ticks += 1;
//!             return;
//!         }
//!         for peer in [Sid(1), Sid(2)] {
//!             let _ = handle.to_send(peer, "heartbeat");
//!         }
//!     }
//!
//!     fn has_leader(&self) -> bool {
//!         self.silent_ticks < 3
//!     }
//! }
//!
//! impl Handler for Server {
//!     fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
//!         self.silent_ticks = 0;
//!     }
//! }
//!
//! # fn start(network: &Network, sid: u8) -> std::io::Result<EventLoop<Server, HostNet>> {
//! #     let config = Config::builder(Sid(sid.into()))
//! #         .server(Sid(1), "10.0.0.1:3888")
//! #         .server(Sid(2), "10.0.0.2:3888")
//! #         .server(Sid(3), "10.0.0.3:3888")
//! #         .build()
//! #         .expect("the configuration is valid");
//! #     EventLoop::with_net(config, Server::default(), network.host([10, 0, 0, sid]).net())
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // `start` is the function of the example above.
//! let network = Network::new();
//! let mut servers = [start(&network, 1)?, start(&network, 2)?, start(&network, 3)?];
//! network.run_with(&mut servers, Duration::from_secs(10), TICK, Server::on_tick)?;
//! assert!(servers[0].handler().has_leader());
//!
//! // The leader loses power. Its followers notice long before TCP does.
//! network.host([10, 0, 0, 3]).power_off();
//! network.run_with(&mut servers, 3 * TICK, TICK, Server::on_tick)?;
//! assert!(!servers[0].handler().has_leader());
//!
//! // It returns, as a new loop in the place of the old one.
//! network.host([10, 0, 0, 3]).power_on();
//! servers[2] = start(&network, 3)?;
//! let timeout = Duration::from_secs(5);
//! assert!(network.run_until_with(&mut servers, timeout, TICK, Server::on_tick, |servers| {
//!     servers[..2].iter().all(|server| server.handler().has_leader())
//! })?);
//! # Ok(())
//! # }
//! ```
//!
//! # Servers that are lost and return
//!
//! [`Host::power_off`] ends the processes of a host. [`Network::run`] skips their loops, which keep their places among the loops of the
//! test. After [`Host::power_on`], the test puts a new loop into such a place, as in the example of [timers](#timers).
//!
//! A process that ends while its host has power is a loop that is dropped. Its peers read the ends of their connections at once. Drop it
//! before a new one is started: `drop(servers.remove(0))`, then `servers.insert(0, start(&network, 1)?)`. An assignment,
//! `servers[0] = start(&network, 1)?`, starts the new loop first. The new loop finds its port taken (`AddrInUse`), and tries again
//! only after a second.
//!
//! # What is not simulated
//!
//! A protocol that passes its tests here may still meet these cases on a real network:
//!
//! - Both ends of a connection notice a partition at the same instant, exactly `peer_dead_after` after the cut, unless this option
//!   differs between them. Real ends notice at different times, up to twice that time after the cut on Linux. To have one end notice
//!   before the other one, configure different times.
//! - The loops have their turns in a fixed order, that of the slice. A real loop may run at any time. Another order of the slice, or
//!   other seeds, give another history.
//! - A frame takes one or two rounds of 0.1 ms, whatever its size and the distance.
//!
//! All loops of one run have handlers of one type. For servers of different kinds, this type is an enum with a variant for each kind.
//!
//! # Times
//!
//! Times in [`Stats`](crate::Stats) are simulated. Compare them with [`Network::now`], and not with
//! [`Instant::now`](std::time::Instant::now).
//!
//! # Options on the simulated network
//!
//! Options of [`ConfigBuilder`](crate::ConfigBuilder) that are not in this table do the same as on a real network, in simulated time.
//!
//! | option | here |
//! |---|---|
//! | [`server`], [`listen_on`] | addresses of hosts, and names of [`Network::set_name`] |
//! | [`listener`] | the loop accepts what [`Network::connect`] sends to the address of the socket, and nothing from the socket itself |
//! | [`peer_dead_after`] | a link ends exactly this time after its path was cut, whether it is idle or not |
//! | [`seed`] | default: the own sid |
//! | [`receive_buffer`], [`unsent_limit`] | no buffer has these sizes: [`Network::set_buffers`] sets those of all connections |
//! | [`congestion_control`] | no effect; every name is accepted |
//! | [`dial_from`] | no effect: dials leave from the first address of the host |
//! | [`idle`] | no effect in [`Network::run`], which waits for nothing |
//! | [`inbox_full`], [`inbox_frames`], [`inbox_bytes`] | as with every `EventLoop`, they concern only frames to the own sid |
//!
//! [`server`]: crate::ConfigBuilder::server
//! [`listen_on`]: crate::ConfigBuilder::listen_on
//! [`listener`]: crate::ConfigBuilder::listener
//! [`peer_dead_after`]: crate::ConfigBuilder::peer_dead_after
//! [`seed`]: crate::ConfigBuilder::seed
//! [`receive_buffer`]: crate::ConfigBuilder::receive_buffer
//! [`unsent_limit`]: crate::ConfigBuilder::unsent_limit
//! [`congestion_control`]: crate::ConfigBuilder::congestion_control
//! [`dial_from`]: crate::ConfigBuilder::dial_from
//! [`idle`]: crate::ConfigBuilder::idle
//! [`inbox_full`]: crate::ConfigBuilder::inbox_full
//! [`inbox_frames`]: crate::ConfigBuilder::inbox_frames
//! [`inbox_bytes`]: crate::ConfigBuilder::inbox_bytes
//!
//! # Other networks
//!
//! An application that needs another network implements [`Net`] and [`Stream`] itself.

mod calls;
mod connection;
mod failures;
mod host;
mod names;
mod net;
mod network;
mod paths;
mod remote_end;
mod run;
mod state;

/// Every bound and every time that the rules of the loop follow, for tests that move the clock past them. They are no part of the stable
/// interface.
pub mod limits {
    pub use crate::limits::*;
}

pub use crate::{
    net::{Found, Identity, Net, Ready, Stream, Waker},
    outbox::{Clock, Wire},
};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use crate::{
    net::{TlsNet, TlsStream},
    tls::TlsContext,
};
pub use failures::Call;
pub use host::Host;
pub use net::{HostNet, HostStream};
pub use network::Network;
pub use remote_end::RemoteEnd;

#[cfg(all(test, not(loom)))]
mod tests;
